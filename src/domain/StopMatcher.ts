/**
 * Ends a text before the first stop sequence, however the text is split into pieces.
 *
 * **Details**
 *
 * The sequence that completes first ends the text; of two that complete at the same character, the one that began first.
 * The result does not depend on how the text is split.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */
export interface StopMatcher {
  /** The text that cannot be part of a stop sequence; `stopped` if `sequence` is complete. */
  readonly push: (text: string) => { readonly text: string; readonly stopped: boolean; readonly sequence?: string }
  /** The text that was held back because it could become a stop sequence. */
  readonly flush: () => string
}

const passThrough: StopMatcher = {
  push: (text) => ({ text, stopped: false }),
  flush: () => ""
}

/** The first stop sequence that completes after the text emitted so far, and where it begins. */
const findStop = (text: string, stops: ReadonlyArray<string>, sent: number) => {
  let begin = -1
  let sequence = ""
  let end = Number.POSITIVE_INFINITY
  for (const stop of stops) {
    const at = text.indexOf(stop, sent + 1 - stop.length)
    if (at < 0) continue
    const ends = at + stop.length
    if (ends < end || (ends === end && at < begin)) {
      begin = at
      end = ends
      sequence = stop
    }
  }
  return { begin, sequence }
}

/** Number of characters at the end of the text that can begin a stop sequence. */
const heldLength = (text: string, stops: ReadonlyArray<string>, longest: number): number => {
  for (let length = Math.min(longest - 1, text.length); length > 0; length--) {
    const tail = text.slice(-length)
    if (stops.some((stop) => stop.startsWith(tail))) return length
  }
  return 0
}

/**
 * @param stops empty ones are ignored
 * @param before a text that was emitted before: a sequence that begins in it is found
 */
export const makeStopMatcher = (stops: ReadonlyArray<string>, before = ""): StopMatcher => {
  const sequences = stops.filter((stop) => stop.length > 0)
  if (sequences.length === 0) return passThrough
  const longest = Math.max(...sequences.map((stop) => stop.length))
  let held = before.slice(before.length - heldLength(before, sequences, longest))
  let sent = held.length
  /** Removes the part that was emitted before. */
  const unsent = (text: string): string => {
    const out = text.slice(sent)
    sent = Math.max(0, sent - text.length)
    return out
  }

  return {
    push(text) {
      const all = held + text
      const { begin, sequence } = findStop(all, sequences, sent)
      if (begin >= 0) {
        held = ""
        return { text: unsent(all.slice(0, begin)), stopped: true, sequence }
      }
      const keep = heldLength(all, sequences, longest)
      held = all.slice(all.length - keep)
      return { text: unsent(all.slice(0, all.length - keep)), stopped: false }
    },
    flush() {
      const out = held
      held = ""
      return unsent(out)
    }
  }
}

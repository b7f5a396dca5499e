/**
 * Ends a text before the first stop sequence, wherever the pieces it comes in are cut.
 *
 * **Details**
 *
 * The sequence that is complete first decides; of two complete at once, the one that began first. The result is the
 * same for every way of cutting the text into pieces.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */
export interface StopMatcher {
  /** The text that cannot belong to a stop sequence any more; `stopped` once one is complete, which is `sequence`. */
  readonly push: (text: string) => { readonly text: string; readonly stopped: boolean; readonly sequence?: string }
  /** What was held back because it might have become a stop sequence. */
  readonly flush: () => string
}

const passThrough: StopMatcher = {
  push: (text) => ({ text, stopped: false }),
  flush: () => ""
}

/** The first stop sequence that is complete after what was told already, and where it begins. */
const findStop = (text: string, stops: ReadonlyArray<string>, told: number) => {
  let begin = -1
  let sequence = ""
  let end = Number.POSITIVE_INFINITY
  for (const stop of stops) {
    const at = text.indexOf(stop, told + 1 - stop.length)
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

/** How many characters at the end of the text may be the beginning of a stop sequence. */
const heldLength = (text: string, stops: ReadonlyArray<string>, longest: number): number => {
  for (let length = Math.min(longest - 1, text.length); length > 0; length--) {
    const tail = text.slice(-length)
    if (stops.some((stop) => stop.startsWith(tail))) return length
  }
  return 0
}

/**
 * @param stops empty ones are ignored
 * @param before a text that was told already, with which the text goes on: a sequence that it begins is found
 */
export const makeStopMatcher = (stops: ReadonlyArray<string>, before = ""): StopMatcher => {
  const sequences = stops.filter((stop) => stop.length > 0)
  if (sequences.length === 0) return passThrough
  const longest = Math.max(...sequences.map((stop) => stop.length))
  let held = before.slice(before.length - heldLength(before, sequences, longest))
  let told = held.length
  /** Without what was told already, before the text began. */
  const untold = (text: string): string => {
    const out = text.slice(told)
    told = Math.max(0, told - text.length)
    return out
  }

  return {
    push(text) {
      const all = held + text
      const { begin, sequence } = findStop(all, sequences, told)
      if (begin >= 0) {
        held = ""
        return { text: untold(all.slice(0, begin)), stopped: true, sequence }
      }
      const keep = heldLength(all, sequences, longest)
      held = all.slice(all.length - keep)
      return { text: untold(all.slice(0, all.length - keep)), stopped: false }
    },
    flush() {
      const out = held
      held = ""
      return untold(out)
    }
  }
}

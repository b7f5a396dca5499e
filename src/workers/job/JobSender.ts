/**
 * What a job says to its consumer: parts of the answer with the tokens that made them.
 *
 * **Details**
 *
 * The first part leaves at once, and so does every other unless the last one left a moment ago: an engine that is
 * faster than that would spend more on messages than on tokens.
 */
import type { ChosenLogprob, JobEvent } from "../../domain/Job.ts"
import type { Part } from "./ToolCalls.ts"

/** How long a part may wait for more: below what a reader sees, above what a small model needs for a token. */
const holdMs = 5
const mostTokensHeld = 10
const mostCharactersHeld = 100

/** Tokens without a part to send, as within a tool call that cannot be told yet, before a sign of work is given. */
const silentTokens = 8

/** Parts that wait to be sent as one. */
interface Held {
  part: Part
  logprobs: Array<ChosenLogprob> | undefined
}

const lengthOf = (part: Part): number => part.type === "text" ? part.text.length : part.arguments.length

/** The two as one, if the second goes on where the first ends. */
const join = (first: Part, second: Part): Part | undefined => {
  if (first.type === "text") {
    return second.type === "text" ? { type: "text", text: first.text + second.text } : undefined
  }
  return second.type === "tool_call" && second.index === first.index
    ? { ...first, arguments: first.arguments + second.arguments }
    : undefined
}

const eventOf = ({ logprobs, part }: Held, count: number): JobEvent =>
  part.type === "tool_call"
    ? { ...part, count }
    : { type: "tokens", text: part.text, count, ...(logprobs === undefined ? {} : { logprobs }) }

/**
 * @param spend hears how many tokens are on their way
 */
export const makeSender = (spend: (tokens: number) => void, emit: (event: JobEvent) => void) => {
  const counted = { tokens: 0 }
  let unsent = 0
  let held: Held | undefined
  let lastSent = Number.NEGATIVE_INFINITY
  let timer: NodeJS.Timeout | undefined

  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    if (held === undefined) return
    spend(unsent)
    emit(eventOf(held, unsent))
    held = undefined
    unsent = 0
    lastSent = performance.now()
  }
  const hold = (part: Part, logprobs: Array<ChosenLogprob> | undefined): Held => {
    const joined = held === undefined ? undefined : join(held.part, part)
    if (held === undefined || joined === undefined) {
      flush()
      return { part, logprobs }
    }
    held.part = joined
    if (logprobs !== undefined) held.logprobs?.push(...logprobs)
    return held
  }
  return {
    counted,
    count() {
      counted.tokens++
      unsent++
      if (held === undefined && unsent % silentTokens === 0) emit({ type: "progress" })
    },
    /** Tokens whose part waits to be sent count against the window too; those without one could never be granted. */
    unsent: () => held === undefined ? 0 : unsent,
    flush,
    send(part: Part, logprobs?: Array<ChosenLogprob>) {
      held = hold(part, logprobs)
      if (unsent >= mostTokensHeld || lengthOf(held.part) >= mostCharactersHeld) return flush()
      const wait = lastSent + holdMs - performance.now()
      if (wait <= 0) return flush()
      timer ??= setTimeout(flush, wait)
    }
  }
}

export type Sender = ReturnType<typeof makeSender>

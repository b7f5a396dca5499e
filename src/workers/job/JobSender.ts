/**
 * Sends the parts of an answer to the consumer, each with its number of tokens.
 *
 * **Details**
 *
 * A part is sent at once, unless the last one was sent within `delayMs`: a faster engine would spend more time on
 * messages than on tokens.
 */
import type { ChosenLogprob, JobEvent } from "../../domain/Job.ts"
import type { JobChannel } from "./JobRunner.ts"
import type { Part as AnswerPart } from "./ToolCalls.ts"

/** How long a part may wait for more: less than a frame of a display, and longer than a small model needs for some tokens. */
const delayMs = 15
const mostTokensPending = 10
const mostCharactersPending = 100

/** Tokens without a part to send, as within an incomplete tool call, after which progress is reported. */
const silentTokens = 8

type Part = AnswerPart | { readonly type: "thoughts"; readonly text: string }

/** Parts that wait to be sent as one. */
interface Pending {
  part: Part
  logprobs: Array<ChosenLogprob> | undefined
}

const lengthOf = (part: Part): number => part.type === "tool_call" ? part.arguments.length : part.text.length

/** Both as one part, if the second continues the first. */
const join = (first: Part, second: Part): Part | undefined => {
  if (first.type !== "tool_call") {
    return second.type === first.type ? { type: first.type, text: first.text + second.text } : undefined
  }
  return second.type === "tool_call" && second.index === first.index
    ? { ...first, arguments: first.arguments + second.arguments }
    : undefined
}

const eventOf = ({ logprobs, part }: Pending, count: number): JobEvent => {
  if (part.type !== "text") return { ...part, count }
  return { type: "tokens", text: part.text, count, ...(logprobs === undefined ? {} : { logprobs }) }
}

/**
 * @param spend called with the number of tokens that are sent
 */
export const makeSender = (spend: (tokens: number) => void, channel: Pick<JobChannel, "emit" | "later">) => {
  const counted = { tokens: 0 }
  let unsent = 0
  let pending: Pending | undefined
  let lastSent = Number.NEGATIVE_INFINITY
  /** Whether `flush` will be called. */
  let isDue = false

  const flush = () => {
    if (pending === undefined) return
    spend(unsent)
    channel.emit(eventOf(pending, unsent))
    pending = undefined
    unsent = 0
    lastSent = performance.now()
  }
  const flushDue = () => {
    isDue = false
    flush()
  }
  const append = (part: Part, logprobs: Array<ChosenLogprob> | undefined): Pending => {
    const joined = pending === undefined ? undefined : join(pending.part, part)
    if (pending === undefined || joined === undefined) {
      flush()
      return { part, logprobs }
    }
    pending.part = joined
    if (logprobs !== undefined) pending.logprobs?.push(...logprobs)
    return pending
  }
  return {
    counted,
    count() {
      counted.tokens++
      unsent++
      if (pending === undefined && unsent % silentTokens === 0) channel.emit({ type: "progress" })
    },
    /** Tokens of a part that waits count against the window; tokens without a part could never be granted. */
    unsent: () => pending === undefined ? 0 : unsent,
    flush,
    send(part: Part, logprobs?: Array<ChosenLogprob>) {
      pending = append(part, logprobs)
      if (unsent >= mostTokensPending || lengthOf(pending.part) >= mostCharactersPending) return flush()
      if (isDue) return
      const wait = lastSent + delayMs - performance.now()
      if (wait <= 0) return flush()
      isDue = true
      channel.later(flushDue, wait)
    }
  }
}

export type Sender = ReturnType<typeof makeSender>

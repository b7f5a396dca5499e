/**
 * Sends the parts of an answer to the consumer, each with its number of tokens.
 *
 * **Details**
 *
 * The first part is sent at once. Later ones wait until they reach a limit of `PartLimits`: their tokens, their characters, or
 * the time since the last part, which a slow engine exceeds at each token.
 */
import type { ChosenLogprob, JobEvent } from "../../domain/Job.ts"
import type { PartLimits } from "../../domain/StreamLimits.ts"
import { streamDefaults } from "../../domain/StreamLimits.ts"
import type { JobChannel } from "./JobRunner.ts"
import type { Part as AnswerPart } from "./ToolCalls.ts"

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

/** Calls `flush` when the delay after the last part is over: now, or later once. */
const makeDelay = (channel: Pick<JobChannel, "later">, delayMs: number, flush: () => void) => {
  /** Whether `flush` will be called. */
  let isDue = false
  const flushDue = () => {
    isDue = false
    flush()
  }
  return (lastSent: number): void => {
    if (isDue) return
    const wait = lastSent + delayMs - performance.now()
    if (wait <= 0) return flush()
    isDue = true
    channel.later(flushDue, wait)
  }
}

/**
 * @param spend called with the number of tokens that are sent
 */
export const makeSender = (
  spend: (tokens: number) => void,
  channel: Pick<JobChannel, "emit" | "later">,
  { characters, delayMs, tokens }: PartLimits = streamDefaults
) => {
  const counted = { tokens: 0 }
  let unsent = 0
  let pending: Pending | undefined
  let lastSent = Number.NEGATIVE_INFINITY

  /** @param later tokens of the next part */
  const flush = (later = 0) => {
    if (pending === undefined) return
    const count = Math.max(0, unsent - later)
    spend(count)
    channel.emit(eventOf(pending, count))
    pending = undefined
    unsent -= count
    lastSent = performance.now()
  }
  const flushDelayed = makeDelay(channel, delayMs, flush)
  const append = (part: Part, logprobs: Array<ChosenLogprob> | undefined): Pending => {
    const joined = pending === undefined ? undefined : join(pending.part, part)
    if (pending === undefined || joined === undefined || lengthOf(joined) > characters) {
      // The latest token belongs to a part of the same kind that is too long with the one before.
      flush(joined === undefined ? 0 : 1)
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
      if (unsent >= tokens || lengthOf(pending.part) >= characters) return flush()
      flushDelayed(lastSent)
    }
  }
}

export type Sender = ReturnType<typeof makeSender>

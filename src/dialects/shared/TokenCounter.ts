/**
 * Token counts of an answer: the provider's, or estimates. Pure.
 *
 * **Gotchas**
 *
 * No provider reports the tokens of a piece of text, and some do not report those of the answer.
 */
import type { Generation } from "../../domain/Generation.ts"
import type { Ranking, ReportedUsage, TokenUsage } from "../../domain/Job.ts"
import { textOf, thoughtsOf } from "../../domain/Message.ts"
import { bytesPerToken, estimateTokens, promptLengthOf } from "../../domain/RoutingRequest.ts"

const promptBytes = ({ assistantPrefix = "", messages, tools = [] }: Generation): number => {
  const texts = messages.flatMap((message) => [
    textOf(message.content),
    thoughtsOf(message) ?? "",
    ...message.toolCalls?.map((call) => call.arguments) ?? []
  ])
  const definitions = tools.length === 0 ? "" : JSON.stringify(tools)
  return [...texts, definitions, assistantPrefix].reduce((sum, text) => sum + Buffer.byteLength(text), 0)
}

/** The length of a task's inputs, as of English text: texts, tokens, or lists of them. */
const lengthOf = (input: unknown): number => {
  if (typeof input === "string") return promptLengthOf(input)
  return Array.isArray(input) ? input.reduce<number>((sum, one) => sum + lengthOf(one), 0) : bytesPerToken
}

/**
 * The prompt's tokens of a task with one buffered result.
 *
 * @param reported by the provider
 */
export const taskUsage = (
  reported: number | undefined,
  input: unknown
): Pick<Ranking, "isEstimated" | "promptTokens"> =>
  reported === undefined
    ? { promptTokens: estimateTokens(lengthOf(input)), isEstimated: true }
    : { promptTokens: reported }

export interface Counter {
  /** Tokens that this piece of text completes. */
  readonly count: (text: string) => number
  /** Usage of the whole answer. */
  readonly usage: (reported: ReportedUsage | undefined) => TokenUsage
}

export const makeCounter = (generation: Generation): Counter => {
  let bytes = 0
  let counted = 0
  return {
    count: (text) => {
      bytes += Buffer.byteLength(text)
      const tokens = Math.floor(bytes / bytesPerToken) - counted
      counted += tokens
      return tokens
    },
    usage: (reported = {}) => ({
      ...(reported.promptTokens === undefined || reported.completionTokens === undefined
        ? { isEstimated: true as const }
        : {}),
      promptTokens: reported.promptTokens ?? estimateTokens(promptBytes(generation)),
      completionTokens: reported.completionTokens ?? estimateTokens(bytes),
      cachedTokens: reported.cachedTokens ?? 0,
      ...(reported.cacheWriteTokens === undefined ? {} : { cacheWriteTokens: reported.cacheWriteTokens }),
      ...(reported.cacheWriteHourTokens === undefined ? {} : { cacheWriteHourTokens: reported.cacheWriteHourTokens }),
      ...(reported.reasoningTokens === undefined ? {} : { reasoningTokens: reported.reasoningTokens })
    })
  }
}

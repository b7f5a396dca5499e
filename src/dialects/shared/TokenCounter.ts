/**
 * Token counts of an answer: the provider's, or estimates. Pure.
 *
 * **Gotchas**
 *
 * No provider reports the tokens of a piece of text, and some report none of the answer. The estimate is four bytes per
 * token, a usual figure for English.
 */
import type { Generation } from "../../domain/Generation.ts"
import type { TokenUsage } from "../../domain/Job.ts"
import { textOf } from "../../domain/Message.ts"

const bytesPerToken = 4

const promptBytes = ({ assistantPrefix = "", messages, tools = [] }: Generation): number => {
  const texts = messages.flatMap(({ content, toolCalls = [] }) => [
    textOf(content),
    ...toolCalls.map((call) => call.arguments)
  ])
  const definitions = tools.length === 0 ? "" : JSON.stringify(tools)
  return [...texts, definitions, assistantPrefix].reduce((sum, text) => sum + Buffer.byteLength(text), 0)
}

/** What a provider reports. */
export type ReportedUsage = { readonly [Figure in keyof TokenUsage]?: number | undefined }

export interface Counter {
  /** Tokens that this piece of text completes. */
  readonly count: (text: string) => number
  /** Of the whole answer. */
  readonly usage: (told: ReportedUsage | undefined) => TokenUsage
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
    usage: (told = {}) => ({
      promptTokens: told.promptTokens ?? Math.ceil(promptBytes(generation) / bytesPerToken),
      completionTokens: told.completionTokens ?? Math.ceil(bytes / bytesPerToken),
      cachedTokens: told.cachedTokens ?? 0,
      ...(told.cacheWriteTokens === undefined ? {} : { cacheWriteTokens: told.cacheWriteTokens }),
      ...(told.reasoningTokens === undefined ? {} : { reasoningTokens: told.reasoningTokens })
    })
  }
}

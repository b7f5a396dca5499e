/** The usage of a cached answer in what a provider sent: every token of the prompt is a cached one. Pure. */
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "./Json.ts"
import { fieldsOf } from "./Json.ts"

const openAiUsage = (usage: Fields): Fields => {
  const { cache_write_tokens: _, ...details } = fieldsOf(usage["prompt_tokens_details"]) ?? {}
  return { ...usage, prompt_tokens_details: { ...details, cached_tokens: numberOf(usage["prompt_tokens"]) ?? 0 } }
}

const anthropicCounts = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"] as const

/** `message_delta` may have the generated tokens only. */
const anthropicUsage = (usage: Fields): Fields => {
  if (anthropicCounts.every((name) => numberOf(usage[name]) === undefined)) return usage
  const cached = anthropicCounts.reduce((sum, name) => sum + (numberOf(usage[name]) ?? 0), 0)
  return {
    ...usage,
    input_tokens: 0,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cached,
    ...("cache_creation" in usage ? { cache_creation: null } : {})
  }
}

const withUsage = (body: Fields, change: (usage: Fields) => Fields): Fields => {
  const usage = fieldsOf(body["usage"])
  return usage === undefined ? body : { ...body, usage: change(usage) }
}

const withMessageUsage = (body: Fields): Fields => {
  const message = fieldsOf(body["message"])
  const changed = withUsage(body, anthropicUsage)
  return message === undefined ? changed : { ...changed, message: withUsage(message, anthropicUsage) }
}

/** The same part of an answer with the usage of a cached one, without its text. */
export const withCachedUsage = (native: Native): Native => {
  const { body, dialect, form, hasMore, text } = native
  const changed = dialect === "openai" ? withUsage(body, openAiUsage) : withMessageUsage(body)
  return changed === body && text === undefined ? native : { dialect, form, body: changed, hasMore }
}

/** Whether it is a chunk of usage alone, which is not for callers that do not ask for usage. */
export const isUsageAlone = ({ body: { choices, usage }, dialect, form }: Native): boolean =>
  dialect === "openai" && form === "chunk" && (usage ?? null) !== null && Array.isArray(choices) && choices.length === 0

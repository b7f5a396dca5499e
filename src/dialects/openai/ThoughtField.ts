/**
 * The field of an assistant's message in which a host of OpenAI's dialect takes the thoughts of an earlier answer back. Pure.
 *
 * **Details**
 *
 * DeepSeek, Moonshot, Z.ai and MiniMax need them in `reasoning_content` between calls of tools; vLLM, SGLang and llama-server
 * take them there for their chat templates. Groq and Cerebras take `reasoning` only, and OpenRouter prefers it. OpenAI, Azure,
 * Mistral and Gemini have no field and reject unknown ones. The deployment's `thoughts` says it for other hosts. In conversations
 * with calls of tools, DeepSeek and Moonshot need the field all the same where there are no thoughts, as in calls of another
 * model: it has a space there. Moonshot takes an empty text for a missing one.
 *
 * **Gotchas**
 *
 * Sources: api-docs.deepseek.com/guides/thinking_mode, platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model ("thinking is enabled
 * but reasoning_content is missing in assistant tool call message"), github.com/earendil-works/pi/pull/4178, console.groq.com/docs/api-reference (`reasoning` of an assistant's
 * message), github.com/QwenLM/qwen-code/issues/11045 (Cerebras), openrouter.ai/docs/use-cases/reasoning-tokens.
 */
import type { Source } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { fieldsOf, isEmpty } from "../shared/Json.ts"
import type { Target } from "../shared/ProviderDialect.ts"
import { detailFor, isOwnDetail } from "../shared/SignedFields.ts"
import { thoughtsOf } from "./DecodeAnswer.ts"

/** What a host takes; `details` are OpenRouter's `reasoning_details`, which only the host that made them can read. */
interface Accepted {
  readonly field: "reasoning" | "reasoning_content" | undefined
  readonly details: boolean
}

const none: Accepted = { field: undefined, details: false }
const content: Accepted = { field: "reasoning_content", details: true }

/** Hosts that reject fields which they do not have. */
const hosts: ReadonlyArray<readonly [baseUrl: RegExp, Accepted]> = [
  [/^https:\/\/(?:\w+\.)?api\.openai\.com(?:[:/]|$)/i, none],
  [/^https:\/\/api\.mistral\.ai(?:[:/]|$)/i, none],
  [/^https:\/\/generativelanguage\.googleapis\.com(?:[:/]|$)/i, none],
  [/^https:\/\/api\.(?:groq\.com|cerebras\.ai)(?:[:/]|$)/i, { field: "reasoning", details: false }],
  [/^https:\/\/openrouter\.ai(?:[:/]|$)/i, { field: "reasoning", details: true }],
  [/^https:\/\/api\.deepseek\.com(?:[:/]|$)/i, { field: "reasoning_content", details: false }],
  [/^https:\/\/api\.(?:moonshot\.(?:ai|cn)|kimi\.com)(?:[:/]|$)/i, { field: "reasoning_content", details: false }]
]

/** Hosts that reject a call of a tool without thoughts before it, and their models that think. */
const strict: ReadonlyArray<readonly [baseUrl: RegExp, model: RegExp]> = [
  [/^https:\/\/api\.deepseek\.com(?:[:/]|$)/i, /./],
  [/^https:\/\/api\.(?:moonshot\.(?:ai|cn)|kimi\.com)(?:[:/]|$)/i, /^kimi/i]
]

/** What a host is known to take; undefined for one that is not known. */
const knownFor = ({ options: { baseUrl, provider, thoughts } }: Target): Accepted | undefined => {
  if (thoughts !== undefined) return thoughts === "none" ? none : { field: thoughts, details: true }
  if (provider === "azure-openai" || (provider === "openai" && baseUrl === undefined)) return none
  return hosts.find(([url]) => url.test(baseUrl ?? ""))?.[1]
}

/** The field for the thoughts of a message; undefined if the host takes none. */
export const fieldFor = (target: Target): Accepted["field"] => (knownFor(target) ?? content).field

const names: ReadonlySet<unknown> = new Set(["reasoning", "reasoning_content", "reasoning_details"])

/** Whether the caller's messages have thoughts. */
const hasThoughts = ({ unknownFields = [] }: Source): boolean =>
  unknownFields.some(({ path: [first, , name, ...below] }) =>
    first === "messages" && below.length === 0 && names.has(name)
  )

const isAnswer = ({ role }: Fields): boolean => role === "assistant"

/** What an assistant's message has beside its role and thoughts. */
const hasMore = (message: Fields): boolean =>
  Object.keys(message).some((name) => name !== "role" && !isEmpty(message[name]))

const messageFor = (message: unknown, { details, field }: Accepted): ReadonlyArray<unknown> => {
  const fields = fieldsOf(message)
  if (fields === undefined || !isAnswer(fields)) return [message]
  const thoughts = thoughtsOf(fields)
  const { reasoning: _, reasoning_content: __, reasoning_details: given, ...others } = fields
  const text = thoughts || (field === undefined ? undefined : fields[field])
  const changed = {
    ...others,
    ...(field === undefined || text === undefined ? {} : { [field]: text }),
    ...(details && given !== undefined ? { reasoning_details: given } : {})
  }
  return hasMore(changed) ? [changed] : []
}

/** Without those details of this service which the deployment cannot read, and with their text. */
const withReadable = (message: unknown, { options }: Target): unknown => {
  const fields = fieldsOf(message)
  const details = fields?.["reasoning_details"]
  if (!Array.isArray(details) || !details.some(isOwnDetail)) return message
  const kept = details.flatMap((detail) => detailFor(detail, options) ?? [])
  const { reasoning_details: _, ...others } = fields!
  const hasText = !isEmpty(others["reasoning_content"]) || !isEmpty(others["reasoning"])
  return {
    ...others,
    ...(hasText ? {} : { reasoning_content: thoughtsOf(fields!) }),
    ...(kept.length === 0 ? {} : { reasoning_details: kept })
  }
}

/** The caller's messages with thoughts as the host takes them; those of a host that is not known stay as they are. */
export const acceptedBy = (
  target: Target,
  source: Source,
  messages: ReadonlyArray<unknown>
): ReadonlyArray<unknown> => {
  if (!hasThoughts(source)) return messages
  const accepted = target.options.provider === "troupe" ? undefined : knownFor(target)
  const own = messages.map((message) => withReadable(message, target))
  if (accepted !== undefined) return own.flatMap((message) => messageFor(message, accepted))
  return own.some((message, index) => message !== messages[index]) ? own : messages
}

const needsPadding = ({ options: { baseUrl = "", model, thoughts } }: Target): boolean =>
  thoughts !== "none" && strict.some(([url, models]) => url.test(baseUrl) && models.test(model))

const hasCalls = (message: unknown): boolean => !isEmpty(fieldsOf(message)?.["tool_calls"])

/** An answer with a space where it has no thoughts. The last message without calls is one that the model continues. */
const padded = <M>(message: M, isLast: boolean): M => {
  const fields = fieldsOf(message)
  const isComplete = fields !== undefined && isAnswer(fields) && (!isLast || hasCalls(fields))
  return isComplete && isEmpty(fields["reasoning_content"]) ? { ...message, reasoning_content: " " } : message
}

/** The messages as a host takes them that needs thoughts in conversations with calls of tools; else the same list. */
export const withPadding = <M>(target: Target, messages: ReadonlyArray<M>): ReadonlyArray<M> => {
  if (!messages.some(hasCalls) || !needsPadding(target)) return messages
  const all = messages.map((message, index) => padded(message, index === messages.length - 1))
  return all.some((message, index) => message !== messages[index]) ? all : messages
}

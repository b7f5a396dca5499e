/**
 * A caller's message as the body of a provider's: everything arrives as it was, but the model, streaming, and what a policy
 * changes. Pure.
 */
import type { Generation } from "../../domain/Generation.ts"
import { goOn } from "../../domain/Generation.ts"
import * as Source from "../../domain/Source.ts"
import { type Fields, fieldsOf } from "../shared/Json.ts"
import type { FetchedImages, Target } from "../shared/ProviderDialect.ts"

const withImage = (block: unknown, fetched: FetchedImages): unknown => {
  const fields = fieldsOf(block)
  if (fields === undefined) return block
  const { content, source } = fields
  if (Array.isArray(content)) return { ...fields, content: content.map((inner) => withImage(inner, fetched)) }
  const found = fields["type"] === "image" ? fetched.get(String(fieldsOf(source)?.["url"])) : undefined
  return found === undefined
    ? block
    : { ...fields, source: { type: "base64", media_type: found.mediaType, data: found.data } }
}

/** Without the assistant's messages at the end, which begin the answer. */
const withoutBeginning = (messages: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const end = messages.findLastIndex((message) => fieldsOf(message)?.["role"] !== "assistant")
  return messages.slice(0, end + 1)
}

/** Reasoning that a provider of another dialect has given, which Anthropic refuses. */
const isUnsigned = (block: unknown): boolean => {
  const fields = fieldsOf(block)
  return fields?.["type"] === "thinking" && fields["signature"] === ""
}

/** Without unsigned reasoning, and without messages that had nothing else. */
const withoutUnsigned = (messages: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const contentOf = (message: unknown): ReadonlyArray<unknown> => {
    const content = fieldsOf(message)?.["content"]
    return Array.isArray(content) ? content : []
  }
  if (!messages.some((message) => contentOf(message).some(isUnsigned))) return messages
  return messages.flatMap((message) => {
    const content = contentOf(message)
    const signed = content.filter((block) => !isUnsigned(block))
    if (signed.length === content.length) return [message]
    return signed.length === 0 ? [] : [{ ...message as Fields, content: signed }]
  })
}

/**
 * The messages, where they are other than the caller's.
 *
 * @param prefills the model takes an assistant's message for the beginning of its answer, as the request is
 */
const messagesOf = (
  { assistantPrefix, resumed = false }: Generation,
  given: ReadonlyArray<unknown>,
  prefills: boolean,
  fetched: FetchedImages | undefined
): Fields => {
  const messages = fetched === undefined ? given : given.map((message) => withImage(message, fetched))
  if (!resumed || assistantPrefix === undefined) return messages === given ? {} : { messages }
  const all = [...withoutBeginning(messages), { role: "assistant", content: assistantPrefix }]
  return { messages: prefills ? all : [...all, { role: "user", content: goOn }] }
}

/** The body for a provider of the caller's dialect. */
export const bodyOf = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean,
  prefills: boolean,
  fetched: FetchedImages | undefined
): Fields => {
  const { body } = source
  const { maxTokens } = generation
  const given = body["messages"] as ReadonlyArray<unknown>
  // Other hosts of the dialect may have reasoning without signatures.
  const messages = target.options.baseUrl === undefined ? withoutUnsigned(given) : given
  return Source.bodyWith(source, {
    model: target.options.model,
    ...(maxTokens === undefined || maxTokens === body["max_tokens"] ? {} : { max_tokens: maxTokens }),
    ...(messages === given ? {} : { messages }),
    ...messagesOf(generation, messages, prefills, fetched),
    ...(stream ? { stream } : body["stream"] === true ? { stream: undefined } : {})
  })
}

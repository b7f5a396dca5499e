/**
 * A caller's chat completion as the body of a provider's: everything arrives as it was, but the model, streaming, and what a
 * policy or the deployment changes. Pure.
 */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import { goOn } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { ImageSource } from "../../domain/Message.ts"
import * as Source from "../../domain/Source.ts"
import { type Fields, fieldsOf } from "../shared/Json.ts"
import type { FetchedImages, Target } from "../shared/ProviderDialect.ts"
import { unsaid, type Vocabulary } from "./EncodeRequest.ts"

const limits = ["max_completion_tokens", "max_tokens"] as const

/** The length of the answer, where it is other than the caller's. */
const limitOf = ({ maxTokens }: Generation, body: Fields, target: Target, vocabulary: Vocabulary): Fields => {
  const set = limits.filter((name) => (body[name] ?? null) !== null)
  const wanted = maxTokens ?? (set.length === 0 ? target.options.maxTokens : undefined)
  if (wanted === undefined || (set.length > 0 && body[set[0]!] === wanted)) return {}
  return set.length === 0
    ? { [vocabulary.maxTokens]: wanted }
    : Object.fromEntries(set.map((name) => [name, wanted]))
}

/** The streaming options, which may differ from those of the caller. */
const streamingOf = (body: Fields, stream: boolean): Fields => {
  if (stream) return { stream, stream_options: { ...fieldsOf(body["stream_options"]), include_usage: true } }
  return body["stream"] === true ? { stream: undefined, stream_options: undefined } : {}
}

const urlOf = ({ data, mediaType }: Extract<ImageSource, { type: "base64" }>): string =>
  `data:${mediaType};base64,${data}`

const withImages = (messages: ReadonlyArray<unknown>, fetched: FetchedImages): ReadonlyArray<unknown> => {
  const partOf = (part: unknown): unknown => {
    const image = fieldsOf(fieldsOf(part)?.["image_url"])
    const found = fetched.get(String(image?.["url"]))
    return found === undefined ? part : { ...part as Fields, image_url: { ...image, url: urlOf(found) } }
  }
  return messages.map((message) => {
    const content = fieldsOf(message)?.["content"]
    return Array.isArray(content) ? { ...message as Fields, content: content.map(partOf) } : message
  })
}

/** The text so far as the last message, and how the host goes on with it. */
const continuationOf = (messages: ReadonlyArray<unknown>, text: string, { goesOn = false }: Vocabulary): Fields => {
  const all = [...messages, { role: "assistant", content: text }]
  return goesOn
    ? { messages: all, continue_final_message: true }
    : { messages: [...all, { role: "user", content: goOn }], continue_final_message: undefined }
}

const conversationOf = (
  { assistantPrefix, resumed = false }: Generation,
  body: Fields,
  vocabulary: Vocabulary,
  fetched: FetchedImages | undefined
): Fields => {
  const given = body["messages"] as ReadonlyArray<unknown>
  const messages = fetched === undefined ? given : withImages(given, fetched)
  const isBegun = body["continue_final_message"] === true
  if (assistantPrefix !== undefined && (resumed || (isBegun && vocabulary.isOwn === true))) {
    return continuationOf(isBegun ? messages.slice(0, -1) : messages, assistantPrefix, vocabulary)
  }
  return messages === given ? {} : { messages }
}

/** The body for a provider of the caller's dialect. */
export const bodyOf = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean,
  vocabulary: Vocabulary,
  fetched: FetchedImages | undefined
): Result.Result<Fields, Reason> => {
  // Only of OpenAI itself it is known what it takes.
  const reason = vocabulary.isOwn === true ? unsaid(generation, vocabulary, target) : undefined
  if (reason !== undefined) return Result.fail(reason)
  const { body } = source
  return Result.succeed(Source.bodyWith(source, {
    model: target.options.model,
    ...limitOf(generation, body, target, vocabulary),
    ...conversationOf(generation, body, vocabulary, fetched),
    ...streamingOf(body, stream)
  }))
}

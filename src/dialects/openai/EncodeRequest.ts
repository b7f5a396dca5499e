/**
 * Requests of OpenAI's dialect for its hosts: chat completions encoded from a generation, or the caller's own body with only
 * those fields changed that Troupe, a policy or the deployment decides. Pure.
 *
 * **Gotchas**
 *
 * Sources: the API references of OpenAI and Azure. Sampling beyond them (`top_k`, `min_p`) is sent only if the `baseUrl` of
 * another host is configured.
 */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Generation, Sampling } from "../../domain/Generation.ts"
import { continuePromptOf, withAssistantPrefix, withContinuePrompt } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { JsonSchema, OutputFormat, ToolDefinition } from "../../domain/Job.ts"
import type { Content, ImagePart, ImageSource, Message } from "../../domain/Message.ts"
import { imageOfTool, textOf, thoughtsOf } from "../../domain/Message.ts"
import { kinds } from "../../domain/ProviderKind.ts"
import { makerThere, readableBy } from "../../domain/SignedReasoning.ts"
import * as Source from "../../domain/Source.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { type Fields, fieldsOf, textAt } from "../shared/Json.ts"
import type { Dialect, FetchedImages, Target } from "../shared/ProviderDialect.ts"
import { detailOf } from "../shared/SignedFields.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Reasoning from "./Reasoning.ts"
import * as ThoughtField from "./ThoughtField.ts"

/** What a host's chat completions accept. */
interface Features {
  readonly maxTokens: "max_tokens" | "max_completion_tokens"
  /** Maximum number of stop sequences. */
  readonly maxStops: number
  /** Sampling options beyond OpenAI's API. */
  readonly sampling: ReadonlyArray<"topK" | "minP" | "repeatPenalty">
  /** It accepts vLLM's `continue_final_message`; other hosts get a message that requests the continuation. */
  readonly continuesFinalMessage?: boolean
  /** The fields that say how much to reason. */
  readonly reasoningFor: (generation: Generation, target: Target) => Fields
  /** It is OpenAI's own API, or Azure's. */
  readonly isOpenAi?: boolean
}

/** A host of the dialect. */
export interface Host {
  readonly path: (name: "chat/completions" | "completions" | "embeddings", target: Target) => string
  readonly headers: (target: Target) => Readonly<Record<string, string>>
  readonly features: (target: Target) => Features
}

const openAiFeatures: Features = {
  maxTokens: "max_completion_tokens",
  maxStops: 4,
  sampling: [],
  reasoningFor: Reasoning.fieldsFor,
  isOpenAi: true
}

/** The features that vLLM, llama.cpp and other servers share, with OpenAI's older name of the limit. */
const commonFeatures: Features = {
  maxTokens: "max_tokens",
  maxStops: 16,
  sampling: ["topK", "minP"],
  reasoningFor: Reasoning.fieldsFor
}

/** OpenAI's API, whose newer models reject `max_tokens`, or a server with the same API at `baseUrl`. */
export const openAiHost: Host = {
  path: (name) => `/${name}`,
  headers: ({ options: { organization } }) => organization === undefined ? {} : { "openai-organization": organization },
  features: ({ options }) => Source.isOwnHost(options) ? openAiFeatures : commonFeatures
}

/** The first API version with `max_completion_tokens`. */
const renamedIn = "2024-12-01"

const versionOf = ({ options: { apiVersion = kinds["azure-openai"].apiVersion } }: Target): string => apiVersion

export const azureHost: Host = {
  path: (name, target) =>
    `/openai/deployments/${encodeURIComponent(target.options.model)}/${name}?api-version=` +
    encodeURIComponent(versionOf(target)),
  headers: () => ({}),
  features: (target) => ({
    ...openAiFeatures,
    maxTokens: versionOf(target) >= renamedIn ? "max_completion_tokens" : "max_tokens"
  })
}

/** Another instance of this service, which supports all options of a generation. */
export const troupeHost: Host = {
  path: (name) => `/${name}`,
  headers: () => ({}),
  features: () => ({
    maxTokens: "max_completion_tokens",
    maxStops: 16,
    sampling: ["topK", "minP", "repeatPenalty"],
    reasoningFor: ({ reasoning }) => Reasoning.fieldsForTroupe(reasoning),
    continuesFinalMessage: true
  })
}

const imageOf = ({ detail, source }: ImagePart) => ({
  type: "image_url",
  image_url: {
    url: source.type === "url" ? source.url : `data:${source.mediaType};base64,${source.data}`,
    ...(detail === undefined ? {} : { detail })
  }
})

/** The parts keep their order. */
const contentOf = (content: Content) =>
  typeof content === "string" ? content : content.map((part) => part.type === "text" ? part : imageOf(part))

/** The signed reasoning that another Troupe can read. */
const detailsOf = (message: Message, options: Target["options"]): Fields => {
  const readable = readableBy(message, options)
  if (readable.length === 0) return {}
  return { reasoning_details: readable.map((one) => detailOf({ ...one, maker: makerThere(one.maker ?? "", options) })) }
}

/** @param field of an assistant's thoughts; undefined: the host takes none */
const messageOf = (message: Message, field: ReturnType<typeof ThoughtField.fieldFor>, { options }: Target) => {
  const { content: given, role, toolCallId, toolCalls = [] } = message
  const content = contentOf(given)
  if (role === "tool") return { role, content, tool_call_id: toolCallId }
  const thoughts = field === undefined ? undefined : thoughtsOf(message)
  const added = {
    ...(thoughts === undefined || role !== "assistant" ? {} : { [field!]: thoughts }),
    ...(message.reasoning === undefined ? {} : detailsOf(message, options))
  }
  if (toolCalls.length === 0) return { role, content, ...added }
  return {
    role,
    content: content === "" ? null : content,
    ...added,
    tool_calls: toolCalls.map(({ arguments: text, id, name }) => ({
      id,
      type: "function",
      function: { name, arguments: text }
    }))
  }
}

export const messagesOf = (messages: ReadonlyArray<Message>, target: Target) => {
  const field = ThoughtField.fieldFor(target)
  return ThoughtField.withPadding(target, messages.map((message) => messageOf(message, field, target)))
}

export const toolsOf = (tools: ReadonlyArray<ToolDefinition>) =>
  tools.map(({ description, name, parameters }) => ({
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters })
    }
  }))

const toolingOf = ({ parallelToolCalls, toolChoice, tools = [] }: Generation) => {
  if (tools.length === 0) return {}
  const choice = typeof toolChoice === "object" ? { type: "function", function: toolChoice } : toolChoice
  return {
    tools: toolsOf(tools),
    ...(choice === undefined ? {} : { tool_choice: choice }),
    ...(parallelToolCalls === undefined ? {} : { parallel_tool_calls: parallelToolCalls })
  }
}

/** Whether OpenAI accepts the schema as `strict`: every object is closed and all its properties are required. */
const isStrict = (schema: unknown): boolean => {
  if (Array.isArray(schema)) return schema.every(isStrict)
  const fields = fieldsOf(schema)
  if (fields === undefined) return true
  const properties = fieldsOf(fields["properties"])
  const required: ReadonlyArray<unknown> = Array.isArray(fields["required"]) ? fields["required"] : []
  const isClosed = fields["type"] !== "object" && properties === undefined ||
    fields["additionalProperties"] === false && Object.keys(properties ?? {}).every((name) => required.includes(name))
  return isClosed && Object.values(fields).every(isStrict)
}

const jsonSchema = (schema: JsonSchema) => ({ name: "answer", schema, ...(isStrict(schema) ? { strict: true } : {}) })

const formatOf = (format: OutputFormat | undefined) => {
  if (format === undefined) return {}
  if (format.type !== "json_schema") return { response_format: { type: "json_object" } }
  return { response_format: { type: format.type, json_schema: jsonSchema(format.schema) } }
}

/** The options that the caller set, including values that equal the default. */
const samplingOf = (sampling: Sampling, features: Features): Readonly<Record<string, unknown>> => {
  const fields: Record<string, unknown> = {}
  for (const [field, name] of FieldNames.sampling) {
    const value = sampling[name]
    const isKnown = !(name in extraSampling) || features.sampling.includes(name as keyof typeof extraSampling)
    if (value !== undefined && isKnown) fields[field] = value
  }
  return fields
}

/** Options beyond OpenAI's API: their fields and neutral values. */
const extraSampling = {
  topK: ["top_k", undefined],
  minP: ["min_p", 0],
  repeatPenalty: ["repeat_penalty", 1]
} as const

/** The reason for the first option of the generation that the host's API does not have. */
const unsupported = (
  { messages, sampling, stop }: Generation,
  { maxStops, sampling: supported }: Features,
  target: Target
): Reason | undefined => {
  for (const name of ["topK", "minP", "repeatPenalty"] as const) {
    const [field, neutral] = extraSampling[name]
    const value = sampling[name]
    if (value !== undefined && value !== neutral && !supported.includes(name)) {
      return notSupported(target, name, `its API has no \`${field}\`. Remove it.`)
    }
  }
  const image = imageOfTool(messages)
  if (image !== undefined) return notSupported(target, image, "its API has no images in tool results.")
  return stop.length > maxStops
    ? notSupported(target, "stop", `its API accepts at most ${maxStops} stop sequences, not ${stop.length}.`)
    : undefined
}

/** The messages, with the assistant prefix as the host accepts it. */
const conversationOf = (generation: Generation, { continuesFinalMessage = false }: Features, target: Target) => ({
  messages: messagesOf(
    (continuesFinalMessage ? withAssistantPrefix(generation) : withContinuePrompt(generation)).messages,
    target
  ),
  ...(continuesFinalMessage && generation.assistantPrefix !== undefined ? { continue_final_message: true } : {})
})

/** OpenAI documents this limit for `safety_identifier`, which replaces `user`. It is applied to both. */
const maxUserLength = 64

/** Mistral rejects fields that its API does not have (422 `extra_forbidden`, github.com/mistralai/platform-docs-public/issues/7). */
const rejectsUser = /^https:\/\/api\.mistral\.ai(?:[:/]|$)/i

/** The end user from `metadata.user_id` of a caller of Anthropic's dialect. */
const userOf = ({ source }: Generation, { options: { baseUrl = "" } }: Target) => {
  const user = source?.dialect === "anthropic" ? textAt(source.body, "metadata", "user_id") : undefined
  return user === undefined || user.length > maxUserLength || rejectsUser.test(baseUrl) ? {} : { user }
}

const bodyOf = (
  generation: Generation,
  target: Target,
  stream: boolean,
  features: Features
): Result.Result<Readonly<Record<string, unknown>>, Reason> => {
  const { format, logprobs, stop } = generation
  const reason = unsupported(generation, features, target)
  if (reason !== undefined) return Result.fail(reason)
  const maxTokens = generation.maxTokens ?? target.options.maxTokens
  return Result.succeed({
    model: target.options.model,
    ...conversationOf(generation, features, target),
    ...samplingOf(generation.sampling, features),
    ...(maxTokens === undefined ? {} : { [features.maxTokens]: maxTokens }),
    ...(stop.length === 0 ? {} : { stop }),
    ...toolingOf(generation),
    ...features.reasoningFor(generation, target),
    ...formatOf(format),
    ...userOf(generation, target),
    ...(logprobs === undefined ? {} : { logprobs: true, top_logprobs: logprobs }),
    ...(stream ? { stream, stream_options: { include_usage: true } } : {})
  })
}

const limits = ["max_completion_tokens", "max_tokens"] as const

/** `max_tokens` or `max_completion_tokens`, if it differs from the caller's. */
const limitOf = ({ maxTokens }: Generation, body: Fields, target: Target, features: Features): Fields => {
  const set = limits.filter((name) => (body[name] ?? null) !== null)
  const limit = maxTokens ?? (set.length === 0 ? target.options.maxTokens : undefined)
  if (limit === undefined || (set.length > 0 && numberOf(body[set[0]!]) === limit)) return {}
  return set.length === 0
    ? { [features.maxTokens]: limit }
    : Object.fromEntries(set.map((name) => [name, limit]))
}

/** The streaming options: whether the provider streams is independent of the caller. */
const streamingOf = (body: Fields, stream: boolean): Fields => {
  if (stream) return { stream, stream_options: { ...fieldsOf(body["stream_options"]), include_usage: true } }
  return body["stream"] === true ? { stream: undefined, stream_options: undefined } : {}
}

const urlOf = ({ data, mediaType }: Extract<ImageSource, { type: "base64" }>): string =>
  `data:${mediaType};base64,${data}`

const withImages = (messages: ReadonlyArray<unknown>, fetched: FetchedImages): ReadonlyArray<unknown> => {
  const partOf = (part: unknown): unknown => {
    const image = fieldsOf(fieldsOf(part)?.["image_url"])
    const found = fetched.get(textAt(image, "url") ?? "")
    return found === undefined ? part : { ...part as Fields, image_url: { ...image, url: urlOf(found) } }
  }
  return messages.map((message) => {
    const content = fieldsOf(message)?.["content"]
    return Array.isArray(content) ? { ...message as Fields, content: content.map(partOf) } : message
  })
}

/** The assistant prefix as the last message, and how the host continues it. */
const continuationOf = (
  messages: ReadonlyArray<unknown>,
  generation: Generation,
  { continuesFinalMessage = false }: Features
): Fields => {
  const all = [...messages, { role: "assistant", content: generation.assistantPrefix }]
  return continuesFinalMessage
    ? { messages: all, continue_final_message: true }
    : { messages: [...all, { role: "user", content: continuePromptOf(generation) }], continue_final_message: undefined }
}

const hasCalls = ({ messages }: Generation): boolean => {
  for (const { toolCalls } of messages) if (toolCalls !== undefined) return true
  return false
}

/** The caller's messages, with thoughts as the host takes them. */
const acceptedBy = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  given: ReadonlyArray<unknown>
): ReadonlyArray<unknown> => {
  const messages = source.unknownFields === undefined ? given : ThoughtField.acceptedBy(target, source, given)
  return hasCalls(generation) ? ThoughtField.withPadding(target, messages) : messages
}

/** The caller's messages, if thoughts, fetched images or an assistant prefix change them. */
const changedMessages = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  features: Features,
  fetched: FetchedImages | undefined
): Fields => {
  const { assistantPrefix, resumed = false } = generation
  const { body } = source
  const given = body["messages"] as ReadonlyArray<unknown>
  const accepted = acceptedBy(generation, source, target, given)
  const messages = fetched === undefined ? accepted : withImages(accepted, fetched)
  const isBegun = body["continue_final_message"] === true
  if (assistantPrefix !== undefined && (resumed || (isBegun && features.isOpenAi === true))) {
    return continuationOf(isBegun ? messages.slice(0, -1) : messages, generation, features)
  }
  return messages === given ? {} : { messages }
}

/** The caller's body for a provider of the same dialect. */
const passedBody = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean,
  features: Features,
  fetched: FetchedImages | undefined
): Result.Result<Fields | string, Reason> => {
  // The limits of other hosts are not known.
  const reason = features.isOpenAi === true ? unsupported(generation, features, target) : undefined
  if (reason !== undefined) return Result.fail(reason)
  const { body } = source
  return Result.succeed(Source.bodyOrTextWith(source, {
    model: target.options.model,
    ...limitOf(generation, body, target, features),
    ...changedMessages(generation, source, target, features, fetched),
    ...streamingOf(body, stream)
  }))
}

const promptFieldsOf = ({ completion, messages: [prompt, suffix] }: Generation): Fields => ({
  prompt: completion?.tokens ?? textOf(prompt!.content),
  ...(suffix === undefined ? {} : { suffix: textOf(suffix.content) }),
  ...(completion?.echo === true ? { echo: true } : {})
})

/** The body of a text completion. */
const completionBodyOf = (
  generation: Generation,
  target: Target,
  stream: boolean,
  features: Features
): Result.Result<Fields, Reason> => {
  const { format, logprobs, stop } = generation
  const reason = unsupported(generation, features, target)
  if (reason !== undefined) return Result.fail(reason)
  const maxTokens = generation.maxTokens ?? target.options.maxTokens
  return Result.succeed({
    model: target.options.model,
    ...promptFieldsOf(generation),
    ...samplingOf(generation.sampling, features),
    ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
    ...(stop.length === 0 ? {} : { stop }),
    ...formatOf(format),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(stream ? { stream, stream_options: { include_usage: true } } : {})
  })
}

/** The caller's body of a text completion; its prompt ends in the text that was sent before. */
const passedCompletion = (
  { maxTokens, messages: [prompt], resumed = false }: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean
): Fields =>
  Source.bodyWith(source, {
    model: target.options.model,
    ...(resumed && prompt !== undefined ? { prompt: textOf(prompt.content) } : {}),
    ...(maxTokens === undefined || numberOf(source.body["max_tokens"]) === maxTokens ? {} : { max_tokens: maxTokens }),
    ...streamingOf(source.body, stream)
  })

type Encoders = Required<Pick<Dialect["generate"], "request" | "passThrough">>

/** The encoders of text completions for a host. */
export const makeCompletions = ({ features, headers, path }: Host): Encoders => {
  const callOf = (target: Target, body: Fields) => ({
    path: path("completions", target),
    headers: headers(target),
    body
  })
  return {
    request: (generation, target, stream) =>
      Result.map(
        completionBodyOf(generation, target, stream, features(target)),
        (body) => callOf(target, body)
      ),
    passThrough: (generation, source, target, stream) =>
      Result.succeed(callOf(target, passedCompletion(generation, source, target, stream)))
  }
}

/** The encoders of chat completions for a host. */
export const makeRequests = ({ features, headers, path }: Host): Encoders => {
  const callOf = (target: Target, body: Fields | string) => ({
    path: path("chat/completions", target),
    headers: headers(target),
    body
  })
  return {
    request: (generation, target, stream) =>
      Result.map(bodyOf(generation, target, stream, features(target)), (body) => callOf(target, body)),
    passThrough: (generation, source, target, stream, fetched) =>
      Result.map(
        passedBody(generation, source, target, stream, features(target), fetched),
        (body) => callOf(target, body)
      )
  }
}

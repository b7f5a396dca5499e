/**
 * Requests of Anthropic's Messages API: encoded from a generation, or the caller's own body with only those fields changed
 * that Troupe or a policy decides. Pure.
 */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import { continuePromptOf, withAssistantPrefix, withContinuePrompt } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { OutputFormat, ToolDefinition } from "../../domain/Job.ts"
import type { Content, Message } from "../../domain/Message.ts"
import { partsOf, thoughtsOf } from "../../domain/Message.ts"
import { kinds } from "../../domain/ProviderKind.ts"
import { readableBy } from "../../domain/SignedReasoning.ts"
import * as Source from "../../domain/Source.ts"
import * as Conversation from "../shared/Conversation.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { type Fields, fieldsOf, isOneOf, textAt } from "../shared/Json.ts"
import * as JsonSchemaSubset from "../shared/JsonSchemaSubset.ts"
import type { Call, Dialect, FetchedImages, Target } from "../shared/ProviderDialect.ts"
import * as Reasoning from "./Reasoning.ts"

const { apiVersion: defaultVersion, maxTokens: defaultMaxTokens } = kinds.anthropic

/** The values of `format` that structured outputs support, by Anthropic's page on them. */
const formats = new Set(
  ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)

const isScalar = (value: unknown): boolean =>
  typeof value !== "object" || value === null || numberOf(value) !== undefined

const isObject = ({ properties, type }: Fields): boolean =>
  type === "object" || properties !== undefined || (Array.isArray(type) && type.includes("object"))

/** By the same page. */
const subset: JsonSchemaSubset.Subset = {
  known: {
    type: JsonSchemaSubset.any,
    title: JsonSchemaSubset.any,
    description: JsonSchemaSubset.any,
    enum: (value) => Array.isArray(value) && value.every(isScalar),
    const: isScalar,
    properties: JsonSchemaSubset.any,
    required: JsonSchemaSubset.any,
    additionalProperties: (value) => value === false,
    items: JsonSchemaSubset.any,
    minItems: (value) => value === 0 || value === 1,
    anyOf: JsonSchemaSubset.any,
    pattern: JsonSchemaSubset.any,
    format: (value) => isOneOf(formats, value),
    $ref: JsonSchemaSubset.isLocal,
    $defs: JsonSchemaSubset.any,
    definitions: JsonSchemaSubset.any
  },
  // Objects have to be closed; one without `properties` stays open, because it would otherwise be always empty.
  rewrite: (schema) =>
    !isObject(schema) || schema["additionalProperties"] !== undefined
      ? schema
      : { ...schema, additionalProperties: schema["properties"] === undefined }
}

const formatOf = (format: OutputFormat | undefined, target: Target): Result.Result<Fields | undefined, Reason> => {
  if (format === undefined) return Result.succeed(undefined)
  return format.type === "json_schema"
    ? Result.map(
      JsonSchemaSubset.convert(format.schema, subset, target),
      (schema) => ({ format: { type: "json_schema", schema } })
    )
    : Result.fail(notSupported(target, "format", "its API supports JSON schemas only. Use `json_schema`."))
}

/** The API accepts ids of letters, digits, `_` and `-`; other models create other ids. */
const idOf = (id: string): string => id.replaceAll(/[^\w-]/gu, (character) => `_${character.codePointAt(0)}_`)

const blocksOf = (content: Content): ReadonlyArray<Fields> =>
  partsOf(content).map((part) => {
    if (part.type === "text") return { type: "text", text: part.text }
    const { source } = part
    return {
      type: "image",
      source: source.type === "url"
        ? { type: "url", url: source.url }
        : { type: "base64", media_type: source.mediaType, data: source.data }
    }
  })

const resultOf = (id: string, content: Content): Fields => ({
  type: "tool_result",
  tool_use_id: idOf(id),
  content: typeof content === "string" ? content : blocksOf(content)
})

/** Whether the host rejects reasoning without a signature: Anthropic's own, and hosts of its models. Others have no signatures. */
const needsSignatures = ({ options: { baseUrl, model } }: Target): boolean =>
  baseUrl === undefined || /^https?:\/\/([^/]+\.)?anthropic\.com(:\d+)?(\/|$)/i.test(baseUrl) || /claude/i.test(model)

/** The signed thoughts of a message. A host that needs no signatures also gets others, as `EncodeAnswer` writes them. */
const thinkingOf = (message: Message, target: Target): ReadonlyArray<Fields> => {
  const signed = readableBy(message, target.options)
  if (signed.length > 0 || needsSignatures(target)) return signed.map(({ maker: _, ...block }) => block)
  const thinking = thoughtsOf(message)
  return thinking === undefined ? [] : [{ type: "thinking", thinking, signature: "" }]
}

const turnOf = (
  message: Message,
  path: string,
  target: Target
): Result.Result<Conversation.Turn<Fields>, Reason> => {
  const { content, role, toolCallId, toolCalls = [] } = message
  if (role === "tool") {
    return toolCallId === undefined
      ? Result.fail(Conversation.invalid(`${path}.toolCallId`, "Expected the id of a call in an earlier message"))
      : Result.succeed({ role: "user", parts: [resultOf(toolCallId, content)] })
  }
  const calls = toolCalls.map(({ arguments: text, id, name }, index) =>
    Result.map(
      Conversation.argumentsOf(`${path}.toolCalls[${index}].arguments`, text),
      (input): Fields => ({ type: "tool_use", id: idOf(id), name, input })
    )
  )
  const thinking = role === "assistant" ? thinkingOf(message, target) : []
  return Result.map(Result.all(calls), (parts) => ({ role, parts: [...thinking, ...blocksOf(content), ...parts] }))
}

const toolOf = (
  { description, name, parameters }: ToolDefinition,
  index: number,
  target: Target
): Result.Result<Fields, Reason> =>
  /^[\w-]{1,128}$/.test(name)
    ? Result.succeed({ name, description, input_schema: { type: "object", ...parameters } })
    : Result.fail(notSupported(target, `tools[${index}].name`, "its API accepts letters, digits, _ and - only."))

const choices = { auto: "auto", none: "none", required: "any" } as const

const choiceOf = ({ parallelToolCalls, toolChoice = "auto" }: Generation): Fields => {
  const choice = typeof toolChoice === "string"
    ? { type: choices[toolChoice] }
    : { type: "tool", name: toolChoice.name }
  return parallelToolCalls === undefined || toolChoice === "none"
    ? choice
    : { ...choice, disable_parallel_tool_use: !parallelToolCalls }
}

/** Fails for options that the API does not have; a seed is ignored. */
const checked = (generation: Generation, target: Target): Result.Result<void, Reason> => {
  const { sampling, stop } = generation
  if ((sampling.temperature ?? 0) > 1) {
    return Result.fail(notSupported(target, "temperature", "its API accepts at most 1."))
  }
  const blank = stop.findIndex((text) => text.trim() === "")
  return blank === -1
    ? Conversation.rejectOptions(
      ["minP", "repeatPenalty", "presencePenalty", "frequencyPenalty", "logitBias"],
      generation,
      target
    )
    : Result.fail(notSupported(target, `stop[${blank}]`, "its API accepts no stop sequence of white space only."))
}

/** Whether thinking is enabled: Anthropic then rejects an assistant's last message without a thinking block. */
const thinks = ({ body }: Source.Source): boolean => (textAt(body, "thinking", "type") ?? "disabled") !== "disabled"

const withPrefix = (generation: Generation, { options: { model } }: Target): Generation =>
  kinds.anthropic.prefixModels.test(model) ? withAssistantPrefix(generation) : withContinuePrompt(generation)

const versionOf = ({ options }: Target): string | undefined => options.apiVersion

const headersOf = (source: Source.Source | undefined, target: Target) => ({
  ...source?.headers,
  "anthropic-version": versionOf(target) ?? source?.headers?.["anthropic-version"] ?? defaultVersion
})

const withImage = (block: unknown, fetched: FetchedImages): unknown => {
  const fields = fieldsOf(block)
  if (fields === undefined) return block
  const { content, source } = fields
  if (Array.isArray(content)) return { ...fields, content: content.map((inner) => withImage(inner, fetched)) }
  const found = fields["type"] === "image" ? fetched.get(textAt(source, "url") ?? "") : undefined
  return found === undefined
    ? block
    : { ...fields, source: { type: "base64", media_type: found.mediaType, data: found.data } }
}

/** Without the assistant's messages at the end, which the assistant prefix includes. */
const withoutPrefix = (messages: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const end = messages.findLastIndex((message) => fieldsOf(message)?.["role"] !== "assistant")
  return messages.slice(0, end + 1)
}

/**
 * Reasoning of a provider of another dialect, to which `EncodeAnswer` gives an empty signature. Anthropic rejects it
 * ("Invalid `signature` in `thinking` block", github.com/BerriAI/litellm/pull/31654).
 */
const isUnsigned = (block: unknown): boolean => {
  const fields = fieldsOf(block)
  return fields?.["type"] === "thinking" && fields["signature"] === ""
}

/** Without unsigned reasoning, and without messages of nothing else. */
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

/** The messages without reasoning that the host rejects. */
const acceptedBy = (target: Target, messages: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  needsSignatures(target) ? withoutUnsigned(messages) : messages

/**
 * The caller's messages, if fetched images or an assistant prefix change them.
 *
 * @param prefills whether the model continues an assistant's last message
 */
const changedMessages = (
  generation: Generation,
  given: ReadonlyArray<unknown>,
  prefills: boolean,
  fetched: FetchedImages | undefined
): Fields => {
  const { assistantPrefix, resumed = false } = generation
  const messages = fetched === undefined ? given : given.map((message) => withImage(message, fetched))
  if (!resumed || assistantPrefix === undefined) return messages === given ? {} : { messages }
  const all = [...withoutPrefix(messages), { role: "assistant", content: assistantPrefix }]
  return { messages: prefills ? all : [...all, { role: "user", content: continuePromptOf(generation) }] }
}

/** The caller's body for a provider of the same dialect. */
const passedBody = (
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean,
  prefills: boolean,
  fetched: FetchedImages | undefined
): Fields | string => {
  const { body } = source
  const { maxTokens } = generation
  const given = body["messages"] as ReadonlyArray<unknown>
  const messages = acceptedBy(target, given)
  return Source.bodyOrTextWith(source, {
    model: target.options.model,
    ...(maxTokens === undefined || maxTokens === numberOf(body["max_tokens"]) ? {} : { max_tokens: maxTokens }),
    ...(messages === given ? {} : { messages }),
    ...changedMessages(generation, messages, prefills, fetched),
    ...(stream ? { stream } : body["stream"] === true ? { stream: undefined } : {})
  })
}

/** The caller's headers of the dialect are passed on. */
export const passThrough: NonNullable<Dialect["generate"]["passThrough"]> = (
  generation,
  source,
  target,
  stream,
  fetched
) => {
  const prefills = kinds.anthropic.prefixModels.test(target.options.model) && !thinks(source)
  return Result.succeed({
    path: "/v1/messages",
    headers: headersOf(source, target),
    body: passedBody(generation, source, target, stream, prefills, fetched)
  })
}

/** `maxLength` of `metadata.user_id`: platform.claude.com/docs/en/api/messages#metadata. */
const maxUserLength = 256

/** The end user from a request of OpenAI's dialect. */
const metadataOf = ({ source }: Generation) => {
  if (source?.dialect !== "openai") return undefined
  const user = textAt(source.body, "safety_identifier") ?? textAt(source.body, "user")
  return user === undefined || user.length > maxUserLength ? undefined : { user_id: user }
}

export const request = (
  generation: Generation,
  target: Target,
  stream: boolean
): Result.Result<Call, Reason> =>
  Result.gen(function*() {
    yield* checked(generation, target)
    const { sampling, stop, tools = [] } = generation
    const { options } = target
    const { effort, ...limited } = Reasoning.fieldsFor(generation, target, options.maxTokens ?? defaultMaxTokens)
    const format = yield* formatOf(generation.format, target)
    const turns = yield* Conversation.turnsOf(
      withPrefix(generation, target),
      (message, path) => turnOf(message, path, target)
    )
    const definitions = yield* Result.all(tools.map((tool, index) => toolOf(tool, index, target)))
    return {
      path: "/v1/messages",
      headers: headersOf(undefined, target),
      body: {
        model: options.model,
        ...limited,
        system: Conversation.systemOf(generation),
        messages: turns.map(({ parts, role }) => ({ role, content: parts })),
        temperature: sampling.temperature,
        top_p: sampling.topP,
        top_k: sampling.topK,
        stop_sequences: stop.length === 0 ? undefined : stop,
        ...(definitions.length === 0 ? {} : { tools: definitions, tool_choice: choiceOf(generation) }),
        output_config: effort === undefined ? format : { ...format, effort },
        metadata: metadataOf(generation),
        stream
      }
    }
  })

/** The fields of a request that count tokens. */
const countedFields: ReadonlySet<string> = new Set(["model", "system", "messages", "tools", "tool_choice"])

/** The request that counts a prompt's tokens. */
export const countRequest = ({ source, ...input }: Counted, target: Target): Result.Result<Call, Reason> => {
  const path = "/v1/messages/count_tokens"
  if (source?.dialect === "anthropic") {
    const given = source.body["messages"] as ReadonlyArray<unknown>
    const messages = acceptedBy(target, given)
    const body = Source.bodyWith(source, {
      model: target.options.model,
      ...(messages === given ? {} : { messages })
    })
    return Result.succeed({ path, headers: headersOf(source, target), body })
  }
  const generation: Generation = { ...input, sampling: {}, stop: [] }
  return Result.map(request(generation, target, false), ({ body, ...call }) => ({
    ...call,
    path,
    body: Object.fromEntries(Object.entries(body as Fields).filter(([name]) => countedFields.has(name)))
  }))
}

/** Generations as bodies of chat completions, OpenAI's own and those that others have in common. Pure. */
import { Result } from "effect"
import type { Generation, Sampling } from "../../domain/Generation.ts"
import { asked, prefilled } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { JsonSchema, OutputFormat, ToolDefinition } from "../../domain/Job.ts"
import type { Content, ImagePart, Message } from "../../domain/Message.ts"
import { imageOfTool } from "../../domain/Message.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { fieldsOf, textAt } from "../shared/Json.ts"
import type { Target } from "../shared/ProviderDialect.ts"

/** What one host's chat completions have words for. */
export interface Vocabulary {
  readonly maxTokens: "max_tokens" | "max_completion_tokens"
  /** The most stop sequences. */
  readonly mostStops: number
  /** Sampling that OpenAI's own API has no words for. */
  readonly more: ReadonlyArray<"topK" | "minP" | "repeatPenalty">
  /** It takes vLLM's `continue_final_message`; otherwise the model is asked to go on. */
  readonly goesOn?: boolean
  /** It is OpenAI's own API, or Azure's. */
  readonly isOwn?: boolean
}

const imageOf = ({ detail, source }: ImagePart) => ({
  type: "image_url",
  image_url: {
    url: source.type === "url" ? source.url : `data:${source.mediaType};base64,${source.data}`,
    ...(detail === undefined ? {} : { detail })
  }
})

/** Parts stay at their places. */
const contentOf = (content: Content) =>
  typeof content === "string" ? content : content.map((part) => part.type === "text" ? part : imageOf(part))

const messageOf = ({ content: given, role, toolCallId, toolCalls = [] }: Message) => {
  const content = contentOf(given)
  if (role === "tool") return { role, content, tool_call_id: toolCallId }
  if (toolCalls.length === 0) return { role, content }
  return {
    role,
    content: content === "" ? null : content,
    tool_calls: toolCalls.map(({ arguments: text, id, name }) => ({
      id,
      type: "function",
      function: { name, arguments: text }
    }))
  }
}

export const messagesOf = (messages: ReadonlyArray<Message>) => messages.map(messageOf)

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

/** Whether OpenAI takes it as `strict`: every object is closed, and every property of it required. */
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
  if (format.type === "json_object") return { response_format: { type: format.type } }
  return { response_format: { type: format.type, json_schema: jsonSchema(format.schema) } }
}

const samplingNames = [
  ["temperature", "temperature"],
  ["topP", "top_p"],
  ["seed", "seed"],
  ["topK", "top_k"],
  ["minP", "min_p"],
  ["repeatPenalty", "repeat_penalty"],
  ["presencePenalty", "presence_penalty"],
  ["frequencyPenalty", "frequency_penalty"],
  ["logitBias", "logit_bias"]
] as const satisfies ReadonlyArray<readonly [keyof Sampling, string]>

/** The options that the caller set, those of them that equal a default too. */
const samplingOf = (sampling: Sampling, { more }: Vocabulary): Readonly<Record<string, unknown>> => {
  const fields: Record<string, unknown> = {}
  for (const [name, field] of samplingNames) {
    const value = sampling[name]
    const isKnown = !(name in beyond) || more.includes(name as keyof typeof beyond)
    if (value !== undefined && isKnown) fields[field] = value
  }
  return fields
}

/** Options beyond OpenAI's API: their fields, and the value that asks for nothing. */
const beyond = {
  topK: ["top_k", undefined],
  minP: ["min_p", 0],
  repeatPenalty: ["repeat_penalty", 1]
} as const

/** The first thing that the host has no words for. */
export const unsaid = (
  { messages, sampling, stop }: Generation,
  { more, mostStops }: Vocabulary,
  target: Target
): Reason | undefined => {
  for (const name of ["topK", "minP", "repeatPenalty"] as const) {
    const [field, neutral] = beyond[name]
    const value = sampling[name]
    if (value !== undefined && value !== neutral && !more.includes(name)) {
      return notSupported(target, name, `its API has no \`${field}\`. Remove it.`)
    }
  }
  const seen = imageOfTool(messages)
  if (seen !== undefined) return notSupported(target, seen, "its API has no images in tool results.")
  return stop.length > mostStops
    ? notSupported(target, "stop", `its API accepts at most ${mostStops} stop sequences, not ${stop.length}.`)
    : undefined
}

/** The messages, and how the answer goes on with a text so far. */
const conversationOf = (generation: Generation, { goesOn = false }: Vocabulary) => ({
  messages: messagesOf((goesOn ? prefilled(generation) : asked(generation)).messages),
  ...(goesOn && generation.assistantPrefix !== undefined ? { continue_final_message: true } : {})
})

/** OpenAI takes no longer one. */
const longestUser = 64

/** Mistral refuses fields that its API does not have. */
const hasNoUser = /^https:\/\/api\.mistral\.ai(?:[:/]|$)/i

/** The end user, as a caller of Anthropic's dialect names it. */
const userOf = ({ source }: Generation, { options: { baseUrl = "" } }: Target) => {
  const user = source?.dialect === "anthropic" ? textAt(source.body, "metadata", "user_id") : undefined
  return user === undefined || user.length > longestUser || hasNoUser.test(baseUrl) ? {} : { user }
}

/** A chat completion's body. */
export const bodyOf = (
  generation: Generation,
  target: Target,
  stream: boolean,
  vocabulary: Vocabulary
): Result.Result<Readonly<Record<string, unknown>>, Reason> => {
  const { format, logprobs, stop } = generation
  const reason = unsaid(generation, vocabulary, target)
  if (reason !== undefined) return Result.fail(reason)
  const maxTokens = generation.maxTokens ?? target.options.maxTokens
  return Result.succeed({
    model: target.options.model,
    ...conversationOf(generation, vocabulary),
    ...samplingOf(generation.sampling, vocabulary),
    ...(maxTokens === undefined ? {} : { [vocabulary.maxTokens]: maxTokens }),
    ...(stop.length === 0 ? {} : { stop }),
    ...toolingOf(generation),
    ...formatOf(format),
    ...userOf(generation, target),
    ...(logprobs === undefined ? {} : { logprobs: true, top_logprobs: logprobs }),
    ...(stream ? { stream, stream_options: { include_usage: true } } : {})
  })
}

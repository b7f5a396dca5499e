/**
 * Decodes request bodies of Ollama's API, and checks what a schema cannot express. Pure.
 *
 * **Details**
 *
 * A prompt of `/api/generate` is a conversation of one message, after its `system`. An assistant's text at the end of a
 * conversation is the assistant prefix: the answer continues it. A request without messages or prompt loads the model.
 */
import { Duration, Result } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Message, Request, Tool } from "../../domain/Inference.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import { JsonText } from "../../domain/JsonText.ts"
import type { Content } from "../../domain/Message.ts"
import { mediaTypeOf, mediaTypes } from "../../domain/Message.ts"
import * as Problem from "../../domain/Problem.ts"
import { ofEffort, ofSwitch } from "../../domain/Reasoning.ts"
import type { Source } from "../../domain/Source.ts"
import { mostMessages, toolProblems } from "../openai/DecodeRequest.ts"
import { mostStops, mostTools } from "../openai/Schema.ts"
import { decodingIn } from "../openai/ServerFields.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { cacheOf, callerOf, decodeBody, unknownFieldsOf } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import { at, isEmpty, isObject, listAt } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Schema from "./Schema.ts"
import { ToolLinks } from "./ToolLinks.ts"

/** What a request for an answer and one without a prompt share. */
interface Call {
  /** As the caller wrote it. */
  readonly model: string
  readonly stream: boolean
}

/** A decoded request for an answer, and the options of it. */
export interface GenerationCall extends Call {
  readonly type: "generation"
  readonly request: Request
  /** Whether an answer may have reasoning. */
  readonly thinking: boolean
}

/** A decoded request without a prompt. */
export interface LoadCall extends Call {
  readonly type: "load" | "unload"
  /** The model's name in the registry. */
  readonly name: string
  readonly caller: Caller
}

export type AnyCall = GenerationCall | LoadCall

type Decoded<A> = Result.Result<A, InvalidRequest>

/** A body, and how it arrived. */
export interface Arrived {
  readonly json: unknown
  readonly caller: CallerIdentity
  /** The same body with its inexact numbers as `ExactNumber`. */
  readonly exact: unknown
  /** The JSON that the body was parsed from, if it may be sent. */
  readonly text?: string | undefined
  /** The name in the registry of the model that a caller names. */
  readonly nameOf: (model: string) => string
}

/** The text first, also an empty one: the paths of images depend on it. */
const contentOf = (text: string, images: ReadonlyArray<string>): Content =>
  images.length === 0 ? text : [
    { type: "text", text },
    ...images.map((data) => ({
      type: "image" as const,
      source: { type: "base64" as const, mediaType: mediaTypeOf(data) ?? mediaTypes[0], data }
    }))
  ]

const messageOf = (message: Schema.ChatMessage, links: ToolLinks): Message => {
  const { content: text, images, role, thinking } = message
  const toolCalls = links.callsOf(message)
  const content = contentOf(text ?? "", images ?? [])
  if (role === "tool") return { role, content, toolCallId: links.resultOf(message) ?? "" }
  return {
    role,
    content,
    ...(role === "assistant" && (thinking ?? "") !== "" ? { thoughts: thinking! } : {}),
    ...(toolCalls.length === 0 ? {} : { toolCalls })
  }
}

/** Whether the answer continues the last message. */
const isContinued = (messages: ReadonlyArray<Schema.ChatMessage>): boolean => {
  const last = messages.at(-1)
  return messages.length > 1 && last?.role === "assistant" && (last.content ?? "") !== "" &&
    (last.tool_calls ?? []).length === 0
}

const conversationOf = (given: ReadonlyArray<Schema.ChatMessage>): Pick<Request, "assistantPrefix" | "messages"> => {
  const links = new ToolLinks()
  const messages = given.map((message) => messageOf(message, links))
  return isContinued(given)
    ? { messages: messages.slice(0, -1), assistantPrefix: given.at(-1)!.content! }
    : { messages }
}

const toolOf = ({ function: { description, name, parameters } }: Schema.Tool): Tool => ({
  name,
  ...(typeof description === "string" ? { description } : {}),
  ...(parameters === undefined || parameters === null ? {} : { parameters })
})

/** A number above 0; undefined for the others, which stand for no limit. */
const positive = (value: number | null | undefined): number | undefined => (value ?? 0) > 0 ? value! : undefined

/** The lowest 32 bits; undefined for -1, a random one. */
const seedOf = (seed: number | null | undefined): number | undefined =>
  (seed ?? -1) === -1 ? undefined : Number(BigInt.asUintN(32, BigInt(seed!)))

const set = (fields: Readonly<Record<string, unknown>>): Partial<Request> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null))

const optionsOf = (options: Schema.Options = {}): Partial<Request> => {
  const { num_predict, seed, stop, top_k } = options
  return set({
    ...Object.fromEntries(FieldNames.sampling.map(([field, name]) => [name, options[field]])),
    topK: positive(top_k),
    seed: seedOf(seed),
    maxTokens: positive(num_predict),
    stop: typeof stop === "string" ? [stop] : stop
  })
}

const decodingOf = (body: unknown): Partial<Request> =>
  set({ decoding: decodingIn({ repeat_last_n: at(body, "options", "repeat_last_n") }) })

const formatOf = (format: Schema.ChatRequest["format"]): Partial<Request> => {
  if (format === undefined || format === "") return {}
  return { format: typeof format === "string" ? { type: "json_object" } : { type: "json_schema", schema: format } }
}

const reasoningOf = (think: Schema.ChatRequest["think"]): Partial<Request> => {
  if (think === undefined) return {}
  const reasoning = typeof think === "boolean" ? ofSwitch(think) : ofEffort(think)
  return reasoning === undefined ? {} : { reasoning }
}

/** The caller's own request, with the fields of it that Troupe does not know. */
export const sourceOf = ({ exact, json, text }: Arrived, table: BodyFields): Source => {
  const unknownFields = unknownFieldsOf(json, table)
  return {
    dialect: "ollama",
    body: exact as Fields,
    isChecked: true,
    ...(text === undefined ? {} : { text: new JsonText(text, exact as Fields) }),
    ...(exact === json ? {} : { hasExactNumbers: true }),
    ...(unknownFields.length === 0 ? {} : { unknownFields })
  }
}

type Body = Schema.ChatRequest | Schema.GenerateRequest

/** A request without a prompt: `keep_alive: 0` unloads the model. */
const loadOf = (body: Body, { caller, nameOf }: Arrived): LoadCall => {
  const { model, stream = true } = body
  const { route: _, ...own } = callerOf(body, caller)
  const { keepAlive } = own
  return {
    caller: own,
    type: keepAlive !== undefined && Duration.toMillis(keepAlive) === 0 ? "unload" : "load",
    model,
    name: nameOf(model),
    stream
  }
}

/** A load of the model, unless the request has a field that is probably a misspelt one, such as `promt`. */
const loadUnlessMisspelt = (body: Body, arrived: Arrived, table: BodyFields): Decoded<AnyCall> => {
  const suggest = UnknownFields.makeSuggest(table, false)
  for (const { path: [name, ...inside] } of unknownFieldsOf(arrived.json, table)) {
    const meant = inside.length === 0 && typeof name === "string" ? suggest(name) : undefined
    if (meant === undefined) continue
    const detail = `Unknown field. Did you mean ${meant}?`
    return Result.fail(new InvalidRequest({ path: String(name), detail, inBody: true }))
  }
  return Result.succeed(loadOf(body, arrived))
}

const generationOf = (
  body: Body,
  conversation: Pick<Request, "assistantPrefix" | "completion" | "messages" | "tools">,
  arrived: Arrived,
  table: BodyFields
): GenerationCall => {
  const { format, logprobs = false, model, options, stream = true, think, top_logprobs = 0 } = body
  const { caller, nameOf } = arrived
  return {
    type: "generation",
    model,
    stream,
    thinking: think !== false,
    request: {
      ...optionsOf(options),
      ...decodingOf(arrived.json),
      ...formatOf(format),
      ...reasoningOf(think),
      ...(logprobs ? { logprobs: top_logprobs } : {}),
      ...callerOf(body, caller),
      ...cacheOf(caller),
      model: nameOf(model),
      ...conversation,
      source: sourceOf(arrived, table)
    }
  }
}

const imageProblems = (images: ReadonlyArray<string> | null | undefined): ReadonlyArray<Problem.Problem> =>
  (images ?? []).flatMap((image, index) =>
    mediaTypeOf(image) === undefined
      ? [{ path: `images[${index}]`, expected: "Expected a PNG, JPEG, GIF or WebP image in base64" }]
      : []
  )

const roleProblems = (
  { images, role, tool_calls }: Schema.ChatMessage
): ReadonlyArray<Problem.Problem> => [
  ...imageProblems(images),
  ...((tool_calls ?? []).length > 0 && role !== "assistant"
    ? [{ path: "tool_calls", expected: "Only a message of role assistant may have tool_calls" }]
    : [])
]

const noCall: Problem.Problem = {
  path: "tool_name",
  expected: "No call of this tool without a result is in the assistant's message before"
}

const messageProblems = (messages: ReadonlyArray<Schema.ChatMessage>): ReadonlyArray<Problem.Problem> => {
  const links = new ToolLinks()
  return messages.flatMap((message, index) => {
    links.callsOf(message)
    const isLinked = message.role !== "tool" || links.resultOf(message) !== undefined
    return [...roleProblems(message), ...(isLinked ? [] : [noCall])]
      .map(({ expected, path }) => ({ path: `messages[${index}].${path}`, expected }))
  })
}

const logprobProblems = ({ logprobs = false, top_logprobs = 0 }: Body): ReadonlyArray<Problem.Problem> =>
  top_logprobs > 0 && !logprobs ? [{ path: "top_logprobs", expected: "Allowed only with logprobs: true" }] : []

const prefixProblems = ({ format = "", messages = [] }: Schema.ChatRequest): ReadonlyArray<Problem.Problem> =>
  format !== "" && isContinued(messages)
    ? [{
      path: `messages[${messages.length - 1}]`,
      expected: "A last message of the assistant is not allowed with format"
    }]
    : []

const chatShape: Shape<Schema.ChatRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.chat, false),
  decode: Problem.decoderOf(Schema.ChatRequest),
  most: [["messages", mostMessages], ["tools", mostTools]],
  problems: (body) => [
    ...messageProblems(body.messages ?? []),
    ...toolProblems((body.tools ?? []).map(({ function: { name } }) => ({ type: "function", function: { name } }))),
    ...prefixProblems(body),
    ...logprobProblems(body)
  ]
}

const generateShape: Shape<Schema.GenerateRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.generate, false),
  decode: Problem.decoderOf(Schema.GenerateRequest),
  most: [["stop", mostStops]],
  problems: (body) => [...imageProblems(body.images), ...logprobProblems(body)]
}

/** A field's list with each element changed, and the elements of the same list with exact numbers. */
const eachOf = (
  json: unknown,
  exact: unknown,
  name: string,
  change: (one: unknown, exact: unknown) => unknown
): unknown => {
  if (!isObject(json) || !Array.isArray(json[name])) return json
  const exacts = listAt(exact, name)
  return { ...json, [name]: json[name].map((one, index) => change(one, exacts[index])) }
}

const withArguments = (call: unknown, exact: unknown): unknown =>
  isObject(call) && isObject(call["function"]) && isObject(call["function"]["arguments"])
    ? { ...call, function: { ...call["function"], arguments: at(exact, "function", "arguments") } }
    : call

/** The body to decode, with the exact numbers of arguments of tools, which become JSON text. */
const withExactArguments = ({ exact, json }: Arrived): unknown =>
  exact === json
    ? json
    : eachOf(json, exact, "messages", (message, exact) => eachOf(message, exact, "tool_calls", withArguments))

/** Decodes a parsed body of `POST /api/chat`. */
export const decodeChat = (arrived: Arrived): Decoded<AnyCall> =>
  Result.flatMap(decodeBody(withExactArguments(arrived), chatShape), (body) => {
    const { messages = [], tools = [] } = body
    if (messages.length === 0) return loadUnlessMisspelt(body, arrived, FieldNames.chat)
    const conversation = {
      ...conversationOf(messages),
      ...(tools.length === 0 ? {} : { tools: tools.map(toolOf) })
    }
    return Result.succeed(generationOf(body, conversation, arrived, FieldNames.chat))
  })

/**
 * Whether a prompt is a text completion: without a template, or with a gap. One with images, a format, a template or earlier
 * tokens is for deployments of the dialect only.
 */
const isCompletion = ({ context, format, images, raw, suffix, system, template }: Schema.GenerateRequest): boolean => {
  const hasGap = !isEmpty(suffix) && isEmpty(system)
  return (raw === true || hasGap) && [context, format, images, template].every(isEmpty)
}

/** Decodes a parsed body of `POST /api/generate`. */
export const decodeGenerate = (arrived: Arrived): Decoded<AnyCall> =>
  Result.flatMap(decodeBody(arrived.json, generateShape), (body) => {
    const { images = [], prompt = "", system = "" } = body
    if (prompt === "" && images.length === 0) return loadUnlessMisspelt(body, arrived, FieldNames.generate)
    if (isCompletion(body)) {
      const texts = [prompt, ...((body.suffix ?? "") === "" ? [] : [body.suffix!])]
      const messages = texts.map((content): Message => ({ role: "user", content }))
      return Result.succeed(generationOf(body, { messages, completion: {} }, arrived, FieldNames.completion))
    }
    const messages: ReadonlyArray<Message> = [
      ...(system === "" ? [] : [{ role: "system" as const, content: system }]),
      { role: "user", content: contentOf(prompt, images) }
    ]
    return Result.succeed(generationOf(body, { messages }, arrived, FieldNames.generate))
  })

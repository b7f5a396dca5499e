/** Decodes request bodies of the OpenAI chat dialect, and checks what a schema cannot express. Pure. */
import { Result } from "effect"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import type { Message, Request, Tool } from "../../domain/Inference.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import { JsonText } from "../../domain/JsonText.ts"
import type { Content, ImageSource, MediaType, Part } from "../../domain/Message.ts"
import { textOf } from "../../domain/Message.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Source, Task } from "../../domain/Source.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { cacheOf, callerOf, decodeBody, unknownFieldsOf } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import { reasoningIn } from "../shared/ReasoningFields.ts"
import { ofDetails } from "../shared/SignedFields.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import { thoughtsOf } from "./DecodeAnswer.ts"
import * as FieldNames from "./FieldNames.ts"
import type { AnyTool, ChatMessage, ChatPart, Tool as ToolBody } from "./Schema.ts"
import { ChatRequest, mostStops, mostTools, seedExpected } from "./Schema.ts"
import * as ServerFields from "./ServerFields.ts"

/** A decoded body: one inference request a choice, and how to answer. */
export interface ChatCall {
  readonly model: string
  /** One for each of `n`; they differ in their seeds. */
  readonly requests: readonly [Request, ...Array<Request>]
  /**
   * All of `n` in one request; left out if `n` is 1. A deployment of another dialect answers it with the first choice
   * alone.
   */
  readonly together?: Request
  readonly stream: boolean
  readonly includeUsage: boolean
  /** Whether an answer may have more than one tool call. */
  readonly parallelToolCalls: boolean
}

/** More messages than fit any context window. */
export const mostMessages = 10_000

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** Not checked here: the core checks images. */
export const imageSourceOf = (url: string): ImageSource => {
  const [head, mediaType] = /^data:([^;,]*)(?:;[^;,]*)*;base64,/i.exec(url) ?? []
  return head === undefined
    ? { type: "url", url }
    : { type: "base64", mediaType: mediaType!.toLowerCase() as MediaType, data: url.slice(head.length) }
}

/** Parts of other types are in `source` only, for deployments of the dialect. */
const partOf = (part: ChatPart): ReadonlyArray<Part> => {
  if ("text" in part) return [part]
  if (!("image_url" in part)) return []
  const { detail, url } = part.image_url
  const source = imageSourceOf(url)
  return [{ type: "image", source, ...(typeof detail === "string" ? { detail } : {}) }]
}

/** Parts of text alone become one text. */
const contentOf = (content: ChatMessage["content"]): Content => {
  if (typeof content === "string") return content
  const parts = (content ?? []).flatMap(partOf)
  return parts.some(({ type }) => type === "image") ? parts : textOf(parts)
}

const assistantOf = (message: ChatMessage, content: Content): Message => {
  const decoded: Mutable<Message> = { role: "assistant", content }
  const thoughts = thoughtsOf(message)
  if (thoughts) decoded.thoughts = thoughts
  if (message.reasoning_details !== undefined) {
    const reasoning = ofDetails(message)
    if (reasoning.length > 0) decoded.reasoning = reasoning
  }
  const calls = (message.tool_calls ?? []).filter((call) => "function" in call)
  if (calls.length > 0) decoded.toolCalls = calls.map((call) => ({ id: call.id, ...call.function }))
  return decoded
}

const messageOf = (message: ChatMessage): Message => {
  const { role, tool_call_id } = message
  const content = contentOf(message.content)
  if (role === "tool") return { role, content, toolCallId: tool_call_id! }
  if (role === "assistant") return assistantOf(message, content)
  return { role: role === "developer" ? "system" : role, content }
}

const messagesOf = (messages: ReadonlyArray<ChatMessage>): Request["messages"] => messages.map(messageOf)

const toolOf = ({ function: { description, name, parameters } }: ToolBody): Tool => ({
  name,
  ...(typeof description === "string" ? { description } : {}),
  ...(parameters === undefined || parameters === null ? {} : { parameters })
})

const isFunction = (tool: AnyTool): tool is ToolBody => "function" in tool

/** Tools of other types are in `source` only, for deployments of the dialect. */
const functionsOf = (tools: ReadonlyArray<AnyTool>): ReadonlyArray<ToolBody> => tools.filter(isFunction)

/** The functions among the tools. */
export const toolsOf = (tools: ReadonlyArray<AnyTool>): ReadonlyArray<Tool> => functionsOf(tools).map(toolOf)

/** The lowest 32 bits of an integer of any size and sign. */
export const seed32 = (seed: bigint): number => Number(BigInt.asUintN(32, seed))

/** The fields of a body with sampling options. */
type Sampled = { readonly [Field in typeof FieldNames.sampling[number][0]]?: ChatRequest[Field] }

export const addSampling = (
  request: Mutable<Omit<Request, "messages">>,
  body: Sampled,
  seed: bigint | undefined
): void => {
  const sampling = request as unknown as Record<string, unknown>
  for (const [field, name] of FieldNames.sampling) {
    // 0 and, in vLLM, -1 mean no limit.
    if (field in body && (field !== "top_k" || body.top_k! > 0)) sampling[name] = body[field]
  }
  if (seed !== undefined) request.seed = seed32(seed)
}

const choiceOf = (choice: ChatRequest["tool_choice"]): Partial<Request> => {
  if (typeof choice === "string") return { toolChoice: choice }
  return choice !== undefined && "function" in choice ? { toolChoice: choice.function } : {}
}

const toolingOf = (
  { parallel_tool_calls: parallel, tool_choice, tools: given }: ChatRequest
): Partial<Request> => {
  if (given === undefined) return {}
  const tools = toolsOf(given)
  return tools.length === 0
    ? {}
    : { tools, ...choiceOf(tool_choice), ...(parallel === undefined ? {} : { parallelToolCalls: parallel }) }
}

/** The format of the answer, if the body has one. */
export const formatOf = ({ response_format: format }: Pick<ChatRequest, "response_format">): Partial<Request> => {
  if (format === undefined) return {}
  if ("json_schema" in format) return { format: { type: format.type, schema: format.json_schema.schema ?? {} } }
  return format.type === "json_object" ? { format: { type: "json_object" } } : {}
}

/** Adds the limits and the log probabilities of the answer. */
const addOutput = (output: Mutable<Request>, body: ChatRequest): void => {
  const maxTokens = body.max_completion_tokens ?? body.max_tokens
  if (maxTokens !== undefined) output.maxTokens = maxTokens
  if (body.stop !== undefined) output.stop = typeof body.stop === "string" ? [body.stop] : body.stop
  if (body.logprobs === true) output.logprobs = body.top_logprobs ?? 0
}

/** Adds what fields say that the schema does not have. */
const addFurther = (request: Mutable<Request>, json: Fields): void => {
  Object.assign(request, reasoningIn(json))
  ServerFields.add(request, json)
}

/** The messages; with `continue_final_message`, the last one is the assistant prefix. */
export const conversationOf = (
  { continue_final_message = false, messages }: Pick<ChatRequest, "continue_final_message" | "messages">
): Pick<Request, "messages" | "assistantPrefix"> => {
  const all = messagesOf(messages)
  return continue_final_message
    ? { messages: all.slice(0, -1), assistantPrefix: textOf(all.at(-1)!.content) }
    : { messages: all }
}

/**
 * The caller's own request, with the fields of it that Troupe does not know.
 *
 * @param exact the same body with its exact numbers
 */
export const sourceOf = (body: Fields, exact: Fields, table: BodyFields, task?: Task): Source => {
  const unknownFields = unknownFieldsOf(body, table)
  const source: Mutable<Source> = { dialect: "openai", body: exact, isChecked: true }
  if (exact !== body) source.hasExactNumbers = true
  if (task !== undefined) source.task = task
  if (unknownFields.length > 0) source.unknownFields = unknownFields
  return source
}

/** A request's parts of the body, before and after it is decoded. */
interface Parsed {
  readonly json: Fields
  /** With exact numbers. */
  readonly exact: Fields
  readonly seed: bigint | undefined
  readonly text: string | undefined
}

const requestsOf = (
  body: ChatRequest,
  { exact, json, seed, text }: Parsed,
  caller: CallerIdentity
): Pick<ChatCall, "requests" | "together"> => {
  const { n = 1 } = body
  const source: Mutable<Source> = sourceOf(json, exact, FieldNames.chat)
  if (text !== undefined) source.text = new JsonText(text, exact)
  const shared: Mutable<Request> = { model: body.model, ...conversationOf(body), source }
  addSampling(shared, body, seed)
  addOutput(shared, body)
  if (body.tools !== undefined) Object.assign(shared, toolingOf(body))
  if (body.response_format !== undefined) Object.assign(shared, formatOf(body))
  if (source.unknownFields !== undefined) addFurther(shared, json)
  Object.assign(shared, callerOf(body, caller), cacheOf(caller))
  if (n === 1) return { requests: [shared] }
  const { n: _, ...single } = exact
  const seeds = Array.from(
    { length: n },
    (_, index) => seed === undefined ? undefined : BigInt.asIntN(64, seed + BigInt(index))
  )
  const siblings = seeds.map((own) => own === undefined ? single : { ...single, seed: ExactNumber.fromInteger(own) })
  const choice = (index: number): Request => {
    const own = seeds[index]
    return {
      ...shared,
      ...(own === undefined ? {} : { seed: seed32(own) }),
      source: { ...source, body: siblings[index]!, isChoice: true, siblings }
    }
  }
  return { requests: [choice(0), ...Array.from({ length: n - 1 }, (_, index) => choice(index + 1))], together: shared }
}

const callOf = (body: ChatRequest, parsed: Parsed, caller: CallerIdentity): ChatCall => ({
  model: body.model,
  ...requestsOf(body, parsed, caller),
  stream: body.stream ?? false,
  includeUsage: body.stream_options?.include_usage ?? false,
  parallelToolCalls: body.parallel_tool_calls ?? true
})

const noCalls: NonNullable<ChatMessage["tool_calls"]> = []

const callsOf = ({ tool_calls }: ChatMessage) => tool_calls ?? noCalls

/** What an assistant's message may have instead of a text. */
const otherContent = [
  "audio",
  "function_call",
  "reasoning",
  "reasoning_content",
  "reasoning_details",
  "refusal"
] as const

const hasContent = (message: ChatMessage): boolean =>
  (message.content ?? undefined) !== undefined ||
  (message.role === "assistant" && otherContent.some((field) => (message[field] ?? undefined) !== undefined))

const noProblems: ReadonlyArray<Problem.Problem> = []

const roleProblems = (message: ChatMessage): ReadonlyArray<Problem.Problem> => {
  if (callsOf(message).length === 0) {
    return hasContent(message) ? noProblems : [{ path: "content", expected: "Expected a string or an array of parts" }]
  }
  return message.role === "assistant"
    ? noProblems
    : [{ path: "tool_calls", expected: "Only a message of role assistant may have tool_calls" }]
}

/** A message of role tool must answer a call of an earlier message. */
const answerProblems = ({ role, tool_call_id }: ChatMessage, called: ReadonlySet<string>) => {
  if (role !== "tool" || called.has(tool_call_id ?? "")) return noProblems
  const expected = typeof tool_call_id === "string"
    ? "No earlier assistant message has a tool call with this id"
    : "`tool_call_id` is required in a message of role tool"
  return [{ path: "tool_call_id", expected }]
}

/** Problems of single messages, and of tool calls across messages. */
export const messageProblems = (messages: ReadonlyArray<ChatMessage>): ReadonlyArray<Problem.Problem> => {
  const called = new Set<string>()
  const problems: Array<Problem.Problem> = []
  const add = (index: number, some: ReadonlyArray<Problem.Problem>) => {
    for (const { expected, path } of some) problems.push({ path: `messages[${index}].${path}`, expected })
  }
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index]!
    add(index, roleProblems(message))
    add(index, answerProblems(message, called))
    for (const { id } of callsOf(message)) called.add(id)
  }
  return problems
}

const nameOf = (tool: AnyTool): string | undefined => isFunction(tool) ? tool.function.name : undefined

/** A call refers to a tool by its name only, so names are unique. */
export const toolProblems = (tools: ReadonlyArray<AnyTool>): ReadonlyArray<Problem.Problem> =>
  tools.flatMap((one, index) => {
    const name = nameOf(one)
    return name !== undefined && tools.findIndex((tool) => nameOf(tool) === name) < index
      ? [{ path: `tools[${index}].function.name`, expected: "Another tool has the same name" }]
      : []
  })

const choiceProblems = ({ tool_choice, tools = [] }: ChatRequest): ReadonlyArray<Problem.Problem> => {
  if (tool_choice === undefined || tool_choice === "none" || tool_choice === "auto") return []
  if (tools.length === 0) return [{ path: "tool_choice", expected: "Allowed only with tools" }]
  if (tool_choice === "required" || !("function" in tool_choice)) return []
  if (functionsOf(tools).some((tool) => tool.function.name === tool_choice.function.name)) return []
  return [{ path: "tool_choice.function.name", expected: "No tool in tools has this name" }]
}

export const continuationProblems = (
  { continue_final_message = false, messages, response_format: format }: Pick<
    ChatRequest,
    "continue_final_message" | "messages" | "response_format"
  >
): ReadonlyArray<Problem.Problem> => {
  if (!continue_final_message) return []
  const path = "continue_final_message"
  const last = messages.at(-1)!
  const isText = last.role === "assistant" && (last.tool_calls ?? []).length === 0 && last.content !== ""
  return [
    ...(isText && messages.length > 1
      ? []
      : [{ path, expected: "Allowed only if the last of several messages is a text of the assistant" }]),
    ...(format === undefined || format.type === "text"
      ? []
      : [{ path, expected: "Not allowed with response_format" }])
  ]
}

/** What concerns streams only. */
export const streamProblems = (
  { stream, stream_options: options }: Pick<ChatRequest, "stream" | "stream_options">
): ReadonlyArray<Problem.Problem> =>
  options !== undefined && stream !== true
    ? [{ path: "stream_options", expected: "Allowed only with stream: true" }]
    : noProblems

const optionProblems = (body: ChatRequest): ReadonlyArray<Problem.Problem> => {
  const problems: Array<Problem.Problem> = [...streamProblems(body)]
  if ((body.top_logprobs ?? 0) > 0 && body.logprobs !== true) {
    problems.push({ path: "top_logprobs", expected: "Allowed only with logprobs: true" })
  }
  return problems
}

const shape: Shape<ChatRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.chat, false),
  decode: Problem.decoderOf(ChatRequest),
  most: [["messages", mostMessages], ["tools", mostTools], ["stop", mostStops]],
  problems: (body) => [
    ...messageProblems(body.messages),
    ...toolProblems(body.tools ?? []),
    ...choiceProblems(body),
    ...continuationProblems(body),
    ...optionProblems(body)
  ]
}

/** The exact seed of a body that the schema accepts: the schema may have seen a rounded one. */
export const seedOf = (given: unknown): Result.Result<bigint | undefined, InvalidRequest> => {
  if (given === undefined || given === null) return Result.succeed(undefined)
  const seed = ExactNumber.integerOf(given)
  return seed === undefined || BigInt.asIntN(64, seed) !== seed ?
    Result.fail(new InvalidRequest({ path: "seed", detail: seedExpected, inBody: true }))
    : Result.succeed(seed)
}

/** The call, unless fields that the schema does not have contradict others of its first request. */
export const checked = <Call>(call: Call, request: Request, json: Fields): Result.Result<Call, InvalidRequest> => {
  const problem = request.source?.unknownFields === undefined ? undefined : ServerFields.problemIn(request, json)
  return problem === undefined
    ? Result.succeed(call)
    : Result.fail(new InvalidRequest({ path: problem.path, detail: problem.expected, inBody: true }))
}

/**
 * Decodes a parsed JSON body.
 *
 * @param exact the same body with its inexact numbers as `ExactNumber`; default the body
 * @param text the JSON that the body was parsed from, if it may be sent; default none
 */
export const decode = (
  json: unknown,
  caller: CallerIdentity = {},
  exact: unknown = json,
  text?: string
): Result.Result<ChatCall, InvalidRequest> =>
  Result.flatMap(
    decodeBody(json, shape),
    (body) =>
      Result.flatMap(
        seedOf((exact as Fields)["seed"]),
        (seed) => {
          const call = callOf(body, { json: json as Fields, exact: exact as Fields, seed, text }, caller)
          return checked(call, call.requests[0], json as Fields)
        }
      )
  )

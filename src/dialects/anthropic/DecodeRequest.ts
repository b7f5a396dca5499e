/**
 * Decodes request bodies of the Anthropic dialect, and checks what a schema cannot express. Pure.
 *
 * **Details**
 *
 * Consecutive messages of one role are one turn. A turn may become several messages, because each tool result is a message
 * of its own. Consecutive texts are joined: a user's with line breaks, an assistant's without. An assistant's text at the end
 * is the assistant prefix: the answer continues it and does not repeat it.
 */
import { Result } from "effect"
import type { CountRequest, Message, Request, Tool, ToolChoice } from "../../domain/Inference.ts"
import type { InvalidRequest, Reason } from "../../domain/InferenceError.ts"
import { NotSupported } from "../../domain/InferenceError.ts"
import type { ToolCall } from "../../domain/Job.ts"
import { JsonText } from "../../domain/JsonText.ts"
import type { Part, SignedReasoning } from "../../domain/Message.ts"
import { textOf } from "../../domain/Message.ts"
import * as Problem from "../../domain/Problem.ts"
import { budgetOf, ofEffort } from "../../domain/Reasoning.ts"
import { unseal } from "../../domain/SignedReasoning.ts"
import type { Source } from "../../domain/Source.ts"
import { requiredPaths } from "../../domain/Source.ts"
import { mostStops, mostTools } from "../openai/Schema.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { cacheOf, callerOf, decodeBody, unknownFieldsOf } from "../shared/CallerRequest.ts"
import { at, type Fields, isObject, listAt } from "../shared/Json.ts"
import { ofThinking } from "../shared/ReasoningFields.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Schema from "./Schema.ts"

/** A message of the core, and its path in the body. */
export interface LocatedMessage {
  readonly message: Message
  readonly path: string
  /** Paths of the parts; empty if the content is a text. */
  readonly parts: ReadonlyArray<string>
}

/** A decoded body. */
export interface Decoded<Request> {
  readonly request: Request
  /** The messages with their paths in the body. */
  readonly located: ReadonlyArray<LocatedMessage>
}

/** A decoded request for a message, and the options of its answer. */
export interface MessagesCall extends Decoded<Request> {
  readonly stream: boolean
  /** Whether an answer may have several tool uses. */
  readonly parallelToolUse: boolean
  /** Whether an answer may have reasoning. */
  readonly thinking: boolean
}

/** The limit of Anthropic's API. */
const mostMessages = 100_000

type Block = Schema.BlockParam
type Of<Type> = Extract<Block, { readonly type: Type }>
type Image = Extract<Of<"image">, { readonly source: { readonly data: string } | { readonly url: string } }>
/** Blocks that the core represents. */
type Known = Of<"text"> | Image

/** A value and its path. */
type At<A> = readonly [block: A, path: string]

const partOf = (block: Known): Part => {
  if (block.type === "text") return { type: "text", text: block.text }
  const { source } = block
  return {
    type: "image",
    source: source.type === "url" ? source : { type: "base64", mediaType: source.media_type, data: source.data }
  }
}

/** A text if all blocks are texts, else parts. */
const contentOf = (
  blocks: ReadonlyArray<At<Known>>,
  separator: string
): Pick<LocatedMessage, "parts"> & Pick<Message, "content"> => {
  const parts = blocks.map(([block]) => partOf(block))
  return parts.every((part) => part.type === "text")
    ? { content: parts.map(({ text }) => text).join(separator), parts: [] }
    : { content: parts, parts: blocks.map(([, path]) => path) }
}

const listed = <A>(path: string, blocks: ReadonlyArray<A>): ReadonlyArray<At<A>> =>
  blocks.map((block, index) => [block, `${path}[${index}]`])

/** A failed result starts with "Error:", because messages of the core have no field for it. */
const resultOf = ([{ content, is_error, tool_use_id }, path]: At<Of<"tool_result">>): LocatedMessage => {
  const blocks = typeof content === "string" ? [{ type: "text" as const, text: content }] : content ?? []
  const failed: ReadonlyArray<At<Known>> = is_error === true ? [[{ type: "text", text: "Error:" }, path]] : []
  const { content: decoded, parts } = contentOf([...failed, ...listed(`${path}.content`, blocks).filter(isKnown)], "\n")
  return { message: { role: "tool", content: decoded, toolCallId: tool_use_id }, path, parts }
}

/** Blocks of other types are in `source` only, for deployments of the dialect. */
const isKnown = (entry: At<object>): entry is At<Known> => {
  const [block] = entry
  if ("text" in block) return true
  return "source" in block && ["base64", "url"].includes((block.source as { readonly type: string }).type)
}

const isResult = (entry: At<Block>): entry is At<Of<"tool_result">> => "tool_use_id" in entry[0]

/** Tool results come first, because they answer the calls before them. */
const userOf = (blocks: ReadonlyArray<At<Block>>, path: string): ReadonlyArray<LocatedMessage> => {
  const known = blocks.filter(isKnown)
  const { content, parts } = contentOf(known, "\n")
  const results = blocks.filter(isResult).map(resultOf)
  return known.length === 0 && results.length > 0
    ? results
    : [...results, { message: { role: "user", content }, path, parts }]
}

const toolCallOf = ({ id, input, name }: Of<"tool_use">): ToolCall => ({ id, name, arguments: JSON.stringify(input) })

/** The thoughts of a turn: line breaks separate those between calls. */
const thoughtsOf = (blocks: ReadonlyArray<At<Block>>): string =>
  blocks.map(([block]) => "thinking" in block && typeof block.thinking === "string" ? block.thinking : "")
    .filter((text) => text !== "").join("\n")

/** The signed reasoning that another Troupe has passed on: `EncodeAnswer.signedBlock`. */
const signedOf = ([block]: At<Block>): ReadonlyArray<SignedReasoning> => {
  const { data, signature, thinking = "", type } = block as Fields
  const sealed = unseal(type === "thinking" ? signature : data)
  if (sealed === undefined) return []
  const { content, maker } = sealed
  if (type === "redacted_thinking") return [{ type, data: content, maker }]
  return type === "thinking" ? [{ type, thinking: String(thinking), signature: content, maker }] : []
}

const assistantOf = (blocks: ReadonlyArray<At<Block>>, path: string): LocatedMessage => {
  const calls = blocks.flatMap(([block]) => "input" in block ? [toolCallOf(block)] : [])
  const { content } = contentOf(blocks.filter(isKnown), "")
  const thoughts = thoughtsOf(blocks)
  const reasoning = blocks.flatMap(signedOf)
  return {
    message: {
      role: "assistant",
      content,
      ...(thoughts === "" ? {} : { thoughts }),
      ...(reasoning.length === 0 ? {} : { reasoning }),
      ...(calls.length === 0 ? {} : { toolCalls: calls })
    },
    path,
    parts: []
  }
}

/** Consecutive messages of one role. */
type Turn = readonly [At<Schema.MessageParam>, ...ReadonlyArray<At<Schema.MessageParam>>]

/** Joins consecutive messages of one role, as the dialect specifies; many chat templates require it. */
const turnsOf = (messages: ReadonlyArray<Schema.MessageParam>): ReadonlyArray<Turn> => {
  const turns: Array<[At<Schema.MessageParam>, ...Array<At<Schema.MessageParam>>]> = []
  for (const [index, message] of messages.entries()) {
    const turn = turns.at(-1)
    const entry = [message, `messages[${index}]`] as const
    if (turn?.[0][0].role === message.role && message.role !== "system") turn.push(entry)
    else turns.push([entry])
  }
  return turns
}

const blocksOf = ([{ content }, path]: At<Schema.MessageParam>): ReadonlyArray<At<Block>> =>
  typeof content === "string"
    ? [[{ type: "text", text: content }, `${path}.content`]]
    : listed(`${path}.content`, content)

const messagesOfTurn = (turn: Turn): ReadonlyArray<LocatedMessage> => {
  const [[{ content, role }, path], ...others] = turn
  if (typeof content === "string" && others.length === 0) return [{ message: { role, content }, path, parts: [] }]
  const blocks = turn.flatMap(blocksOf)
  if (role === "user") return userOf(blocks, path)
  if (role === "assistant") return [assistantOf(blocks, path)]
  return [{ message: { role, content: contentOf(blocks.filter(isKnown), "\n").content }, path, parts: [] }]
}

const systemOf = (system: Schema.MessagesRequest["system"]): ReadonlyArray<LocatedMessage> => {
  const content = typeof system === "string" ? system : (system ?? []).map(({ text }) => text).join("\n")
  return content === "" ? [] : [{ message: { role: "system", content }, path: "system", parts: [] }]
}

/** The messages of the conversation, with the system prompt. */
const locatedMessages = (
  { messages, system }: Pick<Schema.CountTokensRequest, "messages" | "system">
): ReadonlyArray<LocatedMessage> => [...systemOf(system), ...turnsOf(messages).flatMap(messagesOfTurn)]

/** The messages; an assistant's text at the end is the assistant prefix. */
const conversationOf = (
  { messages: given }: Pick<Schema.CountTokensRequest, "messages">,
  located: ReadonlyArray<LocatedMessage>
): { readonly messages: ReadonlyArray<Message>; readonly assistantPrefix?: string } => {
  const messages = located.map(({ message }) => message)
  const assistantPrefix = given.at(-1)?.role === "assistant" ? textOf(messages.at(-1)!.content) : ""
  return assistantPrefix === "" ? { messages } : { messages: messages.slice(0, -1), assistantPrefix }
}

/** The body's path for a path of the core within a message; undefined for other paths. */
const locate = (path: string, located: ReadonlyArray<LocatedMessage>): string | undefined => {
  if (/^(?:input\.)?assistantPrefix/.test(path)) return located.at(-1)?.path
  const found = /^(?:input\.)?messages\[(\d+)\](?:\.content\[(\d+)\])?/.exec(path)
  const place = located[Number(found?.[1])]
  return place === undefined ? undefined : place.parts[Number(found?.[2])] ?? place.path
}

const isOwn = (tool: Schema.AnyTool): tool is Schema.Tool => "input_schema" in tool

/** The caller's own tools; Anthropic's are in `source` only, for deployments of the dialect. */
const toolsOf = (tools: ReadonlyArray<Schema.AnyTool>): ReadonlyArray<Tool> =>
  tools.filter(isOwn).map(({ description, input_schema: parameters, name }) => ({
    name,
    ...(typeof description === "string" ? { description } : {}),
    parameters
  }))

const choices = { auto: "auto", any: "required", none: "none" } as const

const choiceOf = (choice: Schema.ToolChoice): typeof ToolChoice.Type =>
  choice.type === "tool" ? { name: choice.name } : choices[choice.type]

const samplingOf = ({ temperature, top_k, top_p }: Schema.MessagesRequest): Partial<Request> => ({
  ...(temperature === undefined ? {} : { temperature }),
  ...(top_p === undefined ? {} : { topP: top_p }),
  ...(top_k === undefined || top_k === 0 ? {} : { topK: top_k })
})

const isSerial = (choice: Schema.ToolChoice | undefined): boolean =>
  choice !== undefined && choice.type !== "none" && (choice.disable_parallel_tool_use ?? false)

const toolingOf = ({ tool_choice: choice, tools: given = [] }: Schema.MessagesRequest): Partial<Request> => {
  const tools = toolsOf(given)
  if (tools.length === 0 || choice === undefined) return tools.length === 0 ? {} : { tools }
  return { tools, toolChoice: choiceOf(choice), ...(isSerial(choice) ? { parallelToolCalls: false } : {}) }
}

const formatOf = ({ output_config: output }: Schema.MessagesRequest): Partial<Request> =>
  output?.format === undefined || output.format === null ? {} : { format: output.format }

/** `thinking`; an effort says how much a model thinks that decides itself. */
const reasoningOf = ({ output_config: output, thinking }: Schema.MessagesRequest): Partial<Request> => {
  const reasoning = ofThinking(thinking)
  const effort = ofEffort(output?.effort)
  if (effort === undefined || (reasoning !== undefined && budgetOf(reasoning) !== undefined)) {
    return reasoning === undefined ? {} : { reasoning }
  }
  return { reasoning: effort }
}

const callerFieldsOf = (
  { keep_alive, priority, troupe }: Schema.CountTokensRequest,
  caller: CallerIdentity,
  user?: string | null
) =>
  callerOf({
    ...(keep_alive === undefined ? {} : { keep_alive }),
    ...(priority === undefined ? {} : { priority }),
    ...(troupe === undefined ? {} : { troupe }),
    ...(typeof user === "string" ? { user } : {})
  }, caller)

/** Headers of the dialect. */
const dialectHeaders = ["anthropic-beta", "anthropic-version"] as const

const sourceOf = (json: Fields, exact: Fields, { headers = {} }: CallerIdentity, text?: string): Source => {
  const found = dialectHeaders.flatMap((name) => headers[name] === undefined ? [] : [[name, headers[name]] as const])
  const unknownFields = unknownFieldsOf(json, FieldNames.messages)
  return {
    dialect: "anthropic",
    body: exact,
    isChecked: true,
    ...(text === undefined ? {} : { text: new JsonText(text, exact) }),
    ...(exact === json ? {} : { hasExactNumbers: true }),
    ...(found.length === 0 ? {} : { headers: Object.fromEntries(found) }),
    ...(unknownFields.length === 0 ? {} : { unknownFields })
  }
}

const callOf = (body: Schema.MessagesRequest, source: Source, caller: CallerIdentity): MessagesCall => {
  const { max_tokens: maxTokens, metadata, model, stop_sequences: stop, stream = false, tool_choice } = body
  const located = locatedMessages(body)
  return {
    request: {
      ...samplingOf(body),
      ...toolingOf(body),
      ...formatOf(body),
      ...reasoningOf(body),
      ...callerFieldsOf(body, caller, metadata?.user_id),
      ...cacheOf(caller),
      ...(stop === undefined ? {} : { stop }),
      maxTokens,
      model,
      ...conversationOf(body, located),
      source
    },
    located,
    stream,
    parallelToolUse: !isSerial(tool_choice),
    thinking: body.thinking?.type !== "disabled"
  }
}

const rolesByType: Readonly<Record<string, ReadonlyArray<string>>> = {
  text: ["user", "assistant", "system"],
  image: ["user"],
  tool_result: ["user"],
  tool_use: ["assistant"],
  thinking: ["assistant"],
  redacted_thinking: ["assistant"]
}

const blockProblems = (
  { content, role }: Schema.MessageParam,
  path: string,
  used: Set<string>
): ReadonlyArray<Problem.Problem> => {
  if (typeof content === "string") return []
  return listed(`${path}.content`, content).flatMap(([block, path]): ReadonlyArray<Problem.Problem> => {
    if (Object.hasOwn(rolesByType, block.type) && !rolesByType[block.type]!.includes(role)) {
      return [{
        path: `${path}.type`,
        expected: `A message of role ${role} may not have a block of type ${block.type}`
      }]
    }
    if ("input" in block) used.add(block.id)
    if (!("tool_use_id" in block) || used.has(block.tool_use_id)) return []
    const expected = "No earlier assistant message has a tool_use block with this id"
    return [{ path: `${path}.tool_use_id`, expected }]
  })
}

/** Whether a content can be an assistant prefix: it has text, or blocks that only Anthropic can continue, and no calls. */
const isPrefix = (content: Schema.MessageParam["content"]): boolean =>
  typeof content === "string"
    ? content !== ""
    : content.every(({ type }) => type !== "tool_use") &&
      content.some((block) => "text" in block ? block.text !== "" : !Object.hasOwn(rolesByType, block.type))

/** Problems of an assistant prefix. */
const prefixProblems = (
  { messages, output_config: output }: Pick<Schema.CountTokensRequest, "messages" | "output_config">
): ReadonlyArray<Problem.Problem> => {
  const turn = turnsOf(messages).at(-1)!
  const [last, path] = turn.at(-1)!
  if (last.role !== "assistant") return []
  return [
    ...(turn.every(([{ content }]) => isPrefix(content)) && turn.length < messages.length
      ? []
      : [{ path, expected: "A last message of the assistant must be a text, and must follow another message" }]),
    ...((output?.format ?? null) === null
      ? []
      : [{ path, expected: "A last message of the assistant is not allowed with output_config.format" }])
  ]
}

/** Problems of single messages, and of tool calls across messages. */
const messageProblems = (
  body: Pick<Schema.CountTokensRequest, "messages" | "output_config">
): ReadonlyArray<Problem.Problem> => {
  const used = new Set<string>()
  return [
    ...body.messages.flatMap((message, index) => blockProblems(message, `messages[${index}]`, used)),
    ...prefixProblems(body)
  ]
}

const toolProblems = (
  { tool_choice: choice, tools = [] }: Pick<Schema.CountTokensRequest, "tool_choice" | "tools">
): ReadonlyArray<Problem.Problem> => {
  const names = tools.map((tool) => isOwn(tool) ? tool.name : undefined)
  const repeated = names.flatMap((name, index) =>
    name !== undefined && names.indexOf(name) < index
      ? [{ path: `tools[${index}].name`, expected: "Another tool has the same name" }]
      : []
  )
  if (choice === undefined || choice.type === "auto" || choice.type === "none") return repeated
  if (tools.length === 0) return [{ path: "tool_choice", expected: "Allowed only with tools" }]
  return choice.type === "any" || names.includes(choice.name) || !tools.every(isOwn)
    ? repeated
    : [...repeated, { path: "tool_choice.name", expected: "No tool in tools has this name" }]
}

const shared = {
  suggest: UnknownFields.makeSuggest(FieldNames.messages, false),
  most: [["messages", mostMessages], ["tools", mostTools], ["stop_sequences", mostStops]],
  problems: (body: Schema.CountTokensRequest) => [...messageProblems(body), ...toolProblems(body)]
} as const satisfies Partial<Shape<never>>

const messagesShape: Shape<Schema.MessagesRequest> = {
  ...shared,
  decode: Problem.decoderOf(Schema.MessagesRequest)
}

const countShape: Shape<Schema.CountTokensRequest> = {
  ...shared,
  decode: Problem.decoderOf(Schema.CountTokensRequest)
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

const withInput = (block: unknown, exact: unknown): unknown =>
  isObject(block) && isObject(block["input"]) ? { ...block, input: at(exact, "input") } : block

/** The body to decode, with the exact numbers of inputs of tools, which become JSON text. */
const withInputs = (json: unknown, exact: unknown): unknown =>
  exact === json ? json : eachOf(
    json,
    exact,
    "messages",
    (message, exact) => eachOf(message, exact, "content", withInput)
  )

/**
 * Decodes a parsed JSON body of `POST /v1/messages`.
 *
 * @param exact the same body with its inexact numbers as `ExactNumber`; default the body
 */
export const decode = (
  json: unknown,
  caller: CallerIdentity = {},
  exact: unknown = json,
  text?: string
): Result.Result<MessagesCall, InvalidRequest> =>
  Result.map(
    decodeBody(withInputs(json, exact), messagesShape),
    (body) => callOf(body, sourceOf(json as Fields, exact as Fields, caller, text), caller)
  )

/** Decodes a parsed JSON body of `POST /v1/messages/count_tokens`; the parameters are those of `decode`. */
export const decodeCount = (
  json: unknown,
  caller: CallerIdentity = {},
  exact: unknown = json
): Result.Result<Decoded<CountRequest>, InvalidRequest> =>
  Result.map(decodeBody(withInputs(json, exact), countShape), (body) => {
    const located = locatedMessages(body)
    // As for a generation, tools that must not be used are not counted.
    const tools = body.tool_choice?.type === "none" ? [] : toolsOf(body.tools ?? [])
    return {
      request: {
        model: body.model,
        input: { ...conversationOf(body, located), ...(tools.length === 0 ? {} : { tools }) },
        source: sourceOf(json as Fields, exact as Fields, caller),
        ...callerFieldsOf(body, caller)
      },
      located
    }
  })

/** The reason with the body's path in place of the core's. */
export const relocate = (reason: Reason, { located, request }: Decoded<Pick<Request, "source">>): Reason => {
  const path = "path" in reason ? reason.path : undefined
  // Paths of unknown fields, and paths within them, are the body's already.
  const isOwn = (field: string) => path === field || path?.startsWith(`${field}.`)
  if (path === undefined || requiredPaths(request.source).some(isOwn)) return reason
  const rename = (core: string) => locate(core, located) ?? FieldNames.rename(core.replace(/^input\./, ""))
  if (reason._tag === "InvalidRequest") return reason.renamed(rename)
  return reason._tag === "NotSupported"
    ? new NotSupported({ deployment: reason.deployment, detail: reason.detail, path: rename(path) })
    : reason
}

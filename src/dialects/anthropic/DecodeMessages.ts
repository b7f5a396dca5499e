/**
 * Conversations and tools of the Anthropic dialect: decoding, and checks that a schema cannot express. Pure.
 *
 * **Details**
 *
 * Messages of one side in a row are one turn. One of them may become several messages: each result of a tool is a
 * message of its own. Texts beside each other are one text, in lines of their own where people wrote them, and as they
 * were where a model did. An assistant's text at the end is the beginning of the answer, which does not repeat it.
 */
import type { Message, Tool, ToolChoice } from "../../domain/Inference.ts"
import type { ToolCall } from "../../domain/Job.ts"
import type { Part } from "../../domain/Message.ts"
import { textOf } from "../../domain/Message.ts"
import type { Problem } from "../../domain/Problem.ts"
import type * as Anthropic from "./Schema.ts"

type Block = Anthropic.BlockParam
type Of<Type> = Extract<Block, { readonly type: Type }>
type Image = Extract<Of<"image">, { readonly source: { readonly data: string } | { readonly url: string } }>
/** What a message of ours may hold. */
type Seen = Of<"text"> | Image

/** A message as the front door has it, and where the body has it. */
export interface Placed {
  readonly message: Message
  readonly path: string
  /** Of the parts, where the content is parts. */
  readonly parts: ReadonlyArray<string>
}

/** With its path. */
type At<A> = readonly [block: A, path: string]

const partOf = (block: Seen): Part => {
  if (block.type === "text") return { type: "text", text: block.text }
  const { source } = block
  return {
    type: "image",
    source: source.type === "url" ? source : { type: "base64", mediaType: source.media_type, data: source.data }
  }
}

/** A text where it is nothing but texts. */
const contentOf = (
  blocks: ReadonlyArray<At<Seen>>,
  between: string
): Pick<Placed, "parts"> & Pick<Message, "content"> => {
  const parts = blocks.map(([block]) => partOf(block))
  return parts.every((part) => part.type === "text")
    ? { content: parts.map(({ text }) => text).join(between), parts: [] }
    : { content: parts, parts: blocks.map(([, path]) => path) }
}

const listed = <A>(path: string, blocks: ReadonlyArray<A>): ReadonlyArray<At<A>> =>
  blocks.map((block, index) => [block, `${path}[${index}]`])

/** A failed result begins with "Error:", since messages of the core have no field for it. */
const resultOf = ([{ content, is_error, tool_use_id }, path]: At<Of<"tool_result">>): Placed => {
  const blocks = typeof content === "string" ? [{ type: "text" as const, text: content }] : content ?? []
  const failed: ReadonlyArray<At<Seen>> = is_error === true ? [[{ type: "text", text: "Error:" }, path]] : []
  const { content: decoded, parts } = contentOf([...failed, ...listed(`${path}.content`, blocks).filter(isSeen)], "\n")
  return { message: { role: "tool", content: decoded, toolCallId: tool_use_id }, path, parts }
}

/** Blocks of other types stay in `source`, for deployments of the dialect. */
const isSeen = (entry: At<object>): entry is At<Seen> => {
  const [block] = entry
  if ("text" in block) return true
  return "source" in block && ["base64", "url"].includes((block.source as { readonly type: string }).type)
}

const isResult = (entry: At<Block>): entry is At<Of<"tool_result">> => "tool_use_id" in entry[0]

/** Results answer the calls before them, so they go first, as the dialect wants them. */
const userOf = (blocks: ReadonlyArray<At<Block>>, path: string): ReadonlyArray<Placed> => {
  const seen = blocks.filter(isSeen)
  const { content, parts } = contentOf(seen, "\n")
  const results = blocks.filter(isResult).map(resultOf)
  return seen.length === 0 && results.length > 0
    ? results
    : [...results, { message: { role: "user", content }, path, parts }]
}

const callOf = ({ id, input, name }: Of<"tool_use">): ToolCall => ({ id, name, arguments: JSON.stringify(input) })

const assistantOf = (blocks: ReadonlyArray<At<Block>>, path: string): Placed => {
  const calls = blocks.flatMap(([block]) => "input" in block ? [callOf(block)] : [])
  const { content } = contentOf(blocks.filter(isSeen), "")
  return {
    message: { role: "assistant", content, ...(calls.length === 0 ? {} : { toolCalls: calls }) },
    path,
    parts: []
  }
}

/** Messages of one side in a row. */
type Turn = readonly [At<Anthropic.MessageParam>, ...ReadonlyArray<At<Anthropic.MessageParam>>]

/** Users' messages in a row are one turn, and so are assistants', as the dialect has it: many templates want them so. */
const turnsOf = (messages: ReadonlyArray<Anthropic.MessageParam>): ReadonlyArray<Turn> => {
  const turns: Array<[At<Anthropic.MessageParam>, ...Array<At<Anthropic.MessageParam>>]> = []
  for (const [index, message] of messages.entries()) {
    const turn = turns.at(-1)
    const entry = [message, `messages[${index}]`] as const
    if (turn?.[0][0].role === message.role && message.role !== "system") turn.push(entry)
    else turns.push([entry])
  }
  return turns
}

const blocksOf = ([{ content }, path]: At<Anthropic.MessageParam>): ReadonlyArray<At<Block>> =>
  typeof content === "string"
    ? [[{ type: "text", text: content }, `${path}.content`]]
    : listed(`${path}.content`, content)

const placedOf = (turn: Turn): ReadonlyArray<Placed> => {
  const [[{ content, role }, path], ...others] = turn
  if (typeof content === "string" && others.length === 0) return [{ message: { role, content }, path, parts: [] }]
  const blocks = turn.flatMap(blocksOf)
  if (role === "user") return userOf(blocks, path)
  if (role === "assistant") return [assistantOf(blocks, path)]
  return [{ message: { role, content: contentOf(blocks.filter(isSeen), "\n").content }, path, parts: [] }]
}

const systemOf = (system: Anthropic.MessagesRequest["system"]): ReadonlyArray<Placed> => {
  const content = typeof system === "string" ? system : (system ?? []).map(({ text }) => text).join("\n")
  return content === "" ? [] : [{ message: { role: "system", content }, path: "system", parts: [] }]
}

/** The whole conversation. */
export const placed = (
  { messages, system }: Pick<Anthropic.CountTokensRequest, "messages" | "system">
): ReadonlyArray<Placed> => [...systemOf(system), ...turnsOf(messages).flatMap(placedOf)]

/** The last turn apart, where it begins the answer. */
export const conversationOf = (
  { messages: asked }: Pick<Anthropic.CountTokensRequest, "messages">,
  placed: ReadonlyArray<Placed>
): { readonly messages: ReadonlyArray<Message>; readonly assistantPrefix?: string } => {
  const messages = placed.map(({ message }) => message)
  const assistantPrefix = asked.at(-1)?.role === "assistant" ? textOf(messages.at(-1)!.content) : ""
  return assistantPrefix === "" ? { messages } : { messages: messages.slice(0, -1), assistantPrefix }
}

/** The body's own path for one of the front door's that leads into a message; undefined where it does not. */
export const locate = (path: string, placed: ReadonlyArray<Placed>): string | undefined => {
  if (/^(?:input\.)?assistantPrefix/.test(path)) return placed.at(-1)?.path
  const found = /^(?:input\.)?messages\[(\d+)\](?:\.content\[(\d+)\])?/.exec(path)
  const place = placed[Number(found?.[1])]
  return place === undefined ? undefined : place.parts[Number(found?.[2])] ?? place.path
}

const isOwn = (tool: Anthropic.AnyTool): tool is Anthropic.Tool => "input_schema" in tool

/** The caller's own tools; Anthropic's stay in `source`, for deployments of the dialect. */
export const toolsOf = (tools: ReadonlyArray<Anthropic.AnyTool>): ReadonlyArray<Tool> =>
  tools.filter(isOwn).map(({ description, input_schema: parameters, name }) => ({
    name,
    ...(typeof description === "string" ? { description } : {}),
    parameters
  }))

const choices = { auto: "auto", any: "required", none: "none" } as const

export const choiceOf = (choice: Anthropic.ToolChoice): typeof ToolChoice.Type =>
  choice.type === "tool" ? { name: choice.name } : choices[choice.type]

const rolesByType: Readonly<Record<string, ReadonlyArray<string>>> = {
  text: ["user", "assistant", "system"],
  image: ["user"],
  tool_result: ["user"],
  tool_use: ["assistant"],
  thinking: ["assistant"],
  redacted_thinking: ["assistant"]
}

const blockProblems = (
  { content, role }: Anthropic.MessageParam,
  path: string,
  used: Set<string>
): ReadonlyArray<Problem> => {
  if (typeof content === "string") return []
  return listed(`${path}.content`, content).flatMap(([block, path]): ReadonlyArray<Problem> => {
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

/** A text, or blocks that only Anthropic can go on with; thoughts beside it are passed over. */
const isBeginning = (content: Anthropic.MessageParam["content"]): boolean =>
  typeof content === "string"
    ? content !== ""
    : content.every(({ type }) => type !== "tool_use") &&
      content.some((block) => "text" in block ? block.text !== "" : !Object.hasOwn(rolesByType, block.type))

/** Of an answer that is begun for the model. */
const begunProblems = (
  { messages, output_config: output }: Pick<Anthropic.CountTokensRequest, "messages" | "output_config">
): ReadonlyArray<Problem> => {
  const turn = turnsOf(messages).at(-1)!
  const [last, path] = turn.at(-1)!
  if (last.role !== "assistant") return []
  return [
    ...(turn.every(([{ content }]) => isBeginning(content)) && turn.length < messages.length
      ? []
      : [{ path, expected: "A last message of the assistant must be a text, and must follow another message" }]),
    ...((output?.format ?? null) === null
      ? []
      : [{ path, expected: "A last message of the assistant is not allowed with output_config.format" }])
  ]
}

/** What is wrong from message to message. */
export const messageProblems = (
  body: Pick<Anthropic.CountTokensRequest, "messages" | "output_config">
): ReadonlyArray<Problem> => {
  const used = new Set<string>()
  return [
    ...body.messages.flatMap((message, index) => blockProblems(message, `messages[${index}]`, used)),
    ...begunProblems(body)
  ]
}

export const toolProblems = (
  { tool_choice: choice, tools = [] }: Pick<Anthropic.CountTokensRequest, "tool_choice" | "tools">
): ReadonlyArray<Problem> => {
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

/** Conversations and tools of the OpenAI dialect: decoding, and checks that a schema cannot express. Pure. */
import type { Message, Request, Tool } from "../../domain/Inference.ts"
import type { Content, ImageSource, MediaType, Part } from "../../domain/Message.ts"
import { textOf } from "../../domain/Message.ts"
import type { Problem } from "../../domain/Problem.ts"
import type * as OpenAi from "./Schema.ts"

/** More than any context window has room for. */
export const mostMessages = 10_000

/** The core checks the image. */
const sourceOf = (url: string): ImageSource => {
  const [head, mediaType] = /^data:([^;,]*)(?:;[^;,]*)*;base64,/i.exec(url) ?? []
  return head === undefined
    ? { type: "url", url }
    : { type: "base64", mediaType: mediaType!.toLowerCase() as MediaType, data: url.slice(head.length) }
}

/** Parts of other types stay in `source`, for deployments of the dialect. */
const partOf = (part: OpenAi.ChatPart): ReadonlyArray<Part> => {
  if ("text" in part) return [part]
  if (!("image_url" in part)) return []
  const { detail, url } = part.image_url
  const source = sourceOf(url)
  return [{ type: "image", source, ...(typeof detail === "string" ? { detail } : {}) }]
}

/** Texts only are one text. */
const contentOf = (content: OpenAi.ChatMessage["content"]): Content => {
  if (typeof content === "string") return content
  const parts = (content ?? []).flatMap(partOf)
  return parts.some(({ type }) => type === "image") ? parts : textOf(parts)
}

const messageOf = ({ content, role, tool_call_id, tool_calls }: OpenAi.ChatMessage): Message => {
  const decoded = contentOf(content)
  if (role === "tool") return { role, content: decoded, toolCallId: tool_call_id! }
  const calls = (tool_calls ?? []).filter((call) => "function" in call)
  if (role !== "assistant" || calls.length === 0) {
    return { role: role === "developer" ? "system" : role, content: decoded }
  }
  return { role, content: decoded, toolCalls: calls.map((call) => ({ id: call.id, ...call.function })) }
}

/** As the front door has them. */
export const messagesOf = (messages: ReadonlyArray<OpenAi.ChatMessage>): Request["messages"] => messages.map(messageOf)

const toolOf = ({ function: { description, name, parameters } }: OpenAi.Tool): Tool => ({
  name,
  ...(typeof description === "string" ? { description } : {}),
  ...(parameters === undefined || parameters === null ? {} : { parameters })
})

const isFunction = (tool: OpenAi.AnyTool): tool is OpenAi.Tool => "function" in tool

/** Functions; tools of other types stay in `source`, for deployments of the dialect. */
export const functionsOf = (tools: ReadonlyArray<OpenAi.AnyTool>): ReadonlyArray<OpenAi.Tool> =>
  tools.filter(isFunction)

/** Likewise. */
export const toolsOf = (tools: ReadonlyArray<OpenAi.AnyTool>): ReadonlyArray<Tool> => functionsOf(tools).map(toolOf)

const callsOf = ({ tool_calls }: OpenAi.ChatMessage) => tool_calls ?? []

const roleProblems = (message: OpenAi.ChatMessage): ReadonlyArray<Problem> => {
  const called = callsOf(message).length > 0
  return [
    ...((message.content ?? message.refusal ?? message.audio ?? message.function_call ?? undefined) === undefined &&
        !called
      ? [{ path: "content", expected: "Expected a string or an array of parts" }]
      : []),
    ...(called && message.role !== "assistant"
      ? [{ path: "tool_calls", expected: "Only a message of role assistant may have tool_calls" }]
      : [])
  ]
}

/** A tool's message answers a call that an earlier message has. */
const answerProblems = ({ role, tool_call_id }: OpenAi.ChatMessage, called: ReadonlySet<string>) => {
  if (role !== "tool" || called.has(tool_call_id ?? "")) return []
  const expected = typeof tool_call_id === "string"
    ? "No earlier assistant message has a tool call with this id"
    : "`tool_call_id` is required in a message of role tool"
  return [{ path: "tool_call_id", expected }]
}

/** What is wrong from message to message. */
export const messageProblems = (messages: ReadonlyArray<OpenAi.ChatMessage>): ReadonlyArray<Problem> => {
  const called = new Set<string>()
  return messages.flatMap((message, index) => {
    const problems = [...roleProblems(message), ...answerProblems(message, called)]
    for (const { id } of callsOf(message)) called.add(id)
    return problems.map(({ expected, path }) => ({ path: `messages[${index}].${path}`, expected }))
  })
}

const nameOf = (tool: OpenAi.AnyTool): string | undefined => isFunction(tool) ? tool.function.name : undefined

/** A call refers to a tool by its name only, so names are unique. */
export const toolProblems = (tools: ReadonlyArray<OpenAi.AnyTool>): ReadonlyArray<Problem> =>
  tools.flatMap((one, index) => {
    const name = nameOf(one)
    return name !== undefined && tools.findIndex((tool) => nameOf(tool) === name) < index
      ? [{ path: `tools[${index}].function.name`, expected: "Another tool has the same name" }]
      : []
  })

/** Conversations and tools of the OpenAI dialect: what they mean, and what a schema cannot say of them. Pure. */
import type { Content, ImageSource, MediaType, Part } from "../../services/Content.ts"
import { textOf } from "../../services/Content.ts"
import type { Message, Request, Tool } from "../../services/Inference.ts"
import type * as OpenAi from "../../services/OpenAi.ts"
import type { Problem } from "../../services/Problem.ts"
import type { Unsupported } from "./Body.ts"

/** More than any context window has room for. */
export const mostMessages = 10_000

/** Fields of a message that change the answer and are not supported. */
export const unsupportedInMessages: Unsupported = [
  ["function_call", () => false],
  ["audio", () => false]
]

/** Whatever is wrong with it is found at the front door. */
const sourceOf = (url: string): ImageSource => {
  const [head, mediaType] = /^data:([^;,]*)(?:;[^;,]*)*;base64,/i.exec(url) ?? []
  return head === undefined
    ? { type: "url", url }
    : { type: "base64", mediaType: mediaType!.toLowerCase() as MediaType, data: url.slice(head.length) }
}

const partOf = (part: OpenAi.ChatPart): Part => {
  if (part.type === "text") return part
  const { detail, url } = part.image_url
  const source = sourceOf(url)
  return { type: "image", source, ...(typeof detail === "string" ? { detail } : {}) }
}

/** Texts only are one text. */
const contentOf = (content: OpenAi.ChatMessage["content"], keepParts: boolean): Content => {
  if (typeof content === "string") return content
  const parts = (content ?? []).map(partOf)
  return keepParts || parts.some(({ type }) => type === "image") ? parts : textOf(parts)
}

const messageOf = ({ content, role, tool_call_id, tool_calls }: OpenAi.ChatMessage, keepParts: boolean): Message => {
  const said = contentOf(content, keepParts)
  if (role === "tool") return { role, content: said, toolCallId: tool_call_id! }
  if (role !== "assistant" || (tool_calls ?? []).length === 0) {
    return { role: role === "developer" ? "system" : role, content: said }
  }
  return { role, content: said, toolCalls: tool_calls!.map((call) => ({ id: call.id, ...call.function })) }
}

const none: ReadonlySet<number> = new Set()

/**
 * As the front door has them.
 *
 * @param inParts the messages whose parts are kept, as they have more to say; default none
 */
export const messagesOf = (
  messages: ReadonlyArray<OpenAi.ChatMessage>,
  inParts: ReadonlySet<number> = none
): Request["messages"] => messages.map((message, index) => messageOf(message, inParts.has(index)))

const toolOf = ({ function: { description, name, parameters } }: OpenAi.Tool): Tool => ({
  name,
  ...(typeof description === "string" ? { description } : {}),
  ...(parameters === undefined || parameters === null ? {} : { parameters })
})

/** Likewise. */
export const toolsOf = (tools: ReadonlyArray<OpenAi.Tool>): ReadonlyArray<Tool> => tools.map(toolOf)

const callsOf = ({ tool_calls }: OpenAi.ChatMessage) => tool_calls ?? []

const roleProblems = (message: OpenAi.ChatMessage): ReadonlyArray<Problem> => {
  const called = callsOf(message).length > 0
  return [
    ...((message.content ?? undefined) === undefined && !called
      ? [{ path: "content", expected: "Expected a text or a list of parts" }]
      : []),
    ...(called && message.role !== "assistant"
      ? [{ path: "tool_calls", expected: "Only an assistant calls tools" }]
      : [])
  ]
}

/** A tool's message answers a call that an earlier message has. */
const answerProblems = ({ role, tool_call_id }: OpenAi.ChatMessage, called: ReadonlySet<string>) => {
  if (role !== "tool" || called.has(tool_call_id ?? "")) return []
  const expected = typeof tool_call_id === "string"
    ? "No assistant message before this one has a tool call of this id"
    : "Expected the id of the tool call that this message answers"
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

const isRepeated = (name: string, index: number, tools: ReadonlyArray<OpenAi.Tool>): boolean =>
  tools.findIndex((tool) => tool.function.name === name) < index

/** A call says only a tool's name, so no two may share one. */
export const toolProblems = (tools: ReadonlyArray<OpenAi.Tool>): ReadonlyArray<Problem> =>
  tools.flatMap(({ function: { name } }, index) =>
    isRepeated(name, index, tools)
      ? [{ path: `tools[${index}].function.name`, expected: "Another tool has this name" }]
      : []
  )

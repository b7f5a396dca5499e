/**
 * Conversations for chat templates, and changes for those that reject or ignore a part of them. Pure.
 *
 * **Details**
 *
 * Some templates have no system role (Gemma 2), or reject two messages of the same role in succession. Such messages are joined with
 * the next one, with a line break between them. Gemma 4's first templates read the results of calls from the assistant's
 * message, in `tool_responses`. Templates of models with images may read parts of a message only, not its text.
 */
import type { ChatMessage, ToolDefinition } from "../../domain/Job.ts"
import type { ThoughtFields } from "./TemplateThoughts.ts"

/** A value of a template's variable. */
export type Value = string | number | boolean | null | undefined | ReadonlyArray<Value> | {
  readonly [key: string]: Value
}

/** A system message becomes the beginning of the next message; a last one, a question. */
export const withoutSystem = (messages: ReadonlyArray<ChatMessage>): ReadonlyArray<ChatMessage> => {
  const result: Array<ChatMessage> = []
  let system: string | undefined
  for (const message of messages) {
    if (message.role === "system") system = system === undefined ? message.content : `${system}\n${message.content}`
    else {
      const joins = system !== undefined && message.role === "user"
      result.push(joins ? { ...message, content: `${system}\n${message.content}` } : message)
      if (joins) system = undefined
    }
  }
  return system === undefined ? result : [...result, { role: "user", content: system }]
}

const canJoin = (first: ChatMessage | undefined, second: ChatMessage): first is ChatMessage =>
  first !== undefined && first.role === second.role && first.role !== "tool" &&
  (first.toolCalls ?? second.toolCalls ?? first.thoughts ?? second.thoughts) === undefined

/** Successive messages of the same role, as one; calls and their results stay as they are. */
export const joinRoles = (messages: ReadonlyArray<ChatMessage>): ReadonlyArray<ChatMessage> => {
  const result: Array<ChatMessage> = []
  for (const message of messages) {
    const last = result.at(-1)
    if (canJoin(last, message)) result[result.length - 1] = { ...last, content: `${last.content}\n${message.content}` }
    else result.push(message)
  }
  return result
}

/** Whether a template reads the results of calls in `tool_responses` only. */
export const readsToolResponses = (source: string): boolean =>
  source.includes("tool_responses") && !/role['"]?\]?\s*[!=]=\s*['"]tool['"]/.test(source)

/** The value of a JSON text; another text stays unchanged. */
export const valueOfJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

interface Message {
  readonly role?: unknown
  readonly content?: unknown
  readonly name?: unknown
  readonly tool_calls?: unknown
  readonly tool_responses?: unknown
}

/**
 * Results of calls as fields of the assistant's message before them, together with its text after them.
 *
 * @param messages in OpenAI's format
 */
export const withToolResponses = <A extends Message>(messages: ReadonlyArray<A>): ReadonlyArray<A> => {
  const result: Array<A> = []
  for (const message of messages) {
    const last = result.at(-1)
    if (message.role === "tool" && last?.tool_calls !== undefined) {
      const response = { name: message.name, response: valueOfJson(String(message.content)) }
      const before = last.tool_responses as ReadonlyArray<unknown> | undefined
      result[result.length - 1] = { ...last, tool_responses: [...before ?? [], response] }
    } else if (message.role === "assistant" && message.tool_calls === undefined && last?.tool_responses !== undefined) {
      result[result.length - 1] = { ...last, content: message.content }
    } else result.push(message)
  }
  return result
}

/** Templates print arguments as JSON themselves; a text that is not JSON stays unchanged. */
const argumentsOf = (text: string): Value => text.trim() === "" ? {} : valueOfJson(text) as Value

/** Some templates accept only ids of nine letters and digits; the value does not matter. */
const idOf = (ids: Map<string, string>, id: string): string => {
  const known = ids.get(id) ?? `call${String(ids.size).padStart(5, "0")}`
  ids.set(id, known)
  return known
}

/**
 * Messages in OpenAI's format, which templates expect.
 *
 * @param thoughtFields how the template reads thoughts; left out, the messages have none
 */
export const conversationOf = (
  messages: ReadonlyArray<ChatMessage>,
  thoughtFields?: ThoughtFields
): ReadonlyArray<Value> => {
  const ids = new Map<string, string>()
  const names = new Map<string, string>()
  return messages.map(({ content, role, thoughts, toolCallId, toolCalls = [] }) => {
    for (const { id, name } of toolCalls) names.set(id, name)
    return {
      role,
      content,
      ...(thoughts === undefined ? {} : thoughtFields?.({ content, thoughts, hasCalls: toolCalls.length > 0 })),
      ...(toolCalls.length === 0 ? {} : {
        tool_calls: toolCalls.map((call) => ({
          type: "function",
          id: idOf(ids, call.id),
          function: { name: call.name, arguments: argumentsOf(call.arguments) }
        }))
      }),
      ...(toolCallId === undefined ? {} : { tool_call_id: idOf(ids, toolCallId), name: names.get(toolCallId) })
    }
  })
}

export const toolsOf = (tools: ReadonlyArray<ToolDefinition>): ReadonlyArray<Value> =>
  tools.map(({ description, name, parameters }) => ({
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      parameters: (parameters ?? { type: "object", properties: {} }) as Value
    }
  }))

/** Texts as lists of parts, which some templates of models with images require. */
export const withTypedContent = (messages: ReadonlyArray<Value>): ReadonlyArray<Value> =>
  messages.map((message) => {
    const { content } = message as { readonly content?: Value }
    return typeof content === "string"
      ? { ...message as object, content: content === "" ? [] : [{ type: "text", text: content }] }
      : message
  })

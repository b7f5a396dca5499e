/**
 * Changes conversations for chat templates that reject or ignore a part of them. Pure.
 *
 * **Details**
 *
 * Some templates have no system role (Gemma 2), or reject two messages of the same role in succession. Such messages are joined with
 * the next one, with a line break between them. Gemma 4's first templates read the results of calls from the assistant's
 * message, in `tool_responses`.
 */
import type { ChatMessage } from "../../domain/Job.ts"

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

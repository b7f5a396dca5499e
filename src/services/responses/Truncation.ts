/**
 * `truncation: auto` of responses: the oldest turns of a conversation that does not fit the context window are left out. Pure.
 *
 * **Details**
 *
 * A turn is a message of a user and everything up to the next one. Messages of the system, and the last turn, stay.
 */
import type { Message } from "../../domain/Inference.ts"
import type { ContextLengthExceeded } from "../../domain/InferenceError.ts"

/** Without the length of the prompt, the share of the turns that stays. */
const unknownShare = 0.5

/** The share of the window that stays free for the answer. */
const answerShare = 0.25

/** Tokens are not in proportion to characters: the estimate leaves a reserve. */
const reserve = 0.9

const lengthOf = ({ content, toolCalls = [] }: Message): number => {
  const text = typeof content === "string" ? content.length : JSON.stringify(content).length
  return toolCalls.reduce((sum, call) => sum + call.arguments.length, text)
}

/** The share of the conversation that probably fits. */
const shareOf = ({ contextWindow, promptTokens }: ContextLengthExceeded): number =>
  contextWindow === undefined || promptTokens === undefined || promptTokens === 0
    ? unknownShare
    : Math.min(unknownShare * 2, contextWindow * (1 - answerShare) / promptTokens) * reserve

/** The turns after the first messages of the system. */
const turnsOf = (messages: ReadonlyArray<Message>): ReadonlyArray<ReadonlyArray<Message>> => {
  const turns: Array<Array<Message>> = []
  for (const message of messages) {
    if (message.role === "system") continue
    const last = turns.at(-1)
    if (message.role === "user" || last === undefined) turns.push([message])
    else last.push(message)
  }
  return turns
}

/** The messages without the oldest turns; undefined if only the last turn is left. */
export const shortened = (
  messages: ReadonlyArray<Message>,
  reason: ContextLengthExceeded
): ReadonlyArray<Message> | undefined => {
  const turns = turnsOf(messages)
  if (turns.length < 2) return undefined
  const sizes = turns.map((turn) => turn.reduce((sum, message) => sum + lengthOf(message), 0))
  const most = sizes.reduce((sum, size) => sum + size, 0) * shareOf(reason)
  let left = sizes.reduce((sum, size) => sum + size, 0) - sizes[0]!
  let first = 1
  while (first < turns.length - 1 && left > most) left -= sizes[first++]!
  const removed = new Set(turns.slice(0, first).flat())
  return messages.filter((message) => !removed.has(message))
}

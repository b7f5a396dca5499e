/**
 * Compaction: a conversation as its user messages and one item with a summary of the rest. Pure.
 *
 * **Details**
 *
 * The model of the request writes the summary. The item has it in `encrypted_content`, encoded and not encrypted: it is the
 * caller's own conversation, and a caller may give a model any text anyway.
 */
import type { Message } from "../../domain/Inference.ts"
import type { Fields } from "../shared/Json.ts"
import { parse, textAt } from "../shared/Json.ts"

/** The request for a summary, as the last message of the conversation. */
const summaryPrompt =
  "Summarize the conversation so far for an assistant that continues it and does not see it. Keep the goals of the user, " +
  "decisions, facts, names, numbers, file paths, results of tools and open tasks. Write the summary only."

/** The conversation with the request for its summary. */
export const withPrompt = (messages: ReadonlyArray<Message>): ReadonlyArray<Message> => [
  ...messages,
  { role: "user", content: summaryPrompt }
]

const version = 1

/** The content of a compaction item. */
export const encode = (summary: string): string =>
  Buffer.from(JSON.stringify({ troupe: version, summary }), "utf8").toString("base64url")

const decoded = (content: string): string | undefined => {
  const json = parse(Buffer.from(content, "base64url").toString("utf8"))
  return textAt(json, "summary")
}

/** Whether an item's content is one of this service: that of another cannot be read. */
export const isReadable = (content: string): boolean => decoded(content) !== undefined

/** The message of a compaction item. */
export const summaryOf = (content: string): string => `Summary of the conversation before: ${decoded(content) ?? ""}`

/** Whether an item stays as it is: what users have said. */
export const isKept = (item: Fields): boolean => item["type"] === "message" && item["role"] === "user"

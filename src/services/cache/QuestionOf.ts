/**
 * The question of a request: the text of its last message, by which alone similar requests differ. Pure.
 *
 * **Details**
 *
 * A request has one if its last message is the user's and only text, also in the body of the caller, where it has one.
 */
import * as Defaults from "../../domain/Defaults.ts"
import type { Request } from "../../domain/Inference.ts"
import type { Source } from "../../domain/Source.ts"

/** A question, and the request without it. */
export interface Asking {
  readonly question: string
  readonly rest: Request
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The text of a message's content, and the content without it; undefined if it is more than text. */
const emptied = (content: unknown): { readonly text: string; readonly content: unknown } | undefined => {
  if (typeof content === "string") return { text: content, content: "" }
  if (!Array.isArray(content)) return undefined
  const parts = content as ReadonlyArray<unknown>
  const texts = parts.map((part) => isFields(part) && part["type"] === "text" ? part["text"] : undefined)
  return texts.every((text) => typeof text === "string")
    ? { text: texts.join("\n"), content: parts.map((part) => ({ ...part as Fields, text: "" })) }
    : undefined
}

/** A request of the Responses API without the text of its last item. */
const withoutLastItem = (source: Source, { body, ...needs }: NonNullable<Source["responses"]>): Source => {
  const input = body["input"]
  const last: unknown = Array.isArray(input) ? input.at(-1) : undefined
  if (!isFields(last)) return source
  const without = { ...last, content: [] }
  return {
    ...source,
    responses: { ...needs, body: { ...body, input: [...(input as ReadonlyArray<unknown>).slice(0, -1), without] } }
  }
}

/** The source without the question; undefined if it asks something else. */
const sourceWithout = (given: Source, question: string): Source | undefined => {
  const source = given.responses === undefined ? given : withoutLastItem(given, given.responses)
  const { body } = source
  const messages = body["messages"]
  if (messages === undefined) return body["input"] === undefined ? source : undefined
  const last: unknown = Array.isArray(messages) ? messages.at(-1) : undefined
  const found = isFields(last) && last["role"] === "user" ? emptied(last["content"]) : undefined
  if (found === undefined || found.text !== question) return undefined
  const without = { ...last as Fields, content: found.content }
  return { ...source, body: { ...body, messages: [...(messages as ReadonlyArray<unknown>).slice(0, -1), without] } }
}

/** A question may be a part that has no translation. */
const comparable = (source: Source, question: string): Source | undefined =>
  source.responses?.needs === undefined ? sourceWithout(source, question) : undefined

/** Undefined if the request has no question that can be compared. */
export const askingOf = (request: Request): Asking | undefined => {
  const { completion, messages, source } = request
  if (completion !== undefined) return undefined
  const last = messages.at(-1)
  const found = last?.role === "user" ? emptied(last.content) : undefined
  if (found === undefined || found.text.trim() === "") return undefined
  const { text: question } = found
  if (question.length > Defaults.semanticCache.longestQuestion) return undefined
  const rest: Request = { ...request, messages: [...messages.slice(0, -1), { role: "user", content: "" }] }
  if (source === undefined) return { question, rest }
  const without = comparable(source, question)
  return without && { question, rest: { ...rest, source: without } }
}

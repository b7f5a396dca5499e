/** Who asks for what and how much, as limits and budgets count it. Pure. */
import type { Message } from "../../domain/Message.ts"

/** What a limit or a budget counts by. */
export const dimensions = ["key", "user", "tenant", "model", "endpoint"] as const
export type Dimension = (typeof dimensions)[number]

/** A request's values of the dimensions; empty where it has none. */
export interface Subject extends Readonly<Record<Dimension, string>> {
  /** The name of the key, whose id is `key`: rules apply to keys by name, and counters count by id. */
  readonly keyName?: string | undefined
}

/** Separates the values of a counter's name: no value has it. */
const separator = "\u001f"

/** The name of a counter: requests with the same values of these dimensions share it. */
export const counterOf = (by: ReadonlyArray<Dimension>, subject: Subject): string => {
  const [only = "key", second] = by
  if (by.length === 0) return ""
  if (second === undefined) return subject[only]
  return by.map((dimension) => subject[dimension]).join(separator)
}

/** As `key team-a, endpoint chat`. */
export const describe = (by: ReadonlyArray<Dimension>, subject: Subject): string =>
  by.length === 0 ? "all requests" : by.map((dimension) => `${dimension} ${subject[dimension] || "(none)"}`).join(", ")

/** More than providers count for one image. */
const tokensPerImage = 5_000

/** More than a template adds to a message. */
const tokensPerMessage = 16

export interface Prompt {
  readonly messages?: ReadonlyArray<Message> | undefined
  readonly tools?: ReadonlyArray<unknown> | undefined
}

const imagesOf = ({ content }: Message): number =>
  typeof content === "string" ? 0 : content.filter(({ type }) => type === "image").length

/**
 * The most tokens that the prompt of a request can have: more than it has, so that it never costs more.
 *
 * @param promptLength characters, by `promptLengthOf`: a token has at least one
 */
export const mostPromptTokens = ({ messages = [], tools = [] }: Prompt, promptLength = 0): number => {
  const overhead = messages.reduce((sum, message) => sum + tokensPerMessage + tokensPerImage * imagesOf(message), 0)
  return promptLength + overhead + (tools.length === 0 ? 0 : JSON.stringify(tools).length)
}

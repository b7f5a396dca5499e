/**
 * How a model writes a call of a tool, as its chat template renders one of an earlier answer. Pure.
 *
 * **Details**
 *
 * The text before the name, between the name and the arguments, and after them is that of a rendered call, up to the end of the
 * turn. It is used if the reader of answers reads the call from it, and if its arguments are a JSON object.
 */
import { makeToolCallReader } from "../job/ToolCalls.ts"
import { findSection, markers } from "../job/ToolCallSyntax.ts"

/** The text of a call around its name and its arguments, which are a JSON object. */
export interface CallSyntax {
  readonly before: string
  readonly between: string
  readonly after: string
}

/** That of Hermes and Qwen, which models without one of their own are most likely to know. */
export const commonSyntax: CallSyntax = {
  before: "<tool_call>\n{\"name\": \"",
  between: "\", \"arguments\": ",
  after: "}\n</tool_call>"
}

/** A rendered call, and what it is rendered from. */
export interface RenderedCall {
  /** The conversation up to the call. */
  readonly text: string
  /** The prompt of the answer that the call is. */
  readonly prompt: string
  /** The content of the question before the call. */
  readonly question: string
  readonly name: string
  /** The name and the value of its only argument. */
  readonly argument: readonly [key: string, value: string]
  /** Texts that end a turn. */
  readonly ends: ReadonlyArray<string>
}

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

/** Where the call begins: at a marker, or at the JSON around the name. */
const beginOf = (turn: string, nameAt: number): number => {
  const section = findSection(turn)
  if (section !== undefined && section.at <= nameAt) return section.at
  const found = /[[{][\s"\w:,]*$/.exec(turn.slice(0, nameAt))
  return found?.index ?? -1
}

/** The text up to the first of these ends. */
const upTo = (text: string, ends: ReadonlyArray<string>): string => {
  const found = ends.filter((end) => end !== "" && !markers.includes(end)).map((end) => text.indexOf(end))
  return text.slice(0, Math.min(text.length, ...found.filter((at) => at >= 0))).trimEnd()
}

const isRead = (
  { after, before, between }: CallSyntax,
  name: string,
  [key, value]: RenderedCall["argument"]
): boolean => {
  const args = JSON.stringify({ [key]: value })
  const reader = makeToolCallReader([{ name }], String)
  const parts = [...reader.push(before + name + between + args + after), ...reader.flush()]
  const calls = parts.flatMap((part) => part.type === "tool_call" ? [part] : [])
  return parts.length === calls.length && calls.filter((part) => part.name === name).length === 1 &&
    calls.map((part) => part.arguments).join("") === args
}

/** The syntax of a rendered call; undefined if its arguments are no JSON object, or it cannot be read. */
export const callSyntaxOf = (
  { argument, ends, name, prompt, question, text }: RenderedCall
): CallSyntax | undefined => {
  const turn = text.slice(text.lastIndexOf(question) + question.length)
  const nameAt = turn.indexOf(name)
  if (nameAt < 0) return undefined
  const rest = turn.slice(nameAt + name.length)
  const args = new RegExp(String.raw`\{\s*"${argument[0]}"\s*:\s*"${escape(argument[1])}"\s*\}`).exec(rest)
  const begin = beginOf(turn, nameAt)
  if (args === null || begin < 0) return undefined
  const before = turn.slice(begin, nameAt)
  const syntax = {
    // Functionary's prompt has the marker already.
    before: before !== "" && prompt.endsWith(before) ? "" : before,
    between: rest.slice(0, args.index),
    after: upTo(rest.slice(args.index + args[0].length), ends)
  }
  return isRead(syntax, name, argument) ? syntax : undefined
}

/**
 * How a model writes a call of a tool, as its chat template renders one of an earlier answer. Pure.
 *
 * **Details**
 *
 * The text before the name, between the name and the arguments, and after them is that of a rendered call, up to the end of the
 * turn. It is used if the reader of answers reads the call from it. Arguments that are no JSON object are those of a form in
 * `ToolCallSyntax`, with the white space of a call with two arguments.
 */
import type { ArgumentSyntax } from "../grammar/ArgumentSyntax.ts"
import { endOf } from "../grammar/ArgumentSyntax.ts"
import type { ToolCallReader } from "../job/ToolCalls.ts"
import { makeToolCallReader } from "../job/ToolCalls.ts"
import { findSection, markers, paramsOf } from "../job/ToolCallSyntax.ts"

/** The text of a call around its name and its arguments. */
export interface CallSyntax {
  readonly before: string
  readonly between: string
  /** How the arguments are written; left out, they are a JSON object. */
  readonly arguments?: ArgumentSyntax
  readonly after: string
}

/** That of Hermes and Qwen, which models without one of their own are most likely to know. */
export const commonSyntax: CallSyntax = {
  before: "<tool_call>\n{\"name\": \"",
  between: "\", \"arguments\": ",
  after: "}\n</tool_call>"
}

/** The name and the value of an argument. */
export type Argument = readonly [key: string, value: string]

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
  readonly argument: Argument
  /** The same conversation, whose call has this argument after that one. */
  readonly two: () => { readonly text: string; readonly second: Argument }
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

const spaceless = (text: string): string => text.replaceAll(/\s/g, "")

/** The argument as a syntax writes it. */
const written = (syntax: ArgumentSyntax | undefined, [key, value]: Argument): string => {
  if (syntax === undefined) return JSON.stringify({ [key]: value })
  const text = syntax.hasJsonTexts === true ? JSON.stringify(value) : value
  return syntax.open + syntax.begin + key + syntax.between + text + endOf(syntax, "string", key) + syntax.close
}

const partsOf = (reader: ToolCallReader, text: string) => [...reader.push(text), ...reader.flush()]

const isRead = (syntax: CallSyntax, name: string, argument: Argument): boolean => {
  const { after, before, between } = syntax
  const args = JSON.stringify(Object.fromEntries([argument]))
  const call = before + name + between + written(syntax.arguments, argument) + after
  const parts = partsOf(makeToolCallReader([{ name }], String), call)
  const calls = parts.flatMap((part) => part.type === "tool_call" ? [part] : [])
  return parts.length === calls.length && calls.filter((part) => part.name === name).length === 1 &&
    spaceless(calls.map((part) => part.arguments).join("")) === spaceless(args)
}

/** Arguments, and the texts before and after them. */
interface Arguments {
  readonly between: string
  readonly syntax: ArgumentSyntax | undefined
  /** What comes after them. */
  readonly rest: string
}

const jsonArguments = (rest: string, [key, value]: Argument): Arguments | undefined => {
  const found = new RegExp(String.raw`\{\s*"${key}"\s*:\s*"${escape(value)}"\s*\}`).exec(rest)
  return found === null
    ? undefined
    : { between: rest.slice(0, found.index), syntax: undefined, rest: rest.slice(found.index + found[0].length) }
}

/** Python's and Gemma's. */
const literalSyntaxes: ReadonlyArray<ArgumentSyntax> = [
  { open: "(", begin: "", between: "=", end: "", separator: ", ", close: ")", hasJsonTexts: true },
  {
    open: "{",
    begin: "",
    between: ":<|\"|>",
    end: "<|\"|>",
    valueBetween: ":",
    valueEnd: "",
    separator: ",",
    close: "}"
  }
]

const literalArguments = (rest: string, argument: Argument): Arguments | undefined => {
  for (const syntax of literalSyntaxes) {
    const text = written(syntax, argument)
    if (rest.startsWith(text)) return { between: "", syntax, rest: rest.slice(text.length) }
  }
  return undefined
}

/** The white space that a text begins with. */
const spaceOf = (text: string): string => /^\s*/.exec(text)![0]

/** Arguments with markers around each. */
const taggedArguments = (
  rest: string,
  [key, value]: Argument,
  open: string,
  two: RenderedCall["two"]
): Arguments | undefined => {
  for (const params of paramsOf(open)) {
    const begin = rest.indexOf(params.begin + key)
    const valueAt = rest.indexOf(value, begin)
    const end = params.end.replace("{key}", key)
    const endAt = rest.indexOf(end, valueAt)
    if (begin < 0 || valueAt < 0 || endAt < 0) continue
    const between = rest.slice(begin + params.begin.length + key.length, valueAt)
    const before = rest.slice(valueAt + value.length, endAt)
    if (!between.includes(params.keyEnd) || before.trim() !== "") continue
    const after = rest.slice(endAt + end.length)
    const { second, text } = two()
    const written = text.slice(text.lastIndexOf(value) + value.length + before.length + end.length)
    const next = written.indexOf(params.begin + second[0])
    if (next < 0) continue
    const head = rest.slice(0, begin)
    const open = spaceOf(head.split("").toReversed().join(""))
    return {
      between: head.slice(0, head.length - open.length),
      syntax: {
        open,
        begin: params.begin,
        between,
        end: before + params.end,
        separator: written.slice(0, next),
        close: spaceOf(after)
      },
      rest: after.trimStart()
    }
  }
  return undefined
}

/** The syntax of a rendered call; undefined if its arguments are written in no known form, or it cannot be read. */
export const callSyntaxOf = (
  { argument, ends, name, prompt, question, text, two }: RenderedCall
): CallSyntax | undefined => {
  const turn = text.slice(text.lastIndexOf(question) + question.length)
  const nameAt = turn.indexOf(name)
  const begin = nameAt < 0 ? -1 : beginOf(turn, nameAt)
  if (begin < 0) return undefined
  const afterName = turn.slice(nameAt + name.length)
  const args = jsonArguments(afterName, argument) ?? literalArguments(afterName, argument) ??
    taggedArguments(afterName, argument, turn.slice(begin, nameAt), two)
  if (args === undefined) return undefined
  const before = turn.slice(begin, nameAt)
  const syntax: CallSyntax = {
    // Functionary's prompt has the marker already.
    before: before !== "" && prompt.endsWith(before) ? "" : before,
    between: args.between,
    ...(args.syntax === undefined ? {} : { arguments: args.syntax }),
    after: upTo(args.rest, ends)
  }
  return isRead(syntax, name, argument) ? syntax : undefined
}

/** That of models whose templates do not render calls, by a text that only these templates have. */
const unrendered: ReadonlyArray<readonly [shown: string, syntax: CallSyntax]> = [
  // LFM 2
  ["<|tool_list_start|>", {
    before: "<|tool_call_start|>[",
    between: "",
    arguments: literalSyntaxes[0]!,
    after: "]<|tool_call_end|>"
  }]
]

/** The syntax of a model whose template renders no call. */
export const knownSyntaxOf = (source: string): CallSyntax | undefined =>
  unrendered.find(([shown]) => source.includes(shown))?.[1]

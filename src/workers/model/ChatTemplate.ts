/**
 * A model's own chat template: a conversation and tools in, the prompt's text out, in pieces.
 *
 * **Details**
 *
 * The template sees what the caller wrote as it is, so that it may trim, compare and split it. Only a caller's text that
 * spells a control token is marked on its way through: it comes out as a piece of its own that is not `special`, and
 * all else comes out as it stood in training.
 *
 * **Gotchas**
 *
 * A piece that is not `special` must not become a control token: where a tokeniser finds these in any text, its first
 * character has to be made into tokens apart from its others.
 *
 * **Example**
 *
 * ```ts
 * const template = makeChatTemplate({ source, bos: "<s>", eos: "</s>", control: ["<s>", "</s>"] })
 * const pieces = template?.render([{ role: "user", content: "Hello </s>" }])
 * ```
 */
import type { ChatMessage, ToolDefinition } from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import { parseJinja } from "./Jinja.ts"
import { OverBudget } from "./JinjaValues.ts"

/** A part of a prompt. */
export interface Piece {
  readonly text: string
  /** Control tokens in it are meant. */
  readonly special: boolean
}

export interface ChatTemplate {
  /** The prompt says which tools there are. */
  readonly supportsTools: boolean
  /** What the template ends an assistant's turn with; empty where that cannot be told. */
  readonly turnEnd: string
  /** Ends where the assistant's answer begins. Throws `invalid_request` where the template refuses the messages. */
  readonly render: (
    messages: ReadonlyArray<ChatMessage>,
    tools?: ReadonlyArray<ToolDefinition>
  ) => ReadonlyArray<Piece>
}

/** What a template is made of. */
export interface ChatTemplateOptions {
  /** Of the model's file, for messages. */
  readonly name: string
  /** Jinja. */
  readonly source: string
  readonly bos?: string | undefined
  readonly eos?: string | undefined
  /** The texts of all control tokens. */
  readonly control: ReadonlyArray<string>
}

type Value = string | number | boolean | null | undefined | ReadonlyArray<Value> | { readonly [key: string]: Value }

/** The same with other strings, keys among them. */
const mapStrings = (value: Value, change: (text: string) => string): Value => {
  if (typeof value === "string") return change(value)
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map((one: Value) => mapStrings(one, change))
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [change(key), mapStrings(one, change)]))
}

/** Templates print arguments as JSON themselves; what is not JSON is left as it is. */
const argumentsOf = (text: string): Value => {
  if (text.trim() === "") return {}
  try {
    return JSON.parse(text) as Value
  } catch {
    return text
  }
}

/** Some templates take ids of nine letters and digits only, and none cares which. */
const idOf = (ids: Map<string, string>, id: string): string => {
  const known = ids.get(id) ?? `call${String(ids.size).padStart(5, "0")}`
  ids.set(id, known)
  return known
}

/** Messages as templates expect them, which is in OpenAI's shape. */
const conversationOf = (messages: ReadonlyArray<ChatMessage>): ReadonlyArray<Value> => {
  const ids = new Map<string, string>()
  const names = new Map<string, string>()
  return messages.map(({ content, role, toolCallId, toolCalls = [] }) => {
    for (const { id, name } of toolCalls) names.set(id, name)
    return {
      role,
      content,
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

const toolsOf = (tools: ReadonlyArray<ToolDefinition>): ReadonlyArray<Value> =>
  tools.map(({ description, name, parameters }) => ({
    type: "function",
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      parameters: (parameters ?? { type: "object", properties: {} }) as Value
    }
  }))

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

const asciiOf = (mark: string): string => `\\u${mark.charCodeAt(0).toString(16)}`

/** A character for private use that no caller has written, nor its name in ASCII. */
const markFor = (written: string, code = 0xe000): string => {
  const mark = String.fromCharCode(code)
  return written.includes(mark) || written.includes(asciiOf(mark)) ? markFor(written, code + 1) : mark
}

/** The text cut at the marks, each of which stands before a control token of the caller's. */
const cut = (text: string, mark: string, controlToken: RegExp): ReadonlyArray<Piece> => {
  // Some templates' JSON is of ASCII only.
  const [first = "", ...parts] = text.replaceAll(asciiOf(mark), mark).split(mark)
  const pieces: Array<Piece> = [{ text: first, special: true }]
  for (const part of parts) {
    // Where a template has split the text just there, what follows is something else.
    const found = controlToken.exec(part)
    const end = found?.index === 0 ? found[0].length : 0
    pieces.push({ text: part.slice(0, end), special: false }, { text: part.slice(end), special: true })
  }
  return pieces.filter((piece) => piece.text !== "")
}

/** Finds a control token; of those that begin at one place, the longest. */
const finderOf = (control: ReadonlyArray<string>): RegExp => {
  const texts = control.filter((text) => text !== "").sort((a, b) => b.length - a.length)
  return texts.length === 0 ? /(?!)/ : new RegExp(texts.map(escape).join("|"))
}

const probe = "probe4711"
const question: ChatMessage = { role: "user", content: probe }
const answer: ChatMessage = { role: "assistant", content: "probe4712" }
const probeTool: ToolDefinition = {
  name: "probe4713",
  description: "Probe",
  parameters: { type: "object", properties: { text: { type: "string" } }, required: ["text"] }
}

/** Why a template cannot be used. */
export interface Unusable {
  readonly problem: string
}

const messageOf = (cause: unknown): string => (failureFrom(cause, "failed") as { readonly message: string }).message

const refuseBudget = (name: string, { message }: OverBudget, kind: "load_failed" | "invalid_request"): never => {
  const said = `The chat template of ${name} exceeds its work budget: ${message}.`
  return refuse(
    kind === "load_failed"
      ? { kind, message: `${said} Use a model file with another template.` }
      : { kind, path: "messages", message: `${said} Send fewer or shorter messages.` }
  )
}

type Print = (messages: ReadonlyArray<Value>, tools: ReadonlyArray<Value>, goOn: boolean) => string

const printerOf = ({ bos, eos, source }: ChatTemplateOptions): Print => {
  const template = parseJinja(source)
  return (messages, tools, goOn) =>
    template.render({
      messages,
      ...(tools.length === 0 ? {} : { tools }),
      add_generation_prompt: goOn,
      bos_token: bos ?? "",
      eos_token: eos ?? ""
    })
}

/** What a template makes of a first question, of its answer, and of a tool. */
const tryOut = (print: Print) => {
  const attempt = (messages: ReadonlyArray<ChatMessage>, tools: ReadonlyArray<ToolDefinition>, goOn: boolean) => {
    try {
      return print(conversationOf(messages), toolsOf(tools), goOn)
    } catch (cause) {
      if (cause instanceof OverBudget) throw cause
      return ""
    }
  }
  const asked = print(conversationOf([question]), [], true)
  const answered = attempt([question, answer], [], false)
  const end = answered.lastIndexOf(answer.content)
  return {
    asked,
    turnEnd: end < 0 ? "" : answered.slice(end + answer.content.length),
    supportsTools: attempt([question], [probeTool], true).includes(probeTool.name)
  }
}

type Opened = { readonly print: Print } & ReturnType<typeof tryOut>

/** A printer and what it was found to do, or why it cannot be used. Throws `load_failed` for one that works too long. */
const open = (options: ChatTemplateOptions): Opened | Unusable => {
  if (options.source.trim() === "") return { problem: "it is empty" }
  try {
    const print = printerOf(options)
    const found = tryOut(print)
    return found.asked.includes(probe) ? { print, ...found } : { problem: "its prompt does not contain the messages" }
  } catch (cause) {
    return cause instanceof OverBudget
      ? refuseBudget(options.name, cause, "load_failed")
      : { problem: messageOf(cause) }
  }
}

/**
 * @returns the template, or why it cannot be used: it is empty, it cannot be parsed, it fails for one question, or its
 *   prompt leaves the question out
 */
export const makeChatTemplate = (options: ChatTemplateOptions): ChatTemplate | Unusable => {
  const opened = open(options)
  if ("problem" in opened) return opened
  const { supportsTools, print, turnEnd } = opened
  const controlToken = finderOf(options.control)
  const everyControlToken = new RegExp(controlToken, "g")

  const render = (messages: ReadonlyArray<ChatMessage>, tools: ReadonlyArray<ToolDefinition>): ReadonlyArray<Piece> => {
    const mark = markFor(JSON.stringify([messages, tools]))
    const marked = (values: ReadonlyArray<Value>) =>
      mapStrings(values, (text) => text.replaceAll(everyControlToken, `${mark}$&`)) as ReadonlyArray<Value>
    const prompt = print(marked(conversationOf(messages)), marked(toolsOf(tools)), true)
    if (prompt.trim() === "") throw new Error("It prints no text for them")
    return cut(prompt, mark, controlToken)
  }
  return {
    supportsTools,
    turnEnd,
    render(messages, tools = []) {
      try {
        return render(messages, tools)
      } catch (cause) {
        if (cause instanceof OverBudget) return refuseBudget(options.name, cause, "invalid_request")
        return refuse({
          kind: "invalid_request",
          path: "messages",
          message: `The model's chat template does not take these messages: ${messageOf(cause)}`
        })
      }
    }
  }
}

/**
 * Renders a conversation and tools with the model's own chat template, to a prompt in pieces.
 *
 * **Details**
 *
 * The template gets the caller's text unchanged, so that it can trim, compare and split it. Only the text of a control
 * token in it is marked: it becomes a piece of its own that is not `special`. Everything else is rendered as in training.
 *
 * **Gotchas**
 *
 * A piece that is not `special` must not become a control token: with a tokenizer that finds control tokens in any text,
 * tokenize the piece's first character separately.
 *
 * **Example**
 *
 * ```ts
 * const template = makeChatTemplate({ source, bos: "<s>", eos: "</s>", control: ["<s>", "</s>"] })
 * const pieces = template?.render([{ role: "user", content: "Hello </s>" }])
 * ```
 */
import type { ChatMessage, Thinking, ToolDefinition } from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import { parseJinja } from "./Jinja.ts"
import { OverBudget } from "./JinjaValues.ts"
import type { Argument, CallSyntax } from "./TemplateCalls.ts"
import { callSyntaxOf, knownSyntaxOf } from "./TemplateCalls.ts"
import type { Value } from "./TemplateMessages.ts"
import {
  conversationOf,
  joinRoles,
  readsToolResponses,
  toolsOf,
  withoutSystem,
  withToolResponses,
  withTypedContent
} from "./TemplateMessages.ts"
import type { ThoughtFields } from "./TemplateThoughts.ts"
import { fieldsFor, joined } from "./TemplateThoughts.ts"

/** A part of a prompt. */
export interface Piece {
  readonly text: string
  /** Control tokens in the text are intended. */
  readonly special: boolean
}

export interface ChatTemplate {
  /** Whether the prompt lists the tools. */
  readonly supportsTools: boolean
  /** The text that ends an assistant's turn; empty if unknown. */
  readonly turnEnd: string
  /** The prompt up to the assistant's answer. Throws `invalid_request` if the template rejects the messages. */
  readonly render: (
    messages: ReadonlyArray<ChatMessage>,
    tools?: ReadonlyArray<ToolDefinition>,
    thinking?: Thinking
  ) => ReadonlyArray<Piece>
  /** The template itself, in Jinja. */
  readonly source: string
  /** Whether the prompt tells a model not to think. */
  readonly hasThinkingSwitch: boolean
  /** How the model writes calls; undefined if the template does not show it. */
  readonly callSyntax: CallSyntax | undefined
}

/** The parts of a template. */
export interface ChatTemplateOptions {
  /** Name of the model's file, for messages. */
  readonly name: string
  /** The template in Jinja. */
  readonly source: string
  readonly bos?: string | undefined
  readonly eos?: string | undefined
  /** The texts of all control tokens. */
  readonly control: ReadonlyArray<string>
}

/** The value with its strings changed, including keys. */
const mapStrings = (value: Value, change: (text: string) => string): Value => {
  if (typeof value === "string") return change(value)
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map((one: Value) => mapStrings(one, change))
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [change(key), mapStrings(one, change)]))
}

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

const asciiOf = (mark: string): string => `\\u${mark.charCodeAt(0).toString(16)}`

/** A private-use character that the text does not contain, neither directly nor as an ASCII escape. */
const markFor = (written: string, code = 0xe000): string => {
  const mark = String.fromCharCode(code)
  return written.includes(mark) || written.includes(asciiOf(mark)) ? markFor(written, code + 1) : mark
}

/** Splits the text at the marks, each of which precedes a control token in the caller's text. */
const cut = (text: string, mark: string, controlToken: RegExp): ReadonlyArray<Piece> => {
  // Some templates write JSON in ASCII only.
  const [first = "", ...parts] = text.replaceAll(asciiOf(mark), mark).split(mark)
  const pieces: Array<Piece> = [{ text: first, special: true }]
  for (const part of parts) {
    // If the template has split the text after the mark, no control token follows.
    const found = controlToken.exec(part)
    const end = found?.index === 0 ? found[0].length : 0
    pieces.push({ text: part.slice(0, end), special: false }, { text: part.slice(end), special: true })
  }
  return pieces.filter((piece) => piece.text !== "")
}

/** Finds a control token; of several at the same position, the longest. */
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

type Print = (
  messages: ReadonlyArray<Value>,
  tools: ReadonlyArray<Value>,
  goOn: boolean,
  thinking?: Thinking
) => string

/**
 * The variables by which templates are told how much to think: those of Qwen, DeepSeek, gpt-oss and Seed-OSS. If the caller
 * does not say, the model thinks as with llama.cpp: templates that have `enable_thinking` print it.
 */
const variablesOf = (thinking: Thinking | undefined): Readonly<Record<string, Value>> => {
  if (thinking === undefined) return { enable_thinking: true }
  const { budget, effort, on } = thinking
  if (!on) return { enable_thinking: false, thinking: false, thinking_budget: 0 }
  return {
    enable_thinking: true,
    thinking: true,
    ...(effort === undefined ? {} : { reasoning_effort: effort }),
    ...(budget === undefined ? {} : { thinking_budget: budget })
  }
}

const printerOf = ({ bos, eos, source }: ChatTemplateOptions): Print => {
  const template = parseJinja(source)
  const hasToolResponses = readsToolResponses(source)
  return (messages, tools, goOn, thinking) =>
    template.render({
      ...variablesOf(thinking),
      messages: hasToolResponses ? withToolResponses(messages as ReadonlyArray<object>) : messages,
      ...(tools.length === 0 ? {} : { tools }),
      add_generation_prompt: goOn,
      bos_token: bos ?? "",
      eos_token: eos ?? ""
    })
}

/** Whether the prompt of a question differs if the model must not think. */
const hasSwitch = (print: Print): boolean => {
  try {
    const prompt = (on: boolean) => print(conversationOf([question]), [], true, { on })
    return prompt(true) !== prompt(false)
  } catch (cause) {
    if (cause instanceof OverBudget) throw cause
    return false
  }
}

/** A template may reject a value of a variable, thoughts or the order of roles: it is rendered without, then. */
const printHinted = <A>(hinted: () => A, plain: () => A): A => {
  try {
    return hinted()
  } catch (cause) {
    if (cause instanceof OverBudget) throw cause
    return plain()
  }
}

/** Renders a first question, its answer and a tool, to detect the template's features. */
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
    hasThinkingSwitch: hasSwitch(print),
    hasSystem: attempt([{ role: "system", content: answer.content }, question], [], true).includes(answer.content),
    turnEnd: end < 0 ? "" : answered.slice(end + answer.content.length),
    supportsTools: attempt([question], [probeTool], true).includes(probeTool.name)
  }
}

/** How a template reads thoughts, tried out with those before a call and its text. */
const thoughtFieldsOf = (print: Print, source: string): ThoughtFields | undefined => {
  const fields = fieldsFor(source)
  if (fields === undefined) return undefined
  const call = { id: "call", name: probeTool.name, arguments: "{}" }
  const prints = (fields: ThoughtFields): boolean => {
    try {
      const messages = [question, { ...answer, thoughts: "probe4714", toolCalls: [call] }]
      print(conversationOf(messages, fields), toolsOf([probeTool]), true)
      return true
    } catch (cause) {
      if (cause instanceof OverBudget) throw cause
      return false
    }
  }
  return !prints(fields) && prints(joined(fields)) ? joined(fields) : fields
}

/** How the template writes an earlier call. */
const readCallSyntax = (print: Print, { control, eos = "", source }: ChatTemplateOptions, turnEnd: string) => {
  const argument = ["text", "probe4716"] as const
  const second = ["word", "probe4717"] as const
  const calling = (...args: ReadonlyArray<Argument>): ChatMessage => {
    const call = { id: "call", name: probeTool.name, arguments: JSON.stringify(Object.fromEntries(args)) }
    return { role: "assistant", content: "", toolCalls: [call] }
  }
  const printed = (messages: ReadonlyArray<ChatMessage>, goOn: boolean) =>
    print(conversationOf(messages), toolsOf([probeTool]), goOn, { on: false })
  try {
    return callSyntaxOf({
      text: printed([question, calling(argument)], false),
      two: () => ({ text: printed([question, calling(argument, second)], false), second }),
      prompt: printed([question], true),
      question: probe,
      name: probeTool.name,
      argument,
      ends: [turnEnd.trim(), eos, ...control]
    }) ?? knownSyntaxOf(source)
  } catch (cause) {
    if (cause instanceof OverBudget) throw cause
    return knownSyntaxOf(source)
  }
}

type Opened = Pick<ChatTemplate, "callSyntax"> & {
  readonly print: Print
  readonly thoughtFields: ThoughtFields | undefined
} & ReturnType<typeof tryOut>

/** The template with its detected features, or why it is not usable. Throws `load_failed` if it exceeds the work budget. */
const openWith = (
  options: ChatTemplateOptions,
  change: (messages: ReadonlyArray<Value>) => ReadonlyArray<Value>
): Opened | Unusable => {
  try {
    const printer = printerOf(options)
    const print: Print = (messages, ...more) => printer(change(messages), ...more)
    const found = tryOut(print)
    return found.asked.includes(probe)
      ? {
        print,
        thoughtFields: thoughtFieldsOf(print, options.source),
        callSyntax: readCallSyntax(print, options, found.turnEnd),
        ...found
      }
      : { problem: "its prompt does not contain the messages" }
  } catch (cause) {
    return cause instanceof OverBudget
      ? refuseBudget(options.name, cause, "load_failed")
      : { problem: messageOf(cause) }
  }
}

/** The same; a template that reads no text as the content of a message gets a list of parts. */
const open = (options: ChatTemplateOptions): Opened | Unusable => {
  if (options.source.trim() === "") return { problem: "it is empty" }
  const opened = openWith(options, (messages) => messages)
  if (!("problem" in opened)) return opened
  const typed = openWith(options, withTypedContent)
  return "problem" in typed ? opened : typed
}

type Render = (
  messages: ReadonlyArray<ChatMessage>,
  tools: ReadonlyArray<ToolDefinition>,
  thinking: Thinking | undefined
) => ReadonlyArray<Piece>

const rendererOf = ({ hasSystem, print, thoughtFields }: Opened, control: ReadonlyArray<string>): Render => {
  const controlToken = finderOf(control)
  const everyControlToken = new RegExp(controlToken, "g")

  const render: Render = (messages, tools, thinking) => {
    const mark = markFor(JSON.stringify([messages, tools]))
    const marked = (values: ReadonlyArray<Value>) =>
      mapStrings(values, (text) => text.replaceAll(everyControlToken, `${mark}$&`)) as ReadonlyArray<Value>
    const printWith = (fields?: ThoughtFields, thinking?: Thinking) =>
      print(marked(conversationOf(messages, fields)), marked(toolsOf(tools)), true, thinking)
    const printAs = (fields?: ThoughtFields) =>
      thinking === undefined
        ? printWith(fields)
        : printHinted(() => printWith(fields, thinking), () => printWith(fields))
    const hasThoughts = thoughtFields !== undefined && messages.some(({ thoughts }) => thoughts !== undefined)
    const prompt = hasThoughts ? printHinted(() => printAs(thoughtFields), () => printAs()) : printAs()
    if (prompt.trim() === "") throw new Error("it renders no text")
    return cut(prompt, mark, controlToken)
  }
  return (messages, tools, thinking) => {
    const taken = hasSystem ? messages : withoutSystem(messages)
    const joined = joinRoles(taken)
    // A template may accept messages of the same role in succession.
    return joined.length === taken.length
      ? render(taken, tools, thinking)
      : printHinted(() => render(taken, tools, thinking), () => render(joined, tools, thinking))
  }
}

/**
 * @returns the template, or why it is not usable: it is empty, it cannot be parsed, it fails for one question, or its
 *   prompt does not contain the question
 */
export const makeChatTemplate = (options: ChatTemplateOptions): ChatTemplate | Unusable => {
  const opened = open(options)
  if ("problem" in opened) return opened
  const { callSyntax, hasThinkingSwitch, supportsTools, turnEnd } = opened
  const render = rendererOf(opened, options.control)
  return {
    supportsTools,
    turnEnd,
    hasThinkingSwitch,
    callSyntax,
    source: options.source,
    render(messages, tools = [], thinking) {
      try {
        return render(messages, tools, thinking)
      } catch (cause) {
        if (cause instanceof OverBudget) return refuseBudget(options.name, cause, "invalid_request")
        return refuse({
          kind: "invalid_request",
          path: "messages",
          message: `The model's chat template rejects the messages: ${messageOf(cause)}`
        })
      }
    }
  }
}

/**
 * Separates tool calls from text in a streamed answer.
 *
 * **Details**
 *
 * It reads the calls of the sections in `ToolCallSyntax`, and calls without a marker at the beginning of an answer: a JSON object
 * (Llama 3) or a list, and a tool's name on a line (Functionary). White space around calls is removed. Text that only
 * begins like a call is returned as text, unchanged. The result does not depend on how the answer is split into pieces.
 *
 * **Gotchas**
 *
 * Arguments that are JSON are streamed without validation, so invalid JSON in them is not detected.
 */
import type { ToolDefinition } from "../../domain/Job.ts"
import type { Context } from "./ToolCallHeads.ts"
import { readNamedHead, readParam } from "./ToolCallHeads.ts"
import type { Call } from "./ToolCallJson.ts"
import { callOf, endOfObject, makeScan, readHead } from "./ToolCallJson.ts"
import type { LiteralForm } from "./ToolCallLiterals.ts"
import { argumentOf, literalArguments, literalForms, makeLiteralScan } from "./ToolCallLiterals.ts"
import type { Form, More, NamedForm, Section } from "./ToolCallSyntax.ts"
import {
  bareList,
  bareName,
  bareObject,
  fenced,
  findSection,
  heldLength,
  openerOf,
  skip,
  skipSpace
} from "./ToolCallSyntax.ts"

/** A part of an answer. */
export type Part =
  | { readonly type: "text"; readonly text: string }
  | {
    readonly type: "tool_call"
    readonly index: number
    /** In the call's first part only, like `name`. */
    readonly id?: string
    readonly name?: string
    readonly arguments: string
  }

export interface ToolCallReader {
  /** The parts that more text cannot change. */
  readonly push: (text: string) => ReadonlyArray<Part>
  /**
   * The remaining parts, at the end of the answer.
   *
   * @param isCut whether the model has not ended it: arguments stay incomplete
   */
  readonly flush: (isCut?: boolean) => ReadonlyArray<Part>
}

/** A tool of the request: its parameters decide the types of arguments that are written as text. */
export type KnownTool = Pick<ToolDefinition, "name" | "parameters">

/** The result of a step: it needs more text, or the next step can run. */
type Step = "wait" | "next"

class Reader implements ToolCallReader {
  readonly #tools: ReadonlyMap<string, KnownTool>
  readonly #names: ReadonlySet<string>
  readonly #idOf: (index: number) => string
  #rest = ""
  /** Pieces of a value whose end marker has not arrived. */
  #held: Array<string> = []
  /** The end marker that is awaited; empty for none. */
  #end = ""
  /** The last characters before the next piece, in which the end marker may begin. */
  #recent = ""
  #ended = false
  #parts: Array<Part> = []
  #index = -1
  #step: () => Step = () => this.#text()
  #section: Section = bareObject
  #isList = false
  /** Text before a possible call; if the call is not one, both are text of the answer. */
  #lead = ""
  /** Only white space so far, so the complete answer may be a call. */
  #atBegin: boolean
  #afterCall = false
  /** What completes the arguments of a call whose end marker is missing. */
  #closing = ""

  constructor(tools: ReadonlyArray<KnownTool>, idOf: (index: number) => string, atBegin: boolean) {
    this.#atBegin = atBegin
    this.#tools = new Map(tools.map((tool) => [tool.name, tool]))
    this.#names = new Set(this.#tools.keys())
    this.#idOf = idOf
  }

  push(text: string): ReadonlyArray<Part> {
    this.#parts = []
    if (this.#isAwaited(text)) return this.#parts
    this.#rest += this.#held.join("") + text
    this.#held = []
    while (this.#rest !== "" && this.#step() === "next");
    return this.#parts
  }

  flush(isCut = false): ReadonlyArray<Part> {
    this.#ended = true
    const parts = this.push("")
    if (!isCut && this.#closing !== "") this.#emitArguments(this.#closing)
    if (this.#afterCall && this.#rest.trim() === "") this.#rest = ""
    this.#emitText(this.#lead + this.#take(this.#rest.length))
    return parts
  }

  /** Whether a long value goes on: its text is kept aside, so that it is not searched again with each piece. */
  #isAwaited(text: string): boolean {
    if (this.#end === "" || this.#ended) return false
    const tail = this.#recent + text
    const isFound = tail.includes(this.#end)
    this.#recent = tail.slice(-this.#end.length)
    if (isFound) this.#end = ""
    else this.#held.push(text)
    return !isFound
  }

  #await(end: string): void {
    if (this.#rest.includes(end)) return
    this.#end = end
    this.#recent = this.#rest.slice(-end.length)
  }

  #take(length: number): string {
    const taken = this.#rest.slice(0, length)
    this.#rest = this.#rest.slice(length)
    return taken
  }

  #emitText(text: string) {
    const kept = this.#afterCall ? text.trimStart() : text
    if (kept === "") return
    this.#parts.push({ type: "text", text: kept })
    this.#afterCall = false
    if (kept.trim() !== "") this.#atBegin = false
  }

  #go(step: () => Step): Step {
    this.#step = step
    return "next"
  }

  /** Waits for more text, or, at the end of the answer, takes what there is as text. */
  #orReject(found: More | undefined): Step {
    return found === "more" && !this.#ended ? "wait" : this.#reject()
  }

  /** Emits the lead as text; the text after it may contain a call. */
  #reject(): Step {
    const opener = openerOf(this.#section)
    // Otherwise the same section would begin again.
    const skipped = this.#section.open === "" && this.#rest.startsWith(opener) ? opener.length : 0
    this.#emitText(this.#lead + this.#take(skipped))
    this.#lead = ""
    this.#atBegin = false
    return this.#go(() => this.#text())
  }

  #begin(section: Section, lead: number): Step {
    this.#section = section
    this.#isList = false
    this.#lead = this.#take(lead)
    return this.#go(() => this.#opened())
  }

  /** The section that begins with the first character of an answer. */
  #sectionAtBegin(space: number): Section | More | undefined {
    const text = this.#rest.slice(space)
    if (text === "") return undefined
    if (text[0] === "{") return bareObject
    if (text[0] === "[") return heldLength(text) === text.length ? "more" : bareList
    const fence = skip(text, 0, fenced.open)
    if (fence !== undefined) return fence === "more" ? "more" : fenced
    const names = [...this.#names].map((name) => `${name}\n`)
    if (names.some((name) => text.startsWith(name))) return bareName
    return names.some((name) => name.startsWith(text)) ? "more" : undefined
  }

  #text(): Step {
    const found = findSection(this.#rest)
    const space = skipSpace(this.#rest, 0)
    if (this.#atBegin && found?.at !== space) {
      const section = this.#sectionAtBegin(space)
      if (section === "more" && !this.#ended) return "wait"
      if (typeof section === "object") return this.#begin(section, space + section.open.length)
    }
    if (found !== undefined) {
      this.#emitText(this.#take(this.#rest.slice(0, found.at).trimEnd().length))
      return this.#begin(found.section, skipSpace(this.#rest, 0) + found.section.open.length)
    }
    this.#emitText(this.#take(this.#rest.length - (this.#ended ? 0 : heldLength(this.#rest))))
    return "wait"
  }

  /** What a section has before its calls, and the beginning of a list. */
  #opened(): Step {
    const { forms, next = "" } = this.#section
    const end = next === "" ? 0 : skip(this.#rest, 0, next)
    if (typeof end !== "number") return this.#orReject(end)
    this.#lead += this.#take(end)
    this.#isList = next === "["
    return this.#go(() => forms[0]!.type === "object" ? this.#list() : this.#call())
  }

  #list(): Step {
    const end = skip(this.#rest, 0, "[")
    if (end === "more" && !this.#ended) return "wait"
    if (typeof end === "number" && !this.#isList) {
      this.#lead += this.#take(end)
      this.#isList = true
    }
    return this.#go(() => this.#call())
  }

  /** A call in one of the forms of the section, which more text may decide. */
  #call(): Step {
    const results = this.#section.forms.map((form) => this.#startOf(form))
    const start = results.find((result) => typeof result === "function")
    // A form before the one that fits may need more text to fit.
    const undecided = results.indexOf("more")
    if (start !== undefined && (undecided < 0 || undecided > results.indexOf(start))) return start()
    return undecided >= 0 && !this.#ended ? "wait" : start === undefined ? this.#reject() : start()
  }

  /** Reads the first call that begins here; undefined if the form does not fit. */
  #startOf(form: Form): (() => Step) | More | undefined {
    switch (form.type) {
      case "object":
        return this.#objectStart()
      case "python":
      case "gemma":
        return this.#literalStart(literalForms[form.type])
      case "named":
        return this.#namedStart(form)
    }
  }

  #objectStart(): (() => Step) | More | undefined {
    const begin = skip(this.#rest, 0, "{")
    if (typeof begin !== "number") return begin
    const head = readHead(this.#rest)
    if (head === "more") return "more"
    if (head === "whole" || head === undefined) {
      return head === undefined && this.#section.isLoose === true ? undefined : () => this.#whole(begin - 1)
    }
    if (this.#section.isLoose === true && !this.#names.has(head.name)) return undefined
    return () => {
      this.#take(head.at)
      this.#start(head.name, "")
      return this.#go(this.#makeJson(() => this.#tail()))
    }
  }

  /** A call with its fields in another order: it is emitted at its end. */
  #whole(begin: number): Step {
    const scan = makeScan()
    let scanned = begin
    return this.#go(() => {
      const length = scan(this.#rest.slice(scanned))
      if (length === undefined) {
        scanned = this.#rest.length
        return this.#orReject("more")
      }
      const end = scanned + length
      const call = callOf(this.#rest.slice(begin, end), this.#names)
      const isCall = call !== undefined && (this.#section.isLoose !== true || this.#names.has(call.name))
      return isCall ? this.#emitCall(end, call) : this.#reject()
    })
  }

  #emitCall(end: number, { arguments: args, name }: Call): Step {
    this.#take(end)
    this.#start(name, args)
    return this.#go(() => this.#after())
  }

  /** A name with literals between brackets; emitted at its end. */
  #literalStart({ beginning, close, head, notation }: LiteralForm): (() => Step) | More | undefined {
    const found = head.exec(this.#rest)
    if (found === null) return beginning.test(this.#rest) && this.#isNameBeginning() ? "more" : undefined
    const name = this.#names.has(found[1]!) ? found[1]! : found[1]!.replace(/\.call$/, "")
    if (!this.#names.has(name) && this.#section.close === "") return undefined
    const scan = makeLiteralScan(notation)
    const begin = found[0].length
    const read = (): Step => {
      const end = scan(this.#rest.slice(begin), this.#ended)
      if (end === undefined) return this.#orReject("more")
      const args = literalArguments(this.#rest.slice(begin, begin + end), close, notation)
      return args === undefined ? this.#reject() : this.#emitCall(begin + end, { name, arguments: args })
    }
    return () => this.#go(read)
  }

  /** Whether the text may become the name of a tool, where it must be one. */
  #isNameBeginning(): boolean {
    const text = this.#rest.trim()
    return this.#section.close !== "" ||
      [...this.#names].some((name) => name.startsWith(text) || `${name}.call`.startsWith(text))
  }

  #context(): Context {
    return { section: this.#section, names: this.#names, ended: this.#ended }
  }

  #namedStart(form: NamedForm): (() => Step) | More | undefined {
    const head = readNamedHead(this.#rest, form, this.#context())
    if (typeof head !== "object") return head
    return () => {
      this.#take(head.length)
      return this.#arguments(form, head.name)
    }
  }

  #arguments(form: NamedForm, name: string): Step {
    this.#start(name, "")
    this.#closing = "{}"
    const first = (): Step => {
      const at = skipSpace(this.#rest, 0)
      if (at === this.#rest.length && !this.#ended) return "wait"
      if (this.#rest[at] !== "{") return this.#go(this.#makeParams(form, name))
      this.#take(at)
      this.#closing = ""
      return this.#go(this.#makeJson(this.#makeEnds(form.ends)))
    }
    return this.#go(first)
  }

  #start(name: string, args: string) {
    this.#lead = ""
    this.#index++
    this.#atBegin = false
    this.#afterCall = true
    this.#parts.push({ type: "tool_call", index: this.#index, id: this.#idOf(this.#index), name, arguments: args })
  }

  #emitArguments(text: string): void {
    this.#parts.push({ type: "tool_call", index: this.#index, arguments: text })
  }

  #makeJson(then: () => Step): () => Step {
    const scan = makeScan()
    return () => {
      const end = scan(this.#rest)
      this.#emitArguments(this.#take(end ?? this.#rest.length))
      return end === undefined ? "wait" : this.#go(then)
    }
  }

  /** The rest of the call's object; its other fields are ignored. */
  #tail(): Step {
    const at = skipSpace(this.#rest, 0)
    if (at === this.#rest.length) return "wait"
    if (this.#rest[at] === ",") {
      const end = endOfObject(`{${this.#rest}`, 0)
      if (end === "more" && !this.#ended) return "wait"
      this.#take(end === "more" ? this.#rest.length : end - 1)
    } else if (this.#rest[at] === "}") this.#take(at + 1)
    return this.#go(() => this.#after())
  }

  /** Marked arguments, each emitted at its end. */
  #makeParams(form: NamedForm, name: string): () => Step {
    const parameters = this.#tools.get(name)?.parameters
    const properties = parameters?.["properties"] as
      | Readonly<Record<string, unknown>>
      | undefined
    const end = (): Step => {
      this.#emitArguments(this.#closing)
      this.#closing = ""
      return this.#go(this.#makeEnds(form.ends))
    }
    const next = (): Step => {
      const found = form.params && readParam(this.#rest, form, form.params, this.#context())
      if (found === "more" && !this.#ended) {
        if (this.#rest.includes(form.params!.keyEnd)) this.#await(form.params!.end.split("{", 1)[0]!)
        return "wait"
      }
      if (found === "more" && this.#rest.trimStart().startsWith(form.params!.begin)) {
        // A part of a value is not a value.
        this.#closing = ""
        this.#take(this.#rest.length)
        return "wait"
      }
      if (typeof found !== "object") return end()
      const { isText, key, length, value } = found
      this.#take(length)
      const before = this.#closing === "{}" ? "{" : ", "
      this.#emitArguments(
        `${before}${JSON.stringify(key)}: ${argumentOf(value, properties?.[key], parameters, isText)}`
      )
      this.#closing = "}"
      return "next"
    }
    return next
  }

  #makeEnds(ends: ReadonlyArray<string>): () => Step {
    let index = 0
    return () => {
      for (; index < ends.length; index++) {
        const end = skip(this.#rest, 0, ends[index]!)
        if (end === "more" && !this.#ended) return "wait"
        if (typeof end === "number") this.#take(end)
      }
      return this.#go(() => this.#after())
    }
  }

  /** The separator before another call, or the end of calls. */
  #after(): Step {
    const end = this.#isList ? skip(this.#rest, 0, "]") : undefined
    if (typeof end === "number") {
      this.#isList = false
      this.#take(end)
      return "next"
    }
    const { close } = this.#section
    const closed = close === "" ? undefined : skip(this.#rest, 0, close)
    const another = this.#another()
    if ([end, closed, another].includes("more") && !this.#ended) return "wait"
    if (typeof another === "number") {
      this.#lead = this.#take(another)
      return this.#go(() => this.#call())
    }
    if (typeof closed === "number") this.#take(closed)
    return this.#go(() => this.#text())
  }

  /** Where another call of the section begins. */
  #another(): number | More | undefined {
    const { close, forms } = this.#section
    const separator = this.#isList ? "," : ";"
    const separated = skip(this.#rest, 0, separator)
    if (typeof separated === "number") return this.#isList ? separated : this.#beginning(forms, separated)
    // Without a separator, a call follows within a section that ends.
    const direct = close === "" || this.#isList ? undefined : this.#beginning(forms, 0)
    return direct ?? separated
  }

  /** The place at which a call begins with a marker. */
  #beginning(forms: ReadonlyArray<Form>, at: number): number | More | undefined {
    const wanted = forms.flatMap((form) =>
      form.type === "object" ? ["{"] : form.type === "named" && form.begin !== "" ? [form.begin] : []
    )
    const found = wanted.map((begin) => skip(this.#rest, at, begin))
    if (found.some((end) => typeof end === "number")) return at
    return found.includes("more") ? "more" : undefined
  }
}

/**
 * @param tools of the request: an answer without a marker is a call only with one of their names
 * @param idOf the id of the answer's call with this index
 * @param atBegin false if text came before
 */
export const makeToolCallReader = (
  tools: ReadonlyArray<KnownTool>,
  idOf: (index: number) => string,
  atBegin = true
): ToolCallReader => new Reader(tools, idOf, atBegin)

/**
 * Separates tool calls from text in a streamed answer.
 *
 * **Details**
 *
 * It parses the common styles of calls, each a JSON object with `name` and `arguments` or `parameters`: between
 * `<tool_call>` and `</tool_call>` (Hermes, Qwen), after `<|python_tag|>` or as the complete answer (Llama 3, several
 * separated by `;`), and in a list after `[TOOL_CALLS]` (Mistral). White space around calls is removed. Text that only
 * begins like a call is returned as text, unchanged. The result does not depend on how the answer is split into pieces.
 *
 * **Gotchas**
 *
 * Arguments are streamed without validation, so invalid JSON in them is not detected.
 */

import type { Style } from "./ToolCallSyntax.ts"
import {
  bare,
  callOf,
  endOfObject,
  findMarker,
  heldLength,
  makeScan,
  readHead,
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
  /** The remaining parts, at the end of the answer. */
  readonly flush: () => ReadonlyArray<Part>
}

/** The result of a step: it needs more text, or the next step can run. */
type Step = "wait" | "next"

class Reader implements ToolCallReader {
  readonly #names: ReadonlySet<string>
  readonly #idOf: (index: number) => string
  #rest = ""
  #ended = false
  #parts: Array<Part> = []
  #index = -1
  #step: () => Step = () => this.#text()
  #style: Style = bare
  /** Text before a possible call; if the call is not one, both are text of the answer. */
  #lead = ""
  /** Only white space so far, so the complete answer may be a call. */
  #atBegin: boolean
  #afterCall = false

  constructor(names: ReadonlySet<string>, idOf: (index: number) => string, atBegin: boolean) {
    this.#atBegin = atBegin
    this.#names = names
    this.#idOf = idOf
  }

  push(text: string): ReadonlyArray<Part> {
    this.#rest += text
    this.#parts = []
    while (this.#rest !== "" && this.#step() === "next");
    return this.#parts
  }

  flush(): ReadonlyArray<Part> {
    this.#ended = true
    const parts = this.push("")
    if (this.#afterCall && this.#rest.trim() === "") this.#rest = ""
    this.#emitText(this.#lead + this.#take(this.#rest.length))
    return parts
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

  #begin(style: Style, lead: number, step: () => Step): Step {
    this.#style = style
    this.#lead = this.#take(lead)
    this.#step = step
    return "next"
  }

  /** Emits the lead as text; the text after it may contain a call. */
  #reject(): Step {
    this.#emitText(this.#lead)
    this.#lead = ""
    this.#atBegin = false
    this.#step = () => this.#text()
    return "next"
  }

  #text(): Step {
    const found = findMarker(this.#rest)
    const space = skipSpace(this.#rest, 0)
    if (this.#atBegin && this.#rest[space] === "{") return this.#begin(bare, space, () => this.#call())
    if (found !== undefined) {
      this.#emitText(this.#take(this.#rest.slice(0, found.at).trimEnd().length))
      const lead = skipSpace(this.#rest, 0) + found.style.open.length
      return this.#begin(found.style, lead, () => this.#list())
    }
    this.#emitText(this.#take(this.#rest.length - (this.#ended ? 0 : heldLength(this.#rest))))
    return "wait"
  }

  #list(): Step {
    const end = skip(this.#rest, 0, this.#style.list)
    if (typeof end !== "number") return end === undefined || this.#ended ? this.#reject() : "wait"
    this.#lead += this.#take(end)
    this.#step = () => this.#call()
    return "next"
  }

  #call(): Step {
    const head = readHead(this.#rest)
    if (head === "more") return this.#ended ? this.#reject() : "wait"
    if (head === undefined) return this.#wholeCall()
    if (this.#style === bare && !this.#names.has(head.name)) return this.#reject()
    this.#take(head.at)
    this.#start(head.name, "")
    this.#step = this.#makeArguments()
    return "next"
  }

  /** A call with its fields in another order: it is emitted at its end. */
  #wholeCall(): Step {
    const begin = skip(this.#rest, 0, "{")
    if (this.#style === bare || typeof begin !== "number") return this.#reject()
    const end = endOfObject(this.#rest, begin - 1)
    if (end === "more") return this.#ended ? this.#reject() : "wait"
    const call = callOf(this.#rest.slice(begin - 1, end))
    if (call === undefined) return this.#reject()
    this.#take(end)
    this.#start(call.name, call.arguments)
    this.#step = () => this.#after()
    return "next"
  }

  #start(name: string, args: string) {
    this.#lead = ""
    this.#index++
    this.#atBegin = false
    this.#afterCall = true
    this.#parts.push({ type: "tool_call", index: this.#index, id: this.#idOf(this.#index), name, arguments: args })
  }

  #makeArguments(): () => Step {
    const scan = makeScan()
    return () => {
      const end = scan(this.#rest)
      this.#parts.push({ type: "tool_call", index: this.#index, arguments: this.#take(end ?? this.#rest.length) })
      if (end === undefined) return "wait"
      this.#step = () => this.#tail()
      return "next"
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
    this.#step = () => this.#after()
    return "next"
  }

  /** The separator before another call, or the end of calls. */
  #after(): Step {
    const { close, separator } = this.#style
    const another = separator === "" ? undefined : skip(this.#rest, 0, separator)
    const begin = typeof another === "number" ? skip(this.#rest, another, "{") : another
    if (begin === "more" && !this.#ended) return "wait"
    if (typeof begin === "number") return this.#begin(this.#style, begin - 1, () => this.#call())
    const end = close === "" ? 0 : skip(this.#rest, 0, close)
    if (end === "more" && !this.#ended) return "wait"
    if (typeof end === "number") this.#take(end)
    this.#step = () => this.#text()
    return "next"
  }
}

/**
 * @param names of the available tools: an answer without a marker is a call only with one of these names
 * @param idOf the id of the answer's call with this index
 * @param atBegin false if text came before
 */
export const makeToolCallReader = (
  names: ReadonlyArray<string>,
  idOf: (index: number) => string,
  atBegin = true
): ToolCallReader => new Reader(new Set(names), idOf, atBegin)

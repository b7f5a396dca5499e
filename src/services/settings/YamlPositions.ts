/**
 * Finds lines and columns of the keys and list elements of YAML text, for messages. Pure.
 *
 * **Details**
 *
 * For valid YAML: block and flow collections, quoted keys, block scalars, anchors and comments. Values of aliases and
 * merges have no positions. Positions are used in messages only.
 */
import { formatPath } from "../../domain/Problem.ts"

/** Both from 1. */
export interface Position {
  readonly line: number
  readonly column: number
}

type Path = ReadonlyArray<string | number>

/** An open block collection. */
interface Block {
  readonly indent: number
  readonly kind: "mapping" | "list"
  readonly path: Path
  /** The key or index that is read now. */
  at: string | number
}

const keyPattern = /^(?:"((?:[^"\\]|\\.)*)"|'((?:[^']|'')*)'|([^\s"'[\]{}#&*!|>%@`-][^#]*?|-[^\s#][^#]*?))\s*:(?=\s|$)/
const flowKey = /^(?:"((?:[^"\\]|\\.)*)"|'((?:[^']|'')*)'|([^\s,[\]{}"':]+(?:[^,[\]{}:]*[^\s,[\]{}:])?))\s*:/
const decoration = /^(?:[&!][^\s,[\]{}]*\s+)+/

const nameOf = (match: RegExpExecArray): string => match[1] ?? match[2]?.replaceAll("''", "'") ?? match[3] ?? ""

class Reader {
  readonly positions = new Map<string, Position>()
  readonly #lines: ReadonlyArray<string>
  readonly #open: Array<Block> = []
  #line = 0

  constructor(text: string) {
    this.#lines = text.replace(/^\uFEFF/, "").split(/\r\n?|\n/)
  }

  read(): void {
    for (; this.#line < this.#lines.length; this.#line++) {
      const text = this.#lines[this.#line]!
      const column = text.search(/[^ ]/)
      if (column >= 0 && !/^(?:#|---(?:\s|$)|\.\.\.|%)/.test(text.slice(column))) this.#content(text, column)
    }
  }

  #note(path: Path, column: number): void {
    const key = formatPath(path)
    if (!this.positions.has(key)) this.positions.set(key, { line: this.#line + 1, column: column + 1 })
  }

  #pathNow(): Path {
    const top = this.#open.at(-1)
    return top === undefined ? [] : [...top.path, top.at]
  }

  /** Closes what ends before a collection of this kind at this column. */
  #close(indent: number, kind: Block["kind"]): Block | undefined {
    for (let top = this.#open.at(-1); top !== undefined; top = this.#open.at(-1)) {
      // A list may be at the column of its key.
      const isOver = top.indent > indent || (top.indent === indent && top.kind === "list" && kind === "mapping")
      if (!isOver) return top.indent === indent && top.kind === kind ? top : undefined
      this.#open.pop()
    }
    return undefined
  }

  #enter(indent: number, kind: Block["kind"]): Block {
    const known = this.#close(indent, kind)
    if (known !== undefined) return known
    const block: Block = { indent, kind, path: this.#pathNow(), at: -1 }
    this.#open.push(block)
    return block
  }

  #content(text: string, column: number): void {
    let at = column
    for (let dash = /^-(\s+|$)/.exec(text.slice(at)); dash !== null; dash = /^-(\s+|$)/.exec(text.slice(at))) {
      const list = this.#enter(at, "list")
      list.at = Number(list.at) + 1
      at += dash[0].length
      this.#note(this.#pathNow(), at)
    }
    const key = keyPattern.exec(text.slice(at))
    if (key === null) return this.#value(text, at, column)
    const mapping = this.#enter(at, "mapping")
    mapping.at = nameOf(key)
    this.#note(this.#pathNow(), at)
    const from = at + key[0].length
    this.#value(text, from + /^\s*/.exec(text.slice(from))![0].length, at)
  }

  #value(text: string, column: number, indent: number): void {
    const from = column + (decoration.exec(text.slice(column))?.[0].length ?? 0)
    const first = text[from]
    if (first === "[" || first === "{") this.#flow(from)
    else if (first === "|" || first === ">") {
      this.#skipWhile((line) => line.trim() === "" || line.search(/[^ ]/) > indent)
    } else if (first === "\"" || first === "'") this.#skipQuoted(text.slice(from), first)
  }

  #skipWhile(isWithin: (line: string) => boolean): void {
    while (this.#line + 1 < this.#lines.length && isWithin(this.#lines[this.#line + 1]!)) this.#line++
  }

  #skipQuoted(text: string, quote: string): void {
    const whole = quote === "'" ? /^'(?:[^']|'')*'/ : /^"(?:[^"\\]|\\.)*"/s
    let so = text
    while (!whole.test(so) && this.#line + 1 < this.#lines.length) so += `\n${this.#lines[++this.#line]!}`
  }

  /** A flow collection from its bracket to its end, which may be lines below. */
  #flow(from: number): void {
    const flow: Flow = { open: [], path: this.#pathNow(), at: from, isStart: false }
    do {
      const rest = this.#lines[this.#line]!.slice(flow.at)
      if (isLineOver(rest, flow)) {
        if (this.#line + 1 >= this.#lines.length) return
        this.#line++
        flow.at = 0
      } else if (/^\s/.test(rest)) flow.at++
      else if (!this.#element(flow, rest)) bracket(flow, rest)
    } while (flow.open.length > 0)
  }

  /** Notes the key or element that begins here; returns whether a key was read. */
  #element(flow: Flow, rest: string): boolean {
    const top = flow.open.at(-1)
    if (!flow.isStart || top === undefined || /^[\]}]/.test(rest)) return false
    const key = top.isList ? null : flowKey.exec(rest)
    const name = key === null ? "" : nameOf(key)
    flow.path = [...top.path, top.isList ? top.index : name]
    this.#note(flow.path, flow.at)
    flow.isStart = false
    flow.at += key?.[0].length ?? 0
    return key !== null
  }
}

/** A flow collection while it is read. */
interface Flow {
  readonly open: Array<{ readonly path: Path; readonly isList: boolean; index: number }>
  path: Path
  at: number
  /** A key or an element begins next. */
  isStart: boolean
}

const isLineOver = (rest: string, { isStart }: Flow): boolean =>
  rest === "" || /^\s+#/.test(rest) || (isStart && rest.startsWith("#"))

/** Reads a bracket, a comma or a scalar. */
const bracket = (flow: Flow, rest: string): void => {
  const character = rest[0]!
  if (!/[[\]{},]/.test(character)) {
    flow.at += /^(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,[\]{}\s]+)/.exec(rest)?.[0].length ?? 1
    return
  }
  flow.at++
  flow.isStart = !/[\]}]/.test(character)
  if (!flow.isStart) flow.open.pop()
  else if (character !== ",") flow.open.push({ path: flow.path, isList: character === "[", index: 0 })
  else flow.open.at(-1)!.index++
}

/** Finds positions by the paths of problems. */
export const make = (text: string): (path: string) => Position | undefined => {
  const reader = new Reader(text)
  reader.read()
  const { positions } = reader
  return (path) => {
    // A missing key has the position of its mapping.
    for (
      let known = path;
      known !== "";
      known = known.slice(0, Math.max(known.lastIndexOf("."), known.lastIndexOf("["), 0))
    ) {
      const found = positions.get(known)
      if (found !== undefined) return found
    }
    return undefined
  }
}

/**
 * Values that models write other than as JSON: Python's literals, those of Gemma, and texts between markers whose types the
 * tool's schema has.
 */
import type { JsonSchema } from "../../domain/Job.ts"

/** Gemma's quotation mark. */
const gemmaQuote = "<|\"|>"

/** How literals are written. */
export interface Notation {
  readonly quotes: ReadonlyArray<string>
  /** Between a name and its value. */
  readonly assign: string
}

/** A call with literals: its name, up to the opening bracket, and how its arguments are written. */
export interface LiteralForm {
  /** Matches the name. */
  readonly head: RegExp
  /** Matches a text that may become a name. */
  readonly beginning: RegExp
  readonly close: string
  readonly notation: Notation
}

export const literalForms: Readonly<Record<"python" | "gemma", LiteralForm>> = {
  python: {
    head: /^\s*([\p{L}_][\p{L}\d_.-]*)\s*\(/u,
    beginning: /^\s*(?:[\p{L}_][\p{L}\d_.-]{0,200}\s*)?$/u,
    close: ")",
    notation: { quotes: ["\"\"\"", "'''", "\"", "'"], assign: "=" }
  },
  gemma: {
    head: /^\s*call:([\p{L}\d_.:/-]+)\s*\{/u,
    beginning: /^\s*(?:c|ca|cal|call|call:[\p{L}\d_.:/-]{0,200}\s*)?$/u,
    close: "}",
    notation: { quotes: [gemmaQuote, "\""], assign: ":" }
  }
}

const words: Readonly<Record<string, unknown>> = {
  True: true,
  true: true,
  False: false,
  false: false,
  None: null,
  null: null
}

const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f", "0": "\0" }

const unescaped = (text: string): string =>
  text.replaceAll(
    /\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\s\S]))/g,
    (_, long, short, one: string) =>
      one === undefined ? String.fromCharCode(Number.parseInt(long ?? short, 16)) : escapes[one] ?? one
  )

class NoLiteral extends Error {}

/** Reads one text. */
class LiteralReader {
  readonly #text: string
  readonly #notation: Notation
  #at: number

  constructor(text: string, at: number, notation: Notation) {
    this.#text = text
    this.#at = at
    this.#notation = notation
  }

  /** Fields up to the closing bracket, which is read. */
  fields(close: string): Readonly<Record<string, unknown>> {
    const fields: Array<readonly [string, unknown]> = []
    while (!this.#skip(close)) {
      if (fields.length > 0) this.#expect(",")
      if (this.#skip(close)) break
      const key = this.#quoted() ?? this.#word()
      if (!this.#skip(this.#notation.assign)) this.#expect(":")
      fields.push([key, this.#value()])
    }
    return Object.fromEntries(fields)
  }

  isAtEnd(): boolean {
    return this.#text.slice(this.#at).trim() === ""
  }

  #space(): void {
    while (/\s/.test(this.#text[this.#at] ?? "")) this.#at++
  }

  #skip(wanted: string): boolean {
    this.#space()
    if (!this.#text.startsWith(wanted, this.#at)) return false
    this.#at += wanted.length
    return true
  }

  #expect(wanted: string): void {
    if (!this.#skip(wanted)) throw new NoLiteral()
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }

  #word(): string {
    this.#space()
    return this.#match(/[\p{L}_$][\p{L}\d_$.-]*/uy) ?? (() => {
      throw new NoLiteral()
    })()
  }

  #quoted(): string | undefined {
    const quote = this.#notation.quotes.find((one) => this.#skip(one))
    if (quote === undefined) return undefined
    const begin = this.#at
    const isRaw = quote === gemmaQuote
    while (!this.#text.startsWith(quote, this.#at)) {
      if (this.#at >= this.#text.length) throw new NoLiteral()
      this.#at += !isRaw && this.#text[this.#at] === "\\" ? 2 : 1
    }
    const inner = this.#text.slice(begin, this.#at)
    this.#at += quote.length
    return isRaw ? inner : unescaped(inner)
  }

  #list(close: string): ReadonlyArray<unknown> {
    const items: Array<unknown> = []
    while (!this.#skip(close)) {
      if (items.length > 0) this.#expect(",")
      if (this.#skip(close)) break
      items.push(this.#value())
    }
    return items
  }

  #value(): unknown {
    const text = this.#quoted()
    if (text !== undefined) return text
    if (this.#skip("[")) return this.#list("]")
    if (this.#skip("(")) return this.#list(")")
    if (this.#skip("{")) return this.fields("}")
    const number = this.#match(/[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/y)
    if (number !== undefined) return Number(number.replaceAll("_", ""))
    const word = this.#word()
    if (!Object.hasOwn(words, word)) throw new NoLiteral()
    return words[word]
  }
}

/**
 * The named values between brackets, as JSON; undefined if they are no literals.
 *
 * @param text the values and the closing bracket
 */
export const literalArguments = (text: string, close: string, notation: Notation): string | undefined => {
  try {
    const reader = new LiteralReader(text, 0, notation)
    const fields = reader.fields(close)
    return reader.isAtEnd() ? JSON.stringify(fields) : undefined
  } catch (cause) {
    if (cause instanceof NoLiteral) return undefined
    throw cause
  }
}

const opening = "([{"
const closing = ")]}"

/** Finds the end of a bracket that has been opened, outside of quotation marks, in a text that arrives in pieces. */
export const makeLiteralScan = ({ quotes }: Notation) => {
  const longest = Math.max(...quotes.map(({ length }) => length))
  let depth = 1
  let at = 0
  let quote: string | undefined
  const readQuoted = (text: string, mark: string): void => {
    if (text.startsWith(mark, at)) {
      at += mark.length
      quote = undefined
    } else at += mark !== gemmaQuote && text[at] === "\\" ? 2 : 1
  }
  const readPlain = (text: string): void => {
    const character = text[at]!
    quote = quotes.find((one) => text.startsWith(one, at))
    if (opening.includes(character)) depth++
    if (closing.includes(character)) depth--
    at += quote?.length ?? 1
  }
  /** @param text from its beginning, longer at each call */
  return (text: string, isEnded: boolean): number | undefined => {
    while (at < text.length && depth > 0) {
      const rest = text.slice(at, at + longest)
      const marks = quote === undefined ? quotes : [quote]
      if (!isEnded && marks.some((mark) => mark.length > rest.length && mark.startsWith(rest))) return undefined
      if (quote === undefined) readPlain(text)
      else readQuoted(text, quote)
    }
    return depth === 0 ? at : undefined
  }
}

const isSchema = (value: unknown): value is JsonSchema => typeof value === "object" && value !== null

const typeOf = (value: unknown): string => {
  if (value === null) return "null"
  if (Array.isArray(value)) return "array"
  return typeof value
}

/** Levels of references and alternatives in which types are looked for. */
const mostLevels = 16

/** What a reference within a document points to. */
const referenced = (reference: string, root: unknown): unknown =>
  reference.split("/").slice(1).reduce<unknown>(
    (at, key) => isSchema(at) ? at[key.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined,
    reference.startsWith("#") ? root : undefined
  )

/**
 * The types that a schema names, those of its alternatives included; none if any.
 *
 * @param root the document that references point to
 */
const typesOf = (schema: unknown, root: unknown, level = 0): ReadonlySet<string> => {
  if (!isSchema(schema) || level > mostLevels) return new Set()
  const { $ref: reference, allOf, anyOf, const: one, enum: listed, oneOf, type } = schema
  const values = Array.isArray(listed) ? listed : Object.hasOwn(schema, "const") ? [one] : []
  const alternatives = [
    ...[allOf, anyOf, oneOf].flatMap((some) => Array.isArray(some) ? some : []),
    ...typeof reference === "string" ? [referenced(reference, root)] : []
  ]
  const named = [type].flat().filter((name) => typeof name === "string").map((name) =>
    name === "integer" ? "number" : name
  )
  return new Set([
    ...named.length > 0 ? named : values.map(typeOf),
    ...alternatives.flatMap((alternative) => [...typesOf(alternative, root, level + 1)])
  ])
}

const parsed = (text: string): unknown => {
  const trimmed = text.trim()
  if (Object.hasOwn(words, trimmed)) return words[trimmed]
  try {
    return JSON.parse(trimmed)
  } catch {
    return undefined
  }
}

const stripped = (text: string): string => {
  const inner = text.replace(/^\n/, "").replace(/\n$/, "")
  return inner.startsWith("<![CDATA[") && inner.endsWith("]]>") ? inner.slice(9, -3) : inner
}

/**
 * The JSON of an argument that is written as plain text.
 *
 * @param schema of the argument; a text stays a text where the schema has no other type
 * @param root the schema of all arguments
 * @param isText what the call itself says; left out, nothing
 */
export const argumentOf = (text: string, schema: unknown, root: unknown, isText?: boolean): string => {
  const inner = stripped(text)
  const types = typesOf(schema, root)
  const value = isText === true ? undefined : parsed(inner)
  const fits = isText === false || types.size === 0 || types.has(typeOf(value))
  return JSON.stringify(value !== undefined && typeof value !== "string" && fits ? value : inner)
}

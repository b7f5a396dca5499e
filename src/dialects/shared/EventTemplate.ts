/**
 * Events of a stream that differ from one another in a few strings only, recognized by their text without `JSON.parse`. Pure.
 *
 * **Details**
 *
 * A template is the JSON of one event around those strings. JSON that is the same around other strings is the same event
 * with other strings, so it needs no parser, and what is made of it is the same around them as well.
 */
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "./Json.ts"
import { fieldsOf, parse } from "./Json.ts"

/** Put in place of the strings, in their order. JSON writes them as they are. */
const placeholders = ["<troupe:first>", "<troupe:second>"] as const

const quote = 0x22
const backslash = 0x5c
const space = 0x20

/** Where the string ends that begins at a place; -1 if the text is not a string of JSON. Escapes are not checked. */
const endOfString = (text: string, from: number): number => {
  for (let index = from; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === quote) return index
    if (code === backslash) index++
    else if (code < space) return -1
  }
  return -1
}

/** Takes half the time of `startsWith`, which compares characters one by one. */
const hasAt = (text: string, from: number, part: string): boolean => text.substring(from, from + part.length) === part

/** The string that JSON writes so, without its quotes; undefined if JSON does not. */
const stringOf = (literal: string): string | undefined => {
  if (!literal.includes("\\")) return literal
  const parsed = parse(`"${literal}"`)
  return typeof parsed === "string" ? parsed : undefined
}

/** The JSON around the placeholders; undefined unless it has each of them once, in their order. */
const partsOf = (json: string, count: number): ReadonlyArray<string> | undefined => {
  const parts: Array<string> = []
  let rest = json
  for (const placeholder of placeholders.slice(0, count)) {
    const [before, after, ...others] = rest.split(placeholder)
    if (after === undefined || others.length > 0) return undefined
    parts.push(before!)
    rest = after
  }
  return [...parts, rest]
}

/** The JSON with these strings, as JSON writes them, between its parts. */
const join = (parts: ReadonlyArray<string>, literals: ReadonlyArray<string>): string => {
  let json = parts[0]!
  for (let index = 0; index < literals.length; index++) json += literals[index]! + parts[index + 1]!
  return json
}

/** What the native chunks of a template have in common. */
export interface ChunkTemplate {
  /** The chunk with placeholders. */
  readonly native: Native
  /** Its JSON around them. */
  readonly parts: ReadonlyArray<string>
}

/** A native chunk of an event that a template recognizes. */
export class RepeatedChunk implements Native {
  readonly dialect: Native["dialect"]
  readonly form: Native["form"]
  readonly hasMore: boolean
  readonly template: ChunkTemplate
  /** The strings in the order of the placeholders, as the provider wrote them between quotes. */
  readonly literals: ReadonlyArray<string>

  constructor(template: ChunkTemplate, literals: ReadonlyArray<string>) {
    this.dialect = template.native.dialect
    this.form = template.native.form
    this.hasMore = template.native.hasMore
    this.template = template
    this.literals = literals
  }

  /** Parsed when it is read: an encoder of the same dialect needs the strings only. */
  get body(): Fields {
    return fieldsOf(parse(join(this.template.parts, this.literals)))!
  }

  /** For a program that writes events as JSON. */
  toJSON(): Native {
    const { body, dialect, form, hasMore } = this
    return { dialect, form, body, hasMore }
  }
}

/** Encodes repeated chunks of a dialect: what a template becomes is encoded once. */
export class ChunkEncoder {
  readonly #dialect: Native["dialect"]
  readonly #encode: (chunk: Fields) => string
  #template: ChunkTemplate | undefined
  #parts: ReadonlyArray<string> | undefined

  /** @param encode writes the strings of a chunk unchanged, as JSON */
  constructor(dialect: Native["dialect"], encode: (chunk: Fields) => string) {
    this.#dialect = dialect
    this.#encode = encode
  }

  /** Undefined for other chunks, and where a template is encoded with a placeholder left out or elsewhere. */
  encode(native: Native): string | undefined {
    if (!(native instanceof RepeatedChunk) || native.dialect !== this.#dialect) return undefined
    const { literals, template } = native
    if (template !== this.#template) {
      this.#template = template
      this.#parts = partsOf(this.#encode(template.native.body), literals.length)
    }
    return this.#parts === undefined ? undefined : join(this.#parts, literals)
  }
}

/** Recognizes the events like one. */
export class EventTemplate {
  readonly #parts: ReadonlyArray<string>
  /** The strings of the last event that was recognized, as they are written between quotes. */
  literals: ReadonlyArray<string> = []
  /** The first of these strings. */
  text = ""

  /** @param parts the JSON of an event around the strings */
  constructor(parts: ReadonlyArray<string>) {
    this.#parts = parts
  }

  /** Whether an event differs in the strings only. */
  matches(json: string): boolean {
    const parts = this.#parts
    if (!hasAt(json, 0, parts[0]!)) return false
    const literals: Array<string> = []
    let from = parts[0]!.length
    for (let index = 1; index < parts.length; index++) {
      const to = endOfString(json, from)
      if (to === -1 || !hasAt(json, to, parts[index]!)) return false
      literals.push(json.slice(from, to))
      from = to + parts[index]!.length
    }
    return from === json.length && this.#take(literals)
  }

  #take(literals: ReadonlyArray<string>): boolean {
    const text = stringOf(literals[0]!)
    if (text === undefined || (literals.length > 1 && stringOf(literals[1]!) === undefined)) return false
    this.literals = literals
    this.text = text
    return true
  }
}

/** The JSON around the strings after the first matches of these patterns, up to the first pattern without a match. */
const around = (json: string, begins: ReadonlyArray<RegExp>): ReadonlyArray<string> => {
  const parts: Array<string> = []
  let from = 0
  for (const begin of begins) {
    begin.lastIndex = from
    if (!begin.test(json)) break
    parts.push(json.slice(from, begin.lastIndex))
    from = endOfString(json, begin.lastIndex)
  }
  return [...parts, json.slice(from)]
}

/** A template, and its event. */
export interface Learned {
  readonly template: EventTemplate
  /** The event with placeholders. */
  readonly event: Fields
  /** Number of placeholders. */
  readonly count: number
}

/**
 * The template of an event; undefined if the strings are not found.
 *
 * @param original the event as `parse` reads it
 * @param begins global patterns of what precedes the strings, as `/"text":"/g`; all but the first may be missing
 * @param stringsOf the values of the strings in an event
 */
export const learn = (
  json: string,
  original: Fields,
  begins: ReadonlyArray<RegExp>,
  stringsOf: (event: Fields) => ReadonlyArray<unknown>
): Learned | undefined => {
  const parts = around(json, begins)
  const used = placeholders.slice(0, parts.length - 1)
  const event = fieldsOf(parse(join(parts, used)))
  if (used.length === 0 || event === undefined) return undefined
  const [before, after] = [stringsOf(original), stringsOf(event)]
  const areFound = used.every((placeholder, index) => before[index] !== placeholder && after[index] === placeholder)
  return areFound ? { template: new EventTemplate(parts), event, count: used.length } : undefined
}

/** The template of native chunks; undefined if their JSON has a placeholder elsewhere. */
export const chunkTemplateOf = (native: Native, count: number): ChunkTemplate | undefined => {
  const parts = partsOf(JSON.stringify(native.body), count)
  return parts === undefined ? undefined : { native, parts }
}

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
  let from = 0
  for (const placeholder of placeholders.slice(0, count)) {
    const place = json.indexOf(placeholder)
    if (place < from || json.includes(placeholder, place + 1)) return undefined
    parts.push(json.slice(from, place))
    from = place + placeholder.length
  }
  parts.push(json.slice(from))
  return parts
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

/** Events in a row that a template recognizes, in the text of a body. */
export interface Run {
  /** The text that has them. */
  readonly source: string
  /** Where the strings of each event begin and end, and where the event ends. */
  readonly places: ReadonlyArray<number>
  /** Strings of an event. */
  readonly count: number
  /** The first strings of the events, joined. */
  readonly text: string
}

/** The native chunks of a run: as one chunk for programs, as the provider sent them for an encoder of the dialect. */
export class RepeatedChunks implements Native {
  readonly dialect: Native["dialect"]
  readonly form: Native["form"]
  readonly hasMore: boolean
  readonly template: ChunkTemplate
  readonly run: Run

  constructor(template: ChunkTemplate, run: Run) {
    this.dialect = template.native.dialect
    this.form = template.native.form
    this.hasMore = template.native.hasMore
    this.template = template
    this.run = run
  }

  /** Parsed when it is read. The strings after the first have no meaning: those of the last event are in it. */
  get body(): Fields {
    const { count, places, source, text } = this.run
    const literals = [JSON.stringify(text).slice(1, -1)]
    for (let index = 1; index < count; index++) {
      const begin = places.length - 1 - 2 * (count - index)
      literals.push(source.slice(places[begin], places[begin + 1]))
    }
    return fieldsOf(parse(join(this.template.parts, literals)))!
  }

  /** For a program that writes events as JSON. */
  toJSON(): Native {
    const { body, dialect, form, hasMore } = this
    return { dialect, form, body, hasMore }
  }
}

/** The text of the events with other parts around their strings. */
const rewritten = ({ count, places, source }: Run, parts: ReadonlyArray<string>): string => {
  const pieces: Array<string> = []
  for (let place = 0; place < places.length; place++) {
    for (let index = 0; index < count; index++) {
      pieces.push(parts[index]!, source.slice(places[place], places[place + 1]))
      place += 2
    }
    pieces.push(parts[count]!)
  }
  return pieces.join("")
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
    if (!(native instanceof RepeatedChunks) || native.dialect !== this.#dialect) return undefined
    const { run, template } = native
    if (template !== this.#template) {
      this.#template = template
      this.#parts = partsOf(this.#encode(template.native.body), run.count)
    }
    return this.#parts && rewritten(run, this.#parts)
  }
}

/** Recognizes the events like one. */
export class EventTemplate {
  readonly #parts: ReadonlyArray<string>
  readonly #count: number
  #places: Array<number> = []
  #text = ""

  /** @param parts the text of an event around the strings */
  constructor(parts: ReadonlyArray<string>) {
    this.#parts = parts
    this.#count = parts.length - 1
  }

  /** The events from a place on that differ in the strings only; undefined if the first one does not, or has no text. */
  runFrom(source: string, begin: number): Run | undefined {
    this.#places = []
    this.#text = ""
    let from = begin
    while (from !== -1) from = this.#readOne(source, from)
    return this.#places.length === 0
      ? undefined
      : { source, places: this.#places, count: this.#count, text: this.#text }
  }

  /** Where the event ends that begins at a place; -1 if it is another one. */
  #readOne(source: string, begin: number): number {
    const parts = this.#parts
    const known = this.#places.length
    if (!hasAt(source, begin, parts[0]!)) return -1
    let text = ""
    let from = begin + parts[0]!.length
    for (let index = 1; index < parts.length; index++) {
      const to = endOfString(source, from)
      const given = to === -1 || !hasAt(source, to, parts[index]!) ? undefined : stringOf(source.slice(from, to))
      if (given === undefined || (index === 1 && given === "")) {
        this.#places.length = known
        return -1
      }
      if (index === 1) text = given
      this.#places.push(from, to)
      from = to + parts[index]!.length
    }
    this.#places.push(from)
    this.#text += text
    return from
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

/** How an event is written, and which of its strings vary. */
export interface EventForm {
  /** Global patterns of what precedes the strings, as `/"text":"/g`; all but the first may be missing. */
  readonly begins: ReadonlyArray<RegExp>
  /** The values of the strings in an event. */
  readonly stringsOf: (event: Fields) => ReadonlyArray<unknown>
}

/**
 * The template of an event; undefined if the strings are not found.
 *
 * @param json of the event
 * @param original the event as `parse` reads it
 * @param around the text before and after the JSON
 */
export const learn = (
  json: string,
  original: Fields,
  { begins, stringsOf }: EventForm,
  [before, after]: readonly [string, string]
): Learned | undefined => {
  const parts = around(json, begins)
  const count = parts.length - 1
  const used = placeholders.slice(0, count)
  const event = fieldsOf(parse(join(parts, used)))
  if (count === 0 || event === undefined) return undefined
  const [given, found] = [stringsOf(original), stringsOf(event)]
  if (!used.every((placeholder, index) => given[index] !== placeholder && found[index] === placeholder)) {
    return undefined
  }
  const template = new EventTemplate(
    parts.map((part, index) => (index === 0 ? before : "") + part + (index === count ? after : ""))
  )
  return { template, event, count }
}

/** The template of native chunks; undefined if their JSON has a placeholder elsewhere. */
export const chunkTemplateOf = (native: Native, count: number): ChunkTemplate | undefined => {
  const parts = partsOf(JSON.stringify(native.body), count)
  return parts === undefined ? undefined : { native, parts }
}

/**
 * Goes through every text of a request: the decoded one and the caller's own body. Pure.
 *
 * **Details**
 *
 * Bytes in base64, URLs with data and signatures of providers are no texts, and stay as they are, but for files that are
 * texts. Values that do not change keep their identity.
 */
import * as Exact from "../../domain/ExactNumber.ts"
import { ExactNumber } from "../../domain/ExactNumber.ts"
import { isNestedDeeper, mostLevels } from "../../domain/JsonScan.ts"
import { mediaTypeOf } from "../../domain/Message.ts"
import * as TextFile from "../../domain/TextFile.ts"

type Fields = Readonly<Record<string, unknown>>

/** Names and indexes from the request or the body down. */
export type Path = ReadonlyArray<string | number>

/** Who wrote a text: `caller` for messages of users and tools, `other` for everything else. */
export type Author = "caller" | "other"

/** The text to put in place of one; the same text leaves it. */
export type Change = (text: string, author: Author, path: Path) => string

/** What else a walk goes through. */
export interface Options {
  /** For numbers in their digits; one that changes becomes a string. Left out, numbers stay. */
  readonly number?: Change
  /** Whether numbers in a place are content; default all. */
  readonly isContent?: (path: Path) => boolean
  /**
   * Whether the texts of neighboring parts are searched as one as well, without and with a line break between them; parts with a
   * match over several become one. Default false.
   */
  readonly joins?: boolean
  /** Whether bytes and signatures are texts as well; default false. */
  readonly isAllText?: boolean
}

const isPlain = (value: unknown): value is Fields => {
  if (typeof value !== "object" || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

const inlineUrl = /^data:[^,]{0,256};base64,/

const base64 = /^[A-Za-z0-9+/]+={0,2}$/

/** Images in base64, as Ollama's API has them. */
const areImages = (value: unknown): boolean =>
  Array.isArray(value) &&
  value.every((one) => typeof one === "string" && mediaTypeOf(one) !== undefined && base64.test(one))

/** Whether the value of a field is bytes or a signature, by what the object has beside it. */
const isOpaque = (fields: Fields, name: string): boolean => {
  const { format, type } = fields
  switch (name) {
    case "url":
    case "image_url":
      return typeof fields[name] === "string" && inlineUrl.test(fields[name])
    case "data":
      return type === "base64" || type === "redacted_thinking" || typeof format === "string"
    case "signature":
      return type === "thinking"
    case "encrypted_content":
      return true
    default:
      return false
  }
}

const isImages = (fields: Fields, name: string): boolean => name === "images" && areImages(fields[name])

const textTypes = new Set<unknown>(["text", "input_text", "output_text"])
const imageTypes = new Set<unknown>(["image", "image_url", "input_image"])

type TextPart = Fields & { readonly text: string }

const isTextPart = (part: unknown): part is TextPart =>
  isPlain(part) && textTypes.has(part["type"]) && typeof part["text"] === "string"

const isImagePart = (part: unknown): boolean => isPlain(part) && imageTypes.has(part["type"])

/** The places of texts with no image between them, where there are several. */
const runsOf = (parts: ReadonlyArray<unknown>): ReadonlyArray<ReadonlyArray<number>> => {
  const runs: Array<Array<number>> = [[]]
  for (const [index, part] of parts.entries()) {
    if (isTextPart(part)) runs.at(-1)!.push(index)
    else if (isImagePart(part)) runs.push([])
  }
  return runs.filter(({ length }) => length > 1)
}

/** The parts with one text in place of several. */
const merge = (parts: ReadonlyArray<unknown>, run: ReadonlyArray<number>, text: string): ReadonlyArray<unknown> =>
  parts.flatMap((part, index) => index === run[0] ? [{ ...part as Fields, text }] : run.includes(index) ? [] : [part])

/** A place in a walk. */
class Walk {
  readonly #change: Change
  readonly #options: Options
  readonly #path: Array<string | number> = []
  author: Author = "other"

  constructor(change: Change, options: Options = {}) {
    this.#change = change
    this.#options = options
  }

  text(text: string): string {
    return this.#change(text, this.author, this.#path)
  }

  value(value: unknown): unknown {
    if (typeof value === "string") return this.text(value)
    if (Array.isArray(value)) return this.list(value as ReadonlyArray<unknown>)
    if (isPlain(value)) return this.fields(value)
    return typeof value === "number" || value instanceof ExactNumber ? this.number(value) : value
  }

  number(value: number | ExactNumber): unknown {
    const { isContent, number } = this.#options
    if (number === undefined || isContent?.(this.#path) === false) return value
    const text = String(value)
    const changed = number(text, this.author, this.#path)
    return changed === text ? value : changed
  }

  list(list: ReadonlyArray<unknown>): ReadonlyArray<unknown> {
    let changed: Array<unknown> | undefined
    for (let index = 0; index < list.length; index++) {
      const value = this.at(index, list[index])
      if (value !== list[index]) changed ??= [...list]
      if (changed !== undefined) changed[index] = value
    }
    return this.#options.joins === true ? this.#joined(changed ?? list) : changed ?? list
  }

  /** From the end, so that the places before stay. */
  #joined(parts: ReadonlyArray<unknown>): ReadonlyArray<unknown> {
    return runsOf(parts).toReversed().reduce((parts, run) => {
      const texts = run.map((index) => (parts[index] as TextPart).text)
      for (const separator of ["", "\n"]) {
        const text = texts.join(separator)
        const changed = this.text(text)
        if (changed !== text) return merge(parts, run, changed)
      }
      return parts
    }, parts)
  }

  /** The names of fields are texts as well. */
  fields(fields: Fields): Fields {
    const entries = Object.entries(fields).map(([name, value]) =>
      this.#options.isAllText !== true && (isOpaque(fields, name) || isImages(fields, name))
        ? [name, value] as const
        : [this.text(name), name === "file_data" ? this.file(value) : this.at(name, value)] as const
    )
    // `Object.fromEntries` takes `__proto__` as a name like any other.
    return entries.every(([name, value]) => Object.hasOwn(fields, name) && fields[name] === value)
      ? fields
      : Object.fromEntries(entries)
  }

  /** A file: its text, if it is one, else its bytes. */
  file(value: unknown): unknown {
    if (typeof value !== "string") return this.at("file_data", value)
    const file = TextFile.parse(value)
    const text = TextFile.textOf(file)
    const changed = text === undefined ? text : this.at("file_data", text) as string
    if (changed !== text) return TextFile.withText(file, changed!)
    // What is no data URL may be no base64 either.
    return file.prefix === "" || this.#options.isAllText === true ? this.at("file_data", value) : value
  }

  at(step: string | number, value: unknown): unknown {
    this.#path.push(step)
    const changed = this.value(value)
    this.#path.pop()
    return changed
  }

  /** Messages or items of a conversation, each with its author. */
  messages(messages: ReadonlyArray<unknown>): ReadonlyArray<unknown> {
    let changed: Array<unknown> | undefined
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index]
      this.author = authorOf(message)
      const value = this.at(index, message)
      if (value !== message) changed ??= [...messages]
      if (changed !== undefined) changed[index] = value
    }
    this.author = "other"
    return changed ?? messages
  }

  /** The fields of a request: its messages have authors. */
  request(fields: Fields, skipped: ReadonlySet<string>): Fields {
    let changed: Record<string, unknown> | undefined
    for (const name of Object.keys(fields)) {
      const given = fields[name]
      if (skipped.has(name) || isImages(fields, name)) continue
      const value = (name === "messages" || name === "input") && Array.isArray(given)
        ? this.#within(name, () => this.messages(given as ReadonlyArray<unknown>))
        : this.#field(name, given)
      if (value !== given) (changed ??= { ...fields })[name] = value
    }
    return changed ?? fields
  }

  #field(name: string, given: unknown): unknown {
    this.author = callerTexts.has(name) ? "caller" : "other"
    const value = this.at(name, given)
    this.author = "other"
    return value
  }

  #within<A>(step: string, walk: () => A): A {
    this.#path.push(step)
    const value = walk()
    this.#path.pop()
    return value
  }
}

/** Roles whose messages an application or the model writes. Any other is a caller's, also one that is not known. */
const ownRoles = new Set<unknown>(["system", "developer", "assistant", "model"])

const authorOf = (message: unknown): Author => isPlain(message) && ownRoles.has(message["role"]) ? "other" : "caller"

/** Fields of a body that stand for a message of a user. */
const callerTexts: ReadonlySet<string> = new Set(["prompt", "suffix"])

/** Fields of a body that are no texts for a model. */
const bodySkipped: ReadonlySet<string> = new Set(["model", "troupe", "priority", "keep_alive"])

/** The body of a caller with other texts. */
export const changeBody = (body: Fields, change: Change, options?: Options): Fields =>
  new Walk(change, options).request(body, bodySkipped)

/** Parsed JSON with other texts. */
export const changeJson = (json: unknown, change: Change, number: Change): unknown =>
  new Walk(change, { number, isAllText: true }).value(json)

/** A decoded request with other texts; its source stays. */
export const changeRequest = <R extends object>(
  request: R,
  fields: ReadonlyArray<keyof R & string>,
  change: Change,
  options?: Options
): R => {
  const given = Object.fromEntries(
    fields.filter((name) => request[name] !== undefined).map((name) => [name, request[name]])
  )
  const changed = new Walk(change, options).request(given, new Set())
  return changed === given ? request : { ...request, ...changed }
}

const begin = /^\s*[[{]/

/**
 * The object or list of a text, as the arguments and results of tools; undefined if the text is not its JSON, or is nested too
 * deeply. Its strings and numbers are changed decoded, so that escapes hide nothing and the text stays JSON.
 */
export const jsonOf = (text: string): unknown => {
  if (!begin.test(text)) return undefined
  try {
    const json = Exact.parse(text)
    return isNestedDeeper(json, mostLevels) ? undefined : json
  } catch {
    return undefined
  }
}

const stringToken = /"(?:[^"\\]|\\.)*"/g

/** The strings of a text of JSON that have escapes, decoded: also those of fields that are there twice. */
const escapedStrings = (text: string): ReadonlyArray<string> =>
  text.includes("\\")
    ? (text.match(stringToken) ?? []).filter((token) => token.includes("\\")).map((token) =>
      JSON.parse(token) as string
    )
    : []

const exponent = /\d[eE][+-]?\d/

/**
 * What a search of the text itself would not find, where the text is JSON: strings with escapes, and numbers that have an
 * exponent, also those of JSON in strings. A text without a backslash and an exponent is not parsed.
 */
export const hiddenTexts = (text: string): ReadonlyArray<string> => {
  if (!begin.test(text) || !(text.includes("\\") || exponent.test(text))) return []
  const json = jsonOf(text)
  if (json === undefined) return []
  const found = [...escapedStrings(text)]
  changeJson(json, (inner) => inner, (number) => {
    found.push(number)
    return number
  })
  return found.flatMap((inner) => [inner, ...hiddenTexts(inner)])
}

/**
 * The text with other strings and numbers.
 *
 * @param isHidden whether a text has what its parsed JSON does not have: of fields with one name, only the last is read
 */
export const changeText = (
  text: string,
  json: unknown,
  [string, number]: readonly [string: (text: string) => string, number: (text: string) => string],
  isHidden: (text: string) => boolean
): string => {
  const changed = changeJson(json, (inner) => string(inner), (inner) => number(inner))
  const isInEscapes = () => escapedStrings(text).some((inner) => isHidden(inner) || hiddenTexts(inner).some(isHidden))
  return changed !== json || isHidden(text) || isInEscapes() ? JSON.stringify(changed) : text
}

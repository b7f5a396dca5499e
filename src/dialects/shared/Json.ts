/** Reads parsed JSON that no schema has checked. Pure; a missing value, or one of another type, is undefined. */
import * as ExactNumber from "../../domain/ExactNumber.ts"

export type Fields = Readonly<Record<string, unknown>>

export const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ExactNumber.ExactNumber)

export const fieldsOf = (value: unknown): Fields | undefined => isObject(value) ? value : undefined

/** The value at the end of a path of names. */
export const at = (value: unknown, ...path: ReadonlyArray<string>): unknown => {
  let inner = value
  for (const name of path) inner = fieldsOf(inner)?.[name]
  return inner
}

export const textAt = (value: unknown, ...path: ReadonlyArray<string>): string | undefined => {
  const found = at(value, ...path)
  return typeof found === "string" ? found : undefined
}

/** A whole number that is not negative. */
export const countAt = (value: unknown, ...path: ReadonlyArray<string>): number | undefined => {
  const found = ExactNumber.numberOf(at(value, ...path))
  return found !== undefined && Number.isSafeInteger(found) && found >= 0 ? found : undefined
}

/** Whether a value is one of these texts. */
export const isOneOf = (texts: ReadonlyArray<string> | ReadonlySet<string>, value: unknown): boolean => {
  if (typeof value !== "string") return false
  return texts instanceof Set ? texts.has(value) : (texts as ReadonlyArray<string>).includes(value)
}

/**
 * A value as an index, as some hosts send it: a number, or the text of one. Not `Number(value)`, which throws for an object
 * that has a field `toString`.
 */
export const indexOf = (value: unknown, otherwise: number): number => {
  if (typeof value === "string") return Number(value)
  return typeof value === "number" ? value : otherwise
}

/** The list at a path; empty if there is none. */
export const listAt = (value: unknown, ...path: ReadonlyArray<string>): ReadonlyArray<unknown> => {
  const found = at(value, ...path)
  return Array.isArray(found) ? found : []
}

/**
 * The results in the order of their inputs: by `index` where a result has it, else by position. Undefined unless each input
 * has exactly one result.
 */
export const eachOf = (found: ReadonlyArray<unknown>, length: number): ReadonlyArray<unknown> | undefined => {
  const places = new Map(found.map((one, place) => [countAt(one, "index") ?? place, one]))
  const inOrder = Array.from({ length }, (_, place) => places.get(place))
  return found.length === length && !inOrder.includes(undefined) ? inOrder : undefined
}

/** A list of finite numbers; undefined for any other value. */
export const numbersOf = (value: unknown): ReadonlyArray<number> | undefined => {
  if (!Array.isArray(value)) return undefined
  const numbers = value.some((one) => typeof one === "object") ? value.map(ExactNumber.numberOf) : value
  return numbers.every((one) => typeof one === "number" && Number.isFinite(one))
    ? numbers as ReadonlyArray<number>
    : undefined
}

/** The table's value for an external name; undefined for inherited names such as `constructor`. */
export const ownOf = <A>(table: Readonly<Record<string, A>>, name: string | undefined): A | undefined =>
  name !== undefined && Object.hasOwn(table, name) ? table[name] : undefined

export const listOf = (value: unknown): ReadonlyArray<unknown> => Array.isArray(value) ? value : []

/** The `type` of an object. */
export const typeOf = (value: unknown): unknown => isObject(value) ? value["type"] : undefined

/** Whether a value has no content: null, an empty text or an empty list. */
export const isEmpty = (value: unknown): boolean =>
  value === null || value === undefined || value === "" || (Array.isArray(value) && value.length === 0)

/** Parsed JSON with its inexact numbers as `ExactNumber`; undefined if the text is not JSON. */
export const parse = (text: string): unknown => {
  try {
    return ExactNumber.parse(text)
  } catch {
    return undefined
  }
}

/** The place of the quote that ends a string; the length of the text if none does. */
const endOfString = (text: string, from: number): number => {
  let index = from
  while (index < text.length && text[index] !== "\"") index += text[index] === "\\" ? 2 : 1
  return index
}

/** Whether a text that is not JSON is the beginning of an object or a list, or nothing. */
export const isCut = (text: string): boolean => {
  if (text.trim() === "") return true
  if (!/^\s*[{[]/.test(text)) return false
  let levels = 0
  for (let index = 0; index < text.length; index++) {
    const character = text[index]!
    if (character === "\"") index = endOfString(text, index + 1)
    else if ("{[".includes(character)) levels++
    else if ("}]".includes(character) && --levels === 0) return false
  }
  return true
}

/** A text of an answer that has begun, in the fields of all dialects. */
const begunText =
  /"(?:content|text|partial_json|arguments|thinking|reasoning\w*|response|refusal|input|output_text|delta)"\s*:\s*"[^"]/

/**
 * Whether a text that is not JSON can be left out of a stream: it is another text, or the beginning of JSON without any of the
 * answer's text.
 */
export const isEmptyNoise = (text: string): boolean =>
  !begunText.test(text) && (!/^\s*[{[]/.test(text) || (isCut(text) && !/[}\]]\s*$/.test(text)))

/**
 * A code in lower case, such as a finish reason. Undefined for "", "null" and "none", which some providers send while an
 * answer continues.
 */
export const codeOf = (value: unknown): string | undefined => {
  const text = typeof value === "string" ? value.trim().toLowerCase() : ""
  return text === "" || text === "null" || text === "none" ? undefined : text
}

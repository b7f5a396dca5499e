/**
 * Numbers of JSON that a double does not hold: they keep the text that the sender wrote. Pure.
 *
 * **Details**
 *
 * `JSON.parse` rounds 9007199254740993 to 9007199254740992 and reads 1e400 as infinity, which `JSON.stringify` writes as
 * `null`. Such a number is an `ExactNumber` where JSON is passed on. A number is inexact if the double that it parses to is
 * written as another decimal: an integer above 2^53 that is rounded, a decimal of 18 or more significant digits, a number
 * out of range, and -0.
 *
 * Not inexact are another spelling of the same decimal, as `1.0` for `1`, and a decimal with a point and up to 17 significant
 * digits, which identify any double: both are passed on as `JSON.stringify` writes their double.
 *
 * **Gotchas**
 *
 * Code that calculates reads numbers of a parsed text with `numberOf`.
 */

import { backslash, quote } from "./JsonScan.ts"

/** A part of "JSON.parse source text access", which Node.js supports and TypeScript has no types for. */
interface RawJson {
  /** An object that `JSON.stringify` writes as this text. */
  readonly rawJSON: (text: string) => object
}

const { rawJSON } = JSON as unknown as RawJson

/** A number of JSON as it was written. */
export class ExactNumber {
  /** As in JSON. */
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** The nearest double. */
  valueOf(): number {
    return Number(this.text)
  }

  toString(): string {
    return this.text
  }

  toJSON(): object {
    return rawJSON(this.text)
  }
}

/** A value as a double; undefined if it is no number. */
export const numberOf = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  return value instanceof ExactNumber ? value.valueOf() : undefined
}

/** A decimal as its significant digits times a power of ten; 0 has no digits. */
interface Decimal {
  readonly sign: string
  readonly digits: string
  readonly exponent: number
}

const decimalOf = (text: string): Decimal => {
  const sign = text.startsWith("-") ? "-" : ""
  const power = text.search(/[eE]/)
  const mantissa = text.slice(sign.length, power === -1 ? text.length : power)
  const point = mantissa.indexOf(".")
  const all = mantissa.replace(".", "")
  let begin = 0
  while (all[begin] === "0") begin++
  let end = all.length
  while (end > begin && all[end - 1] === "0") end--
  if (begin === end) return { sign, digits: "", exponent: 0 }
  const scale = point === -1 ? 0 : mantissa.length - point - 1
  return {
    sign,
    digits: all.slice(begin, end),
    exponent: (power === -1 ? 0 : Number(text.slice(power + 1))) - scale + all.length - end
  }
}

/** Significant digits that identify any double: IEEE 754-2019, 5.12.2. */
const doubleDigits = 17

/** The smallest double of full precision. */
const smallestNormal = 2 ** -1022

const isSameDouble = (text: string, number: number, digits: number): boolean =>
  digits <= doubleDigits && text.includes(".") && Number.isFinite(number) && Math.abs(number) >= smallestNormal

/** Whether a number is written as an integer without an exponent, which has one spelling. */
const isPlain = (text: string): boolean => /^-?\d+$/.test(text)

/** Whether the double of a number of JSON is written as another decimal. */
const isInexact = (text: string): boolean => {
  const number = Number(text)
  const written = String(number)
  if (written === text) return false
  if (isPlain(text) && isPlain(written)) return true
  const [one, two] = [decimalOf(text), decimalOf(written)]
  return (one.digits !== two.digits || one.exponent !== two.exponent || one.sign !== two.sign) &&
    !isSameDouble(text, number, one.digits.length)
}

/** More digits than any integer has that is written with all of its digits. */
const mostDigits = 64

/** The integer that a value is, as JSON writes it, of any size within reason; undefined if it is none. */
export const integerOf = (value: unknown): bigint | undefined => {
  if (Number.isSafeInteger(value)) return BigInt(value as number)
  if (!Number.isInteger(value) && !(value instanceof ExactNumber)) return undefined
  const { digits, exponent, sign } = decimalOf(String(value))
  return exponent < 0 || digits.length + exponent > mostDigits
    ? undefined
    : BigInt(`${sign}${digits === "" ? "0" : digits}${"0".repeat(exponent)}`)
}

/** An integer as JSON writes it: a number if a double holds it. */
export const fromInteger = (integer: bigint): number | ExactNumber => {
  const number = Number(integer)
  return Number.isSafeInteger(number) ? number : new ExactNumber(String(integer))
}

const zero = 0x30
const minus = 0x2d

/** What a character is to a number of JSON, by its code; 0 for one that is part of none. */
const kinds = new Uint8Array(128)
const digit = 1
const point = 2
const power = 3
const sign = 4
for (const [text, kind] of [["0123456789", digit], [".", point], ["eE", power], ["+-", sign]] as const) {
  for (const character of text) kinds[character.charCodeAt(0)] = kind
}

/** Any integer of so many digits is a double. */
const integerDigits = 15

/** The place in a JSON text after the string that begins before `from`. */
export const afterString = (text: string, from: number): number => {
  for (let index = text.indexOf("\"", from); index !== -1; index = text.indexOf("\"", index + 1)) {
    let escapes = index
    while (escapes > from && text.charCodeAt(escapes - 1) === backslash) escapes--
    if ((index - escapes) % 2 === 0) return index + 1
  }
  return text.length
}

/** Finds the inexact numbers of a JSON text. */
class Scanner {
  readonly #text: string
  /** Where the last number that was found begins, and where it ends. */
  begin = 0
  end = 0

  constructor(text: string) {
    this.#text = text
  }

  /** Finds the next one; false if there is none. */
  next(): boolean {
    const text = this.#text
    let index = this.end
    while (index < text.length) {
      const code = text.charCodeAt(index)
      if (code === quote) index = afterString(text, index + 1)
      else if (kinds[code] === digit || code === minus) {
        this.begin = index
        const mayBeInexact = this.#number()
        index = this.end
        if (mayBeInexact && isInexact(text.slice(this.begin, index))) return true
      } else index++
    }
    return false
  }

  /** Finds the end of a number; whether it may be inexact, by a cheap check that excludes nearly all. */
  #number(): boolean {
    const text = this.#text
    let digits = 0
    let most = integerDigits
    let index = this.begin
    for (let kind = kinds[text.charCodeAt(index)]!; kind > 0; kind = kinds[text.charCodeAt(index)] ?? 0) {
      // Zeros before other digits do not count.
      if (kind === digit && (digits > 0 || text.charCodeAt(index) !== zero)) digits++
      else if (kind === point) most = doubleDigits
      else if (kind === power) most = -1
      index++
    }
    this.end = index
    return digits > most || (digits === 0 && text.charCodeAt(this.begin) === minus)
  }
}

/** Whether a JSON text has an inexact number. Takes a third of the time of a `JSON.parse`, and less for long strings. */
export const isIn = (text: string): boolean => new Scanner(text).next()

/** The text with its inexact numbers in quotes. */
const quoted = (text: string): string => {
  const parts: Array<string> = []
  const scanner = new Scanner(text)
  let from = 0
  while (scanner.next()) {
    const { begin, end } = scanner
    parts.push(text.slice(from, begin), "\"", text.slice(begin, end), "\"")
    from = end
  }
  parts.push(text.slice(from))
  return parts.join("")
}

type Values = Record<string | number, unknown>

const isObject = (value: unknown): value is Values => typeof value === "object" && value !== null

/** Replaces strings by exact numbers where the same JSON, parsed as it was, has numbers. */
const unquote = (parsed: unknown, json: unknown): unknown => {
  if (typeof json === "number") return typeof parsed === "string" ? new ExactNumber(parsed) : parsed
  if (!isObject(parsed) || !isObject(json)) return parsed
  if (Array.isArray(parsed)) {
    for (let index = 0; index < parsed.length; index++) parsed[index] = unquote(parsed[index], json[index])
  } else {
    for (const name of Object.keys(parsed)) parsed[name] = unquote(parsed[name], json[name])
  }
  return parsed
}

/**
 * The JSON of a text with its inexact numbers as `ExactNumber`. Takes about four times as long as `JSON.parse`; a reviver of
 * `JSON.parse` takes longer, because it is called with a new object for every value.
 *
 * @param json the same text as `JSON.parse` reads it
 */
export const parseInexact = (text: string, json: unknown): unknown => unquote(JSON.parse(quoted(text)), json)

/** Parses JSON; inexact numbers are `ExactNumber`. Throws what `JSON.parse` throws. */
export const parse = (text: string): unknown => {
  const json: unknown = JSON.parse(text)
  if (!isIn(text)) return json
  try {
    return parseInexact(text, json)
  } catch (error) {
    // More levels than a stack has frames.
    if (error instanceof RangeError) return json
    throw error
  }
}

const addTexts = (value: unknown, path: string, found: Array<readonly [path: string, text: string]>): void => {
  if (value instanceof ExactNumber) found.push([path, value.text])
  else if (typeof value === "object" && value !== null) {
    for (const [name, inner] of Object.entries(value)) addTexts(inner, `${path}/${name}`, found)
  }
}

/** The texts of the exact numbers within a value, by the place of each. */
export const textsIn = (value: unknown): Readonly<Record<string, string>> => {
  const found: Array<readonly [path: string, text: string]> = []
  addTexts(value, "", found)
  return Object.fromEntries(found)
}

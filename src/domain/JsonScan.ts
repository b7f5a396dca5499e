/**
 * Counts the levels, fields and values of a JSON text over its bytes, before it is parsed. Pure.
 *
 * **Details**
 *
 * The time to parse and decode depends on the number of values, not of bytes: ten megabytes of `[` take a hundred times
 * as long as ten megabytes of text. The count stops at the first limit that is exceeded, so that its own time is
 * bounded too.
 *
 * **Gotchas**
 *
 * The text is not validated: one that is not JSON passes, and the parser rejects it.
 */
import { Result } from "effect"

/** Nested objects and lists: more than any schema has, fewer than overflow the stack. */
export const mostLevels = 500

/** Whether objects and lists are nested deeper. Not recursive, since a deep value would overflow the stack. */
export const isNestedDeeper = (value: unknown, levels: number): boolean => {
  let level: Array<object> = [{ value }]
  for (let depth = 0; depth <= levels; depth++) {
    level = level.flatMap((one) => Object.values(one) as Array<unknown>)
      .filter((one): one is object => typeof one === "object" && one !== null)
    if (level.length === 0) return false
  }
  return true
}

/** The most that a body may hold. */
export interface Limits {
  /** Objects and lists within each other. */
  readonly levels: number
  /** Of one object. */
  readonly fields: number
  /** Elements of lists and fields of objects, all together. */
  readonly values: number
}

/**
 * The limits of a request: values for 100,000 messages of Anthropic's API, or for the 300,000 tokens of one request for
 * embeddings at OpenAI.
 */
export const requestLimits: Limits = { levels: mostLevels, fields: 8_192, values: 350_000 }

/** The limit that was exceeded, and where. */
export interface Excess {
  readonly limit: keyof Limits
  readonly most: number
  /** Bytes before it. */
  readonly offset: number
}

/** Codes of the characters of JSON, which are its bytes in UTF-8, too. */
export const quote = 0x22
export const comma = 0x2c
export const colon = 0x3a
export const openList = 0x5b
export const backslash = 0x5c
export const closeList = 0x5d
export const openObject = 0x7b
export const closeObject = 0x7d

/** The place after the string that begins before `from`. */
const afterString = (bytes: Uint8Array, from: number): number => {
  let index = from
  while (index < bytes.length) {
    const byte = bytes[index++]
    if (byte === quote) return index
    if (byte === backslash) index++
  }
  return index
}

/** Counts one text; see `count`. */
class Counter {
  readonly #limits: Limits
  /** Elements or fields so far, by level. */
  readonly #lengths: Uint32Array
  readonly #isObject: Uint8Array
  #level = 0
  values = 0

  constructor(limits: Limits) {
    this.#limits = limits
    this.#lengths = new Uint32Array(limits.levels + 1)
    this.#isObject = new Uint8Array(limits.levels + 1)
  }

  /** Counts one byte that is not in a string. Returns the limit that it exceeds, if any. */
  add(byte: number): keyof Limits | undefined {
    if (byte === comma) return this.#value(this.#level)
    if (byte === openList || byte === openObject) {
      if (++this.#level > this.#limits.levels) return "levels"
      this.#lengths[this.#level] = 0
      this.#isObject[this.#level] = byte === openObject ? 1 : 0
      return this.#value(this.#level)
    }
    if ((byte === closeList || byte === closeObject) && this.#level > 0) this.#level--
    return undefined
  }

  #value(level: number): keyof Limits | undefined {
    if (++this.#lengths[level]! > this.#limits.fields && this.#isObject[level] === 1) return "fields"
    return ++this.values > this.#limits.values ? "values" : undefined
  }
}

/** The values in a text; a text with more than a limit allows fails. An empty list or object counts as one value. */
export const count = (bytes: Uint8Array, limits: Limits): Result.Result<number, Excess> => {
  const counter = new Counter(limits)
  let index = 0
  while (index < bytes.length) {
    const byte = bytes[index++]!
    if (byte === quote) index = afterString(bytes, index)
    else if (byte === comma || byte >= openList) {
      const limit = counter.add(byte)
      if (limit !== undefined) return Result.fail({ limit, most: limits[limit], offset: index - 1 })
    }
  }
  return Result.succeed(counter.values)
}

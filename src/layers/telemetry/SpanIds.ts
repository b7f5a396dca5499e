/**
 * Ids of traces and spans as numbers: an export has their bytes, and only the headers of a request have their text.
 *
 * **Details**
 *
 * The text is that of W3C Trace Context: hexadecimal digits in lower case, 32 of a trace and 16 of a span.
 */
import type { Random } from "effect"
import { Buffer } from "node:buffer"

/** Words of 32 bits, the highest first: four of a trace, two of a span. */
export type SpanId = ReadonlyArray<number>

type Count = 2 | 4

const wordBytes = 4
const wordDigits = 8

/** Of a new trace or span. An id of zeros is invalid. */
export const make = (count: Count, random: typeof Random.Random.Service): SpanId => {
  const id: Array<number> = []
  let all = 0
  for (let index = 0; index < count; index++) {
    const word = Math.floor(random.nextDoubleUnsafe() * 2 ** 32)
    all |= word
    id.push(word)
  }
  return all === 0 ? make(count, random) : id
}

export const fromHex = (hex: string): SpanId => {
  const id: Array<number> = []
  for (let at = 0; at < hex.length; at += wordDigits) id.push(Number.parseInt(hex.slice(at, at + wordDigits), 16))
  return id
}

const scratch = Buffer.allocUnsafeSlow(4 * wordBytes)

export const toHex = (id: SpanId): string => {
  for (let index = 0; index < id.length; index++) scratch.writeUInt32BE(id[index]!, index * wordBytes)
  return scratch.toString("hex", 0, id.length * wordBytes)
}

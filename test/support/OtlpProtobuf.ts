/**
 * Decodes exports of spans in protobuf, as a receiver does, into the shape of OTLP/JSON.
 *
 * The numbers of fields are those of https://github.com/open-telemetry/opentelemetry-proto, `trace.proto`, `common.proto` and
 * `resource.proto`. A field that is not listed here is skipped, as protobuf says.
 */
import type { Traces } from "./Collector.ts"

type Read = (bytes: Buffer) => unknown

interface Field {
  readonly name: string
  readonly read: Read
  readonly isRepeated?: boolean
}

type Message = Readonly<Record<number, Field>>

/** A varint, and where it ends. */
const varint = (bytes: Buffer, start: number): readonly [value: bigint, end: number] => {
  let value = 0n
  for (let at = start, shift = 0n;; at++, shift += 7n) {
    const byte = bytes[at]
    if (byte === undefined) throw new Error("A varint is cut off.")
    value |= BigInt(byte & 127) << shift
    if (byte < 128) return [value, at + 1]
  }
}

/** The bytes of a field by its wire type, and where it ends; a varint is its eight bytes. */
const contentOf = (bytes: Buffer, type: number, start: number): readonly [content: Buffer, end: number] => {
  if (type === 0) {
    const [value, end] = varint(bytes, start)
    const content = Buffer.alloc(8)
    content.writeBigUInt64LE(BigInt.asUintN(64, value))
    return [content, end]
  }
  const [length, from] = type === 2 ? varint(bytes, start) : [type === 1 ? 8n : 4n, start] as const
  if (type > 2 && type !== 5) throw new Error(`The wire type ${type} is unknown.`)
  const end = from + Number(length)
  if (end > bytes.length) throw new Error("A field is cut off.")
  return [bytes.subarray(from, end), end]
}

const message = (fields: Message): Read => (bytes) => {
  const value: Record<string, unknown> = {}
  for (const { isRepeated, name } of Object.values(fields)) if (isRepeated === true) value[name] = []
  for (let at = 0; at < bytes.length;) {
    const [tag, from] = varint(bytes, at)
    const [content, end] = contentOf(bytes, Number(tag & 7n), from)
    at = end
    const field = fields[Number(tag >> 3n)]
    if (field === undefined) continue
    if (field.isRepeated === true) (value[field.name] as Array<unknown>).push(field.read(content))
    else value[field.name] = field.read(content)
  }
  return value
}

const text: Read = (bytes) => bytes.toString()
const hex: Read = (bytes) => bytes.toString("hex")
const integer: Read = (bytes) => String(bytes.readBigInt64LE())
const small: Read = (bytes) => Number(bytes.readBigInt64LE())
const fixed: Read = (bytes) => String(bytes.readBigUInt64LE())

const anyValue: Read = (bytes) => value(bytes)
const value = message({
  1: { name: "stringValue", read: text },
  2: { name: "boolValue", read: (bytes) => bytes[0] === 1 },
  3: { name: "intValue", read: integer },
  4: { name: "doubleValue", read: (bytes) => bytes.readDoubleLE() },
  5: { name: "arrayValue", read: message({ 1: { name: "values", read: anyValue, isRepeated: true } }) }
})
const keyValue = message({ 1: { name: "key", read: text }, 2: { name: "value", read: anyValue } })
const attributes = { name: "attributes", read: keyValue, isRepeated: true }

const event = message({ 1: { name: "timeUnixNano", read: fixed }, 2: { name: "name", read: text }, 3: attributes })
const span = message({
  1: { name: "traceId", read: hex },
  2: { name: "spanId", read: hex },
  4: { name: "parentSpanId", read: hex },
  5: { name: "name", read: text },
  6: { name: "kind", read: small },
  7: { name: "startTimeUnixNano", read: fixed },
  8: { name: "endTimeUnixNano", read: fixed },
  9: attributes,
  11: { name: "events", read: event, isRepeated: true },
  15: { name: "status", read: message({ 2: { name: "message", read: text }, 3: { name: "code", read: small } }) }
})
const scopeSpans = message({ 2: { name: "spans", read: span, isRepeated: true } })
const resourceSpans = message({
  1: { name: "resource", read: message({ 1: attributes }) },
  2: { name: "scopeSpans", read: scopeSpans, isRepeated: true }
})
const traces = message({ 1: { name: "resourceSpans", read: resourceSpans, isRepeated: true } })

export const decodeTraces = (bytes: Buffer): Traces => traces(bytes) as Traces

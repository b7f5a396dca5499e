/**
 * Spans as OTLP in protobuf, https://github.com/open-telemetry/opentelemetry-proto: `ExportTraceServiceRequest` of `trace.proto`.
 *
 * **Details**
 *
 * Written into one buffer, with the bytes of frequent attributes kept: the serializer of `effect/observability` takes twenty times
 * as long, since it makes an array of bytes for each field. A length that is known after its content has a varint of a fixed size.
 *
 * What is short and not kept, such as a number or the id of a request, is written in place: its lengths have one byte.
 */
import { Buffer } from "node:buffer"
import type { Attributes, AttributeWriter } from "../../services/observability/RequestSpans.ts"
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import { GrowingBytes } from "./GrowingBytes.ts"
import type { Ended } from "./RecordedSpans.ts"
import { failed, keptNames, KeptTexts, kinds, namesOf } from "./SpanAttributes.ts"
import type { SpanId } from "./SpanIds.ts"

const bytesOfByte = 128

/** The bytes of a varint. */
const varint = (value: bigint): ReadonlyArray<number> => {
  const bytes: Array<number> = []
  let rest = BigInt.asUintN(64, value)
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) + bytesOfByte)
  bytes.push(Number(rest))
  return bytes
}

/** The wire types: 0 for a varint, 1 for eight bytes, 2 for bytes with their length. */
const tag = (field: number, type: 0 | 1 | 2): number => field << 3 | type

const nested = (field: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([tag(field, 2), ...varint(BigInt(content.length))]), content])
}

const text = (field: number, value: string): Buffer => nested(field, Buffer.from(value))

const double = (field: number, value: number): Buffer => {
  const bytes = Buffer.alloc(9)
  bytes[0] = tag(field, 1)
  bytes.writeDoubleLE(value, 1)
  return bytes
}

/** The content of an `AnyValue`. */
const anyValue = (value: unknown): Buffer => {
  if (typeof value === "boolean") return Buffer.from([tag(2, 0), value ? 1 : 0])
  if (typeof value === "number") {
    return Number.isSafeInteger(value) ? Buffer.from([tag(3, 0), ...varint(BigInt(value))]) : double(4, value)
  }
  if (Array.isArray(value)) return nested(5, ...value.map((one) => nested(1, anyValue(one))))
  return text(1, typeof value === "string" ? value : JSON.stringify(value) ?? String(value))
}

/** A `KeyValue` as a field. */
const keyValue = (field: number, name: string, value: unknown): Buffer =>
  nested(field, text(1, name), nested(2, anyValue(value)))

/** An attribute of a span, under all of its names. */
const attributeBytes = (names: ReadonlyArray<string>, value: unknown): Buffer =>
  Buffer.concat(names.map((name) => keyValue(9, name, value)))

/** The first bytes of an attribute: its tag, a byte for its length, its name and the tag of its value. */
const beginOf = (name: string): Buffer =>
  Buffer.concat([Buffer.from([tag(9, 2), 0]), text(1, name), Buffer.from([tag(2, 2)])])

/** One attribute, under all of its names. */
class Attribute {
  readonly begins: ReadonlyArray<Buffer>
  /** Whether a value of that many bytes can be written in place. */
  readonly mostInPlace: number
  readonly true: Buffer
  readonly false: Buffer
  readonly texts: KeptTexts<Buffer>
  readonly encode: (value: unknown) => Buffer

  constructor(names: ReadonlyArray<string>) {
    this.begins = names.map(beginOf)
    this.mostInPlace = bytesOfByte - 1 - Math.max(...this.begins.map(({ length }) => length))
    this.encode = (value) => attributeBytes(names, value)
    this.true = this.encode(true)
    this.false = this.encode(false)
    this.texts = new KeptTexts(this.encode)
  }
}

/** The end of a failed span: its event, and its status. */
const failure = ({ message, name }: NonNullable<Ended["error"]>, endTime: bigint): Buffer => {
  const time = Buffer.alloc(9)
  time[0] = tag(1, 1)
  time.writeBigUInt64LE(endTime, 1)
  const attributes = [keyValue(3, "exception.type", name), keyValue(3, "exception.message", message)]
  return Buffer.concat([
    nested(11, time, text(2, "exception"), ...attributes),
    nested(15, text(2, message), Buffer.from([tag(3, 0), failed]))
  ])
}

/** Bytes of a span beside its name, attributes and failure: ids, times, kind, and its length. */
const fixedBytes = 70
const wordBytes = 4
const timeBytes = 8
/** A varint of this size has lengths below 2 ** 28. */
const lengthBytes = 4
/** Of a nested message whose length is written after its content. */
const headBytes = 1 + lengthBytes

/** Bytes of a value in place beside those of its text or number: its length, a tag, and a length or a number. */
const valueBytes = 11
const doubleBytes = 9
const largestInPlace = 2 ** 31
/** UTF-8 has at most as many bytes for a unit of UTF-16. */
const bytesOfUnit = 3

/** The spans of one export. */
export class ProtobufSpans implements AttributeWriter {
  readonly #resource: Buffer
  readonly #scope: Buffer
  readonly #attributeOf: (name: string) => Attribute
  readonly #kept = new WeakMap<Attributes, Buffer>()
  readonly #nameOf = keptNames((name) => text(5, name))
  readonly #bytes = new GrowingBytes()

  /** @param resource attributes of what sends the spans */
  constructor(
    names: Names,
    resource: Readonly<Record<string, unknown>>,
    scope: Readonly<Record<"name" | "version", string>>
  ) {
    this.#attributeOf = keptNames((name) => new Attribute(namesOf(name, names)))
    this.#resource = nested(1, ...Object.entries(resource).map(([name, value]) => keyValue(1, name, value)))
    this.#scope = nested(1, text(1, scope.name), text(2, scope.version))
  }

  get bytes(): number {
    return this.#bytes.length
  }

  add({ attributes, endTime, error, kind, name, parentId, spanId, startTime, traceId }: Ended): void {
    const bytes = this.#bytes
    if (bytes.length === 0) this.#begin()
    bytes.reserve(fixedBytes)
    const start = this.#open(2)
    this.#id(1, traceId)
    this.#id(2, spanId)
    if (parentId !== undefined) this.#id(4, parentId)
    this.#byte(tag(6, 0))
    this.#byte(kinds[kind])
    this.#time(7, startTime)
    this.#time(8, endTime)
    bytes.put(this.#nameOf(name))
    attributes(this)
    if (error !== undefined) bytes.put(failure(error, endTime))
    this.#close(start)
  }

  /** Writes an attribute of the span that is being added. */
  put(name: string, value: unknown): void {
    if (value === undefined) return
    const attribute = this.#attributeOf(name)
    if (typeof value === "boolean") return this.#bytes.put(value ? attribute.true : attribute.false)
    if (typeof value === "number" && attribute.mostInPlace >= valueBytes) return this.#number(attribute, value)
    const kept = attribute.texts.of(value)
    if (kept !== undefined) return this.#bytes.put(kept)
    if (typeof value === "string" && value.length * bytesOfUnit + valueBytes <= attribute.mostInPlace) {
      return this.#text(attribute, value)
    }
    this.#bytes.put(attribute.encode(value))
  }

  putKept(attributes: Attributes): void {
    let bytes = this.#kept.get(attributes)
    if (bytes === undefined) {
      const defined = Object.entries(attributes).filter(([, value]) => value !== undefined)
      bytes = Buffer.concat(defined.map(([name, value]) => this.#attributeOf(name).encode(value)))
      this.#kept.set(attributes, bytes)
    }
    this.#bytes.put(bytes)
  }

  #number({ begins }: Attribute, value: number): void {
    const bytes = this.#bytes
    for (const begin of begins) {
      const start = this.#beginInPlace(begin, valueBytes)
      if (Number.isInteger(value) && value >= 0 && value < largestInPlace) {
        this.#byte(tag(3, 0))
        let rest = value
        for (; rest >= bytesOfByte; rest >>= 7) this.#byte(rest % bytesOfByte + bytesOfByte)
        this.#byte(rest)
      } else if (Number.isSafeInteger(value)) {
        bytes.put(anyValue(value))
      } else {
        this.#byte(tag(4, 1))
        bytes.view.setFloat64(bytes.length, value, true)
        bytes.length += doubleBytes - 1
      }
      this.#endInPlace(begin, start)
    }
  }

  #text({ begins }: Attribute, value: string): void {
    const bytes = this.#bytes
    for (const begin of begins) {
      const start = this.#beginInPlace(begin, value.length * bytesOfUnit + valueBytes)
      this.#byte(tag(1, 2))
      const written = bytes.buffer.write(value, bytes.length + 1)
      this.#byte(written)
      bytes.length += written
      this.#endInPlace(begin, start)
    }
  }

  /** Begins an attribute whose value has at most that many bytes; returns where the value begins. */
  #beginInPlace(begin: Buffer, most: number): number {
    const bytes = this.#bytes
    bytes.reserve(begin.length + most)
    bytes.put(begin)
    return ++bytes.length
  }

  #endInPlace(begin: Buffer, start: number): void {
    const { buffer, length } = this.#bytes
    buffer[start - 1] = length - start
    // After the tag and the length itself.
    buffer[start - begin.length] = begin.length - 2 + 1 + length - start
  }

  #byte(value: number): void {
    this.#bytes.buffer[this.#bytes.length++] = value
  }

  /** The whole export; no span is left. */
  take(): Uint8Array {
    this.#close(headBytes + this.#resource.length + headBytes)
    this.#close(headBytes)
    return this.#bytes.take()
  }

  /** Nothing reads these bytes, which were taken, any more. */
  release(bytes: Uint8Array): void {
    this.#bytes.release(bytes)
  }

  #begin(): void {
    this.#open(1)
    this.#bytes.put(this.#resource)
    this.#bytes.reserve(headBytes)
    this.#open(2)
    this.#bytes.put(this.#scope)
  }

  /** Begins a nested message; returns where its content begins. */
  #open(field: number): number {
    this.#bytes.buffer[this.#bytes.length] = tag(field, 2)
    return this.#bytes.length += headBytes
  }

  /** Writes the length of a nested message, which ends here. */
  #close(start: number): void {
    const { buffer, length } = this.#bytes
    let rest = length - start
    for (let at = start - lengthBytes; at < start; at++) {
      buffer[at] = at === start - 1 ? rest : rest % bytesOfByte + bytesOfByte
      rest = Math.floor(rest / bytesOfByte)
    }
  }

  #id(field: number, id: SpanId): void {
    this.#byte(tag(field, 2))
    this.#byte(id.length * wordBytes)
    for (const word of id) {
      this.#bytes.view.setUint32(this.#bytes.length, word)
      this.#bytes.length += wordBytes
    }
  }

  #time(field: number, time: bigint): void {
    this.#byte(tag(field, 1))
    this.#bytes.view.setBigUint64(this.#bytes.length, time, true)
    this.#bytes.length += timeBytes
  }
}

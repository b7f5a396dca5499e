/**
 * Spans as OTLP in protobuf, https://github.com/open-telemetry/opentelemetry-proto: `ExportTraceServiceRequest` of `trace.proto`.
 *
 * **Details**
 *
 * Written into one buffer, with the bytes of frequent attributes kept: the serializer of `effect/observability` takes twenty times
 * as long, since it makes an array of bytes for each field. A length that is known after its content has a varint of a fixed size.
 */
import { Buffer } from "node:buffer"
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import { GrowingBytes } from "./GrowingBytes.ts"
import type { Ended } from "./RecordedSpans.ts"
import { Attributes, failed, keptNames, kinds } from "./SpanAttributes.ts"

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

const attributeBytes = (names: ReadonlyArray<string>, value: unknown): Buffer =>
  Buffer.concat(names.map((name) => keyValue(9, name, value)))

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
/** A varint of this size has lengths below 2 ** 28. */
const lengthBytes = 4
/** Of a nested message whose length is written after its content. */
const headBytes = 1 + lengthBytes

/** The spans of one export. */
export class ProtobufSpans {
  readonly #resource: Buffer
  readonly #scope: Buffer
  readonly #attributes: Attributes<Buffer>
  readonly #nameOf = keptNames((name) => text(5, name))
  readonly #bytes = new GrowingBytes()

  /** @param resource attributes of what sends the spans */
  constructor(
    names: Names,
    resource: Readonly<Record<string, unknown>>,
    scope: Readonly<Record<"name" | "version", string>>
  ) {
    this.#attributes = new Attributes(names, attributeBytes)
    this.#resource = nested(1, ...Object.entries(resource).map(([name, value]) => keyValue(1, name, value)))
    this.#scope = nested(1, text(1, scope.name), text(2, scope.version))
  }

  add({ attributes, endTime, error, kind, name, parentId, spanId, startTime, traceId }: Ended): void {
    const bytes = this.#bytes
    if (bytes.length === 0) this.#begin()
    bytes.reserve(fixedBytes)
    const start = this.#open(2)
    this.#id(1, traceId)
    this.#id(2, spanId)
    if (parentId !== undefined) this.#id(4, parentId)
    bytes.buffer[bytes.length++] = tag(6, 0)
    bytes.buffer[bytes.length++] = kinds[kind]
    this.#time(7, startTime)
    this.#time(8, endTime)
    bytes.put(this.#nameOf(name))
    for (const key in attributes) {
      const value = attributes[key]
      if (value !== undefined) bytes.put(this.#attributes.of(key, value))
    }
    if (error !== undefined) bytes.put(failure(error, endTime))
    this.#close(start)
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

  #id(field: number, hex: string): void {
    const { buffer } = this.#bytes
    buffer[this.#bytes.length++] = tag(field, 2)
    buffer[this.#bytes.length++] = hex.length / 2
    this.#bytes.length += buffer.write(hex, this.#bytes.length, "hex")
  }

  #time(field: number, time: bigint): void {
    const { buffer } = this.#bytes
    buffer[this.#bytes.length++] = tag(field, 1)
    this.#bytes.length = buffer.writeBigUInt64LE(time, this.#bytes.length)
  }
}

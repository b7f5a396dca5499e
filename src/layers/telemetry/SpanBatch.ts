/**
 * Spans that wait for their export, encoded as OTLP when their request ends: what waits is one buffer, which the garbage collector
 * does not copy.
 */
import { OtlpResource } from "effect/observability"
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import { GrowingBytes } from "./GrowingBytes.ts"
import type { Ended } from "./RecordedSpans.ts"
import { JsonSpans } from "./SpanJson.ts"
import { ProtobufSpans } from "./SpanProtobuf.ts"

/** Spans of one export. */
export interface Batch {
  readonly contentType: string
  readonly size: number
  readonly bytes: number
  readonly add: (span: Ended) => void
  /** Returns a body with all spans and begins a new batch. */
  readonly take: () => Uint8Array
  /** The body was sent: its memory may be used again. */
  readonly release: (body: Uint8Array) => void
}

/** Attributes of what sends the spans, `service.name` among them. */
type Resource = Readonly<Record<string, unknown>>

const scope = { name: "troupe", version: "0" }

class JsonBatch implements Batch {
  readonly contentType = "application/json"
  readonly #begin: string
  readonly #spans: JsonSpans
  readonly #bytes = new GrowingBytes()
  size = 0

  constructor(resource: Resource, names: Names) {
    const attributes = OtlpResource.entriesToAttributes(Object.entries(resource))
    this.#begin = `{"resourceSpans":[{"resource":${JSON.stringify({ attributes })},` +
      `"scopeSpans":[{"scope":${JSON.stringify(scope)},"spans":[`
    this.#spans = new JsonSpans(names)
  }

  get bytes(): number {
    return this.#bytes.length
  }

  add(span: Ended): void {
    this.#bytes.text((this.size++ === 0 ? this.#begin : ",") + this.#spans.textOf(span))
  }

  take(): Uint8Array {
    this.#bytes.text("]}]}]}")
    this.size = 0
    return this.#bytes.take()
  }

  release(body: Uint8Array): void {
    this.#bytes.release(body)
  }
}

class ProtobufBatch implements Batch {
  readonly contentType = "application/x-protobuf"
  readonly #spans: ProtobufSpans
  size = 0

  constructor(resource: Resource, names: Names) {
    this.#spans = new ProtobufSpans(names, resource, scope)
  }

  get bytes(): number {
    return this.#spans.bytes
  }

  add(span: Ended): void {
    this.size++
    this.#spans.add(span)
  }

  take(): Uint8Array {
    this.size = 0
    return this.#spans.take()
  }

  release(body: Uint8Array): void {
    this.#spans.release(body)
  }
}

/** An empty batch. */
export const make = (protocol: "json" | "protobuf", resource: Resource, names: Names): Batch =>
  protocol === "json" ? new JsonBatch(resource, names) : new ProtobufBatch(resource, names)

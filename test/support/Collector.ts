/** An OpenTelemetry collector for tests: takes OTLP over HTTP as JSON or protobuf, and decodes the spans. */
import { once } from "node:events"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { buffer } from "node:stream/consumers"
import { gunzipSync } from "node:zlib"
import { decodeTraces } from "./OtlpProtobuf.ts"

/** A value of an attribute in OTLP. */
interface AnyValue {
  readonly stringValue?: string
  readonly boolValue?: boolean
  readonly intValue?: number | string
  readonly doubleValue?: number | string
  readonly arrayValue?: { readonly values: ReadonlyArray<AnyValue> }
}

type KeyValues = ReadonlyArray<{ readonly key: string; readonly value: AnyValue }>

interface OtlpSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: KeyValues
  readonly events?: ReadonlyArray<{ readonly name: string; readonly attributes: KeyValues }>
  readonly status?: { readonly code: number; readonly message?: string }
}

/** An export of spans. */
export interface Traces {
  readonly resourceSpans: ReadonlyArray<{
    readonly resource: { readonly attributes: KeyValues }
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<OtlpSpan> }>
  }>
}

export type Attributes = Readonly<Record<string, unknown>>

/** A span that was received. */
export interface Received extends Omit<OtlpSpan, "attributes" | "events" | "status"> {
  readonly status: NonNullable<OtlpSpan["status"]>
  readonly attributes: Attributes
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Attributes }>
  readonly resource: Attributes
}

const valueOf = ({ arrayValue, boolValue, doubleValue, intValue, stringValue }: AnyValue): unknown =>
  arrayValue?.values.map(valueOf) ?? stringValue ?? boolValue ?? Number(doubleValue ?? intValue)

const attributesOf = (values: KeyValues): Attributes =>
  Object.fromEntries(values.map(({ key, value }) => [key, valueOf(value)]))

const spansOf = ({ resourceSpans }: Traces): ReadonlyArray<Received> =>
  resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map(({ attributes, events = [], ...span }) => ({
        ...span,
        // In protobuf, a field that is left out has its default.
        status: { code: 0, ...span.status },
        attributes: attributesOf(attributes),
        events: events.map(({ attributes, name }) => ({ name, attributes: attributesOf(attributes) })),
        resource: attributesOf(resource.attributes)
      }))
    )
  )

/** The spans of the body of an export. */
export const spansOfExport = (body: Buffer, contentType = ""): ReadonlyArray<Received> =>
  spansOf(contentType === "application/x-protobuf" ? decodeTraces(body) : JSON.parse(body.toString()) as Traces)

export interface Collector {
  readonly url: string
  /** The spans until now. */
  readonly spans: Array<Received>
  /** The headers of the exports. */
  readonly headers: Array<IncomingHttpHeaders>
  readonly close: () => Promise<void>
}

/** Starts a collector. */
export const startCollector = async (): Promise<Collector> => {
  const spans: Array<Received> = []
  const headers: Array<IncomingHttpHeaders> = []
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const sent = await buffer(request)
    const { "content-encoding": encoding, "content-type": contentType } = request.headers
    const body = encoding === "gzip" ? gunzipSync(sent) : sent
    headers.push(request.headers)
    if (request.url === "/v1/traces") spans.push(...spansOfExport(body, contentType))
    response.setHeader("content-type", "application/json").end("{}")
  }
  const server = createServer((request, response) => void answer(request, response))
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    headers,
    close: async () => {
      const closed = once(server, "close")
      server.close().closeAllConnections()
      await closed
    }
  }
}

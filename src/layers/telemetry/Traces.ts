/**
 * Sends the spans of requests to an OpenTelemetry collector, over HTTP in batches.
 *
 * **Details**
 *
 * Whether a trace is sent is decided when it begins, by the caller's decision or the ratio. The spans of a request are kept
 * until its own span ends, since those of a failed request are sent in any case.
 *
 * A collector that cannot be reached costs no request its answer: an export is tried again three times, then spans are left out
 * for a minute. What is left out is logged.
 *
 * **Gotchas**
 *
 * This is no tracer of fibers: with one, each request would have a span of Effect's server too, and go through its router.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Layer, Option, Random, Redacted, Tracer } from "effect"
import { HttpBody, HttpClient } from "effect/http"
import { OtlpExporter, OtlpResource, OtlpSerialization } from "effect/observability"
import type { Tracing } from "../../services/observability/RequestTrace.ts"
import { ServiceTracing } from "../../services/observability/RequestTrace.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { Sampling, TelemetrySettings, TracesSettings } from "../../services/settings/TelemetrySettings.ts"
import * as OtlpSpan from "./OtlpSpan.ts"

/** Exports that may be under way; spans that end beyond that are left out. */
const mostExports = 8

/** Whether the trace of a span without a parent of this process is sent. */
export const isSampled = (
  { isParentBased, ratio }: Sampling,
  parent: Tracer.AnySpan | undefined,
  random: number
): boolean => isParentBased && parent !== undefined ? parent.sampled : random < ratio

/** A tracer whose spans are sent when their request has ended. */
export const makeTracer = (
  sampling: Sampling,
  random: typeof Random.Random.Service,
  send: (spans: ReadonlyArray<OtlpSpan.Span>) => void
): Tracer.Tracer =>
  Tracer.make({
    span: (options) => {
      const parent = Option.getOrUndefined(options.parent)
      return parent instanceof OtlpSpan.Span
        ? parent.child(options)
        : new OtlpSpan.Span(options, {
          isSampled: isSampled(sampling, parent, random.nextDoubleUnsafe()),
          random,
          send
        })
    }
  })

/** The client of the exports: it counts and limits them, and logs when the collector fails and when it works again. */
const makeClient = Effect.fnUntraced(function*(traces: TracesSettings, state: { exports: number }) {
  const dispatcher = yield* NodeHttpClient.makeDispatcherOptions({ allowH2: false })
  const client = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, dispatcher)
  let isFailing = false
  const { origin } = new URL(traces.url)
  const note = (problem: string | undefined) =>
    Effect.suspend(() => {
      if ((problem !== undefined) === isFailing) return Effect.void
      isFailing = problem !== undefined
      return problem === undefined
        ? Effect.logInfo(`The collector at ${origin} takes spans again.`)
        : Effect.logWarning(
          `Spans cannot be sent to the collector at ${origin}: ${problem} Requests are not affected; their spans are lost.`
        )
    })
  return HttpClient.transform(client, (response) =>
    Effect.suspend(() => {
      state.exports++
      return response.pipe(
        Effect.provideService(HttpClient.TracerDisabledWhen, () => true),
        Effect.timeoutOrElse({
          duration: traces.timeout,
          orElse: () => Effect.die(new Error(`no answer within ${Duration.format(traces.timeout)}.`))
        }),
        Effect.tap(({ status }) => note(status < 400 ? undefined : `it answered with status ${status}.`)),
        Effect.tapCause(() => note("it cannot be reached.")),
        Effect.ensuring(Effect.sync(() => {
          state.exports--
        }))
      )
    }))
})

const scopeOf = { name: "troupe", version: "0" }

/** Makes the bodies of exports. */
const makeBody = Effect.fnUntraced(function*(protocol: TracesSettings["protocol"], resource: OtlpResource.Resource) {
  const serialization = yield* OtlpSerialization.OtlpSerialization
  if (protocol === "protobuf") {
    return (spans: ReadonlyArray<OtlpSpan.Span>) =>
      serialization.traces({
        resourceSpans: [{ resource, scopeSpans: [{ scope: scopeOf, spans: spans.map(OtlpSpan.encode) }] }]
      })
  }
  const before = `{"resourceSpans":[{"resource":${JSON.stringify(resource)},` +
    `"scopeSpans":[{"scope":${JSON.stringify(scopeOf)},"spans":[`
  return (spans: ReadonlyArray<OtlpSpan.Span>) => {
    const pieces = [before]
    for (const [index, span] of spans.entries()) {
      if (index > 0) pieces.push(",")
      OtlpSpan.encodeJson(span, pieces)
    }
    pieces.push("]}]}]}")
    return HttpBody.text(pieces.join(""), "application/json")
  }
})

/** Begins to send spans; the end of the scope sends those that are left. */
const makeExporter = Effect.fnUntraced(function*({ resource }: TelemetrySettings, traces: TracesSettings) {
  const state = { exports: 0 }
  const client = yield* makeClient(traces, state)
  const { "service.name": serviceName, ...attributes } = resource
  const shownResource = OtlpResource.make({ ...(serviceName === undefined ? {} : { serviceName }), attributes })
  const bodyOf = yield* makeBody(traces.protocol, shownResource)
  const exporter = yield* OtlpExporter.make({
    label: "troupe",
    url: traces.url,
    headers: Object.fromEntries(
      Object.entries(traces.headers).map(([name, value]) => [name, Redacted.value(value)])
    ),
    compression: traces.compression,
    exportInterval: traces.every,
    maxBatchSize: traces.batch,
    shutdownTimeout: Duration.seconds(3),
    body: (spans: Array<OtlpSpan.Span>) => [bodyOf(spans), Effect.void]
  }).pipe(
    Effect.provideService(HttpClient.HttpClient, client)
  )
  return (spans: ReadonlyArray<OtlpSpan.Span>): void => {
    if (state.exports >= mostExports) return
    for (const span of spans) exporter.push(span)
  }
})

/** The tracing of these settings. */
const make = Effect.fnUntraced(function*(telemetry: TelemetrySettings, traces: TracesSettings) {
  const send = yield* makeExporter(telemetry, traces)
  const tracing: Tracing = {
    tracer: makeTracer(traces.sampling, yield* Random.Random, send),
    capturesContent: traces.content,
    names: traces.names
  }
  return tracing
})

/** The tracing of the settings; none without `telemetry`. Requires `Settings`. */
export const layer: Layer.Layer<never, never, Settings> = Layer.unwrap(
  Effect.map(Settings, ({ telemetry }) => {
    const traces = telemetry?.traces
    if (telemetry === undefined || traces === undefined) return Layer.empty
    return Layer.effect(ServiceTracing, make(telemetry, traces)).pipe(
      Layer.provide(OtlpExporter.layerFlusher),
      Layer.provide(traces.protocol === "json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf)
    )
  })
)

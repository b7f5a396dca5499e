/**
 * Sends the spans of requests to an OpenTelemetry collector, over HTTP in batches.
 *
 * **Details**
 *
 * Spans are encoded when their request ends, see `RecordedSpans`, and sent when they are as many or as long as one export may be,
 * or `telemetry.every` has passed. An export costs the same whatever its size, so it has many.
 *
 * A collector that cannot be reached costs no request its answer: an export is tried again three times, then spans are left out
 * for a minute. What is left out is logged.
 *
 * **Gotchas**
 *
 * This is no tracer of fibers: with one, each request would have a span of Effect's server too, and go through its router.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Layer, Random, Redacted, Schedule } from "effect"
import { HttpBody, HttpClient } from "effect/http"
import { OtlpExporter } from "effect/observability"
import type { Tracing } from "../../services/observability/RequestSpans.ts"
import { ServiceTracing } from "../../services/observability/RequestSpans.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { TelemetrySettings, TracesSettings } from "../../services/settings/TelemetrySettings.ts"
import * as RecordedSpans from "./RecordedSpans.ts"
import * as SpanBatch from "./SpanBatch.ts"

/** Bytes of one export after which no span is added: those with prompts and answers are long. */
const mostBytes = 1_048_576

/** Exports that may be under way; spans that end beyond that are left out. */
const mostExports = 8

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

/** Begins to send spans; the end of the scope sends those that are left. */
const makeSend = Effect.fnUntraced(function*({ resource }: TelemetrySettings, traces: TracesSettings) {
  const state = { exports: 0 }
  const client = yield* makeClient(traces, state)
  const batch = SpanBatch.make(traces.protocol, resource, traces.names)
  // It gets whole batches, and sends each at once.
  const exporter = yield* OtlpExporter.make({
    label: "troupe",
    url: traces.url,
    headers: Object.fromEntries(
      Object.entries(traces.headers).map(([name, value]) => [name, Redacted.value(value)])
    ),
    compression: traces.compression,
    exportInterval: traces.every,
    maxBatchSize: 1,
    shutdownTimeout: Duration.seconds(3),
    body: ([body]: Array<Uint8Array>) => [
      HttpBody.uint8Array(body!, batch.contentType),
      Effect.sync(() => batch.release(body!))
    ]
  }).pipe(
    Effect.provideService(HttpClient.HttpClient, client)
  )
  const flush = Effect.sync(() => {
    if (batch.size > 0) exporter.push(batch.take())
  })
  yield* Effect.addFinalizer(() => flush)
  yield* Effect.forkScoped(Effect.repeat(flush, Schedule.spaced(traces.every)))
  const send: RecordedSpans.Send = (spans) => {
    if (state.exports >= mostExports) return
    for (const span of spans) {
      batch.add(span)
      if (batch.size >= traces.batch || batch.bytes >= mostBytes) exporter.push(batch.take())
    }
  }
  return send
})

/** The tracing of these settings. */
const make = Effect.fnUntraced(function*(telemetry: TelemetrySettings, traces: TracesSettings) {
  const send = yield* makeSend(telemetry, traces)
  const tracing: Tracing = {
    begin: RecordedSpans.make(traces.sampling, yield* Random.Random, send),
    capturesContent: traces.content
  }
  return tracing
})

/** The tracing of the settings; none without `telemetry`. Requires `Settings`. */
export const layer: Layer.Layer<never, never, Settings> = Layer.unwrap(
  Effect.map(Settings, ({ telemetry }) => {
    const traces = telemetry?.traces
    if (telemetry === undefined || traces === undefined) return Layer.empty
    return Layer.provide(Layer.effect(ServiceTracing, make(telemetry, traces)), OtlpExporter.layerFlusher)
  })
)

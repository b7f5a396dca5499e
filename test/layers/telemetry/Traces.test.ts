import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer } from "effect"
import * as Traces from "../../../src/layers/telemetry/Traces.ts"
import { ServiceTracing } from "../../../src/services/observability/RequestSpans.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import { startCollector } from "../../support/Collector.ts"

const acquireCollector = Effect.acquireRelease(
  Effect.promise(startCollector),
  (collector) => Effect.promise(collector.close)
)

describe("traces", () => {
  it.live("are sent before the batch is full where their spans are long", () =>
    Effect.gen(function*() {
      const collector = yield* acquireCollector
      const traces = {
        url: `${collector.url}/v1/traces`,
        headers: {},
        protocol: "protobuf",
        compression: "none",
        every: Duration.hours(1),
        timeout: Duration.minutes(1),
        batch: 1_000,
        sampling: { isParentBased: false, ratio: 1 },
        content: true,
        names: "latest"
      } as const
      const settings = Layer.succeed(Settings, { telemetry: { resource: {}, traces } } as never)
      const count = 8
      yield* Effect.gen(function*() {
        const tracing = yield* ServiceTracing
        for (let index = 0; index < count; index++) {
          tracing!.begin("chat", undefined, 1n)!.end(2n, Exit.void, (to) => to.put("text", "x".repeat(300_000)))
        }
      }).pipe(Effect.provide(Layer.provide(Traces.layer, settings)))
      // One at the end of the scope, and one for each 1 MiB before.
      assert.lengthOf(collector.headers, 2)
      assert.lengthOf(collector.spans, count)
      for (const { "content-length": bytes } of collector.headers) assert.isBelow(Number(bytes), 1_400_000)
    }).pipe(Effect.scoped))
})

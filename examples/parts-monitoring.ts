/** Monitoring: requests are counted in Effect's metric registry, in the format of Prometheus. */
import { Console, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { App, Inference } from "troupe"

const config: App.Config = { models: { "fake/chat": { deployments: [{ engine: "fake", reply: "Hello, too!" }] } } }

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  yield* inference.generate({ model: "fake/chat", messages: [{ role: "user", content: "Hello!" }] })
  const lines = (yield* PrometheusMetrics.format()).split("\n")
  yield* Console.log(lines.filter((line) => line.startsWith("llm_requests_total")).join("\n"))
})

const app = App.core.pipe(
  Layer.provide(App.fake),
  Layer.provide(App.monitoring),
  Layer.provide(App.settings({ config }))
)

await Effect.runPromise(Effect.provide(program, app))

/** Configuration as a value, and one of Troupe's services replaced: every finished request is printed. */
import { Console, Effect, Layer } from "effect"
import { App, Inference, Metrics } from "troupe"

/** Replaces the metrics for Prometheus. */
const printed = Layer.succeed(Metrics.Metrics, {
  begin: () => {},
  end: ({ end, model, tokens }) => Console.log(`${model}: ${end}, ${tokens > 0 ? "with" : "without"} tokens`)
})

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  const { text } = yield* inference.generate({
    model: "fake/parrot",
    messages: [{ role: "user", content: "Hello!" }],
    temperature: 0
  })
  yield* Console.log(text)
})

const troupe = App.layer({
  config: {
    models: { "fake/parrot": { idleUnload: "1 minute", deployments: [{ engine: "fake", reply: "Hello, too!" }] } }
  },
  services: { metrics: printed }
})

await Effect.runPromise(Effect.provide(program, troupe))

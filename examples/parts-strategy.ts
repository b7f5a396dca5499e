/** A strategy of the program's own: the deployment with the largest context window goes first. */
import { Console, Effect, Layer } from "effect"
import { App, Inference } from "troupe"

const widest = App.strategy({ name: "custom/widest", score: ({ contextWindow = 0 }) => contextWindow })

const config: App.Config = {
  policies: { default: { strategy: "custom/widest" } },
  models: {
    "fake/chat": {
      deployments: [
        { engine: "fake", contextSize: 1024, reply: "I am narrow." },
        { engine: "fake", contextSize: 8192, reply: "I am wide." }
      ]
    }
  }
}

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  const { deployment, text } = yield* inference.generate({
    model: "fake/chat",
    messages: [{ role: "user", content: "Hello!" }],
    temperature: 0
  })
  yield* Console.log(`${deployment}: ${text}`)
})

const app = App.core.pipe(
  Layer.provide(App.fake),
  Layer.provide(widest),
  Layer.provide(App.settings({ config }))
)

await Effect.runPromise(Effect.provide(program, app))

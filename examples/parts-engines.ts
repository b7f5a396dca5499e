/** An application with one engine and nothing else. A deployment of another engine is an error when it is built. */
import { Console, Effect, Layer } from "effect"
import { App, Inference } from "troupe"

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  const { text } = yield* inference.generate({
    model: "tiny-chat",
    messages: [{ role: "user", content: "What color is snow?" }],
    temperature: 0
  })
  yield* Console.log(text)
})

const config = {
  models: { "tiny-chat": { deployments: [{ engine: "llama", file: "models/tiny-chat-q8_0.gguf" }] } }
} satisfies App.Config

const withLlama = App.core.pipe(Layer.provide(App.llama), Layer.provide(App.settings({ config })))

const withOnnx = App.core.pipe(Layer.provide(App.onnx), Layer.provide(App.settings({ config })))

await Effect.runPromise(Effect.provide(program, withLlama))

await Effect.runPromise(
  Effect.provide(program, withOnnx).pipe(Effect.catchTag("MissingPartError", ({ message }) => Console.log(message)))
)

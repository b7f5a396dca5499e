/** `effect/ai` on a local model: the program depends only on `LanguageModel`. */
import { Console, Effect, Layer, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import { AiModel, App } from "troupe"

const program = Effect.gen(function*() {
  const response = yield* LanguageModel.generateText({ prompt: "What is the opposite of loud?" })
  yield* Console.log(response.text, response.usage.outputTokens.total)

  yield* LanguageModel.streamText({ prompt: "Count to 7." }).pipe(
    Stream.runForEach((part) =>
      Effect.sync(() => {
        if (part.type === "text-delta") process.stdout.write(part.delta)
      })
    )
  )
  yield* Console.log()
})

const model = AiModel.model("tiny-chat", { temperature: 0 }).pipe(Layer.provide(App.layer()))

await Effect.runPromise(Effect.provide(program, model))

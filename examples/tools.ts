/** A toolkit on a local model: it calls the tool, its handler returns the result, and the model answers with it. */
import { Console, Effect, Layer, Schema } from "effect"
import { Chat, Tool, Toolkit } from "effect/ai"
import { AiModel, App } from "troupe"

const GetWeather = Tool.make("get_weather", {
  description: "Get the weather in a city",
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.String
})

const toolkit = Toolkit.make(GetWeather)

const handlers = toolkit.toLayer({
  get_weather: ({ city }) => Effect.as(Console.log(`The weather in ${city}?`), "sunny")
})

const program = Effect.gen(function*() {
  const chat = yield* Chat.fromPrompt([{ role: "system", content: "You are a helpful assistant." }])
  let response = yield* chat.generateText({ prompt: "What is the weather in Paris?", toolkit })
  while (response.finishReason === "tool-calls") {
    response = yield* chat.generateText({ prompt: [], toolkit })
  }
  yield* Console.log(response.text)
})

const model = AiModel.model("tiny-chat", { temperature: 0 }).pipe(Layer.provide(App.layer()))

await Effect.runPromise(Effect.provide(program, Layer.merge(handlers, model)))

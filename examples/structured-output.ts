/** `generateObject` on a local model: a schema constrains the answer during generation, and decodes it. */
import { Console, Effect, Layer, Schema } from "effect"
import { LanguageModel } from "effect/ai"
import { AiModel, App } from "troupe"

class Person extends Schema.Class<Person>("Person")({
  name: Schema.String,
  age: Schema.Int,
  city: Schema.String
}) {}

const program = Effect.gen(function*() {
  const { value } = yield* LanguageModel.generateObject({
    prompt: "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.",
    schema: Person
  })
  yield* Console.log(`${value.name}, ${value.age}, lives in ${value.city}.`)
})

const model = AiModel.model("tiny-chat", { temperature: 0 }).pipe(Layer.provide(App.layer()))

await Effect.runPromise(Effect.provide(program, model))

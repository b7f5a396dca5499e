/** Any `LanguageModel` of `effect/ai`, here a handwritten one, as a model besides the local ones. */
import { Console, Effect, Layer, Stream } from "effect"
import type { Response } from "effect/ai"
import { LanguageModel } from "effect/ai"
import { App, Inference } from "troupe"

const finish: Response.FinishPartEncoded = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: {}, outputTokens: {} }
}

/** Replace it with any provider's layer, such as `OpenAiLanguageModel.layer({ model: "..." })`. */
const parrot = Layer.effect(
  LanguageModel.LanguageModel,
  LanguageModel.make({
    generateText: () => Effect.succeed([{ type: "text", text: "{}" }, finish]),
    streamText: ({ prompt }) => {
      const said = prompt.content.flatMap((message) => message.role === "user" ? message.content : [])
        .map((part) => part.type === "text" ? part.text : "")
      return Stream.fromIterable<Response.StreamPartEncoded>([
        { type: "text-start", id: "1" },
        ...["You said: ", ...said].map((delta) => ({ type: "text-delta", id: "1", delta }) as const),
        { type: "text-end", id: "1" },
        finish
      ])
    }
  })
)

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  for (const model of ["parrot", "tiny-chat"]) {
    const answer = yield* inference.generate({
      model,
      messages: [{ role: "user", content: "What day comes after Friday?" }],
      // Without `configure`, a language model rejects sampling options.
      ...(model === "parrot" ? {} : { temperature: 0 })
    })
    yield* Console.log(`${answer.deployment}: ${answer.text}`)
  }
})

await Effect.runPromise(Effect.provide(program, App.layer({ languageModels: { parrot } })))

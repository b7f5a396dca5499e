/** With Effect: one complete answer of the embedded model, then a streamed one. */
import { Console, Effect, Stream } from "effect"
import { App, Inference } from "troupe"

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference

  const answer = yield* inference.generate({
    model: "tiny-chat",
    messages: [{ role: "user", content: "What is the capital of Japan?" }],
    temperature: 0
  })
  yield* Console.log(answer.text, answer.usage)

  const story = inference.stream({
    model: "tiny-chat",
    messages: [{ role: "user", content: "Write a story about a fox." }],
    temperature: 0
  })
  yield* Stream.runForEach(story, (event) =>
    Effect.sync(() => {
      if (event.type === "text") process.stdout.write(event.text)
    }))
  yield* Console.log()
}).pipe(
  Effect.catchReason(
    "InferenceError",
    "ContextLengthExceeded",
    (reason) => Console.error(`${reason.promptTokens} tokens do not fit in ${reason.contextWindow}.`)
  )
)

await Effect.runPromise(Effect.provide(program, App.layer()))

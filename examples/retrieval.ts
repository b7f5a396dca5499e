/** Finds the passage that answers a question, with the embedded embedding model. */
import { Console, Effect } from "effect"
import { App, Inference } from "troupe"

const passages = [
  "The office is open from eight to six on weekdays and closed on holidays.",
  "Orders are shipped within two days. You can follow the package with the link in the email.",
  "A product can be returned within thirty days; we pay the money back to your card.",
  "Use the link on the login page if you have forgotten your password."
]

const questions = ["I can't remember my login details.", "Where is my parcel?", "How do I get a refund?"]

/** Of vectors of length 1. */
const cosine = (one: Float32Array, other: Float32Array): number =>
  one.reduce((sum, value, index) => sum + value * other[index]!, 0)

const program = Effect.gen(function*() {
  const inference = yield* Inference.Inference
  const { vectors } = yield* inference.embed({ model: "tiny-embed", inputs: [...passages, ...questions] })
  for (const [index, question] of questions.entries()) {
    const asked = vectors[passages.length + index]!
    const similarities = passages.map((_, at) => cosine(asked, vectors[at]!))
    yield* Console.log(`${question} ${passages[similarities.indexOf(Math.max(...similarities))]}`)
  }
})

await Effect.runPromise(Effect.provide(program, App.layer()))

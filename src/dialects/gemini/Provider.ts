/**
 * Google's Gemini API: `generateContent`, `streamGenerateContent` and `batchEmbedContents`.
 *
 * **Details**
 *
 * System messages go together, in their order, wherever they are in the conversation. Calls come whole; one without an
 * id is given one, by its place in the conversation. A result that is no JSON object goes as the `output` of one.
 * Thoughts are passed over, and counted. Vectors are brought to unit length, as not all models' are.
 *
 * Sources: Google's reference of the Gemini API, and its pages on function calling, structured output and embeddings.
 *
 * **Gotchas**
 *
 * The API's seed has 31 bits: the highest bit of a seed is left out. Calls in a conversation go without the signatures
 * of their thoughts, which Google says makes answers to their results somewhat worse. A stream's finish is told at its
 * end, since some models tell a reason to finish with every piece. One call embeds at most 100 texts.
 */
import { Result } from "effect"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import { embeddingsOf } from "../shared/Embeddings.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { at, countAt, listAt } from "../shared/Json.ts"
import type { Dialect, Each, Target, Task } from "../shared/ProviderDialect.ts"
import { events, failure, whole } from "./DecodeAnswer.ts"
import { modelOf, pathOf, request } from "./EncodeRequest.ts"

const mostTexts = 100

const embed: Task<ReadonlyArray<string>, Each<Embedding>> = {
  request: (inputs, target) =>
    inputs.length > mostTexts
      ? Result.fail(notSupported(target, "inputs", `its API accepts at most ${mostTexts} texts per request.`))
      : Result.succeed({
        path: pathOf(target, "batchEmbedContents"),
        body: { requests: inputs.map((text) => ({ model: modelOf(target), content: { parts: [{ text }] } })) }
      }),
  answer: (body: unknown, inputs: ReadonlyArray<string>, target: Target): Result.Result<Each<Embedding>, Reason> =>
    embeddingsOf(
      listAt(body, "embeddings").map((embedding) => at(embedding, "values")),
      inputs,
      countAt(body, "usageMetadata", "promptTokenCount") ?? 0,
      target
    )
}

export const gemini: Dialect = {
  images: "bytes",
  framing: "sse",
  generate: { request, events, whole },
  embed,
  failure
}

/**
 * Google's Gemini API: `generateContent`, `streamGenerateContent` and `batchEmbedContents`.
 *
 * **Details**
 *
 * System messages are joined in their order, wherever they are in the conversation. Calls are not streamed in pieces; one
 * without an id gets one, by its position in the conversation. A result that is not a JSON object is sent as the field
 * `output` of one. Vectors are normalized to unit length, because those of some models are not.
 *
 * Sources: Google's reference of the Gemini API, and its pages on function calling, structured output and embeddings.
 *
 * **Gotchas**
 *
 * The API's seed has 31 bits: the highest bit of a seed is dropped. Calls in a conversation are sent without the signatures
 * of their reasoning, which reduces the quality of the next answer according to Google. The `finish` event comes at the end
 * of the stream, because some models send a finish reason with every piece. One request embeds at most 100 texts.
 */
import { Result } from "effect"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import { embeddingsOf } from "../shared/Embeddings.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { at, countAt, listAt } from "../shared/Json.ts"
import type { Dialect, Each, Target, Task } from "../shared/ProviderDialect.ts"
import { buffered, errorIn, events, failure, usageIn } from "./DecodeAnswer.ts"
import { modelOf, pathOf, request } from "./EncodeRequest.ts"

const maxTexts = 100

const embed: Task<ReadonlyArray<string>, Each<Embedding>> = {
  request: (inputs, target) =>
    inputs.length > maxTexts
      ? Result.fail(notSupported(target, "inputs", `its API accepts at most ${maxTexts} texts per request.`))
      : Result.succeed({
        path: pathOf(target, "batchEmbedContents"),
        body: { requests: inputs.map((text) => ({ model: modelOf(target), content: { parts: [{ text }] } })) }
      }),
  answer: (body: unknown, inputs: ReadonlyArray<string>, target: Target): Result.Result<Each<Embedding>, Reason> =>
    embeddingsOf(
      listAt(body, "embeddings").map((embedding) => at(embedding, "values")),
      inputs,
      countAt(body, "usageMetadata", "promptTokenCount"),
      target
    )
}

export const gemini: Dialect = {
  images: "bytes",
  framing: "sse",
  generate: { request, events, buffered, usageIn },
  embed,
  failure,
  errorIn
}

/** OpenAI's chat completions, text completions and embeddings, at OpenAI, Azure and other hosts of the dialect. Pure. */
import { Result } from "effect"
import * as Source from "../../domain/Source.ts"
import { embeddingsOf } from "../shared/Embeddings.ts"
import { malformed } from "../shared/ErrorMapping.ts"
import { at, countAt, eachOf, fieldsOf, listAt } from "../shared/Json.ts"
import type { Dialect } from "../shared/ProviderDialect.ts"
import { taskUsage } from "../shared/TokenCounter.ts"
import { buffered, errorIn, events, failure, usageIn } from "./DecodeAnswer.ts"
import * as Texts from "./DecodeTextCompletion.ts"
import type { Host } from "./EncodeRequest.ts"
import { azureHost, makeCompletions, makeRequests, openAiHost, troupeHost } from "./EncodeRequest.ts"

const embedding = ({ headers, path }: Host): NonNullable<Dialect["embed"]> => ({
  request: (input, target) =>
    Result.succeed({
      path: path("embeddings", target),
      headers: headers(target),
      body: { model: target.options.model, input, encoding_format: "float" }
    }),
  answer: (body, inputs, target) => {
    const vectors = (eachOf(listAt(body, "data"), inputs.length) ?? []).map((one) => at(one, "embedding"))
    return embeddingsOf(vectors, inputs, countAt(body, "usage", "prompt_tokens"), target)
  }
})

/** Number of inputs of a request: `input` is a text, texts, tokens or lists of tokens. */
const inputsOf = ({ body: { input } }: Source.Source): number =>
  Array.isArray(input) && typeof input[0] !== "number" ? input.length : 1

/** Passes the caller's own request and the provider's answer through. */
const nativeEmbedding = ({ headers, path }: Host): NonNullable<Dialect["embedNative"]> => ({
  request: (source, target) =>
    Result.succeed({
      path: path("embeddings", target),
      headers: headers(target),
      body: Source.bodyWith(source, { model: target.options.model })
    }),
  answer: (body, source, target) => {
    const fields = fieldsOf(body)
    return fields === undefined || listAt(fields, "data").length !== inputsOf(source)
      ? Result.fail(malformed(target, "not one vector per input"))
      : Result.succeed({
        native: { dialect: "openai", form: "buffered", body: fields, hasMore: false },
        ...taskUsage(countAt(fields, "usage", "prompt_tokens"), source.body["input"])
      })
  }
})

const dialectAt = (host: Host) =>
  ({
    images: "urls",
    framing: "sse",
    generate: { ...makeRequests(host), events, buffered, usageIn },
    complete: { ...makeCompletions(host), events: Texts.events, buffered: Texts.buffered, usageIn },
    embed: embedding(host),
    embedNative: nativeEmbedding(host),
    failure,
    errorIn
  }) satisfies Dialect

export const openAi: Dialect = dialectAt(openAiHost)

export const azureOpenAi: Dialect = dialectAt(azureHost)

/** What another instance of this service shares with OpenAI's API. */
export const ownDialect = dialectAt(troupeHost)

/**
 * OpenAI's chat completions and embeddings, as OpenAI, Azure and all the others have them. Pure.
 *
 * **Gotchas**
 *
 * Source: OpenAI's and Azure's API references. What hosts other than OpenAI have beyond its API (`top_k`, `min_p`) is
 * said only where the `baseUrl` of another is configured.
 */
import { Result } from "effect"
import { kinds } from "../../domain/ProviderKind.ts"
import * as Source from "../../domain/Source.ts"
import { embeddingsOf } from "../shared/Embeddings.ts"
import { malformed } from "../shared/ErrorMapping.ts"
import { at, countAt, eachOf, fieldsOf, listAt } from "../shared/Json.ts"
import type { Dialect, Target } from "../shared/ProviderDialect.ts"
import { makeEvents, makeWhole } from "./DecodeAnswer.ts"
import { failure, inBand } from "./DecodeError.ts"
import type { Vocabulary } from "./EncodeRequest.ts"
import { bodyOf } from "./EncodeRequest.ts"
import * as OpenAiPassThrough from "./PassThrough.ts"

const ownVocabulary: Vocabulary = { maxTokens: "max_completion_tokens", mostStops: 4, more: [], isOwn: true }

/** What servers of this dialect have in common: OpenAI's older name for the limit, and vLLM's and llama.cpp's sampling. */
const commonVocabulary: Vocabulary = { maxTokens: "max_tokens", mostStops: 16, more: ["topK", "minP"] }

/** Also where its address, or that of one of its regions, is configured: its newer models take no `max_tokens`. */
const isOwn = /^https:\/\/(?:\w+\.)?api\.openai\.com(?:[:/]|$)/i

const vocabularyOf = ({ options: { baseUrl } }: Target): Vocabulary =>
  baseUrl === undefined || isOwn.test(baseUrl) ? ownVocabulary : commonVocabulary

/** Where a call goes, and with what. */
interface Place {
  readonly path: (name: "chat/completions" | "embeddings", target: Target) => string
  readonly headers: (target: Target) => Readonly<Record<string, string>>
  readonly vocabulary: (target: Target) => Vocabulary
}

const embedding = ({ headers, path }: Place): NonNullable<Dialect["embed"]> => ({
  request: (input, target) =>
    Result.succeed({
      path: path("embeddings", target),
      headers: headers(target),
      body: { model: target.options.model, input, encoding_format: "float" }
    }),
  answer: (body, inputs, target) => {
    const vectors = (eachOf(listAt(body, "data"), inputs.length) ?? []).map((one) => at(one, "embedding"))
    return embeddingsOf(vectors, inputs, countAt(body, "usage", "prompt_tokens") ?? 0, target)
  }
})

/** Inputs of a request, which is a text, texts, tokens or lists of tokens. */
const inputsOf = ({ body: { input } }: Source.Source): number =>
  Array.isArray(input) && typeof input[0] !== "number" ? input.length : 1

/** The caller's own request, and the provider's answer as it is. */
const nativeEmbedding = ({ headers, path }: Place): NonNullable<Dialect["embedNative"]> => ({
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
        native: { dialect: "openai", form: "whole", body: fields, hasMore: false },
        promptTokens: countAt(fields, "usage", "prompt_tokens") ?? 0
      })
  }
})

const generating = (
  { headers, path, vocabulary }: Place
): Dialect["generate"] & Pick<Required<Dialect["generate"]>, "passThrough"> => ({
  request: (generation, target, stream) =>
    Result.map(bodyOf(generation, target, stream, vocabulary(target)), (body) => ({
      path: path("chat/completions", target),
      headers: headers(target),
      body
    })),
  passThrough: (generation, source, target, stream, fetched) =>
    Result.map(
      OpenAiPassThrough.bodyOf(generation, source, target, stream, vocabulary(target), fetched),
      (body) => ({ path: path("chat/completions", target), headers: headers(target), body })
    ),
  events: makeEvents(inBand),
  whole: makeWhole(inBand)
})

const dialectAt = (
  place: Place
): Pick<Dialect, "framing" | "images" | "embed" | "embedNative" | "failure"> & {
  readonly generate: ReturnType<typeof generating>
} => ({
  images: "urls",
  framing: "sse",
  generate: generating(place),
  embed: embedding(place),
  embedNative: nativeEmbedding(place),
  failure
})

const organizationOf = ({ options: { organization } }: Target) =>
  organization === undefined ? {} : { "openai-organization": organization }

export const openAi: Dialect = dialectAt({
  path: (name) => `/${name}`,
  headers: organizationOf,
  vocabulary: vocabularyOf
})

/** Versions from this date on know `max_completion_tokens`. */
const renamedIn = "2024-12-01"

const versionOf = ({ options: { apiVersion = kinds["azure-openai"].apiVersion } }: Target): string => apiVersion

export const azureOpenAi: Dialect = dialectAt({
  path: (name, target) =>
    `/openai/deployments/${encodeURIComponent(target.options.model)}/${name}?api-version=` +
    encodeURIComponent(versionOf(target)),
  headers: () => ({}),
  vocabulary: (target) => ({
    ...ownVocabulary,
    maxTokens: versionOf(target) >= renamedIn ? "max_completion_tokens" : "max_tokens"
  })
})

/** Another instance of Troupe speaks OpenAI's dialect, and says all that engines can be told. */
const ownPlace: Place = {
  path: (name) => `/${name}`,
  headers: () => ({}),
  vocabulary: () => ({
    maxTokens: "max_completion_tokens",
    mostStops: 16,
    more: ["topK", "minP", "repeatPenalty"],
    goesOn: true
  })
}

export const ownDialect = dialectAt(ownPlace)

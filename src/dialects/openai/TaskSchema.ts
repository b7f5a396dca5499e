/**
 * Schemas of the endpoints without streams: `POST /v1/embeddings`, `/v1/rerank`, `/v1/classify` and `/v1/tokenize`.
 *
 * **Details**
 *
 * Sources: for embeddings OpenAI's API reference; for reranking what Jina, Cohere, llama-server and vLLM share; for
 * classification Jina's answer; for tokens vLLM's.
 */
import { Schema } from "effect"
import { wholeNumber } from "../../domain/Problem.ts"
import { callerFields, ChatMessage, Tool } from "./Schema.ts"

const Usage = Schema.Struct({ prompt_tokens: Schema.Int, total_tokens: Schema.Int }).annotate({
  identifier: "PromptUsage"
})

/** A text, or several. */
const Input = Schema.Union([Schema.NonEmptyString, Schema.NonEmptyArray(Schema.NonEmptyString)])

export const EmbeddingRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Input,
  /** `base64` encodes the vector's 32-bit floats, little-endian. */
  encoding_format: Schema.optionalKey(Schema.Literals(["float", "base64"])),
  /** Only the model's own number is accepted: the vectors of few models can be shortened. */
  dimensions: Schema.optionalKey(wholeNumber(1)),
  ...callerFields
}).annotate({ identifier: "EmbeddingRequest" })
export type EmbeddingRequest = typeof EmbeddingRequest.Type

export const EmbeddingList = Schema.Struct({
  object: Schema.Literal("list"),
  data: Schema.Array(Schema.Struct({
    object: Schema.Literal("embedding"),
    index: Schema.Int,
    /** Of unit length. */
    embedding: Schema.Union([Schema.Array(Schema.Finite), Schema.String])
  })),
  model: Schema.String,
  usage: Usage
}).annotate({ identifier: "EmbeddingList" })
export type EmbeddingList = typeof EmbeddingList.Type

export const RerankRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  query: Schema.NonEmptyString,
  documents: Schema.NonEmptyArray(Schema.Union([Schema.String, Schema.Struct({ text: Schema.String })])),
  /** The most results; default all. */
  top_n: Schema.optionalKey(wholeNumber(1)),
  /** Default false. */
  return_documents: Schema.optionalKey(Schema.Boolean),
  ...callerFields
}).annotate({ identifier: "RerankRequest" })
export type RerankRequest = typeof RerankRequest.Type

/** What Cohere's clients read about the use. A search unit is one query with up to 100 documents. */
export const RerankMeta = Schema.Struct({
  api_version: Schema.Struct({ version: Schema.String }),
  billed_units: Schema.Struct({ search_units: Schema.Int }),
  tokens: Schema.Struct({ input_tokens: Schema.Int, output_tokens: Schema.Int })
}).annotate({ identifier: "RerankMeta" })

export const RerankList = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("list"),
  model: Schema.String,
  /** Best first. */
  results: Schema.Array(Schema.Struct({
    /** The index of the document in the request. */
    index: Schema.Int,
    /** From 0 to 1. */
    relevance_score: Schema.Finite,
    document: Schema.optionalKey(Schema.Struct({ text: Schema.String }))
  })),
  /** For clients of Jina's API. */
  usage: Usage,
  /** For clients of version 1 of Cohere's API. */
  meta: RerankMeta
}).annotate({ identifier: "RerankList" })
export type RerankList = typeof RerankList.Type

export const ClassifyRequest = Schema.Struct({ model: Schema.NonEmptyString, input: Input, ...callerFields }).annotate({
  identifier: "ClassifyRequest"
})
export type ClassifyRequest = typeof ClassifyRequest.Type

const Prediction = Schema.Struct({ label: Schema.String, score: Schema.Finite })

export const ClassifyList = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("list"),
  model: Schema.String,
  data: Schema.Array(Schema.Struct({
    object: Schema.Literal("classification"),
    index: Schema.Int,
    /** The likeliest label. */
    prediction: Schema.String,
    score: Schema.Finite,
    /** All labels, likeliest first; their scores sum to 1. */
    predictions: Schema.Array(Prediction)
  })),
  usage: Usage
}).annotate({ identifier: "ClassifyList" })
export type ClassifyList = typeof ClassifyList.Type

/** Exactly one of `prompt` and `messages`. */
export const TokenizeRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  /** A text without a template. */
  prompt: Schema.optionalKey(Schema.String),
  /** A conversation, in the model's chat template. */
  messages: Schema.optionalKey(Schema.NonEmptyArray(ChatMessage)),
  /** Only with `messages`. */
  tools: Schema.optionalKey(Schema.Array(Tool)),
  /** Only with `messages`, as in `ChatRequest`. */
  continue_final_message: Schema.optionalKey(Schema.Boolean),
  ...callerFields
}).annotate({ identifier: "TokenizeRequest" })
export type TokenizeRequest = typeof TokenizeRequest.Type

export const TokenList = Schema.Struct({
  count: Schema.Int,
  /** Token ids of the model's vocabulary. */
  tokens: Schema.Array(Schema.Int)
}).annotate({ identifier: "TokenList" })
export type TokenList = typeof TokenList.Type

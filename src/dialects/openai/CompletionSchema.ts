/**
 * Schemas of `POST /v1/completions`: a text that a model continues, without a chat template.
 *
 * **Details**
 *
 * Source: OpenAI's API reference, "Completions". Comments mark the fields that are not in OpenAI's API.
 */
import { Schema } from "effect"
import { maxTokenId } from "../../domain/Inference.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { ChatRequest, Usage } from "./Schema.ts"

/** The most prompts and choices of a request together. */
export const mostCompletions = 128

/** The most elements of `prompt`: more than fit any context window. */
export const mostPromptElements = 1_000_000

/** OpenAI's default limit of an answer, tokens. */
export const defaultMaxTokens = 16

const TokenIds = Schema.NonEmptyArray(wholeNumber(0, maxTokenId))

const { fields } = ChatRequest

/** The body of `POST /v1/completions`. Other fields are for deployments of this dialect. */
export const CompletionRequest = Schema.Struct({
  model: fields.model,
  /** A text, texts, the ids of a text's tokens, or lists of such ids: each text has its own choices. */
  prompt: Schema.Union([
    Schema.String,
    Schema.NonEmptyArray(Schema.String),
    TokenIds,
    Schema.NonEmptyArray(TokenIds)
  ]).annotate({
    message: "Expected a text, an array of texts, an array of token ids, or an array of arrays of token ids"
  }),
  /** The text after the gap that the answer fills. */
  suffix: Schema.optionalKey(Schema.String),
  /** The prompt before the answer; default false. */
  echo: Schema.optionalKey(Schema.Boolean),
  /** Only 1, or the value of `n`: choices are not compared. */
  best_of: Schema.optionalKey(wholeNumber(1, mostCompletions)),
  n: fields.n,
  /** 0 only with `echo`. */
  max_tokens: Schema.optionalKey(wholeNumber(0, 1_000_000)),
  /** The log-probability of each token, and of this many alternatives. */
  logprobs: Schema.optionalKey(wholeNumber(0, 20)),
  stop: fields.stop,
  stream: fields.stream,
  stream_options: fields.stream_options,
  temperature: fields.temperature,
  top_p: fields.top_p,
  seed: fields.seed,
  presence_penalty: fields.presence_penalty,
  frequency_penalty: fields.frequency_penalty,
  logit_bias: fields.logit_bias,
  top_k: fields.top_k,
  min_p: fields.min_p,
  repeat_penalty: fields.repeat_penalty,
  /** Not in OpenAI's API, but in vLLM's. */
  response_format: fields.response_format,
  keep_alive: fields.keep_alive,
  priority: fields.priority,
  safety_identifier: fields.safety_identifier,
  user: fields.user,
  troupe: fields.troupe
}).annotate({ identifier: "CompletionRequest" })
export type CompletionRequest = typeof CompletionRequest.Type

/** Lists of equal length, an element a token. */
export const CompletionLogprobs = Schema.Struct({
  tokens: Schema.Array(Schema.String),
  /** Null for the first token of an echoed prompt. */
  token_logprobs: Schema.Array(Schema.NullOr(Schema.Finite)),
  /** Null if no alternatives were requested. */
  top_logprobs: Schema.NullOr(Schema.Array(Schema.NullOr(Schema.Record(Schema.String, Schema.Finite)))),
  /** Where each token begins in the text of the choice, characters. */
  text_offset: Schema.Array(Schema.Int)
}).annotate({ identifier: "CompletionLogprobs" })
export type CompletionLogprobs = typeof CompletionLogprobs.Type

/** A whole answer, or an event of a stream. */
export const Completion = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("text_completion"),
  /** Seconds since 1970. */
  created: Schema.Int,
  model: Schema.String,
  choices: Schema.Array(Schema.Struct({
    text: Schema.String,
    /** The prompt's index times `n`, plus the index of the choice. */
    index: Schema.Int,
    logprobs: Schema.NullOr(CompletionLogprobs),
    /** Null in an event before the last one of the choice. */
    finish_reason: Schema.NullOr(Schema.Literals(["stop", "length", "content_filter"])),
    /** Not in OpenAI's API, but in vLLM's: the stop sequence that ended the text. */
    stop_reason: Schema.optionalKey(Schema.String)
  })),
  /** Of a stream only with `stream_options.include_usage`, and then null on all events but the last. */
  usage: Schema.optionalKey(Schema.NullOr(Usage)),
  /** Not in OpenAI's API: this deployment continues the text of one that failed. */
  troupe: Schema.optionalKey(Schema.Struct({ handoff: Schema.Struct({ deployment: Schema.String }) }))
}).annotate({ identifier: "Completion" })
export type Completion = typeof Completion.Type

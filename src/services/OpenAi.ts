/**
 * The OpenAI dialect's shapes: what `POST /v1/chat/completions` and `GET /v1/models` take and give.
 *
 * Source: OpenAI's API reference, "Chat", "Models" and "Error codes".
 */
import { Schema } from "effect"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })

/** A message's content: a text, or texts in parts. */
const Content = Schema.Union([Schema.String, Schema.Array(TextPart)])

export const ChatMessage = Schema.Struct({
  /** `developer` means what `system` means. */
  role: Schema.Literals(["system", "developer", "user", "assistant"]),
  content: Content
})

const StopText = Schema.NonEmptyString.check(
  Schema.isMaxLength(1000),
  Schema.makeFilter((text: string) => text.isWellFormed() ? undefined : "Expected whole characters")
)

/** The body of `POST /v1/chat/completions`. Fields that are not here and do not change the answer are ignored. */
export const ChatRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(ChatMessage),
  stream: Schema.optionalKey(Schema.Boolean),
  stream_options: Schema.optionalKey(Schema.Struct({ include_usage: Schema.optionalKey(Schema.Boolean) })),
  temperature: Schema.optionalKey(Schema.Finite.check(within(0, 2))),
  top_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  /** Any whole number; its lowest 32 bits count. */
  seed: Schema.optionalKey(Schema.Int),
  presence_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  frequency_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  /** By token id of the model's own vocabulary. */
  logit_bias: Schema.optionalKey(Schema.Record(Schema.String, Schema.Finite.check(within(-100, 100)))),
  /** Not in OpenAI's own API; the name that llama.cpp, Ollama and vLLM have. */
  top_k: Schema.optionalKey(Schema.Int.check(within(0, 1_000_000))),
  /** Likewise. */
  min_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  /** Likewise. */
  repeat_penalty: Schema.optionalKey(Schema.Finite.check(within(0.01, 10))),
  max_tokens: Schema.optionalKey(Schema.Int.check(within(1, 1_000_000))),
  max_completion_tokens: Schema.optionalKey(Schema.Int.check(within(1, 1_000_000))),
  stop: Schema.optionalKey(Schema.Union([
    StopText,
    Schema.Array(StopText).check(Schema.isMaxLength(16))
  ])),
  /** Answers to generate. */
  n: Schema.optionalKey(Schema.Int.check(within(1, 128)))
})
export type ChatRequest = typeof ChatRequest.Type

export const FinishReason = Schema.Literals(["stop", "length", "tool_calls"])

export const Usage = Schema.Struct({
  prompt_tokens: Schema.Int,
  completion_tokens: Schema.Int,
  total_tokens: Schema.Int
})
export type Usage = typeof Usage.Type

export const ChatCompletion = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("chat.completion"),
  /** Seconds since 1970. */
  created: Schema.Int,
  model: Schema.String,
  choices: Schema.Array(Schema.Struct({
    index: Schema.Int,
    message: Schema.Struct({
      role: Schema.Literal("assistant"),
      content: Schema.String,
      refusal: Schema.Null
    }),
    logprobs: Schema.Null,
    finish_reason: FinishReason
  })),
  usage: Usage
})
export type ChatCompletion = typeof ChatCompletion.Type

export const ChatChunk = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("chat.completion.chunk"),
  /** Seconds since 1970. */
  created: Schema.Int,
  model: Schema.String,
  choices: Schema.Array(Schema.Struct({
    index: Schema.Int,
    delta: Schema.Struct({
      role: Schema.optionalKey(Schema.Literal("assistant")),
      content: Schema.optionalKey(Schema.String)
    }),
    logprobs: Schema.Null,
    finish_reason: Schema.NullOr(FinishReason)
  })),
  /** Only with `stream_options.include_usage`, and then null on all chunks but the last. */
  usage: Schema.optionalKey(Schema.NullOr(Usage))
})

export const Model = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("model"),
  /** Seconds since 1970. */
  created: Schema.Int,
  owned_by: Schema.String
})

export const ModelList = Schema.Struct({
  object: Schema.Literal("list"),
  data: Schema.Array(Model)
})

/** The body of every error. */
export const ErrorBody = Schema.Struct({
  error: Schema.Struct({
    message: Schema.String,
    type: Schema.String,
    /** The field that is wrong, as `messages[0].content`. */
    param: Schema.NullOr(Schema.String),
    code: Schema.NullOr(Schema.String)
  })
})
export type ErrorBody = typeof ErrorBody.Type

/**
 * Schemas of the OpenAI dialect: `POST /v1/chat/completions`, and what all its endpoints share. `TaskSchema` and `Models`
 * have those of the other endpoints.
 *
 * **Details**
 *
 * Source: OpenAI's API reference, "Chat" and "Error codes". Comments mark the fields that are not in OpenAI's API.
 */
import { Schema } from "effect"
import { LogitBias, Priority, Tool as InferenceTool } from "../../domain/Inference.ts"
import { Detail } from "../../domain/Message.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { RoutingOptions } from "../../domain/RoutingOptions.ts"
import * as Time from "../../domain/Time.ts"
import { fieldsOfType } from "../shared/CallerRequest.ts"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** Clients send null for fields that they leave out. */
const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** The most tools of a request. */
export const mostTools = 128

/** The most stop sequences of a request. */
export const mostStops = 16

/** The fields of every request that identify the caller or set its options. */
export const callerFields = {
  /** Not in OpenAI's API, but in Ollama's: how long the model stays loaded, in seconds or as `5m`; negative: no limit. */
  keep_alive: Schema.optionalKey(Schema.Union([
    Schema.Finite,
    Schema.String.check(
      Schema.isMaxLength(100),
      Schema.isPattern(Time.goDuration, {
        message: "Expected a number of seconds or a duration, such as 5m or 1h30m"
      })
    )
  ])),
  /** Not in OpenAI's API: the order among waiting requests; default normal. */
  priority: Schema.optionalKey(Priority),
  /** The user, which distinguishes the callers of requests without a bearer token. */
  safety_identifier: Schema.optionalKey(Schema.String),
  /** OpenAI's older name for `safety_identifier`. */
  user: Schema.optionalKey(Schema.String),
  /** Not in OpenAI's API: options of the routing, over the configuration. */
  troupe: Schema.optionalKey(RoutingOptions)
}

export const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })

export const ImagePart = Schema.Struct({
  type: Schema.Literal("image_url"),
  image_url: Schema.Struct({
    /** `http`, `https` or `data:` with an image in base64. */
    url: Schema.String,
    detail: nullable(Detail)
  })
})

/** An object of another type than these, for deployments of this dialect. */
const other = (...known: ReadonlyArray<string>) =>
  Schema.Struct({
    type: Schema.String.check(
      Schema.makeFilter((type: string) => known.includes(type) ? fieldsOfType(type) : undefined)
    )
  })

/** A part of another type, such as `input_audio` or `file`; Mistral has the reasoning of earlier answers in `thinking`. */
const OtherPart = Schema.Struct({
  ...other("text", "image_url").fields,
  thinking: Schema.optionalKey(Schema.Unknown)
})

/** A message's content: a text, or parts; images of a user only. */
const Content = Schema.Union([
  Schema.String,
  Schema.Array(Schema.Union([TextPart, ImagePart, OtherPart]))
])

/** A call of a tool; `arguments` is JSON text. */
export const ToolCall = Schema.Struct({
  id: Schema.NonEmptyString,
  type: Schema.Literal("function"),
  function: Schema.Struct({ name: Schema.NonEmptyString, arguments: Schema.String })
})

/** A call of a tool of another type. */
const OtherToolCall = Schema.Struct({ id: Schema.NonEmptyString, ...other("function").fields })

export type ChatPart = typeof TextPart.Type | typeof ImagePart.Type | typeof OtherPart.Type

export const ChatMessage = Schema.Struct({
  /** `developer` means the same as `system`. */
  role: Schema.Literals(["system", "developer", "user", "assistant", "tool"]),
  /** Null or left out only in an assistant's message with tool calls or other content. */
  content: nullable(Content),
  /** Calls of an assistant. */
  tool_calls: nullable(Schema.Array(Schema.Union([ToolCall, OtherToolCall]))),
  /** The call that a tool's message answers. */
  tool_call_id: nullable(Schema.String),
  /** Other content of an assistant, for deployments of this dialect: a refusal, audio, a call of the legacy API. */
  refusal: Schema.optionalKey(Schema.Unknown),
  audio: Schema.optionalKey(Schema.Unknown),
  function_call: Schema.optionalKey(Schema.Unknown),
  /** The reasoning of an earlier answer, in the names of OpenRouter and vLLM, of DeepSeek, and of OpenRouter's parts. */
  reasoning: Schema.optionalKey(Schema.Unknown),
  reasoning_content: Schema.optionalKey(Schema.Unknown),
  reasoning_details: Schema.optionalKey(Schema.Unknown)
}).annotate({ identifier: "ChatMessage" })
export type ChatMessage = typeof ChatMessage.Type

/** A tool that the model may call. */
export const Tool = Schema.Struct({
  type: Schema.Literal("function"),
  function: Schema.Struct({
    name: InferenceTool.fields.name,
    description: nullable(Schema.String),
    /** JSON Schema of the arguments. */
    parameters: nullable(Schema.Record(Schema.String, Schema.Unknown))
  })
}).annotate({ identifier: "Tool" })
export type Tool = typeof Tool.Type

/** A tool of another type, such as `custom`. */
const OtherTool = other("function")

/** Any tool. */
export const AnyTool = Schema.Union([Tool, OtherTool])
export type AnyTool = typeof AnyTool.Type

const ToolChoice = Schema.Union([
  Schema.Literals(["none", "auto", "required"]),
  Schema.Struct({ type: Schema.Literal("function"), function: Schema.Struct({ name: Schema.NonEmptyString }) }),
  other("function")
])

const ResponseFormat = Schema.Union([
  Schema.Struct({ type: Schema.Literal("text") }),
  Schema.Struct({ type: Schema.Literal("json_object") }),
  Schema.Struct({
    type: Schema.Literal("json_schema"),
    /** The answer fits the schema, `strict` or not. */
    json_schema: Schema.Struct({
      name: nullable(Schema.String),
      description: nullable(Schema.String),
      /** Default any. */
      schema: nullable(Schema.Record(Schema.String, Schema.Unknown)),
      strict: nullable(Schema.Boolean)
    })
  }),
  other("text", "json_object", "json_schema")
])

const StopText = Schema.NonEmptyString.check(
  Schema.isMaxLength(1000),
  Schema.makeFilter((text: string) =>
    text.isWellFormed() ? undefined : "Expected well-formed Unicode: a surrogate has no pair"
  )
)

export const StreamOptions = Schema.Struct({ include_usage: nullable(Schema.Boolean) })

/** What is expected of a seed. */
export const seedExpected = "Expected a whole number from -9223372036854775808 to 9223372036854775807"

// @effect-diagnostics-next-line schemaNumber:off
const Seed = Schema.Number.check(
  // An integer is finite.
  Schema.makeFilter(
    (seed: number) => Number.isInteger(seed) && Math.abs(seed) <= 2 ** 63 ? undefined : seedExpected,
    { toJsonSchema: () => ({ type: "integer", format: "int64" }) }
  )
)

/** The body of `POST /v1/chat/completions`. Other fields are for deployments of this dialect. */
export const ChatRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(ChatMessage),
  /** Not in OpenAI's API, but in vLLM's: the answer continues the assistant's last message and does not repeat it. */
  continue_final_message: Schema.optionalKey(Schema.Boolean),
  stream: Schema.optionalKey(Schema.Boolean),
  stream_options: Schema.optionalKey(StreamOptions),
  temperature: Schema.optionalKey(Schema.Finite.check(within(0, 2))),
  top_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  /** A signed integer of 64 bits, which `DecodeRequest` checks exactly; local engines use its lowest 32. */
  seed: Schema.optionalKey(Seed),
  presence_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  frequency_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  /** By token id of the model's own vocabulary. */
  logit_bias: Schema.optionalKey(LogitBias),
  /** These three are not in OpenAI's API, but in those of llama.cpp, Ollama and vLLM. */
  top_k: Schema.optionalKey(wholeNumber(-1, 1_000_000)),
  min_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  repeat_penalty: Schema.optionalKey(Schema.Finite.check(within(0.01, 10))),
  max_tokens: Schema.optionalKey(wholeNumber(1, 1_000_000)),
  max_completion_tokens: Schema.optionalKey(wholeNumber(1, 1_000_000)),
  stop: Schema.optionalKey(Schema.Union([
    StopText,
    Schema.Array(StopText).check(Schema.isMaxLength(mostStops))
  ])),
  /** The number of answers. */
  n: Schema.optionalKey(wholeNumber(1, 128)),
  tools: Schema.optionalKey(Schema.Array(AnyTool).check(Schema.isMaxLength(mostTools))),
  tool_choice: Schema.optionalKey(ToolChoice),
  /** False: the answer has at most one call. */
  parallel_tool_calls: Schema.optionalKey(Schema.Boolean),
  response_format: Schema.optionalKey(ResponseFormat),
  logprobs: Schema.optionalKey(Schema.Boolean),
  /** Only with `logprobs`. */
  top_logprobs: Schema.optionalKey(wholeNumber(0, 20)),
  ...callerFields
}).annotate({ identifier: "ChatRequest" })
export type ChatRequest = typeof ChatRequest.Type

const FinishReason = Schema.Literals(["stop", "length", "tool_calls", "content_filter"])

export const Usage = Schema.Struct({
  prompt_tokens: Schema.Int,
  completion_tokens: Schema.Int,
  total_tokens: Schema.Int,
  prompt_tokens_details: Schema.Struct({
    /** Tokens of the prompt that were read from a cache. */
    cached_tokens: Schema.Int,
    /** Tokens of the prompt that a provider wrote to its cache, if it reports them; the name is OpenRouter's. */
    cache_write_tokens: Schema.optionalKey(Schema.Int)
  }),
  /** If a provider reports it. */
  completion_tokens_details: Schema.optionalKey(Schema.Struct({
    /** Tokens of the reasoning. */
    reasoning_tokens: Schema.Int
  }))
}).annotate({ identifier: "Usage" })
export type Usage = typeof Usage.Type

const tokenLogprob = {
  token: Schema.String,
  logprob: Schema.Finite,
  /** The token's UTF-8 bytes. */
  bytes: Schema.Array(Schema.Int)
}

/** One for each of the text's tokens. */
export const Logprobs = Schema.Struct({
  content: Schema.Array(Schema.Struct({
    ...tokenLogprob,
    /** The likeliest tokens at this position, likeliest first. */
    top_logprobs: Schema.Array(Schema.Struct(tokenLogprob))
  })),
  refusal: Schema.Null
}).annotate({ identifier: "Logprobs" })
export type Logprobs = typeof Logprobs.Type

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
      /** Null if the answer has only calls. */
      content: Schema.NullOr(Schema.String),
      /** Not in OpenAI's API, but in those of DeepSeek and vLLM: the reasoning, if the provider sends it. */
      reasoning_content: Schema.optionalKey(Schema.String),
      /** Not in OpenAI's API, but in OpenRouter's: signed reasoning of an `anthropic` deployment, to be sent back unchanged. */
      reasoning_details: Schema.optionalKey(Schema.Array(Schema.Unknown)),
      refusal: Schema.Null,
      tool_calls: Schema.optionalKey(Schema.Array(ToolCall))
    }),
    logprobs: Schema.NullOr(Logprobs),
    finish_reason: FinishReason,
    /** Not in OpenAI's API, but in vLLM's: the stop sequence that ended the answer, if known. */
    stop_reason: Schema.optionalKey(Schema.String)
  })),
  usage: Usage
}).annotate({ identifier: "ChatCompletion" })
export type ChatCompletion = typeof ChatCompletion.Type

/** A piece of a tool call: its id, type and name come with the first. */
const ToolCallDelta = Schema.Struct({
  index: Schema.Int,
  id: Schema.optionalKey(Schema.String),
  type: Schema.optionalKey(Schema.Literal("function")),
  function: Schema.Struct({ name: Schema.optionalKey(Schema.String), arguments: Schema.String })
})

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
      content: Schema.optionalKey(Schema.NullOr(Schema.String)),
      /** As in `ChatCompletion`. */
      reasoning_content: Schema.optionalKey(Schema.String),
      reasoning_details: Schema.optionalKey(Schema.Array(Schema.Unknown)),
      tool_calls: Schema.optionalKey(Schema.Array(ToolCallDelta))
    }),
    logprobs: Schema.NullOr(Logprobs),
    finish_reason: Schema.NullOr(FinishReason),
    /** As in `ChatCompletion`. */
    stop_reason: Schema.optionalKey(Schema.String)
  })),
  /** Only with `stream_options.include_usage`, and then null on all chunks but the last. */
  usage: Schema.optionalKey(Schema.NullOr(Usage)),
  /** Not in OpenAI's API: this deployment continues the text of one that failed. */
  troupe: Schema.optionalKey(Schema.Struct({ handoff: Schema.Struct({ deployment: Schema.String }) }))
}).annotate({ identifier: "ChatChunk" })

/** The body of every error. */
export const ErrorBody = Schema.Struct({
  error: Schema.Struct({
    message: Schema.String,
    type: Schema.String,
    /** The invalid field, such as `messages[0].content`. */
    param: Schema.NullOr(Schema.String),
    code: Schema.NullOr(Schema.String),
    /** The path of the explanation of the code at this service. */
    doc_url: Schema.String
  })
})
export type ErrorBody = typeof ErrorBody.Type

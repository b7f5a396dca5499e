/**
 * Schemas of Ollama's API: `POST /api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`, `/api/show`, `/api/pull`,
 * `DELETE /api/delete`, and the answers of `GET /api/tags`, `/api/ps`, `/api/version`.
 *
 * **Details**
 *
 * Source: Ollama's API documentation and the types of its JavaScript client. Comments mark the fields that are not in
 * Ollama's API.
 */
import { Schema } from "effect"
import { Tool as InferenceTool } from "../../domain/Inference.ts"
import { JsonObject } from "../../domain/OutputFormat.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { callerFields, mostStops, mostTools } from "../openai/Schema.ts"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** Clients send null for fields that they leave out. */
const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** In base64, without a `data:` URL before it. */
const Images = Schema.Array(Schema.String)

/** A call of a tool by the model. */
export const ToolCall = Schema.Struct({
  id: nullable(Schema.String),
  function: Schema.Struct({
    index: nullable(Schema.Int),
    name: Schema.NonEmptyString,
    arguments: JsonObject
  })
}).annotate({ identifier: "OllamaToolCall" })
export type ToolCall = typeof ToolCall.Type

export const ChatMessage = Schema.Struct({
  role: Schema.Literals(["system", "user", "assistant", "tool"]),
  content: nullable(Schema.String),
  /** The reasoning of an earlier answer of the assistant. */
  thinking: nullable(Schema.String),
  images: nullable(Images),
  /** Calls of an assistant. */
  tool_calls: nullable(Schema.Array(ToolCall)),
  /** The tool whose result a tool's message has. */
  tool_name: nullable(Schema.String),
  /** The call whose result a tool's message has, where the call has an id. */
  tool_call_id: nullable(Schema.String)
}).annotate({ identifier: "OllamaMessage" })
export type ChatMessage = typeof ChatMessage.Type

/** A tool that the model may call. */
export const Tool = Schema.Struct({
  type: nullable(Schema.Literal("function")),
  function: Schema.Struct({
    name: InferenceTool.fields.name,
    description: nullable(Schema.String),
    /** JSON Schema of the arguments. */
    parameters: nullable(JsonObject)
  })
}).annotate({ identifier: "OllamaTool" })
export type Tool = typeof Tool.Type

const StopText = Schema.NonEmptyString.check(
  Schema.isMaxLength(1000),
  Schema.makeFilter((text: string) =>
    text.isWellFormed() ? undefined : "Expected well-formed Unicode: a surrogate has no pair"
  )
)

/** A whole number of any sign: negative ones stand for no limit, or for a random seed. */
const Whole = wholeNumber(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)

/** Options of sampling. Options that place and compute the model are for deployments of this dialect: see `FieldNames`. */
export const Options = Schema.Struct({
  temperature: nullable(Schema.Finite.check(within(0, 2))),
  top_p: nullable(Schema.Finite.check(within(0, 1))),
  min_p: nullable(Schema.Finite.check(within(0, 1))),
  /** 0 and less: all. */
  top_k: nullable(wholeNumber(Number.MIN_SAFE_INTEGER, 1_000_000)),
  /** -1: a random one. */
  seed: nullable(Whole),
  /** 0 and less: no limit. */
  num_predict: nullable(wholeNumber(Number.MIN_SAFE_INTEGER, 1_000_000)),
  stop: nullable(Schema.Union([StopText, Schema.Array(StopText).check(Schema.isMaxLength(mostStops))])),
  repeat_penalty: nullable(Schema.Finite.check(within(0.01, 10))),
  presence_penalty: nullable(Schema.Finite.check(within(-2, 2))),
  frequency_penalty: nullable(Schema.Finite.check(within(-2, 2)))
}).annotate({ identifier: "OllamaOptions" })
export type Options = typeof Options.Type

/** One of some texts, among values of other types that the message names too. */
const oneOf = (texts: ReadonlyArray<string>, message: string) =>
  Schema.String.check(Schema.makeFilter((text: string) => texts.includes(text) ? undefined : message))

/** `json`, or a JSON Schema; empty: any text. */
const Format = Schema.Union([oneOf(["", "json"], "Expected \"json\" or a JSON Schema"), JsonObject])

/** Whether the model reasons, and how much. */
const Think = Schema.Union([
  Schema.Boolean,
  oneOf(["low", "medium", "high"], "Expected true, false, \"low\", \"medium\" or \"high\"")
])

/** The fields of every request of inference. */
const shared = {
  model: Schema.NonEmptyString,
  options: Schema.optionalKey(Options),
  keep_alive: callerFields.keep_alive,
  /** These two are not in Ollama's API; they are those of `ChatRequest` of OpenAI's dialect. */
  priority: callerFields.priority,
  troupe: callerFields.troupe
}

/** The fields that `/api/chat` and `/api/generate` share. */
const generation = {
  ...shared,
  /** Default true. */
  stream: Schema.optionalKey(Schema.Boolean),
  format: Schema.optionalKey(Format),
  think: Schema.optionalKey(Think),
  logprobs: Schema.optionalKey(Schema.Boolean),
  /** Only with `logprobs`. */
  top_logprobs: Schema.optionalKey(wholeNumber(0, 20)),
  /** A prompt that does not fit is rejected in either case. */
  truncate: Schema.optionalKey(Schema.Boolean),
  /** An answer ends where the context window ends in either case. */
  shift: Schema.optionalKey(Schema.Boolean)
}

/** The body of `POST /api/chat`. Without messages, it loads the model, or unloads it with a `keep_alive` of 0. */
export const ChatRequest = Schema.Struct({
  ...generation,
  messages: Schema.optionalKey(Schema.Array(ChatMessage)),
  tools: Schema.optionalKey(Schema.Array(Tool).check(Schema.isMaxLength(mostTools)))
}).annotate({ identifier: "OllamaChatRequest" })
export type ChatRequest = typeof ChatRequest.Type

/** The body of `POST /api/generate`. Without a prompt, it loads the model, or unloads it with a `keep_alive` of 0. */
export const GenerateRequest = Schema.Struct({
  ...generation,
  prompt: Schema.optionalKey(Schema.String),
  system: Schema.optionalKey(Schema.String),
  images: Schema.optionalKey(Images),
  /** These four are for deployments of this dialect. */
  suffix: Schema.optionalKey(Schema.String),
  raw: Schema.optionalKey(Schema.Boolean),
  template: Schema.optionalKey(Schema.String),
  context: Schema.optionalKey(Schema.Array(Schema.Int))
}).annotate({ identifier: "OllamaGenerateRequest" })
export type GenerateRequest = typeof GenerateRequest.Type

/** The body of `POST /api/embed`. */
export const EmbedRequest = Schema.Struct({
  ...shared,
  input: Schema.Union([Schema.String, Schema.NonEmptyArray(Schema.String)]),
  /** A text that does not fit is rejected in either case. */
  truncate: Schema.optionalKey(Schema.Boolean),
  /** Only as the model has them. */
  dimensions: Schema.optionalKey(wholeNumber(1, 1_000_000))
}).annotate({ identifier: "OllamaEmbedRequest" })
export type EmbedRequest = typeof EmbedRequest.Type

/** The body of `POST /api/embeddings`, which `/api/embed` has replaced. */
export const EmbeddingsRequest = Schema.Struct({ ...shared, prompt: Schema.String }).annotate({
  identifier: "OllamaEmbeddingsRequest"
})
export type EmbeddingsRequest = typeof EmbeddingsRequest.Type

/** A model's name, in the newer field or the older one. */
const named = { model: Schema.optionalKey(Schema.String), name: Schema.optionalKey(Schema.String) }

/** The body of `POST /api/show`. */
export const ShowRequest = Schema.Struct({ ...named, verbose: Schema.optionalKey(Schema.Boolean) }).annotate({
  identifier: "OllamaShowRequest"
})
export type ShowRequest = typeof ShowRequest.Type

/** The body of `POST /api/pull`. */
export const PullRequest = Schema.Struct({
  ...named,
  /** Default true. */
  stream: Schema.optionalKey(Schema.Boolean),
  insecure: Schema.optionalKey(Schema.Boolean)
}).annotate({ identifier: "OllamaPullRequest" })
export type PullRequest = typeof PullRequest.Type

/** The body of `DELETE /api/delete`. */
export const DeleteRequest = Schema.Struct(named).annotate({ identifier: "OllamaDeleteRequest" })
export type DeleteRequest = typeof DeleteRequest.Type

const tokenLogprob = { token: Schema.String, logprob: Schema.Finite, bytes: Schema.Array(Schema.Int) }

/** One of the text's tokens, with the likeliest ones at its position, likeliest first. */
const Logprob = Schema.Struct({ ...tokenLogprob, top_logprobs: Schema.Array(Schema.Struct(tokenLogprob)) })
export type Logprob = typeof Logprob.Type

/** What only the last line of an answer has. Durations are in nanoseconds. */
const last = {
  /** `stop`, `length`, `content_filter`; `load` and `unload` for a request without a prompt. */
  done_reason: Schema.optionalKey(Schema.String),
  total_duration: Schema.optionalKey(Schema.Int),
  load_duration: Schema.optionalKey(Schema.Int),
  prompt_eval_count: Schema.optionalKey(Schema.Int),
  /** Until the first content; left out where that is not known. */
  prompt_eval_duration: Schema.optionalKey(Schema.Int),
  eval_count: Schema.optionalKey(Schema.Int),
  eval_duration: Schema.optionalKey(Schema.Int)
}

const head = {
  model: Schema.String,
  /** RFC 3339. */
  created_at: Schema.String,
  done: Schema.Boolean
}

const logprobs = { logprobs: Schema.optionalKey(Schema.Array(Logprob)) }

/** An answer of `/api/chat`, or one line of a streamed one. */
export const ChatResponse = Schema.Struct({
  ...head,
  message: Schema.Struct({
    role: Schema.Literal("assistant"),
    content: Schema.String,
    thinking: Schema.optionalKey(Schema.String),
    tool_calls: Schema.optionalKey(Schema.Array(ToolCall))
  }),
  ...logprobs,
  ...last
}).annotate({ identifier: "OllamaChatResponse" })
export type ChatResponse = typeof ChatResponse.Type

/** An answer of `/api/generate`, or one line of a streamed one. */
export const GenerateResponse = Schema.Struct({
  ...head,
  response: Schema.String,
  thinking: Schema.optionalKey(Schema.String),
  ...logprobs,
  ...last
}).annotate({ identifier: "OllamaGenerateResponse" })
export type GenerateResponse = typeof GenerateResponse.Type

const Vector = Schema.Array(Schema.Finite)

export const EmbedResponse = Schema.Struct({
  model: Schema.String,
  embeddings: Schema.Array(Vector),
  total_duration: Schema.Int,
  load_duration: Schema.Int,
  prompt_eval_count: Schema.Int
}).annotate({ identifier: "OllamaEmbedResponse" })

export const EmbeddingsResponse = Schema.Struct({ embedding: Vector }).annotate({
  identifier: "OllamaEmbeddingsResponse"
})

const Details = Schema.Struct({
  parent_model: Schema.String,
  format: Schema.String,
  family: Schema.String,
  families: Schema.Array(Schema.String),
  parameter_size: Schema.String,
  quantization_level: Schema.String
})
export type Details = typeof Details.Type

const listed = {
  name: Schema.String,
  model: Schema.String,
  /** Of the model's files, bytes; 0 for remote models. */
  size: Schema.Finite,
  /** Identifies the configuration and files of the model. */
  digest: Schema.String,
  details: Details
}

/** A model of `GET /api/tags`. */
export const ListedModel = Schema.Struct({
  ...listed,
  modified_at: Schema.String
}).annotate({ identifier: "OllamaModel" })
export type ListedModel = typeof ListedModel.Type

export const ModelList = Schema.Struct({ models: Schema.Array(ListedModel) })

/** A loaded model of `GET /api/ps`. */
export const RunningModel = Schema.Struct({
  ...listed,
  /** When it is unloaded if nothing uses it from now on. */
  expires_at: Schema.String,
  size_vram: Schema.Finite,
  context_length: Schema.optionalKey(Schema.Int)
}).annotate({ identifier: "OllamaRunningModel" })
export type RunningModel = typeof RunningModel.Type

export const RunningList = Schema.Struct({ models: Schema.Array(RunningModel) })

/** The answer of `POST /api/show`. */
export const ShownModel = Schema.Struct({
  modelfile: Schema.String,
  parameters: Schema.String,
  template: Schema.String,
  details: Details,
  model_info: Schema.Record(Schema.String, Schema.Unknown),
  /** `completion`, `tools`, `vision`, `embedding`. */
  capabilities: Schema.Array(Schema.String),
  modified_at: Schema.String
}).annotate({ identifier: "OllamaShownModel" })
export type ShownModel = typeof ShownModel.Type

export const Version = Schema.Struct({ version: Schema.String })

/** A line of the progress of a pull. */
export const PullProgress = Schema.Struct({
  status: Schema.String,
  /** Bytes. */
  total: Schema.optionalKey(Schema.Finite),
  completed: Schema.optionalKey(Schema.Finite)
}).annotate({ identifier: "OllamaPullProgress" })
export type PullProgress = typeof PullProgress.Type

/** The body of every error, and the last line of a stream that fails. */
export const ErrorBody = Schema.Struct({
  error: Schema.String,
  /** The path of the explanation of the error at this service. */
  doc_url: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "OllamaError" })
export type ErrorBody = typeof ErrorBody.Type

/**
 * Schemas of OpenAI's Responses dialect: `POST /v1/responses` and its answers. `ItemSchema` has those of items.
 *
 * **Details**
 *
 * Source: OpenAI's API reference, "Responses", and the specification of Open Responses. Comments mark the fields that are not
 * in OpenAI's API. Items and tools are checked by their type in `Items` and `Tools`: an error then names one type's fields.
 */
import { Schema } from "effect"
import { JsonObject } from "../../domain/OutputFormat.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { callerFields } from "../openai/Schema.ts"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** The most pairs of `metadata`, and the most characters of a name and of a value. */
const metadataLimits = { pairs: 16, name: 64, value: 512 }

const metadataProblem = (metadata: Readonly<Record<string, string>>): string | undefined => {
  const { name, pairs, value } = metadataLimits
  const entries = Object.entries(metadata)
  return entries.length <= pairs && entries.every(([key, text]) => key.length <= name && text.length <= value)
    ? undefined
    : `Expected at most ${pairs} pairs, names of at most ${name} and values of at most ${value} characters`
}

/** Pairs of texts that are kept with an object. */
export const Metadata = Schema.Record(Schema.String, Schema.String).check(Schema.makeFilter(metadataProblem))

/** An item or a tool, before it is checked by its type. */
const Typed = Schema.Record(Schema.String, Schema.Unknown)

/** The most items of one request. */
export const mostItems = 10_000

/** A text, or the items of a conversation. */
const Input = Schema.Union([Schema.String, Schema.Array(Typed)])

const Effort = Schema.Literals(["none", "minimal", "low", "medium", "high", "xhigh"])
const Summary = Schema.Literals(["auto", "concise", "detailed"])

const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

export const Reasoning = Schema.Struct({
  effort: nullable(Effort),
  /** Left out: the reasoning is returned as it is, not as a summary. */
  summary: nullable(Summary),
  /** OpenAI's older name for `summary`. */
  generate_summary: nullable(Summary)
})

/** The format of the answer's text. */
const TextFormat = Schema.Union([
  Schema.Struct({ type: Schema.Literal("text") }),
  Schema.Struct({ type: Schema.Literal("json_object") }),
  Schema.Struct({
    type: Schema.Literal("json_schema"),
    name: Schema.NonEmptyString,
    schema: JsonObject,
    description: nullable(Schema.String),
    strict: nullable(Schema.Boolean)
  })
])

const Text = Schema.Struct({
  format: nullable(TextFormat),
  verbosity: nullable(Schema.Literals(["low", "medium", "high"]))
})

/** A conversation by its id. */
const ConversationParam = Schema.Union([Schema.String, Schema.Struct({ id: Schema.String })])

/** Values of `include`. Those about other tools than functions add nothing. */
const includable = [
  "code_interpreter_call.outputs",
  "computer_call_output.output.image_url",
  "file_search_call.results",
  "message.input_image.image_url",
  "message.output_text.logprobs",
  "reasoning.encrypted_content",
  "web_search_call.action.sources",
  "web_search_call.results"
] as const

/** The fields that a prompt consists of, and those that describe its continuation. */
const promptFields = {
  model: Schema.NonEmptyString,
  input: Schema.optionalKey(Input),
  instructions: Schema.optionalKey(Schema.String),
  previous_response_id: Schema.optionalKey(Schema.String),
  conversation: Schema.optionalKey(ConversationParam),
  reasoning: Schema.optionalKey(Reasoning),
  text: Schema.optionalKey(Text),
  tools: Schema.optionalKey(Schema.Array(Typed)),
  tool_choice: Schema.optionalKey(
    Schema.Union([Schema.Literals(["auto", "none", "required"]), Typed])
  ),
  parallel_tool_calls: Schema.optionalKey(Schema.Boolean),
  truncation: Schema.optionalKey(Schema.Literals(["auto", "disabled"])),
  ...callerFields
}

export const CreateRequest = Schema.Struct({
  ...promptFields,
  stream: Schema.optionalKey(Schema.Boolean),
  stream_options: Schema.optionalKey(Schema.Struct({ include_obfuscation: nullable(Schema.Boolean) })),
  /** Default true, where the service has a database. */
  store: Schema.optionalKey(Schema.Boolean),
  background: Schema.optionalKey(Schema.Boolean),
  include: Schema.optionalKey(Schema.Array(Schema.Literals(includable))),
  temperature: Schema.optionalKey(Schema.Finite.check(within(0, 2))),
  top_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  /** These two are not in OpenAI's API, but in Open Responses. */
  presence_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  frequency_penalty: Schema.optionalKey(Schema.Finite.check(within(-2, 2))),
  max_output_tokens: Schema.optionalKey(wholeNumber(1, 1_000_000)),
  /** For tools that run in the service. The service has none. */
  max_tool_calls: Schema.optionalKey(wholeNumber(1, 1_000_000)),
  top_logprobs: Schema.optionalKey(wholeNumber(0, 20)),
  metadata: Schema.optionalKey(Metadata),
  /** Information about the client, which Codex sends; it has no effect. */
  client_metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)),
  service_tier: Schema.optionalKey(Schema.String),
  prompt_cache_key: Schema.optionalKey(Schema.String),
  prompt_cache_retention: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "CreateResponse" })
export type CreateRequest = typeof CreateRequest.Type

/** The body of `POST /v1/responses/input_tokens`. */
export const CountRequest = Schema.Struct(promptFields).annotate({ identifier: "CountResponseTokens" })
export type CountRequest = typeof CountRequest.Type

/** The body of `POST /v1/responses/compact`. */
export const CompactRequest = Schema.Struct({
  model: promptFields.model,
  input: promptFields.input,
  instructions: promptFields.instructions,
  previous_response_id: promptFields.previous_response_id,
  service_tier: Schema.optionalKey(Schema.String),
  prompt_cache_key: Schema.optionalKey(Schema.String),
  prompt_cache_retention: Schema.optionalKey(Schema.String),
  ...callerFields
}).annotate({ identifier: "CompactResponse" })
export type CompactRequest = typeof CompactRequest.Type

export const Usage = Schema.Struct({
  input_tokens: Schema.Int,
  input_tokens_details: Schema.Struct({
    cached_tokens: Schema.Int,
    /** 0 unless a provider reports it. */
    cache_write_tokens: Schema.Int
  }),
  output_tokens: Schema.Int,
  output_tokens_details: Schema.Struct({ reasoning_tokens: Schema.Int }),
  total_tokens: Schema.Int
}).annotate({ identifier: "ResponseUsage" })
export type Usage = typeof Usage.Type

export const Status = Schema.Literals(["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"])
export type Status = typeof Status.Type

/** The settings of a request as they were used, in every response. */
export const Settings = Schema.Struct({
  background: Schema.Boolean,
  conversation: Schema.NullOr(Schema.Struct({ id: Schema.String })),
  frequency_penalty: Schema.Finite,
  instructions: Schema.NullOr(Schema.String),
  max_output_tokens: Schema.NullOr(Schema.Int),
  max_tool_calls: Schema.NullOr(Schema.Int),
  metadata: Metadata,
  model: Schema.String,
  parallel_tool_calls: Schema.Boolean,
  presence_penalty: Schema.Finite,
  previous_response_id: Schema.NullOr(Schema.String),
  prompt_cache_key: Schema.NullOr(Schema.String),
  prompt_cache_retention: Schema.NullOr(Schema.String),
  reasoning: Schema.Struct({ effort: Schema.NullOr(Effort), summary: Schema.NullOr(Summary) }),
  safety_identifier: Schema.NullOr(Schema.String),
  service_tier: Schema.String,
  store: Schema.Boolean,
  temperature: Schema.Finite,
  text: Schema.Struct({ format: TextFormat, verbosity: Schema.Literals(["low", "medium", "high"]) }),
  tool_choice: Schema.Union([Schema.String, Typed]),
  tools: Schema.Array(Typed),
  top_logprobs: Schema.Int,
  top_p: Schema.Finite,
  truncation: Schema.Literals(["auto", "disabled"]),
  user: Schema.NullOr(Schema.String)
})
export type Settings = typeof Settings.Type

/** Why a response failed. */
export const ResponseError = Schema.Struct({ code: Schema.String, message: Schema.String })
export type ResponseError = typeof ResponseError.Type

export const Response = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("response"),
  /** Seconds since 1970. */
  created_at: Schema.Int,
  completed_at: Schema.NullOr(Schema.Int),
  status: Status,
  error: Schema.NullOr(ResponseError),
  incomplete_details: Schema.NullOr(Schema.Struct({ reason: Schema.String })),
  output: Schema.Array(Typed),
  usage: Schema.NullOr(Usage),
  ...Settings.fields
}).annotate({ identifier: "Response" })
export type Response = typeof Response.Type

/** An event of a stream; `type` names it, and the other fields depend on it. */
export const StreamEvent = Schema.StructWithRest(
  Schema.Struct({ type: Schema.String, sequence_number: Schema.Int }),
  [Schema.Record(Schema.String, Schema.Unknown)]
).annotate({ identifier: "ResponseStreamEvent" })

export const ItemList = Schema.Struct({
  object: Schema.Literal("list"),
  data: Schema.Array(Typed),
  first_id: Schema.NullOr(Schema.String),
  last_id: Schema.NullOr(Schema.String),
  has_more: Schema.Boolean
}).annotate({ identifier: "ResponseItemList" })
export type ItemList = typeof ItemList.Type

export const Deleted = Schema.Struct({ id: Schema.String, object: Schema.String, deleted: Schema.Literal(true) })

export const TokenCount = Schema.Struct({ object: Schema.Literal("response.input_tokens"), input_tokens: Schema.Int })

export const Compaction = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("response.compaction"),
  created_at: Schema.Int,
  output: Schema.Array(Typed),
  usage: Usage
}).annotate({ identifier: "ResponseCompaction" })

/** The body of `POST /v1/conversations`. */
export const NewConversation = Schema.Struct({
  items: Schema.optionalKey(Schema.Array(Typed)),
  metadata: Schema.optionalKey(Metadata),
  ...callerFields
})

/** The body of `POST /v1/conversations/{id}`. */
export const ConversationUpdate = Schema.Struct({ metadata: Metadata, ...callerFields })

/** The body of `POST /v1/conversations/{id}/items`. */
export const NewItems = Schema.Struct({ items: Schema.Array(Typed), ...callerFields })

export const Conversation = Schema.Struct({
  id: Schema.String,
  object: Schema.Literal("conversation"),
  /** Seconds since 1970. */
  created_at: Schema.Int,
  metadata: Metadata
}).annotate({ identifier: "Conversation" })
export type Conversation = typeof Conversation.Type

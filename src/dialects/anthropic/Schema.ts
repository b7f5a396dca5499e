/**
 * Schemas of the Anthropic dialect: `POST /v1/messages`, `POST /v1/messages/count_tokens` and, for its clients,
 * `GET /v1/models`.
 *
 * **Details**
 *
 * Source: Anthropic's API reference, "Messages", "Streaming messages", "Models" and "Errors", and the types of its
 * TypeScript client. Comments mark the fields that are not in Anthropic's API.
 */
import { Schema } from "effect"
import { Tool as InferenceTool } from "../../domain/Inference.ts"
import { mediaTypes } from "../../domain/Message.ts"
import { JsonObject } from "../../domain/OutputFormat.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { callerFields, mostStops, mostTools } from "../openai/Schema.ts"
import { fieldsOfType } from "../shared/CallerRequest.ts"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** Clients send null for fields that they leave out. */
const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** Used by Anthropic; local models and other providers cache prefixes without it. */
const cached = {
  cache_control: nullable(Schema.Struct({
    type: Schema.Literal("ephemeral"),
    ttl: nullable(Schema.String)
  }))
}

const TextBlock = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String, ...cached })

const ImageBlock = Schema.Struct({
  type: Schema.Literal("image"),
  source: Schema.Union([
    Schema.Struct({
      type: Schema.Literal("base64"),
      media_type: Schema.Literals(mediaTypes),
      data: Schema.String
    }),
    Schema.Struct({ type: Schema.Literal("url"), url: Schema.String })
  ]),
  ...cached
})

/** An object of another type than these, for deployments of this dialect. */
const other = (...known: ReadonlyArray<string>) =>
  Schema.Struct({
    type: Schema.String.check(
      Schema.makeFilter((type: string) => known.includes(type) ? fieldsOfType(type) : undefined)
    ).pipe(Schema.annotateKey({ messageMissingKey: fieldsOfType(known.at(-1)!) }))
  })

/** An image of another source, such as an uploaded file. */
const OtherImageBlock = Schema.Struct({ type: Schema.Literal("image"), source: other("base64", "url") })

const ToolUseBlock = Schema.Struct({
  type: Schema.Literal("tool_use"),
  id: Schema.NonEmptyString,
  name: Schema.NonEmptyString,
  input: JsonObject,
  ...cached
})

const ToolResultBlock = Schema.Struct({
  type: Schema.Literal("tool_result"),
  tool_use_id: Schema.NonEmptyString,
  content: nullable(Schema.Union([
    Schema.String,
    Schema.Array(Schema.Union([
      TextBlock,
      ImageBlock,
      OtherImageBlock,
      other("text", "image")
    ]))
  ])),
  is_error: nullable(Schema.Boolean),
  ...cached
})

/** Reasoning of an earlier answer. */
const ThinkingBlock = Schema.Struct({
  type: Schema.Literal("thinking"),
  /** The thoughts as text. */
  thinking: Schema.optionalKey(Schema.Unknown),
  signature: Schema.optionalKey(Schema.Unknown)
})
const RedactedThinkingBlock = Schema.Struct({
  type: Schema.Literal("redacted_thinking"),
  data: Schema.optionalKey(Schema.Unknown)
})

/** Documents, and uses and results of Anthropic's own tools. */
const OtherBlock = other("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking")

/** A part of a message in a request. */
export const BlockParam = Schema.Union([
  TextBlock,
  ImageBlock,
  OtherImageBlock,
  ToolUseBlock,
  ToolResultBlock,
  ThinkingBlock,
  RedactedThinkingBlock,
  OtherBlock
])
export type BlockParam = typeof BlockParam.Type

export const MessageParam = Schema.Struct({
  role: Schema.Literals(["user", "assistant", "system"]),
  /** A text, or blocks: `tool_use` of an assistant only, `image` and `tool_result` of a user only. */
  content: Schema.Union([Schema.String, Schema.NonEmptyArray(BlockParam)])
}).annotate({ identifier: "AnthropicMessageParam" })
export type MessageParam = typeof MessageParam.Type

/** A tool of the caller. */
export const Tool = Schema.Struct({
  type: nullable(Schema.Literal("custom")),
  name: InferenceTool.fields.name,
  description: nullable(Schema.String),
  /** JSON Schema of the input, an object. */
  input_schema: JsonObject,
  ...cached
}).annotate({ identifier: "AnthropicTool" })
export type Tool = typeof Tool.Type

/** A tool that Anthropic runs, such as `web_search_20250305`. */
const OtherTool = other("custom")

/** Any tool. */
export const AnyTool = Schema.Union([Tool, OtherTool])
export type AnyTool = typeof AnyTool.Type

/** Options of the answer's text. */
export const OutputConfig = Schema.Struct({
  /** How much the model thinks: `low`, `medium`, `high`, `xhigh` or `max`. */
  effort: nullable(Schema.String),
  /** The answer's text fits the schema. */
  format: nullable(Schema.Struct({
    type: Schema.Literal("json_schema"),
    schema: JsonObject
  }))
})

/** True: the answer has at most one tool use. */
const parallel = { disable_parallel_tool_use: Schema.optionalKey(Schema.Boolean) }

const ToolChoice = Schema.Union([
  Schema.Struct({ type: Schema.Literal("auto"), ...parallel }),
  Schema.Struct({ type: Schema.Literal("any"), ...parallel }),
  Schema.Struct({ type: Schema.Literal("tool"), name: Schema.NonEmptyString, ...parallel }),
  Schema.Struct({ type: Schema.Literal("none") })
])
export type ToolChoice = typeof ToolChoice.Type

/** The fields that messages and token counts share. */
const prompt = {
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(MessageParam),
  system: Schema.optionalKey(Schema.Union([Schema.String, Schema.Array(TextBlock)])),
  tools: Schema.optionalKey(Schema.Array(AnyTool).check(Schema.isMaxLength(mostTools))),
  tool_choice: Schema.optionalKey(ToolChoice),
  /** Whether the model thinks, and how much: `enabled` with a budget, `adaptive` or `disabled`. */
  thinking: Schema.optionalKey(Schema.Struct({
    type: Schema.String,
    budget_tokens: nullable(wholeNumber(0, 1_000_000))
  })),
  output_config: Schema.optionalKey(OutputConfig),
  ...cached,
  /** These three are not in Anthropic's API; they are those of `ChatRequest`. */
  keep_alive: callerFields.keep_alive,
  priority: callerFields.priority,
  troupe: callerFields.troupe
}

const StopText = Schema.NonEmptyString.check(
  Schema.isMaxLength(1000),
  Schema.makeFilter((text: string) =>
    text.isWellFormed() ? undefined : "Expected well-formed Unicode: a surrogate has no pair"
  )
)

/** The body of `POST /v1/messages`. Other fields are for deployments of this dialect. */
export const MessagesRequest = Schema.Struct({
  ...prompt,
  max_tokens: wholeNumber(1, 1_000_000),
  stop_sequences: Schema.optionalKey(Schema.Array(StopText).check(Schema.isMaxLength(mostStops))),
  stream: Schema.optionalKey(Schema.Boolean),
  temperature: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  top_p: Schema.optionalKey(Schema.Finite.check(within(0, 1))),
  /** 0 means all. */
  top_k: Schema.optionalKey(wholeNumber(0, 1_000_000)),
  metadata: Schema.optionalKey(Schema.Struct({
    /** The user, which distinguishes the callers of requests without a key. */
    user_id: nullable(Schema.String)
  })),
  /** For deployments of this dialect; others have one tier. */
  service_tier: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "MessagesRequest" })
export type MessagesRequest = typeof MessagesRequest.Type

/** The body of `POST /v1/messages/count_tokens`. */
export const CountTokensRequest = Schema.Struct(prompt).annotate({ identifier: "CountTokensRequest" })
export type CountTokensRequest = typeof CountTokensRequest.Type

export const TokenCount = Schema.Struct({ input_tokens: Schema.Int }).annotate({ identifier: "TokenCount" })

export const StopReason = Schema.Literals(["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"])
export type StopReason = typeof StopReason.Type

const tokens = {
  /** Tokens of the prompt that were computed. */
  input_tokens: Schema.Int,
  cache_creation_input_tokens: Schema.Int,
  /** Tokens of the prompt that were read from a cache. */
  cache_read_input_tokens: Schema.Int,
  output_tokens: Schema.Int,
  /** Null without reasoning. */
  output_tokens_details: Schema.NullOr(Schema.Struct({ thinking_tokens: Schema.Int })),
  server_tool_use: Schema.Null
}

const DeltaUsage = Schema.Struct(tokens).annotate({ identifier: "AnthropicDeltaUsage" })
export type DeltaUsage = typeof DeltaUsage.Type

const Usage = Schema.Struct({
  ...tokens,
  cache_creation: Schema.Null,
  inference_geo: Schema.Null,
  service_tier: Schema.Literal("standard"),
  speed: Schema.Null
}).annotate({ identifier: "AnthropicUsage" })
export type Usage = typeof Usage.Type

const Block = Schema.Union([
  Schema.Struct({ type: Schema.Literal("text"), text: Schema.String }),
  /** The signature is empty if the provider has another dialect and signs nothing. */
  Schema.Struct({ type: Schema.Literal("thinking"), thinking: Schema.String, signature: Schema.String }),
  Schema.Struct({ type: Schema.Literal("redacted_thinking"), data: Schema.String }),
  Schema.Struct({
    type: Schema.Literal("tool_use"),
    id: Schema.String,
    name: Schema.String,
    input: Schema.Record(Schema.String, Schema.Unknown),
    caller: Schema.Struct({ type: Schema.Literal("direct") })
  })
])
export type Block = typeof Block.Type

/** The end of an answer. */
const end = {
  /** Null in `message_start` only. */
  stop_reason: Schema.NullOr(StopReason),
  /** The stop sequence that ended the answer. */
  stop_sequence: Schema.NullOr(Schema.String),
  /** Only for a refusal. */
  stop_details: Schema.NullOr(Schema.Struct({
    type: Schema.Literal("refusal"),
    category: Schema.Null,
    explanation: Schema.String
  })),
  container: Schema.Null
}
const End = Schema.Struct(end)
export type End = typeof End.Type

export const Message = Schema.Struct({
  id: Schema.String,
  type: Schema.Literal("message"),
  role: Schema.Literal("assistant"),
  model: Schema.String,
  content: Schema.Array(Block),
  diagnostics: Schema.Null,
  ...end,
  usage: Usage
}).annotate({ identifier: "AnthropicMessage" })
export type Message = typeof Message.Type

/** The body of every error, and the data of an `error` event. */
export const ErrorBody = Schema.Struct({
  type: Schema.Literal("error"),
  error: Schema.Struct({
    type: Schema.String,
    message: Schema.String,
    details: Schema.optionalKey(Schema.Struct({ error_code: Schema.String })),
    /** The path of the explanation of the error at this service. */
    doc_url: Schema.optionalKey(Schema.String)
  }),
  request_id: Schema.NullOr(Schema.String)
}).annotate({ identifier: "AnthropicError" })
export type ErrorBody = typeof ErrorBody.Type

/** The data of a stream's events; the name of an event is its `type`. */
export const StreamEvent = Schema.Union([
  /** Its usage is 0: the tokens of the prompt are in `message_delta`. */
  Schema.Struct({ type: Schema.Literal("message_start"), message: Message }),
  Schema.Struct({ type: Schema.Literal("content_block_start"), index: Schema.Int, content_block: Block }),
  Schema.Struct({
    type: Schema.Literal("content_block_delta"),
    index: Schema.Int,
    delta: Schema.Union([
      Schema.Struct({ type: Schema.Literal("text_delta"), text: Schema.String }),
      Schema.Struct({ type: Schema.Literal("thinking_delta"), thinking: Schema.String }),
      Schema.Struct({ type: Schema.Literal("signature_delta"), signature: Schema.String }),
      Schema.Struct({ type: Schema.Literal("input_json_delta"), partial_json: Schema.String })
    ])
  }),
  Schema.Struct({ type: Schema.Literal("content_block_stop"), index: Schema.Int }),
  Schema.Struct({ type: Schema.Literal("message_delta"), delta: End, usage: DeltaUsage }),
  Schema.Struct({ type: Schema.Literal("message_stop") }),
  ErrorBody
]).annotate({ identifier: "AnthropicStreamEvent" })
export type StreamEvent = typeof StreamEvent.Type

export const Model = Schema.Struct({
  type: Schema.Literal("model"),
  id: Schema.String,
  display_name: Schema.String,
  /** The start of the service (RFC 3339). */
  created_at: Schema.String,
  lifecycle: Schema.Literal("active"),
  capabilities: Schema.Null,
  deprecated_at: Schema.Null,
  line: Schema.Null,
  /** The context window; null if unknown. */
  max_input_tokens: Schema.NullOr(Schema.Int),
  /** The configured limit of an answer's tokens; null if only the window limits it. */
  max_tokens: Schema.NullOr(Schema.Int),
  retires_at: Schema.Null
}).annotate({ identifier: "AnthropicModel" })
export type Model = typeof Model.Type

/** All models are on the first page. */
export const ModelList = Schema.Struct({
  data: Schema.Array(Model),
  has_more: Schema.Literal(false),
  first_id: Schema.NullOr(Schema.String),
  last_id: Schema.NullOr(Schema.String)
}).annotate({ identifier: "AnthropicModelList" })

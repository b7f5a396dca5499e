/** The Anthropic dialect: bodies to requests. Pure functions that know nothing of models. */
import { Result } from "effect"
import * as Anthropic from "../../services/Anthropic.ts"
import * as Decoder from "../../services/Decoder.ts"
import type { Request, TokenizeRequest } from "../../services/Inference.ts"
import type { Reason } from "../../services/InferenceError.ts"
import { InvalidRequest, NotSupported } from "../../services/InferenceError.ts"
import type { Placed } from "./AnthropicConversation.ts"
import {
  choiceOf,
  conversationOf,
  locate,
  messageProblems,
  placed,
  toolProblems,
  toolsOf
} from "./AnthropicConversation.ts"
import * as AnthropicFields from "./AnthropicFields.ts"
import type { Shape } from "./Body.ts"
import * as Body from "./Body.ts"
import { standingOf } from "./Standing.ts"

/** What a body asks for. */
export interface Asked<Request> {
  readonly request: Request
  /** The conversation with its places in the body. */
  readonly placed: ReadonlyArray<Placed>
}

/** A message asked for, and how to answer. */
export interface MessagesCall extends Asked<Request> {
  readonly stream: boolean
  /** Whether an answer may use more than one tool. */
  readonly parallelToolUse: boolean
}

/** Anthropic's own limit. */
const mostMessages = 100_000

const samplingOf = ({ temperature, top_k, top_p }: Anthropic.MessagesRequest): Partial<Request> => ({
  ...(temperature === undefined ? {} : { temperature }),
  ...(top_p === undefined ? {} : { topP: top_p }),
  ...(top_k === undefined || top_k === 0 ? {} : { topK: top_k })
})

const toolingOf = ({ tool_choice, tools = [] }: Anthropic.MessagesRequest): Partial<Request> => {
  if (tools.length === 0) return {}
  return { tools: toolsOf(tools), ...(tool_choice === undefined ? {} : { toolChoice: choiceOf(tool_choice) }) }
}

const formatOf = ({ output_config: output }: Anthropic.MessagesRequest): Partial<Request> =>
  output?.format === undefined || output.format === null ? {} : { format: output.format }

const standing = (
  { keep_alive, priority, troupe }: Anthropic.CountTokensRequest,
  key: string | undefined,
  user?: string | null
) =>
  standingOf({
    ...(keep_alive === undefined ? {} : { keep_alive }),
    ...(priority === undefined ? {} : { priority }),
    ...(troupe === undefined ? {} : { troupe }),
    ...(typeof user === "string" ? { user } : {})
  }, key)

const isSerial = (choice: Anthropic.ToolChoice | undefined): boolean =>
  choice !== undefined && choice.type !== "none" && (choice.disable_parallel_tool_use ?? false)

const callOf = (body: Anthropic.MessagesRequest, key: string | undefined): MessagesCall => {
  const { max_tokens: maxTokens, metadata, model, stop_sequences: stop, stream = false, tool_choice } = body
  const conversation = placed(body)
  return {
    request: {
      ...samplingOf(body),
      ...toolingOf(body),
      ...formatOf(body),
      ...standing(body, key, metadata?.user_id),
      ...(stop === undefined ? {} : { stop }),
      maxTokens,
      model,
      ...conversationOf(body, conversation)
    },
    placed: conversation,
    stream,
    parallelToolUse: !isSerial(tool_choice)
  }
}

const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0

const isDirect = (value: unknown): boolean => Array.isArray(value) && value.every((caller) => caller === "direct")

/** Of what both endpoints take. */
const unsupported: Body.Unsupported = [
  ["context_management", () => false],
  ["mcp_servers", isEmptyList],
  ["thread", () => false],
  ["speed", (value) => value === "standard"]
]

/** What would change which tools the model sees, and what it is told of them. */
const unsupportedInTools: Body.Unsupported = [
  ["defer_loading", (value) => value === false],
  ["allowed_callers", isDirect],
  ["input_examples", isEmptyList]
]

const shared = {
  unsupportedWithin: ["tools", unsupportedInTools],
  most: ["messages", mostMessages],
  problems: (body: Anthropic.CountTokensRequest) => [...messageProblems(body), ...toolProblems(body)]
} as const satisfies Partial<Shape<never>>

const messagesShape: Shape<Anthropic.MessagesRequest> = {
  ...shared,
  decode: Decoder.make(Anthropic.MessagesRequest),
  known: new Set(Object.keys(Anthropic.MessagesRequest.fields)),
  unsupported: [
    ...unsupported,
    ["container", () => false],
    ["diagnostics", () => false],
    ["inference_geo", () => false]
  ]
}

const countShape: Shape<Anthropic.CountTokensRequest> = {
  ...shared,
  decode: Decoder.make(Anthropic.CountTokensRequest),
  known: new Set(Object.keys(Anthropic.CountTokensRequest.fields)),
  unsupported
}

/** The message that a parsed JSON body asks for. */
export const decode = (json: unknown, key?: string): Result.Result<MessagesCall, InvalidRequest> =>
  Result.map(Body.decode(json, messagesShape), (body) => callOf(body, key))

/** The count that a parsed JSON body asks for. */
export const decodeCount = (json: unknown, key?: string): Result.Result<Asked<TokenizeRequest>, InvalidRequest> =>
  Result.map(Body.decode(json, countShape), (body) => {
    const conversation = placed(body)
    // As a generation has it: tools that may not be used are not told to the model.
    const tools = body.tool_choice?.type === "none" ? [] : toolsOf(body.tools ?? [])
    return {
      request: {
        model: body.model,
        input: { ...conversationOf(body, conversation), ...(tools.length === 0 ? {} : { tools }) },
        ...standing(body, key)
      },
      placed: conversation
    }
  })

/** The reason with the body's own path for what is wrong. */
export const relocate = (reason: Reason, placed: ReadonlyArray<Placed>): Reason => {
  const path = "path" in reason ? reason.path : undefined
  if (path === undefined) return reason
  const own = locate(path, placed) ?? AnthropicFields.rename(path.replace(/^input\./, ""))
  if (reason._tag === "InvalidRequest") return new InvalidRequest({ detail: reason.detail, path: own })
  return reason._tag === "NotSupported"
    ? new NotSupported({ deployment: reason.deployment, detail: reason.detail, path: own })
    : reason
}

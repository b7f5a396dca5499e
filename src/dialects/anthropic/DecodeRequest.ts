/** The Anthropic dialect: bodies to requests. Pure functions that know nothing of models. */
import { Result } from "effect"
import type { CountRequest, Request } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InvalidRequest, NotSupported } from "../../domain/InferenceError.ts"
import * as Problems from "../../domain/Problem.ts"
import type { Source } from "../../domain/Source.ts"
import { requiredPaths } from "../../domain/Source.ts"
import { mostStops, mostTools } from "../openai/Schema.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { callerOf, decodeBody, unknownFieldsOf } from "../shared/CallerRequest.ts"
import type { Fields } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import type { Placed } from "./DecodeMessages.ts"
import { choiceOf, conversationOf, locate, messageProblems, placed, toolProblems, toolsOf } from "./DecodeMessages.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Anthropic from "./Schema.ts"

/** A decoded body. */
export interface DecodeResult<Request> {
  readonly request: Request
  /** The conversation with its places in the body. */
  readonly placed: ReadonlyArray<Placed>
}

/** A request for a message, and the form of its answer. */
export interface MessagesCall extends DecodeResult<Request> {
  readonly stream: boolean
  /** Whether an answer may use more than one tool. */
  readonly parallelToolUse: boolean
  /** Whether an answer may have reasoning. */
  readonly thinking: boolean
}

/** Anthropic's own limit. */
const mostMessages = 100_000

const samplingOf = ({ temperature, top_k, top_p }: Anthropic.MessagesRequest): Partial<Request> => ({
  ...(temperature === undefined ? {} : { temperature }),
  ...(top_p === undefined ? {} : { topP: top_p }),
  ...(top_k === undefined || top_k === 0 ? {} : { topK: top_k })
})

const isSerial = (choice: Anthropic.ToolChoice | undefined): boolean =>
  choice !== undefined && choice.type !== "none" && (choice.disable_parallel_tool_use ?? false)

const toolingOf = ({ tool_choice: choice, tools: given = [] }: Anthropic.MessagesRequest): Partial<Request> => {
  const tools = toolsOf(given)
  if (tools.length === 0 || choice === undefined) return tools.length === 0 ? {} : { tools }
  return { tools, toolChoice: choiceOf(choice), ...(isSerial(choice) ? { parallelToolCalls: false } : {}) }
}

const formatOf = ({ output_config: output }: Anthropic.MessagesRequest): Partial<Request> =>
  output?.format === undefined || output.format === null ? {} : { format: output.format }

const callerFieldsOf = (
  { keep_alive, priority, troupe }: Anthropic.CountTokensRequest,
  caller: CallerIdentity,
  user?: string | null
) =>
  callerOf({
    ...(keep_alive === undefined ? {} : { keep_alive }),
    ...(priority === undefined ? {} : { priority }),
    ...(troupe === undefined ? {} : { troupe }),
    ...(typeof user === "string" ? { user } : {})
  }, caller)

const callOf = (body: Anthropic.MessagesRequest, json: Fields, caller: CallerIdentity): MessagesCall => {
  const { max_tokens: maxTokens, metadata, model, stop_sequences: stop, stream = false, tool_choice } = body
  const conversation = placed(body)
  return {
    request: {
      ...samplingOf(body),
      ...toolingOf(body),
      ...formatOf(body),
      ...callerFieldsOf(body, caller, metadata?.user_id),
      ...(stop === undefined ? {} : { stop }),
      maxTokens,
      model,
      ...conversationOf(body, conversation),
      source: sourceOf(json, caller)
    },
    placed: conversation,
    stream,
    parallelToolUse: !isSerial(tool_choice),
    thinking: body.thinking?.type !== "disabled"
  }
}

const shared = {
  suggest: UnknownFields.makeSuggest(FieldNames.messages, false),
  most: [["messages", mostMessages], ["tools", mostTools], ["stop_sequences", mostStops]],
  problems: (body: Anthropic.CountTokensRequest) => [...messageProblems(body), ...toolProblems(body)]
} as const satisfies Partial<Shape<never>>

const messagesShape: Shape<Anthropic.MessagesRequest> = {
  ...shared,
  decode: Problems.decoderOf(Anthropic.MessagesRequest)
}

const countShape: Shape<Anthropic.CountTokensRequest> = {
  ...shared,
  decode: Problems.decoderOf(Anthropic.CountTokensRequest)
}

/** Headers that belong to the dialect. */
const dialectHeaders = ["anthropic-beta", "anthropic-version"] as const

const sourceOf = (json: Fields, { headers = {} }: CallerIdentity): Source => {
  const found = dialectHeaders.flatMap((name) => headers[name] === undefined ? [] : [[name, headers[name]] as const])
  const unknownFields = unknownFieldsOf(json, FieldNames.messages)
  return {
    dialect: "anthropic",
    body: json,
    isChecked: true,
    ...(found.length === 0 ? {} : { headers: Object.fromEntries(found) }),
    ...(unknownFields.length === 0 ? {} : { unknownFields })
  }
}

/** The message that a parsed JSON body asks for. */
export const decode = (json: unknown, caller: CallerIdentity = {}): Result.Result<MessagesCall, InvalidRequest> =>
  Result.map(decodeBody(json, messagesShape), (body) => callOf(body, json as Fields, caller))

/** The count that a parsed JSON body asks for. */
export const decodeCount = (
  json: unknown,
  caller: CallerIdentity = {}
): Result.Result<DecodeResult<CountRequest>, InvalidRequest> =>
  Result.map(decodeBody(json, countShape), (body) => {
    const conversation = placed(body)
    // As a generation has it: tools that must not be used are not sent to the model.
    const tools = body.tool_choice?.type === "none" ? [] : toolsOf(body.tools ?? [])
    return {
      request: {
        model: body.model,
        input: { ...conversationOf(body, conversation), ...(tools.length === 0 ? {} : { tools }) },
        source: sourceOf(json as Fields, caller),
        ...callerFieldsOf(body, caller)
      },
      placed: conversation
    }
  })

/** The reason with the body's own path for what is wrong. */
export const relocate = (reason: Reason, { placed, request }: DecodeResult<Pick<Request, "source">>): Reason => {
  const path = "path" in reason ? reason.path : undefined
  // Paths of unknown fields, and paths into their values, are those of the body already.
  const isOwn = (field: string) => path === field || path?.startsWith(`${field}.`)
  if (path === undefined || requiredPaths(request.source).some(isOwn)) return reason
  const own = locate(path, placed) ?? FieldNames.rename(path.replace(/^input\./, ""))
  if (reason._tag === "InvalidRequest") return new InvalidRequest({ detail: reason.detail, path: own })
  return reason._tag === "NotSupported"
    ? new NotSupported({ deployment: reason.deployment, detail: reason.detail, path: own })
    : reason
}

/** Decodes request bodies of the Anthropic dialect. Pure. */
import { Result } from "effect"
import type { CountRequest, Request } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InvalidRequest, NotSupported } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Source } from "../../domain/Source.ts"
import { requiredPaths } from "../../domain/Source.ts"
import { mostStops, mostTools } from "../openai/Schema.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { callerOf, decodeBody, unknownFieldsOf } from "../shared/CallerRequest.ts"
import type { Fields } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import type { LocatedMessage } from "./DecodeMessages.ts"
import {
  choiceOf,
  conversationOf,
  locate,
  locatedMessages,
  messageProblems,
  toolProblems,
  toolsOf
} from "./DecodeMessages.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Schema from "./Schema.ts"

/** A decoded body. */
export interface Decoded<Request> {
  readonly request: Request
  /** The messages with their paths in the body. */
  readonly located: ReadonlyArray<LocatedMessage>
}

/** A decoded request for a message, and the options of its answer. */
export interface MessagesCall extends Decoded<Request> {
  readonly stream: boolean
  /** Whether an answer may have several tool uses. */
  readonly parallelToolUse: boolean
  /** Whether an answer may have reasoning. */
  readonly thinking: boolean
}

/** The limit of Anthropic's API. */
const mostMessages = 100_000

const samplingOf = ({ temperature, top_k, top_p }: Schema.MessagesRequest): Partial<Request> => ({
  ...(temperature === undefined ? {} : { temperature }),
  ...(top_p === undefined ? {} : { topP: top_p }),
  ...(top_k === undefined || top_k === 0 ? {} : { topK: top_k })
})

const isSerial = (choice: Schema.ToolChoice | undefined): boolean =>
  choice !== undefined && choice.type !== "none" && (choice.disable_parallel_tool_use ?? false)

const toolingOf = ({ tool_choice: choice, tools: given = [] }: Schema.MessagesRequest): Partial<Request> => {
  const tools = toolsOf(given)
  if (tools.length === 0 || choice === undefined) return tools.length === 0 ? {} : { tools }
  return { tools, toolChoice: choiceOf(choice), ...(isSerial(choice) ? { parallelToolCalls: false } : {}) }
}

const formatOf = ({ output_config: output }: Schema.MessagesRequest): Partial<Request> =>
  output?.format === undefined || output.format === null ? {} : { format: output.format }

const callerFieldsOf = (
  { keep_alive, priority, troupe }: Schema.CountTokensRequest,
  caller: CallerIdentity,
  user?: string | null
) =>
  callerOf({
    ...(keep_alive === undefined ? {} : { keep_alive }),
    ...(priority === undefined ? {} : { priority }),
    ...(troupe === undefined ? {} : { troupe }),
    ...(typeof user === "string" ? { user } : {})
  }, caller)

const callOf = (body: Schema.MessagesRequest, json: Fields, caller: CallerIdentity): MessagesCall => {
  const { max_tokens: maxTokens, metadata, model, stop_sequences: stop, stream = false, tool_choice } = body
  const located = locatedMessages(body)
  return {
    request: {
      ...samplingOf(body),
      ...toolingOf(body),
      ...formatOf(body),
      ...callerFieldsOf(body, caller, metadata?.user_id),
      ...(stop === undefined ? {} : { stop }),
      maxTokens,
      model,
      ...conversationOf(body, located),
      source: sourceOf(json, caller)
    },
    located,
    stream,
    parallelToolUse: !isSerial(tool_choice),
    thinking: body.thinking?.type !== "disabled"
  }
}

const shared = {
  suggest: UnknownFields.makeSuggest(FieldNames.messages, false),
  most: [["messages", mostMessages], ["tools", mostTools], ["stop_sequences", mostStops]],
  problems: (body: Schema.CountTokensRequest) => [...messageProblems(body), ...toolProblems(body)]
} as const satisfies Partial<Shape<never>>

const messagesShape: Shape<Schema.MessagesRequest> = {
  ...shared,
  decode: Problem.decoderOf(Schema.MessagesRequest)
}

const countShape: Shape<Schema.CountTokensRequest> = {
  ...shared,
  decode: Problem.decoderOf(Schema.CountTokensRequest)
}

/** Headers of the dialect. */
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

/** Decodes a parsed JSON body of `POST /v1/messages`. */
export const decode = (json: unknown, caller: CallerIdentity = {}): Result.Result<MessagesCall, InvalidRequest> =>
  Result.map(decodeBody(json, messagesShape), (body) => callOf(body, json as Fields, caller))

/** Decodes a parsed JSON body of `POST /v1/messages/count_tokens`. */
export const decodeCount = (
  json: unknown,
  caller: CallerIdentity = {}
): Result.Result<Decoded<CountRequest>, InvalidRequest> =>
  Result.map(decodeBody(json, countShape), (body) => {
    const located = locatedMessages(body)
    // As for a generation, tools that must not be used are not counted.
    const tools = body.tool_choice?.type === "none" ? [] : toolsOf(body.tools ?? [])
    return {
      request: {
        model: body.model,
        input: { ...conversationOf(body, located), ...(tools.length === 0 ? {} : { tools }) },
        source: sourceOf(json as Fields, caller),
        ...callerFieldsOf(body, caller)
      },
      located
    }
  })

/** The reason with the body's path in place of the core's. */
export const relocate = (reason: Reason, { located, request }: Decoded<Pick<Request, "source">>): Reason => {
  const path = "path" in reason ? reason.path : undefined
  // Paths of unknown fields, and paths within them, are the body's already.
  const isOwn = (field: string) => path === field || path?.startsWith(`${field}.`)
  if (path === undefined || requiredPaths(request.source).some(isOwn)) return reason
  const own = locate(path, located) ?? FieldNames.rename(path.replace(/^input\./, ""))
  if (reason._tag === "InvalidRequest") return new InvalidRequest({ detail: reason.detail, path: own })
  return reason._tag === "NotSupported"
    ? new NotSupported({ deployment: reason.deployment, detail: reason.detail, path: own })
    : reason
}

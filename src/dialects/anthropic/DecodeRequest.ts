/** The Anthropic dialect: bodies to requests. Pure functions that know nothing of models. */
import { Result } from "effect"
import * as Decoder from "../../domain/Decoder.ts"
import type { CountRequest, Request } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InvalidRequest, NotSupported } from "../../domain/InferenceError.ts"
import { requiredOf } from "../../domain/PassThrough.ts"
import type { Source } from "../../domain/Source.ts"
import { mostStops, mostTools } from "../openai/Schema.ts"
import type { Shape } from "../shared/BodyChecks.ts"
import * as Body from "../shared/BodyChecks.ts"
import type { CallerIdentity } from "../shared/CallerIdentity.ts"
import { standingOf } from "../shared/CallerIdentity.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import type { Placed } from "./DecodeMessages.ts"
import { choiceOf, conversationOf, locate, messageProblems, placed, toolProblems, toolsOf } from "./DecodeMessages.ts"
import { extraOf } from "./Extra.ts"
import * as AnthropicFields from "./FieldNames.ts"
import * as Anthropic from "./Schema.ts"

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

const standing = (
  { keep_alive, priority, troupe }: Anthropic.CountTokensRequest,
  caller: CallerIdentity,
  user?: string | null
) =>
  standingOf({
    ...(keep_alive === undefined ? {} : { keep_alive }),
    ...(priority === undefined ? {} : { priority }),
    ...(troupe === undefined ? {} : { troupe }),
    ...(typeof user === "string" ? { user } : {})
  }, caller)

const callOf = (body: Anthropic.MessagesRequest, json: Body.Body, caller: CallerIdentity): MessagesCall => {
  const { max_tokens: maxTokens, metadata, model, stop_sequences: stop, stream = false, tool_choice } = body
  const conversation = placed(body)
  const extra = extraOf(json)
  return {
    request: {
      ...samplingOf(body),
      ...toolingOf(body),
      ...formatOf(body),
      ...standing(body, caller, metadata?.user_id),
      ...(stop === undefined ? {} : { stop }),
      maxTokens,
      model,
      ...conversationOf(body, conversation),
      ...(extra === undefined ? {} : { extra }),
      source: sourceOf(json, caller)
    },
    placed: conversation,
    stream,
    parallelToolUse: !isSerial(tool_choice),
    thinking: body.thinking?.type !== "disabled"
  }
}

const shared = {
  meant: UnknownFields.meantBy("anthropic"),
  unsupported: [],
  most: [["messages", mostMessages], ["tools", mostTools], ["stop_sequences", mostStops]],
  problems: (body: Anthropic.CountTokensRequest) => [...messageProblems(body), ...toolProblems(body)]
} as const satisfies Partial<Shape<never>>

const messagesShape: Shape<Anthropic.MessagesRequest> = { ...shared, decode: Decoder.make(Anthropic.MessagesRequest) }

const countShape: Shape<Anthropic.CountTokensRequest> = {
  ...shared,
  decode: Decoder.make(Anthropic.CountTokensRequest)
}

/** Headers that belong to the dialect. */
const dialectHeaders = ["anthropic-beta", "anthropic-version"] as const

const sourceOf = (json: Body.Body, { headers = {} }: CallerIdentity): Source => {
  const found = dialectHeaders.flatMap((name) => headers[name] === undefined ? [] : [[name, headers[name]] as const])
  return { dialect: "anthropic", body: json, ...(found.length === 0 ? {} : { headers: Object.fromEntries(found) }) }
}

/** The message that a parsed JSON body asks for. */
export const decode = (json: unknown, caller: CallerIdentity = {}): Result.Result<MessagesCall, InvalidRequest> =>
  Result.map(Body.decode(json, messagesShape), (body) => callOf(body, json as Body.Body, caller))

/** The count that a parsed JSON body asks for. */
export const decodeCount = (
  json: unknown,
  caller: CallerIdentity = {}
): Result.Result<Asked<CountRequest>, InvalidRequest> =>
  Result.map(Body.decode(json, countShape), (body) => {
    const conversation = placed(body)
    const extra = extraOf(json as Body.Body)
    // As a generation has it: tools that may not be used are not told to the model.
    const tools = body.tool_choice?.type === "none" ? [] : toolsOf(body.tools ?? [])
    return {
      request: {
        model: body.model,
        input: { ...conversationOf(body, conversation), ...(tools.length === 0 ? {} : { tools }) },
        ...(extra === undefined ? {} : { extra }),
        source: sourceOf(json as Body.Body, caller),
        ...standing(body, caller)
      },
      placed: conversation
    }
  })

/** The reason with the body's own path for what is wrong. */
export const relocate = (reason: Reason, { placed, request }: Asked<Pick<Request, "extra">>): Reason => {
  const path = "path" in reason ? reason.path : undefined
  // Paths of `extra` are the body's own already, and what leads into its values.
  const isOwn = (field: string) => path === field || path?.startsWith(`${field}.`)
  if (path === undefined || (request.extra !== undefined && requiredOf(request.extra).some(isOwn))) return reason
  const own = locate(path, placed) ?? AnthropicFields.rename(path.replace(/^input\./, ""))
  if (reason._tag === "InvalidRequest") return new InvalidRequest({ detail: reason.detail, path: own })
  return reason._tag === "NotSupported"
    ? new NotSupported({ deployment: reason.deployment, detail: reason.detail, path: own })
    : reason
}

/** Decodes errors of the OpenAI dialect: of error responses, and within successful ones. Pure. */
import type * as InferenceError from "../../domain/InferenceError.ts"
import type { Found } from "../shared/ErrorMapping.ts"
import { inBandReason, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import { at, countAt, listAt, textAt } from "../shared/Json.ts"
import type { Refusal, Target } from "../shared/ProviderDialect.ts"

/** Field names of this service, by the prefix of the provider's name. */
const paths: ReadonlyArray<readonly [RegExp, string]> = [
  [/^tools\[(\d+)\]\.function/, "tools[$1]"],
  [/^(messages\[\d+\])\.tool_calls\[(\d+)\]\.function/, "$1.toolCalls[$2]"],
  [/^(messages\[\d+\])\.tool_calls/, "$1.toolCalls"],
  [/^(messages\[\d+\])\.tool_call_id/, "$1.toolCallId"],
  [/^tool_choice\.function/, "toolChoice"],
  [/^tool_choice/, "toolChoice"],
  [/^response_format\.json_schema/, "format"],
  [/^response_format/, "format"],
  [/^top_logprobs/, "logprobs"],
  [/^max_(?:completion_)?tokens/, "maxTokens"],
  [/^top_p/, "topP"],
  [/^top_k/, "topK"],
  [/^min_p/, "minP"],
  [/^(repeat|presence|frequency)_penalty/, "$1Penalty"],
  [/^logit_bias/, "logitBias"],
  [/^prompt$/, "input"]
]

const pathOf = (param: string | undefined): string | undefined => {
  if (param === undefined || param === "") return undefined
  const found = paths.find(([pattern]) => pattern.test(param))
  return found === undefined ? param : param.replace(found[0], found[1])
}

/** The message of an error: in `error` (OpenAI), in the body (vLLM, Mistral), or in `detail` (FastAPI). */
const messageIn = (body: unknown, error: unknown): string =>
  typeof error === "string" ? error : textAt(error, "message") ?? textAt(body, "message") ?? textAt(body, "detail") ??
    textAt(listAt(body, "detail")[0], "msg") ?? ""

/** Token counts that llama.cpp's server sends. */
const figuresIn = (error: unknown): Found["figures"] => {
  const promptTokens = countAt(error, "n_prompt_tokens")
  const contextWindow = countAt(error, "n_ctx")
  return promptTokens === undefined || contextWindow === undefined ? undefined : { promptTokens, contextWindow }
}

/** @param body `{ error: { message, type, code, param } }`, `{ error: "..." }`, or the error's fields themselves */
const foundIn = (body: unknown): Found => {
  const error = at(body, "error") ?? body
  const message = messageIn(body, error)
  const param = textAt(error, "param")
  const innerCode = textAt(error, "innererror", "code")
  return {
    // `path` has the name of the field.
    message: param !== undefined && message.startsWith(`${param}: `) ? message.slice(param.length + 2) : message,
    path: pathOf(param),
    codes: [textAt(error, "code"), textAt(error, "type"), innerCode],
    figures: figuresIn(error)
  }
}

export const failure = (refusal: Refusal, target: Target): InferenceError.Reason =>
  reasonOf(refusal, target, foundIn(refusal.body))

/** The reason of an error within a successful response. */
export const inBand = (body: unknown, target: Target): InferenceError.Reason => {
  const error = at(body, "error") ?? body
  const status = statusOf(at(error, "code"), at(error, "status"), at(error, "status_code"), at(error, "type"))
  return inBandReason(body, target, foundIn(body), status)
}

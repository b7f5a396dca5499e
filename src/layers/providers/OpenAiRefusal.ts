/** Errors of the OpenAI dialect, by status and in the middle of a stream. Pure. */
import * as InferenceError from "../../services/InferenceError.ts"
import type { Refusal, Target } from "./Dialect.ts"
import { at, countAt, fieldsOf, ownOf, textAt } from "./Json.ts"
import type { Found } from "./Refusals.ts"
import { brief, reasonOf } from "./Refusals.ts"

/** Our names for fields, by the beginnings of theirs. */
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

/** llama.cpp's server says so by a type, with figures beside it. */
const ofLlama = "exceed_context_size_error"

/**
 * What messages tell of a prompt that does not fit: OpenAI's and vLLM's, vLLM's newer ones, and Troupe's. What lies between
 * is bounded, as a message in a stream may be as long as an answer.
 */
const windowFirst =
  /context length is (\d+) tokens.{0,200}?(?:requested|resulted in|has|total of at least) (\d+)(?!\d| output)/is
const passed = /passed (\d+) input tokens .{0,200}?context length is only (\d+) tokens/is
const promptFirst = /prompt has (at least )?(\d+) tokens, and the context window of .{0,200}? is (\d+) tokens/is

const figuresOf = (error: unknown, message: string): Found["contextLength"] => {
  const promptTokens = countAt(error, "n_prompt_tokens")
  const contextWindow = countAt(error, "n_ctx")
  if (promptTokens !== undefined && contextWindow !== undefined) return { promptTokens, contextWindow }
  const input = passed.exec(message)
  if (input !== null) return { promptTokens: Number(input[1]), contextWindow: Number(input[2]) }
  const told = windowFirst.exec(message)
  if (told !== null) return { contextWindow: Number(told[1]), promptTokens: Number(told[2]) }
  const ours = promptFirst.exec(message)
  if (ours === null) return true
  const figures = { promptTokens: Number(ours[2]), contextWindow: Number(ours[3]) }
  return ours[1] === undefined ? figures : { ...figures, atLeast: true }
}

const isTooLong = (error: unknown, message: string): boolean =>
  textAt(error, "type") === ofLlama || windowFirst.test(message) || passed.test(message)

const refusals: ReadonlySet<string> = new Set(["content_filter", "content_policy_violation", "moderation_blocked"])

/** @param body `{ error: { message, type, code, param } }`, or `{ error: "..." }` as some have it */
const foundIn = (body: unknown): Found => {
  const error = at(body, "error")
  const message = typeof error === "string" ? error : textAt(error, "message") ?? textAt(body, "message") ?? ""
  const param = textAt(error, "param")
  const code = textAt(error, "code") ?? ""
  const tooLong = code === "context_length_exceeded" || isTooLong(error, message)
  return {
    // The path is told beside it, by our name.
    message: param !== undefined && message.startsWith(`${param}: `) ? message.slice(param.length + 2) : message,
    path: pathOf(param),
    contentRefused: refusals.has(code),
    contextLength: tooLong ? figuresOf(error, message) : undefined
  }
}

export const failure = (refusal: Refusal, target: Target): InferenceError.Reason =>
  reasonOf(refusal, target, foundIn(refusal.body))

/** Codes and types that stand for a status where there is none. */
const statuses: Readonly<Record<string, number>> = {
  rate_limit_exceeded: 429,
  rate_limit_error: 429,
  insufficient_quota: 429,
  invalid_api_key: 401,
  authentication_error: 401,
  invalid_request_error: 400
}

const statusOf = (body: unknown): number => {
  const error = fieldsOf(at(body, "error")) ?? {}
  const code = countAt(error, "code") ?? countAt(error, "status")
  const named = ownOf(statuses, textAt(error, "code")) ?? ownOf(statuses, textAt(error, "type"))
  return code !== undefined && code >= 400 && code < 600 ? code : named ?? 500
}

/** An error with a status of success. */
export const inBand = (body: unknown, target: Target): InferenceError.Reason => {
  const reason = failure({ status: statusOf(body), headers: {}, body, now: 0 }, target)
  if (reason._tag !== "UpstreamFailed") return reason
  const message = foundIn(body).message ?? ""
  const detail = message === "" ? "it told an error in its answer." : brief(message)
  return new InferenceError.UpstreamFailed({ deployment: target.deployment, kind: "status", detail })
}

/** Decodes answers and errors of the Gemini API. Pure. */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason, ReportedUsage } from "../../domain/Job.ts"
import { brief, cut, malformed, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import { at, codeOf, countAt, type Fields, fieldsOf, listAt, parse, textAt } from "../shared/Json.ts"
import type { DecodeResult, EventDecoder, Refusal, Target } from "../shared/ProviderDialect.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import { argumentsText, makeIds } from "../shared/ToolCallAssembler.ts"

/** Whether the details of a status 400 name an invalid key. */
const isInvalidKey = (details: ReadonlyArray<unknown>): boolean =>
  details.some((detail) => textAt(detail, "reason")?.startsWith("API_KEY_") === true)

/** The reason of an error response. */
export const failure = (refusal: Refusal, target: Target): Reason => {
  const { status } = refusal
  const { deployment } = target
  const body = Array.isArray(refusal.body) ? refusal.body[0] : refusal.body
  const details = listAt(body, "error", "details")
  const message = textAt(body, "error", "message") ?? ""
  if (isInvalidKey(details)) return new InferenceError.AuthenticationFailed({ deployment, status })
  // An unsupported region or missing billing: the request itself is valid.
  if (textAt(body, "error", "status") === "FAILED_PRECONDITION") {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "status",
      status,
      detail: `${brief(message)} (HTTP status ${status})`
    })
  }
  return reasonOf(refusal, target, { message, codes: [textAt(body, "error", "status")] })
}

/** The reason of an error within a successful response. */
const inBand = (body: unknown, target: Target): Reason =>
  failure({
    status: statusOf(at(body, "error", "code"), at(body, "error", "status")) ?? 500,
    headers: {},
    body,
    now: 0
  }, target)

/** The reason of an error that is the body of a success, maybe in a list. */
export const errorIn = (body: unknown, target: Target): Reason | undefined => {
  const fields = Array.isArray(body) ? body[0] : body
  return at(fields, "error") === undefined ? undefined : inBand(fields, target)
}

/** Finish reasons of the content policy. */
const refusals = new Set([
  "SAFETY",
  "RECITATION",
  "LANGUAGE",
  "BLOCKLIST",
  "PROHIBITED_CONTENT",
  "SPII",
  "IMAGE_SAFETY",
  "IMAGE_PROHIBITED_CONTENT",
  "IMAGE_RECITATION"
])

const refused = ({ deployment }: Target, what: string, why: string, words: string | undefined): Reason =>
  new InferenceError.ContentRefused({
    deployment,
    detail: brief(`${what} is blocked (${why})${words === undefined ? "." : `: ${words}`}`)
  })

/** Gemini reports reasoning beside the other tokens of the answer; `completionTokens` includes it. */
const usageOf = (usage: unknown): ReportedUsage => {
  const prompt = countAt(usage, "promptTokenCount")
  const visible = countAt(usage, "candidatesTokenCount")
  const reasoning = countAt(usage, "thoughtsTokenCount")
  return {
    cachedTokens: countAt(usage, "cachedContentTokenCount") ?? 0,
    ...(prompt === undefined ? {} : { promptTokens: prompt }),
    ...(visible === undefined && reasoning === undefined
      ? {}
      : { completionTokens: (visible ?? 0) + (reasoning ?? 0) }),
    ...(reasoning === undefined ? {} : { reasoningTokens: reasoning })
  }
}

/** Decodes the parts of an answer. Those that are neither text, reasoning nor a call are skipped. */
const makeParts = (generation: Generation, count: (text: string) => number, target: Target) => {
  const idOf = makeIds(generation)
  let calls = 0
  const callOf = (call: unknown): DecodeResult => {
    const name = textAt(call, "name") ?? ""
    if (name === "") return Result.fail(malformed(target, "a tool call without a name"))
    const index = calls++
    const id = idOf(textAt(call, "id"))
    const text = argumentsText(at(call, "args")) || "{}"
    return Result.succeed([{ type: "tool_call", index, id, name, arguments: text, tokens: count(text) }])
  }
  return {
    hasCalls: () => calls > 0,
    eventsOf: (part: unknown): DecodeResult => {
      const text = textAt(part, "text") ?? ""
      if (at(part, "thought") === true) return Result.succeed([{ type: "thoughts", text, tokens: count(text) }])
      const call = at(part, "functionCall")
      if (call !== undefined) return callOf(call)
      return Result.succeed(text === "" ? [] : [{ type: "text", text, tokens: count(text) } satisfies Event])
    }
  }
}

interface AnswerDecoder {
  readonly push: (body: unknown) => DecodeResult
  /** What the provider has reported until now. */
  readonly usage: () => ReportedUsage
  readonly end: () => DecodeResult
}

/** Decodes one answer. The last finish reason counts: some models send one with every piece. */
const makeAnswerDecoder = (generation: Generation, target: Target): AnswerDecoder => {
  const counter = makeCounter(generation)
  const parts = makeParts(generation, counter.count, target)
  let usage: unknown
  let end: unknown

  const blockOf = (body: Fields): Reason | undefined => {
    const block = textAt(body, "promptFeedback", "blockReason")
    return block === undefined
      ? undefined
      : refused(target, "the prompt", block, textAt(body, "promptFeedback", "blockReasonMessage"))
  }

  const failureOf = (body: Fields): Reason | undefined => errorIn(body, target) ?? blockOf(body)

  const finishOf = (given: string): Result.Result<FinishReason, Reason> => {
    const reason = given.trim().toUpperCase()
    if (reason === "STOP") return Result.succeed(parts.hasCalls() ? "tool_calls" : "stop")
    if (reason === "MAX_TOKENS") return Result.succeed("length")
    return Result.fail(
      refusals.has(reason)
        ? refused(target, "the answer", reason, textAt(end, "finishMessage"))
        : malformed(target, `unknown finish reason "${brief(given)}"`)
    )
  }

  return {
    push: (body) => {
      const fields = fieldsOf(Array.isArray(body) ? body[0] : body)
      if (fields === undefined) return Result.fail(malformed(target, "the body is not an object"))
      usage = fields["usageMetadata"] ?? usage
      const reason = failureOf(fields)
      if (reason !== undefined) return Result.fail(reason)
      const candidate = listAt(fields, "candidates")[0]
      if (codeOf(at(candidate, "finishReason")) !== undefined) end = candidate
      return Result.map(
        Result.all(listAt(candidate, "content", "parts").map(parts.eventsOf)),
        (events) => events.flat()
      )
    },
    usage: () => usageOf(usage),
    end: () => {
      const reason = textAt(end, "finishReason")
      if (reason === undefined) return Result.fail(cut(target))
      return Result.map(
        finishOf(reason),
        (reason) => [{ type: "finish", reason, usage: counter.usage(usageOf(usage)) }]
      )
    }
  }
}

export const events = (generation: Generation, target: Target): EventDecoder => {
  const { end, push, usage } = makeAnswerDecoder(generation, target)
  return { push: ({ data }) => push(parse(data)), usage, end }
}

/** The usage that the body of a buffered answer reports. */
export const usageIn = (body: unknown): ReportedUsage =>
  usageOf(at(Array.isArray(body) ? body[0] : body, "usageMetadata"))

export const buffered = (body: unknown, generation: Generation, target: Target): DecodeResult => {
  const { end, push } = makeAnswerDecoder(generation, target)
  return Result.flatMap(push(body), (events) => Result.map(end(), (last) => [...events, ...last]))
}

/**
 * Encodes buffered answers of the OpenAI chat dialect. Pure.
 *
 * **Details**
 *
 * The answer of a provider of the same dialect is passed on with the service's own id and model, and its other fields
 * unchanged. If the provider streamed it, its chunks are assembled.
 */
import type { Answer } from "../../domain/Inference.ts"
import type { ContentRefused } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, TokenLogprob, TokenUsage, ToolCall } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { fieldsOf, indexOf, isObject, listOf } from "../shared/Json.ts"
import { detailOf } from "../shared/SignedFields.ts"
import type { ChatCompletion, Logprobs, Usage } from "./Schema.ts"

/** What the parts of an answer share, and the options of its request. */
export interface Envelope {
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly model: string
  /** The model that a stream names from here on, where this deployment answers; undefined, or left out, `model`. */
  readonly servedModel?: (deployment: string) => string | undefined
  readonly includeUsage: boolean
  /** False: an answer has only its first tool call. */
  readonly parallelToolCalls: boolean
}

const sumOf = (usages: ReadonlyArray<TokenUsage>, of: (usage: TokenUsage) => number): number =>
  usages.reduce((sum, usage) => sum + of(usage), 0)

/** Usage of several choices: the prompt counts once. */
export const usageOf = (usages: ReadonlyArray<TokenUsage>): Usage => {
  const prompt_tokens = usages[0]?.promptTokens ?? 0
  const completion_tokens = sumOf(usages, (usage) => usage.completionTokens)
  const cached_tokens = usages.reduce((least, usage) => Math.min(least, usage.cachedTokens), prompt_tokens)
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: {
      cached_tokens,
      ...(usages.every((usage) => usage.cacheWriteTokens === undefined)
        ? {}
        : { cache_write_tokens: sumOf(usages, (usage) => usage.cacheWriteTokens ?? 0) })
    },
    ...(usages.every((usage) => usage.reasoningTokens === undefined)
      ? {}
      : { completion_tokens_details: { reasoning_tokens: sumOf(usages, (usage) => usage.reasoningTokens ?? 0) } })
  }
}

/** OpenAI's value for a probability near 0; JSON has no infinity. */
const minLogprob = -9999

/** Only the first token of an echoed prompt has none, and chats have no echo. */
const logprobOf = ({ bytes, logprob, token }: TokenLogprob | ChosenLogprob) => ({
  token,
  logprob: Math.max(logprob ?? 0, minLogprob),
  bytes
})

export const logprobsOf = (logprobs: ReadonlyArray<ChosenLogprob>): Logprobs => ({
  content: logprobs.map((chosen) => ({ ...logprobOf(chosen), top_logprobs: chosen.top.map(logprobOf) })),
  refusal: null
})

const toolCallOf = ({ arguments: text, id, name }: ToolCall) => ({
  id,
  type: "function" as const,
  function: { name, arguments: text }
})

const messageOf = (answer: Answer, parallelToolCalls: boolean): ChatCompletion["choices"][number]["message"] => {
  const { reasoning, text, thoughts, toolCalls } = answer
  const sent = parallelToolCalls ? toolCalls : toolCalls.slice(0, 1)
  return {
    role: "assistant",
    content: text === "" && toolCalls.length > 0 ? null : text,
    ...(thoughts === undefined ? {} : { reasoning_content: thoughts }),
    ...(reasoning === undefined ? {} : { reasoning_details: reasoning.map(detailOf) }),
    refusal: null,
    ...(sent.length === 0 ? {} : { tool_calls: sent.map(toolCallOf) })
  }
}

/** Whether a provider of this dialect sent it. */
export const isOpenAi = ({ dialect }: Native): boolean => dialect === "openai"

/** Adds the fields that clients require and that the provider left out. */
export const completed = (body: Fields, defaults: Fields): Fields => {
  let all: Record<string, unknown> | undefined
  for (const name in defaults) {
    if ((body[name] ?? null) === null) (all ??= { ...body })[name] = defaults[name]
  }
  return all ?? body
}

/** The value of a field with the next piece appended. */
const joined = (name: string, before: unknown, piece: unknown): unknown => {
  if (isNothing(piece)) return before === undefined ? piece : before
  if (name === "tool_calls") return joinCalls(listOf(before), piece)
  return isNothing(before) || repeated.has(name) ? piece : joinedValue(before, piece)
}

const isNothing = (value: unknown): boolean => value === undefined || value === null

const joinedValue = (before: unknown, piece: unknown): unknown => {
  if (typeof before === "string" && typeof piece === "string") return before + piece
  if (Array.isArray(before) && Array.isArray(piece)) return [...before as Array<unknown>, ...piece as Array<unknown>]
  return isObject(before) && isObject(piece) ? joinFields(before, piece) : piece
}

/** Texts that every piece repeats. */
const repeated: ReadonlySet<string> = new Set(["id", "role", "type", "name", "format"])

const joinFields = (before: Fields, piece: Fields): Fields => {
  const both: Record<string, unknown> = { ...before }
  for (const name of Object.keys(piece)) both[name] = joined(name, both[name], piece[name])
  return both
}

/** Joins calls by their indexes, which a provider may choose at will. */
const joinCalls = (before: ReadonlyArray<unknown>, pieces: unknown): ReadonlyArray<unknown> => {
  const calls = [...before]
  for (const [at, piece] of listOf(pieces).entries()) {
    if (!isObject(piece)) continue
    const index = indexOf(piece["index"], at)
    const known = calls.findIndex((call) => Object.is(fieldsOf(call)?.["index"], index))
    const call = { ...piece, index }
    if (known < 0) calls.push(call)
    else calls[known] = { ...joinFields(calls[known] as Fields, call), index }
  }
  return calls
}

/** The calls in the order of their indexes, which a buffered answer does not have. */
const orderedCalls = (calls: ReadonlyArray<unknown>): ReadonlyArray<Fields> =>
  (calls as ReadonlyArray<Fields>).toSorted((one, other) => indexOf(one["index"], 0) - indexOf(other["index"], 0))
    .map(({ index: _, ...call }) => call)

const withOrderedCalls = (message: Fields): Fields => {
  const { tool_calls: calls } = message
  return Array.isArray(calls) ? { ...message, tool_calls: orderedCalls(calls) } : message
}

interface Choice {
  readonly fields: Record<string, unknown>
  message: Fields
}

const addChoice = (choices: Array<Choice>, one: unknown): void => {
  if (!isObject(one)) return
  const { delta, finish_reason, logprobs, ...fields } = one
  const index = indexOf(fields["index"], 0)
  const choice = choices[index] ??= {
    fields: { index, message: null, logprobs: null, finish_reason: null },
    message: {}
  }
  Object.assign(choice.fields, fields)
  if (isObject(delta)) choice.message = joinFields(choice.message, delta)
  choice.fields["logprobs"] = joined("logprobs", choice.fields["logprobs"], logprobs) ?? null
  choice.fields["finish_reason"] = finish_reason ?? choice.fields["finish_reason"]
}

/** Assembles a buffered answer from its chunks. */
const assembled = (chunks: ReadonlyArray<Native>): Fields => {
  const body: Record<string, unknown> = {}
  const choices: Array<Choice> = []
  for (const { body: { choices: some, ...rest } } of chunks) {
    for (const name of Object.keys(rest)) if (rest[name] !== null || !(name in body)) body[name] = rest[name]
    for (const one of listOf(some)) addChoice(choices, one)
  }
  return {
    ...body,
    object: "chat.completion",
    choices: choices.map(({ fields, message }) => ({
      ...fields,
      message: { role: "assistant", content: null, refusal: null, ...withOrderedCalls(message) }
    }))
  }
}

const countNames = ["prompt_tokens", "completion_tokens", "total_tokens"] as const

/** The provider's usage, with the counts that it left out. */
const nativeUsage = (given: unknown, usages: ReadonlyArray<TokenUsage>): Fields | Usage => {
  if (!isObject(given)) return usageOf(usages)
  if (countNames.every((name) => (given[name] ?? null) !== null)) return given
  const { completion_tokens, prompt_tokens, total_tokens } = usageOf(usages)
  return completed(given, { prompt_tokens, completion_tokens, total_tokens })
}

/** The fields of a provider's answer that are the service's own, or that it left out. */
const changesOf = (
  found: Fields,
  { created, id, model }: Pick<Envelope, "created" | "id" | "model">,
  usages: ReadonlyArray<TokenUsage>
): Fields => {
  const changes: Record<string, unknown> = { id, model }
  if ((found["object"] ?? null) === null) changes["object"] = "chat.completion"
  if ((found["created"] ?? null) === null) changes["created"] = created
  const usage = nativeUsage(found["usage"], usages)
  if (usage !== found["usage"]) changes["usage"] = usage
  return changes
}

/** The provider's answer, which is not checked; undefined if the provider has another dialect. */
const nativeAnswer = (
  parts: ReadonlyArray<Native> | undefined,
  envelope: Pick<Envelope, "created" | "id" | "model">,
  usages: ReadonlyArray<TokenUsage>
): ChatCompletion | undefined => {
  if (parts === undefined || parts.length === 0 || !parts.every(isOpenAi)) return undefined
  const found = parts.find(({ form }) => form === "buffered")?.body ?? assembled(parts)
  return { ...found, ...changesOf(found, envelope, usages) } as Fields as ChatCompletion
}

/** The text of a provider's answer with the service's own fields; undefined if it has to be encoded. */
const nativeText = ({ native, usage }: Answer, envelope: Envelope): string | undefined => {
  const part = native?.length === 1 ? native[0] : undefined
  if (part?.text === undefined || !isOpenAi(part)) return undefined
  return part.text.with(part.body, changesOf(part.body, envelope, [usage]))
}

/** The provider's answer that is a refusal; undefined if the provider has another dialect. */
export const encodeRefusal = (envelope: Envelope, { answer }: ContentRefused): ChatCompletion | undefined =>
  nativeAnswer(answer as ReadonlyArray<Native> | undefined, envelope, [])

/** @param answers one per choice */
export const encodeAnswers = (envelope: Envelope, answers: ReadonlyArray<Answer>): ChatCompletion =>
  (answers.length === 1
    ? nativeAnswer(answers[0]!.native, envelope, [answers[0]!.usage])
    : undefined) ?? encode(envelope, answers)

/** The JSON of `encodeAnswers`: the provider's own text where it can be passed on. */
export const encodeText = (envelope: Envelope, answers: ReadonlyArray<Answer>): string =>
  (answers.length === 1 ? nativeText(answers[0]!, envelope) : undefined) ??
    JSON.stringify(encodeAnswers(envelope, answers))

const encode = (
  { created, id, model, parallelToolCalls }: Envelope,
  answers: ReadonlyArray<Answer>
): ChatCompletion => ({
  id,
  object: "chat.completion",
  created,
  model,
  choices: answers.map((answer, index) => ({
    index,
    message: messageOf(answer, parallelToolCalls),
    logprobs: answer.logprobs === undefined ? null : logprobsOf(answer.logprobs),
    finish_reason: answer.finishReason,
    ...(answer.stop === undefined ? {} : { stop_reason: answer.stop })
  })),
  usage: usageOf(answers.map((answer) => answer.usage))
})

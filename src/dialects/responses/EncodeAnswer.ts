/** Encodes answers of the Responses dialect: the response with its settings, and its output items. Pure. */
import type { Answer } from "../../domain/Inference.ts"
import type { ContentRefused, Reason } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, TokenUsage, ToolCall } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import type { Native } from "../../domain/Source.ts"
import { logprobsOf } from "../openai/EncodeAnswer.ts"
import * as OpenAiErrors from "../openai/EncodeError.ts"
import type { Fields } from "../shared/Json.ts"
import { at, listAt, textAt } from "../shared/Json.ts"
import * as SignedFields from "../shared/SignedFields.ts"
import * as CustomTools from "./CustomTools.ts"
import * as FieldNames from "./FieldNames.ts"
import type { Item } from "./Items.ts"
import * as Items from "./Items.ts"
import * as NativeAnswer from "./NativeAnswer.ts"
import type { Response, ResponseError, Settings, Status, Usage } from "./Schema.ts"

/** What the parts of an answer share, and the options of its request. */
export interface Envelope {
  /** The id of the response. */
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly settings: Settings
  /** The model that an answer of this deployment names; undefined, or left out, the one of the settings. */
  readonly servedModel?: (deployment: string) => string | undefined
  /** Whether an answer of this deployment counts the tokens of reasoning if its model reasons; left out, it may not. */
  readonly countsReasoning?: (deployment: string) => boolean
}

/** What a response is beside its settings. */
export interface Outcome {
  readonly status: Status
  readonly output: ReadonlyArray<Item>
  /** The model that has answered; left out, the one of the settings. */
  readonly model?: string | undefined
  /** Seconds since 1970; left out: the response has not completed. */
  readonly completedAt?: number
  readonly usage?: TokenUsage
  /** The effort that had an effect, where it is not that of the settings. */
  readonly effort?: "none" | undefined
  readonly error?: ResponseError
  /** Why it is incomplete. */
  readonly incomplete?: string
  /** Settings that a provider has used, where they are not those of the request. */
  readonly settings?: Partial<Settings>
}

export const usageOf = (
  { cacheWriteTokens = 0, cachedTokens, completionTokens, promptTokens, reasoningTokens = 0 }: TokenUsage
): Usage => ({
  input_tokens: promptTokens,
  input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: cacheWriteTokens },
  output_tokens: completionTokens,
  output_tokens_details: { reasoning_tokens: reasoningTokens },
  total_tokens: promptTokens + completionTokens
})

export const responseOf = (
  { created, id, settings }: Envelope,
  { completedAt, effort, error, incomplete, model, output, settings: used, status, usage }: Outcome
): Response => ({
  id,
  object: "response",
  created_at: created,
  completed_at: completedAt ?? null,
  status,
  error: error ?? null,
  incomplete_details: incomplete === undefined ? null : { reason: incomplete },
  output,
  usage: usage === undefined ? null : usageOf(usage),
  ...settings,
  ...used,
  ...(effort === undefined ? {} : { reasoning: { ...settings.reasoning, effort } }),
  ...(model === undefined ? {} : { model })
})

/** `none` for an answer of a model that does not reason, where the caller has asked for an effort. */
export const effortOf = (
  { countsReasoning, settings: { reasoning } }: Envelope,
  deployment: string,
  { reasoningTokens }: TokenUsage
): Outcome["effort"] =>
  reasoning.effort !== null && reasoningTokens === undefined && countsReasoning?.(deployment) === true
    ? "none"
    : undefined

/** The part of ids that the items of one response share. */
const bareId = (id: string): string => id.slice(id.indexOf("_") + 1)

/** The id of an output item. */
export const outputId = (prefix: string, id: string, index: number): string => `${prefix}_${bareId(id)}${index}`

/** The id of an input item. */
const inputId = (prefix: string, id: string, index: number): string => `${prefix}_${bareId(id)}i${index}`

/**
 * The stored form of a checked item of a request, which is no reference.
 *
 * @param id of the response or the conversation
 * @param index of the item in the request
 */
export const storedInput = (item: Fields, id: string, index: number): Item =>
  Items.stored(item, (prefix) => inputId(prefix, id, index))

/** Letters and digits of an id. */
const idLength = 22

const itemId = new RegExp(`^[a-z]+_([0-9a-z]{${idLength}})(?:i?\\d+)$`)

/** The id of the object that an item was made for, without its prefix; undefined if the item is of no such object. */
export const ownerOfItem = (id: string): string | undefined => itemId.exec(id)?.[1]

/** Whether a text is an id with this prefix, as `resp`. */
export const isId = (prefix: string, text: string): boolean =>
  text.startsWith(`${prefix}_`) && new RegExp(`^[0-9a-z]{${idLength}}$`).test(text.slice(prefix.length + 1))

export type ItemStatus = "completed" | "in_progress" | "incomplete"

/** A text in the output, with the log probabilities of its tokens. */
export const textPart = (text: string, logprobs: ReadonlyArray<ChosenLogprob> = []): Fields => ({
  type: "output_text",
  text,
  annotations: [],
  logprobs: logprobsOf(logprobs).content
})

export const refusalPart = (refusal: string): Fields => ({ type: "refusal", refusal })

export const messageItem = (id: string, status: ItemStatus, content: ReadonlyArray<Fields>): Item => ({
  id,
  type: "message",
  status,
  role: "assistant",
  content
})

/** Reasoning: a summary where the caller has asked for one, else the text as the model wrote it; and what is signed of it. */
export const reasoningItem = (
  id: string,
  text: string | undefined,
  asSummary: boolean,
  signed?: ReadonlyArray<SignedReasoning>
): Item => {
  if (text === undefined) return { id, type: "reasoning", summary: [] }
  const encrypted_content = SignedFields.contentOf(signed)
  return {
    id,
    type: "reasoning",
    ...(asSummary
      ? { summary: [{ type: "summary_text", text }] }
      : { summary: [], content: [{ type: "reasoning_text", text }] }),
    ...(encrypted_content === undefined ? {} : { encrypted_content })
  }
}

export const callItem = (id: string, status: ItemStatus, call: ToolCall): Item => ({
  id,
  type: "function_call",
  status,
  call_id: call.id,
  name: call.name,
  arguments: call.arguments
})

/** A call of a custom tool. */
export const customCallItem = (
  id: string,
  status: ItemStatus,
  call: Omit<ToolCall, "arguments">,
  input: string
): Item => ({
  id,
  type: "custom_tool_call",
  status,
  call_id: call.id,
  name: call.name,
  input
})

/** Whether reasoning is returned as a summary. */
export const wantsSummary = ({ settings: { reasoning } }: Envelope): boolean => reasoning.summary !== null

/** The status of a response by the end of its answer. */
export const endOf = (reason: FinishReason): Pick<Outcome, "incomplete" | "status"> => {
  if (reason === "length") return { status: "incomplete", incomplete: "max_output_tokens" }
  return reason === "content_filter" ? { status: "incomplete", incomplete: "content_filter" } : { status: "completed" }
}

/** The status of an item: only the last one of an incomplete answer is incomplete. */
export const itemStatusOf = (reason: FinishReason, isLast: boolean): ItemStatus =>
  isLast && endOf(reason).status !== "completed" ? "incomplete" : "completed"

/** The output items of a complete answer. */
export const outputOf = (envelope: Envelope, answer: Answer): ReadonlyArray<Item> => {
  const { id, settings } = envelope
  const { finishReason, logprobs, reasoning, text, thoughts = "", toolCalls } = answer
  const calls = settings.parallel_tool_calls ? toolCalls : toolCalls.slice(0, 1)
  const output: Array<Item> = []
  if (thoughts !== "" || reasoning !== undefined) {
    output.push(reasoningItem(outputId("rs", id, 0), thoughts, wantsSummary(envelope), reasoning))
  }
  if (text !== "" || calls.length === 0) {
    const status = itemStatusOf(finishReason, calls.length === 0)
    output.push(messageItem(outputId("msg", id, output.length), status, [textPart(text, logprobs)]))
  }
  const custom = CustomTools.namesOf(settings.tools)
  for (const [index, call] of calls.entries()) {
    const status = itemStatusOf(finishReason, index === calls.length - 1)
    output.push(
      custom.has(call.name)
        ? customCallItem(outputId("ctc", id, output.length), status, call, CustomTools.inputIn(call.arguments))
        : callItem(outputId("fc", id, output.length), status, call)
    )
  }
  return output
}

/** The status of a response that a provider's Responses API has generated. */
export const endOfNative = (response: Fields): Pick<Outcome, "incomplete" | "settings" | "status"> => {
  const settings = NativeAnswer.settingsOf(response)
  return response["status"] === "incomplete"
    ? {
      status: "incomplete",
      incomplete: textAt(response, "incomplete_details", "reason") ?? "max_output_tokens",
      settings
    }
    : { status: "completed", settings }
}

/** The items of a provider's response. */
const nativeOutput = ({ id }: Envelope, response: Fields): ReadonlyArray<Item> =>
  NativeAnswer.itemsOf(response).map((item, index) =>
    NativeAnswer.withId(item, outputId(NativeAnswer.prefixIn(item), id, index))
  )

/**
 * The outcome of a complete answer.
 *
 * @param now seconds since 1970
 */
export const outcomeOf = (envelope: Envelope, answer: Answer, now: number): Outcome => {
  const native = NativeAnswer.responseIn(answer.native)
  const end: Pick<Outcome, "incomplete" | "settings" | "status"> = native === undefined
    ? endOf(answer.finishReason)
    : endOfNative(native)
  return {
    ...end,
    model: envelope.servedModel?.(answer.deployment),
    output: native === undefined ? outputOf(envelope, answer) : nativeOutput(envelope, native),
    usage: answer.usage,
    effort: effortOf(envelope, answer.deployment, answer.usage),
    ...(end.status === "completed" ? { completedAt: now } : {})
  }
}

/** The text of a refusal that a provider sent as an answer; undefined if the refusal is an error. */
export const refusalOf = ({ answer = [] }: ContentRefused): string | undefined => {
  const bodies = (answer as ReadonlyArray<Native>).map(({ body }) => body)
  const texts = [
    ...bodies.flatMap((body) => listAt(body, "choices")).map((choice) =>
      textAt(at(choice, "message"), "refusal") ?? textAt(at(choice, "delta"), "refusal") ?? ""
    ),
    ...bodies.flatMap((body) => listAt(body, "output")).flatMap((item) => listAt(item, "content")).map((part) =>
      textAt(part, "refusal") ?? ""
    )
  ]
  const text = texts.join("")
  return text === "" ? undefined : text
}

export const noUsage: TokenUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }

/** The outcome of a refusal: a message with it. */
export const refusedOutcome = ({ id }: Envelope, refusal: string, now: number): Outcome => ({
  status: "completed",
  output: [messageItem(outputId("msg", id, 0), "completed", [refusalPart(refusal)])],
  usage: noUsage,
  completedAt: now
})

/** Encodes an error before an answer. */
export const encodeError = (reason: Reason): OpenAiErrors.OpenAiError =>
  OpenAiErrors.fromReason(reason, FieldNames.errors)

/** The error of a failed response: OpenAI's codes are few. */
export const failureOf = (status: number, message: string): ResponseError => {
  if (status === 429) return { code: "rate_limit_exceeded", message }
  return { code: status < 500 ? "invalid_prompt" : "server_error", message }
}

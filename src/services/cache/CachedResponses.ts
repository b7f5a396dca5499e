/**
 * Earlier answers, returned when no deployment can answer: the last entry of a model's ordinary fallbacks.
 *
 * **Details**
 *
 * A model enables this with the name `cached-responses` at the end of its `fallbacks`. Complete answers of that model are
 * then kept. When every deployment fails for a reason that is not the caller's mistake (`FailureClass.classify`), the
 * newest answer to the same request is returned. It is recorded as an attempt of the request, by `cached-responses`, and
 * counts no generated tokens. Models without the entry have no cost.
 *
 * **Gotchas**
 *
 * Two requests are the same if `identify` returns the same text: it includes every field that changes the answer, and the
 * tenant, so that no tenant receives another tenant's answer. It leaves the seed out, since an answer with another seed is
 * better than an error.
 */
import { Context, Effect, Stream } from "effect"
import type { Scope } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import { classify } from "../../domain/FailureClass.ts"
import type { Answer, AnsweredBy, Event, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Source } from "../../domain/Source.ts"
import { bodyWith, choicesOf, isComplete, valueAt } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { RoutedRequest } from "../inference/RequestTelemetry.ts"
import * as RequestTelemetry from "../inference/RequestTelemetry.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { AttemptDraft } from "../routing/DecisionLog.ts"
import { cachedResponses } from "../routing/DecisionRecord.ts"

/** An answer without its deployment. Answers with more than text and function calls are not kept. */
export type Response = Omit<Answer, keyof AnsweredBy | "native">

/** The index of an entry `cached-responses` that is not the last entry; -1 if there is none. */
export const misplaced = (fallbacks: ReadonlyArray<string>): number => {
  const index = fallbacks.indexOf(cachedResponses)
  return index === fallbacks.length - 1 ? -1 : index
}

/** The error detail for a misplaced entry. */
export const onlyLast = `${cachedResponses} may be only the last entry of \`fallbacks\``

/** JSON with the fields of every object in alphabetical order, without undefined fields. */
const canonical = (value: unknown): string =>
  JSON.stringify(
    value,
    (_, inner: unknown) =>
      typeof inner === "object" && inner !== null && !Array.isArray(inner) && !ExactNumber.isRaw(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([one], [two]) => one < two ? -1 : 1))
        : inner
  )

/** The part of the caller's own request that the other fields do not have. */
const unknownValues = (source: Source) =>
  isComplete(source)
    ? source.unknownFields?.map(({ path }) => ({ dialect: source.dialect, path, value: valueAt(source, path) }))
    : { dialect: source.dialect, body: source.body }

/** Numbers that the other fields have rounded. */
const exactNumbers = (source: Source) =>
  source.hasExactNumbers === true ? ExactNumber.textsIn(bodyWith(source, { seed: undefined })) : undefined

/** Equal for requests that may share an answer. Fields that are added to requests are part of it unless excluded here. */
export const identify = (
  { keepAlive: _, priority: __, route: ___, seed: ____, source, tenant = "", ...content }: Request
): string =>
  canonical({
    tenant,
    content,
    headers: source?.headers,
    fields: source && unknownValues(source),
    numbers: source && exactNumbers(source)
  })

/** Whether the answer is complete: not cut before the caller's own limit, and not one of several choices. */
export const isWhole = (
  { finishReason, usage }: Response,
  { maxTokens = Number.POSITIVE_INFINITY, source }: Request
): boolean => choicesOf({ source }) > 1 ? false : finishReason !== "length" || usage.completionTokens >= maxTokens

/** An upper estimate of the memory, bytes: a character takes at most two. */
export const bytesOf = (response: Response): number => 2 * JSON.stringify(response).length

/** Whether an answer of this size is kept. */
export const fits = (bytes: number): boolean => bytes <= Defaults.cachedResponses.largestBytes

/** Keeps answers and returns them by request. */
export class CachedResponses extends Context.Service<CachedResponses, {
  /** Replaces an earlier answer to the same request. */
  readonly keep: (request: Request, response: Response) => Effect.Effect<void>
  /** The newest answer; undefined if there is none or it has expired. */
  readonly recall: (request: Request) => Effect.Effect<Response | undefined>
}>()("troupe/services/cache/CachedResponses") {}

/** Builds a complete answer from its events. */
export interface AnswerBuilder {
  readonly add: (event: Event) => void
  readonly end: () => Response
}

const server: RequestTelemetry.Server = { id: cachedResponses, provider: "troupe.cache" }

const notCached = { reason: "NotCached", message: "No earlier answer to the same request is kept." }

/** The events of a kept answer, all at once and without generated tokens. */
const eventsOf = (
  { finishReason, logprobs, stop, text, thoughts, toolCalls, usage }: Response
): ReadonlyArray<Event> => [
  ...(thoughts === undefined ? [] : [{ type: "thoughts" as const, text: thoughts, tokens: 0 }]),
  ...(text === "" ? [] : [{ type: "text" as const, text, tokens: 0, ...(logprobs === undefined ? {} : { logprobs }) }]),
  ...toolCalls.map((call, index) => ({ type: "tool_call" as const, index, ...call, tokens: 0 })),
  { type: "finish", reason: finishReason, usage, ...(stop === undefined ? {} : { stop }) }
]

/** The usage of a kept answer: all prompt tokens are cached. */
const withCachedUsage = ({ usage, ...rest }: Response): Response => ({
  ...rest,
  usage: { ...usage, cachedTokens: usage.promptTokens }
})

const recordAnswer = (state: RequestTelemetry.RequestState, { finishReason, usage }: Response) => {
  const stats = RequestTelemetry.makeStats(server)
  stats.promptTokens = usage.promptTokens
  stats.finish = { type: "finish", reason: finishReason, usage }
  stats.done = true
  state.stats = stats
  state.failure = undefined
  state.record.answeredBy = server.id
}

type Routed = RoutedRequest<Request>

/** If a cache of the program fails, no answer is kept or found. An answer does not wait until it is kept. */
const guarded = (responses: CachedResponses["Service"], callbacks: GuardedCallbacks): CachedResponses["Service"] => ({
  keep: (request, response) =>
    Effect.contextWith((context: Context.Context<never>) =>
      Effect.sync(() => void callbacks.notify("cached responses", () => responses.keep(request, response), context))
    ),
  recall: (request) =>
    callbacks.runWithin("cached responses", Effect.suspend(() => responses.recall(request)), undefined)
})

const makeRecall = (responses: CachedResponses["Service"]) =>
  Effect.fnUntraced(function*({ request, state }: Routed, error: InferenceError) {
    const { record, startedAt } = state
    if (classify(error.reason).isCallerMistake) return yield* error
    const startedMs = (yield* Time.now) - startedAt
    const found = yield* responses.recall(request)
    const draft: AttemptDraft = { deployment: server.id, startedMs, tookMs: 0, outcome: "failed" }
    record.attempts.push(draft)
    if (found === undefined) {
      draft.error = notCached
      return yield* error
    }
    draft.outcome = "answered"
    draft.firstTokenMs = 0
    const response = withCachedUsage(found)
    recordAnswer(state, response)
    return {
      response,
      by: { deployment: server.id, attempts: record.attempts.length, decision: record.id } satisfies AnsweredBy
    }
  })

const sizeOf = (event: Event): number => {
  switch (event.type) {
    case "text":
      return 2 * (event.text.length + JSON.stringify(event.logprobs ?? "").length)
    case "thoughts":
      return 2 * event.text.length
    case "tool_call":
      return 2 * event.arguments.length
    case "handoff":
      // An answer of two deployments is not kept.
      return Number.POSITIVE_INFINITY
    case "native":
      // Only text and function calls are kept.
      return event.native.hasMore ? Number.POSITIVE_INFINITY : 0
    case "finish":
      return 0
  }
}

/** Passes events on, and keeps the complete answer at the `finish` event if it fits. */
const collect = (
  events: OpenedAnswer["events"],
  answer: AnswerBuilder,
  keep: (response: Response) => Effect.Effect<void>
): OpenedAnswer["events"] => {
  let bytes = 0
  return Stream.mapArrayEffect(events, (some) => {
    for (const event of some) {
      bytes += sizeOf(event)
      if (event.type !== "native" && fits(bytes)) answer.add(event)
    }
    const isKept = some.at(-1)?.type === "finish" && fits(bytes)
    return Effect.as(isKept ? keep(answer.end()) : Effect.void, some)
  })
}

/** The last entry of a model's fallbacks: keeps answers, and returns a kept one when everything else fails. */
export const makeFallback = (provided: CachedResponses["Service"], callbacks: GuardedCallbacks) => {
  const responses = guarded(provided, callbacks)
  const recall = makeRecall(responses)
  const keep = ({ request }: Routed, response: Response) =>
    isWhole(response, request) ? responses.keep(request, response) : Effect.void

  return {
    /** For a buffered answer. */
    buffered: (routed: Routed, answer: Effect.Effect<Answer, InferenceError, Scope.Scope>) =>
      Effect.matchEffect(answer, {
        onSuccess: (given) => {
          const { attempts: _, decision: __, deployment: ___, native = [], ...response } = given
          const isComplete = !native.some(({ hasMore }) => hasMore)
          return Effect.as(isComplete ? keep(routed, response) : Effect.void, given)
        },
        onFailure: (error) => Effect.map(recall(routed, error), ({ by, response }): Answer => ({ ...response, ...by }))
      }),
    /** For a streamed answer. A failure after the first event is not replaced. */
    streamed: (
      routed: Routed,
      makeAnswer: () => AnswerBuilder,
      opened: Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
    ) =>
      Effect.matchEffect(opened, {
        onSuccess: ({ events, ...by }) =>
          Effect.succeed({ ...by, events: collect(events, makeAnswer(), (response) => keep(routed, response)) }),
        onFailure: (error) =>
          Effect.map(
            recall(routed, error),
            ({ by, response }): OpenedAnswer => ({ ...by, events: Stream.fromIterable(eventsOf(response)) })
          )
      })
  }
}

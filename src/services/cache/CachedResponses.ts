/**
 * Earlier answers, returned when no deployment can answer: the last entry of a model's ordinary fallbacks.
 *
 * **Details**
 *
 * A model enables this with the name `cached-responses` at the end of its `fallbacks`. Complete answers of that model are
 * then kept in the response cache. When every deployment fails for a reason that is not the caller's mistake
 * (`FailureClass.classify`), the newest answer to the same request is returned. It is recorded as an attempt of the
 * request, by `cached-responses`, and counts no generated tokens. Models without the entry have no cost.
 *
 * **Gotchas**
 *
 * Two requests are the same if `CacheKey.identifyForFallback` returns the same text: it includes every field that changes
 * the answer, and the tenant, so that no tenant receives another tenant's answer. It leaves the seed out, since an answer
 * with another seed is better than an error.
 */
import { Duration, Effect, Stream } from "effect"
import type { Scope } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { classify } from "../../domain/FailureClass.ts"
import type { Answer, AnsweredBy, Event, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { choicesOf } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { RoutedRequest } from "../inference/RequestTelemetry.ts"
import * as RequestTelemetry from "../inference/RequestTelemetry.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import { addAttempt } from "../routing/DecisionLog.ts"
import { cachedResponses } from "../routing/DecisionRecord.ts"
import { eventsOf, replayOf } from "./CachedAnswer.ts"
import * as CacheKey from "./CacheKey.ts"
import { fits, isWhole, sizeOf } from "./CachePolicy.ts"
import type { AnswerBuilder } from "./FlightReaders.ts"
import type { Found, ResponseCache } from "./ResponseCache.ts"

type Response = Omit<Answer, keyof AnsweredBy>

/** The index of an entry `cached-responses` that is not the last entry; -1 if there is none. */
export const misplaced = (fallbacks: ReadonlyArray<string>): number => {
  const index = fallbacks.indexOf(cachedResponses)
  return index === fallbacks.length - 1 ? -1 : index
}

/** The error detail for a misplaced entry. */
export const onlyLast = `${cachedResponses} may be only the last entry of \`fallbacks\``

const server: RequestTelemetry.Server = { id: cachedResponses, provider: "troupe.cache", model: cachedResponses }

const notCached = { reason: "NotCached", message: "No earlier answer to the same request is kept." }

type Routed = RoutedRequest<Request>

/** What the fallback uses. */
export interface Parts {
  readonly cache: ResponseCache["Service"]
  readonly callbacks: GuardedCallbacks
}

const name = "response cache"

/** If a cache of the program fails, no answer is found. */
const find = ({ cache, callbacks }: Parts, request: Request): Effect.Effect<Found | undefined> =>
  Effect.suspend(() => {
    const key = cache.hash(CacheKey.identifyForFallback(request))
    const found = callbacks.call(name, () => cache.recall(key), undefined)
    return found !== undefined || cache.recallStored === undefined
      ? Effect.succeed(found)
      : callbacks.runWithin(name, Effect.suspend(() => cache.recallStored!(key)), undefined)
  })

/** An answer does not wait until it is kept. */
const keep = ({ cache, callbacks }: Parts, { request, state }: Routed, response: Response): void => {
  const { finishReason: reason, usage } = response
  if (choicesOf(request) > 1 || !isWhole({ reason, usage }, request)) return
  callbacks.notify(name, () =>
    cache.keep(cache.hash(CacheKey.identifyForFallback(request)), {
      model: request.model,
      tenant: request.tenant ?? "",
      deployment: server.id,
      at: state.record.at,
      ttlMs: Duration.toMillis(Defaults.cache.timeToLive),
      events: replayOf(eventsOf(response))
    }), state.context)
}

const makeRecall = (parts: Parts) =>
  Effect.fnUntraced(function*({ request, state }: Routed, error: InferenceError) {
    const { arrivedAt, record } = state
    if (classify(error.reason).isCallerMistake) return yield* error
    const startedMs = (yield* Time.now) - Math.floor(arrivedAt)
    const found = yield* find(parts, request)
    const draft = addAttempt(record, server.id, startedMs)
    draft.tookMs = 0
    draft.outcome = "failed"
    if (found === undefined) {
      draft.error = notCached
      return yield* error
    }
    draft.outcome = "answered"
    draft.firstTokenMs = 0
    const { ageMs, answer: { events }, key, tier } = found
    RequestTelemetry.recordReplay(state, server.id, events.at(-1)!)
    return {
      events,
      by: {
        deployment: server.id,
        attempts: record.attempts.length,
        decision: record.id,
        cache: { result: "hit", tier, ageMs, key }
      } satisfies AnsweredBy
    }
  })

/** Only text and function calls are kept, and answers of one deployment. */
const isKept = (event: Event): boolean => event.type === "native" ? !event.native.hasMore : event.type !== "handoff"

/** Passes events on, and keeps the complete answer at the `finish` event if it fits. */
const collect = (
  events: OpenedAnswer["events"],
  answer: AnswerBuilder,
  keep: (response: Response) => void
): OpenedAnswer["events"] => {
  let bytes = 0
  return Stream.mapArray(events, (some) => {
    for (const event of some) {
      bytes += isKept(event) ? event.type === "native" ? 0 : sizeOf(event) : Number.POSITIVE_INFINITY
      if (event.type !== "native" && fits(bytes)) answer.add(event)
    }
    if (some.at(-1)?.type === "finish" && fits(bytes)) keep(answer.end())
    return some
  })
}

/** The last entry of a model's fallbacks: keeps answers, and returns a kept one when everything else fails. */
export const makeFallback = (parts: Parts) => {
  const recall = makeRecall(parts)
  return {
    /** For a buffered answer. */
    buffered: (
      routed: Routed,
      makeAnswer: () => AnswerBuilder,
      answer: Effect.Effect<Answer, InferenceError, Scope.Scope>
    ) =>
      Effect.matchEffect(answer, {
        onSuccess: (given) =>
          Effect.sync(() => {
            const { attempts: _, decision: __, deployment: ___, native = [], ...response } = given
            if (!native.some(({ hasMore }) => hasMore)) keep(parts, routed, response)
            return given
          }),
        onFailure: (error) =>
          Effect.map(recall(routed, error), ({ by, events }): Answer => {
            const answer = makeAnswer()
            for (const event of events) answer.add(event)
            return { ...answer.end(), ...by }
          })
      }),
    /** For a streamed answer. A failure after the first event is not replaced. */
    streamed: (
      routed: Routed,
      makeAnswer: () => AnswerBuilder,
      opened: Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
    ) =>
      Effect.matchEffect(opened, {
        onSuccess: ({ events, ...by }) =>
          Effect.succeed({
            ...by,
            events: collect(events, makeAnswer(), ({ native: _, ...response }) => keep(parts, routed, response))
          }),
        onFailure: (error) =>
          Effect.map(
            recall(routed, error),
            ({ by, events }): OpenedAnswer => ({ ...by, events: Stream.fromIterable(events) })
          )
      })
  }
}

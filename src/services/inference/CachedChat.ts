/**
 * Chat completions of models with a cache: kept answers, shared calls, and calls whose answers are kept.
 *
 * **Details**
 *
 * A request for which memory has an answer is answered at once, without a route. Others follow a shared call: the first
 * begins it, and those that ask for the same meanwhile join. The call is no part of any of them: it ends early only if all
 * have left. The telemetry of the first request is that of the call; the others have records of their own and generate
 * nothing.
 */
import type { Fiber, Scope } from "effect"
import { Clock, Effect, Exit, Pull, Stream } from "effect"
import type { CacheUse } from "../../domain/CacheControl.ts"
import type { Model } from "../../domain/Deployment.ts"
import type { Answer, AnsweredBy, AnswerSink, OpenedAnswer, Request } from "../../domain/Inference.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import type { CachedAnswer } from "../cache/CachedAnswer.ts"
import { eventsOf, replayOf } from "../cache/CachedAnswer.ts"
import type { Lookup } from "../cache/CacheLookup.ts"
import { CacheLookup } from "../cache/CacheLookup.ts"
import * as CachePolicy from "../cache/CachePolicy.ts"
import * as CacheUpkeep from "../cache/CacheUpkeep.ts"
import type { Reader } from "../cache/Flight.ts"
import type { Resume } from "../cache/FlightReaders.ts"
import { PullReader, SinkReader, WholeReader } from "../cache/FlightReaders.ts"
import type { Found } from "../cache/ResponseCache.ts"
import { ResponseCache } from "../cache/ResponseCache.ts"
import { Registry } from "../models/Registry.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import { Metrics } from "../observability/Metrics.ts"
import { bounded } from "../observability/RequestMetrics.ts"
import { Router } from "../routing/Router.ts"
import type { Chat } from "./Chat.ts"
import { chatAttributes, routingOf } from "./Chat.ts"
import { makeAnswer } from "./DirectAnswer.ts"
import type { Pipeline } from "./Pipeline.ts"
import { isChecked, validated } from "./Pipeline.ts"
import type { RequestState } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"
import { answeredFrom, Follower, SharedCall } from "./SharedCall.ts"
import { SimilarQuestions } from "./SimilarQuestions.ts"
import * as Tasks from "./Tasks.ts"
import * as Validation from "./Validation.ts"

interface Parts {
  readonly cache: ResponseCache["Service"]
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  /** Without a cache. */
  readonly chat: Chat
  readonly clock: Clock.Clock
  readonly lookup: CacheLookup
  readonly metrics: Metrics["Service"]
  readonly pipeline: Pipeline
  /** Undefined if no model has answers to similar requests. */
  readonly similar: SimilarQuestions | undefined
}

type RequestFiber = Fiber.Fiber<unknown, unknown>

/** A request on its way to an answer of the cache. */
interface Asked {
  readonly fiber: RequestFiber
  readonly request: Request
  readonly found: Lookup
}

const name = "response cache"

const bypass: CacheUse = { result: "bypass" }

const hitOf = ({ ageMs, key, tier }: Found): Extract<CacheUse, { result: "hit" }> => ({
  result: "hit",
  tier,
  ageMs,
  key
})

/** The sink of an answer to which the cache does not apply. */
class BypassSink implements AnswerSink {
  readonly #sink: AnswerSink

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  begin(by: AnsweredBy): void {
    this.#sink.begin({ ...by, cache: bypass })
  }

  events(...given: Parameters<AnswerSink["events"]>): boolean {
    return this.#sink.events(...given)
  }

  whenDrained(callback: () => void): void {
    this.#sink.whenDrained(callback)
  }
}

/** Answers from memory, and through shared calls. */
class CachedChat {
  readonly #parts: Parts
  /** The calls that requests may join. Replaced when it is empty: the tables of a map keep alive what passed through. */
  #calls = new Map<string, SharedCall>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  count(model: string, use: CacheUse): void {
    const { callbacks, metrics } = this.#parts
    callbacks.call("metrics", () => metrics.cached?.(model, use), undefined)
  }

  /** The answer in memory, if it is not too old for the request. */
  recall({ key, maxAgeMs }: Lookup): Found | undefined {
    if (maxAgeMs === undefined) return undefined
    const { cache, callbacks } = this.#parts
    const found = callbacks.call(name, () => cache.recall(key), undefined)
    return found !== undefined && found.ageMs <= maxAgeMs ? found : undefined
  }

  /** Answers with a kept answer, at once. */
  replay<A>(
    asked: Asked,
    found: Found,
    give: (by: AnsweredBy, answer: CachedAnswer) => A
  ): Effect.Effect<A, InferenceError> {
    const use = hitOf(found)
    const state = this.#begin(asked, use)
    if (state instanceof InferenceError) return Effect.fail(state)
    const { deployment, events } = found.answer
    RequestTelemetry.recordReplay(state, deployment, events.at(-1)!)
    this.#complete(state)
    return Effect.sync(() => give(answeredFrom(deployment, state, use), found.answer))
  }

  /**
   * Follows the call for the same request, or begins it.
   *
   * @param buffered whether a call that begins may be answered in one piece
   */
  follow<A>(
    asked: Asked,
    buffered: boolean,
    makeReader: (call: SharedCall, follower: Follower, resume: Resume<A>) => Reader
  ): Effect.Effect<A, InferenceError> {
    let follower: Follower | undefined
    const answered = Effect.callback<A, InferenceError>((resume) => {
      const joined = this.join(asked, buffered)
      if (joined instanceof InferenceError) return resume(Effect.fail(joined))
      follower = joined.follower
      const reader = makeReader(joined.call, follower, resume)
      joined.call.follow(reader, asked.fiber.context)
      return joined.call.leave(reader)
    })
    return Effect.onExitPrimitive(answered, () => {
      if (follower !== undefined) this.end(follower)
      return undefined
    })
  }

  /** The call that runs for the same request, or a new one. */
  join(
    asked: Asked,
    buffered: boolean
  ): { readonly call: SharedCall; readonly follower: Follower } | InferenceError {
    const { found, request } = asked
    const { key } = found
    // Another virtual key has other limits and budgets.
    const id = `${key} ${request.identity?.keyId ?? ""}`
    const running = found.joins ? this.#calls.get(id) : undefined
    if (running !== undefined) {
      const use: CacheUse = { result: "hit", tier: "flight", ageMs: 0, key }
      const state = this.#begin(asked, use)
      if (state instanceof InferenceError) return state
      return { call: running, follower: new Follower(running.flight, use, state) }
    }
    const call: SharedCall = new SharedCall(this.#now(), {
      run: () => this.#run(asked, call, follower, buffered),
      closed: () => this.#close(id, call),
      ended: (ending) => {
        if (Exit.isSuccess(ending)) this.#keep(asked, call)
      }
    })
    const follower = new Follower(call.flight, { result: "miss", key })
    if (found.joins) this.#calls.set(id, call)
    return { call, follower }
  }

  /** Completes the telemetry of a request that followed a call. */
  end({ state }: Follower): void {
    if (state !== undefined) this.#complete(state)
  }

  #now(): number {
    return this.#parts.clock.currentTimeMillisUnsafe()
  }

  /** Begins a request that calls no deployment, unless its limits reject it. */
  #begin({ fiber, found: { model }, request }: Asked, use: CacheUse): RequestState | InferenceError {
    const { pipeline } = this.#parts
    const begun = pipeline.beginAnswered(fiber, model, request, () => chatAttributes(request))
    if ("error" in begun) return begun.error
    const { state } = begun
    this.count(model.name, use)
    if (use.result === "hit") state.record.cache = use.tier
    return state
  }

  #complete(state: RequestState): void {
    this.#parts.pipeline.complete("chat", state)
  }

  #close(id: string, call: SharedCall): void {
    if (this.#calls.get(id) !== call) return
    this.#calls.delete(id)
    if (this.#calls.size === 0) this.#calls = new Map()
  }

  /** Looks into the store and for similar requests, then calls a deployment. */
  #run(asked: Asked, call: SharedCall, follower: Follower, buffered: boolean): Effect.Effect<void, InferenceError> {
    const { cache, callbacks, similar } = this.#parts
    const { found: { key, maxAgeMs, settings } } = asked
    const called = Effect.suspend(() => {
      this.count(asked.request.model, follower.use)
      return this.#call(asked.request, call, buffered)
    })
    if (maxAgeMs === undefined) return called
    const otherwise = similar === undefined || settings.semantic === undefined
      ? called
      : this.#orSimilar(similar, asked, call, follower, called)
    if (cache.recallStored === undefined) return otherwise
    const recalled = callbacks.runWithin(name, Effect.suspend(() => cache.recallStored!(key)), undefined)
    return Effect.flatMap(
      recalled,
      (found) =>
        found === undefined || found.ageMs > maxAgeMs
          ? otherwise
          : this.#give(asked, call, follower, found, hitOf(found))
    )
  }

  /** Gives the answer to a similar request, if there is one. */
  #orSimilar(
    similar: SimilarQuestions,
    { fiber, found: lookup, request }: Asked,
    call: SharedCall,
    follower: Follower,
    called: Effect.Effect<void, InferenceError>
  ): Effect.Effect<void, InferenceError> {
    const { callbacks } = this.#parts
    return Effect.flatMap(similar.ask(request, lookup), (asked) => {
      call.asked = asked
      if (asked === undefined) return called
      const nearest = callbacks.runWithin(name, similar.find(asked, lookup, request.tenant ?? ""), undefined)
      return Effect.flatMap(nearest, (near) => {
        if (near === undefined || near.found.ageMs > lookup.maxAgeMs!) return called
        const { found, similarity } = near
        const use: CacheUse = { ...hitOf(found), tier: "semantic", similarity }
        return this.#give({ fiber, found: lookup, request }, call, follower, found, use)
      })
    })
  }

  /** Answers the call with a kept answer. */
  #give(
    asked: Asked,
    call: SharedCall,
    follower: Follower,
    found: Found,
    use: Extract<CacheUse, { result: "hit" }>
  ): Effect.Effect<void, InferenceError> {
    call.found = found
    follower.use = use
    const state = this.#begin(asked, use)
    if (state instanceof InferenceError) return Effect.fail(state)
    follower.state = state
    const { deployment, events } = found.answer
    call.flight.begin(answeredFrom(deployment, state, use))
    call.flight.events(events)
    return Effect.void
  }

  #call(request: Request, { flight }: SharedCall, buffered: boolean): Effect.Effect<void, InferenceError> {
    const { chat } = this.#parts
    if (!buffered) return chat.deliver(request, flight)
    return Effect.map(chat.generate(request), ({ admitted, attempts, decision, deployment, ...response }) => {
      flight.begin({ attempts, decision, deployment, ...(admitted === undefined ? {} : { admitted }) })
      flight.events(eventsOf(response))
    })
  }

  /** Keeps the answer of a call if it is complete. */
  #keep({ fiber, found, request }: Asked, call: SharedCall): void {
    const { at, flight, found: stored } = call
    const key = flight.by && found.keyOf(flight.by.deployment)
    if (key === undefined || stored !== undefined || !flight.isWhole) return
    const events = flight.from(0)
    const { cache, callbacks } = this.#parts
    if (!CachePolicy.isKept(events, request)) return
    const { deployment } = flight.by!
    const { model: { name: model }, settings: { ttlMs } } = found
    const tenant = request.tenant ?? ""
    const answer: CachedAnswer = { model, tenant, deployment, at, ttlMs, events: replayOf(events) }
    callbacks.notify(name, () => cache.keep(key, answer), fiber.context)
    this.#keepQuestion(found, call, key, answer)
  }

  /** Lets similar requests find the answer, if its question was embedded. */
  #keepQuestion({ weightsOf }: Lookup, { asked }: SharedCall, key: string, answer: CachedAnswer): void {
    const { callbacks, similar } = this.#parts
    if (asked === undefined || similar === undefined) return
    const { at, deployment, events, model, tenant, ttlMs } = answer
    const weights = weightsOf(deployment)!
    const left = ttlMs - (this.#now() - at)
    callbacks.call(name, () => similar.keep(asked, { model, tenant, weights }, { events, key, ttlMs: left }), undefined)
  }
}

const openedFrom = (cached: CachedChat, asked: Asked): Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope> =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.suspend(() => {
        const joined = cached.join(asked, false)
        if (joined instanceof InferenceError) return Effect.fail(joined)
        const { call, follower } = joined
        const reader = new PullReader(call.flight, follower)
        call.follow(reader, asked.fiber.context)
        return Effect.succeed({ call, follower, reader })
      }),
      ({ call, follower, reader }) => Effect.andThen(call.leave(reader), Effect.sync(() => cached.end(follower)))
    ),
    ({ follower, reader: { pull } }) =>
      Effect.map(
        // A call that ends without an event has failed.
        Pull.catchDone(pull, () => Effect.never),
        (first): OpenedAnswer => ({
          ...follower.answeredBy(),
          events: Stream.concat(Stream.fromIterable(first), Stream.fromPull(Effect.succeed(pull)))
        })
      )
  )

/** The answer to a request that uses the cache. */
type Answered<A, R> = (asked: Asked) => Effect.Effect<A, InferenceError, R>

const generated = (cached: CachedChat): Answered<Answer, never> => (asked) => {
  const recalled = cached.recall(asked.found)
  if (recalled === undefined) {
    return cached.follow<Answer>(
      asked,
      true,
      ({ flight }, follower, resume) => new WholeReader(flight, follower, makeAnswer(), resume)
    )
  }
  return cached.replay(asked, recalled, (by, { events }) => {
    const answer = makeAnswer()
    for (const event of events) answer.add(event)
    return { ...answer.end(), ...by }
  })
}

const delivered = (cached: CachedChat, sink: AnswerSink): Answered<void, never> => (asked) => {
  const recalled = cached.recall(asked.found)
  if (recalled === undefined) {
    return cached.follow<void>(
      asked,
      false,
      ({ flight }, follower, resume) => new SinkReader(flight, follower, sink, resume)
    )
  }
  return cached.replay(asked, recalled, (by, { events }) => {
    sink.begin(by)
    sink.events(events)
  })
}

const opened = (cached: CachedChat): Answered<OpenedAnswer, Scope.Scope> => (asked) => {
  const recalled = cached.recall(asked.found)
  if (recalled === undefined) return openedFrom(cached, asked)
  return cached.replay(asked, recalled, (by, { events }) => ({ ...by, events: Stream.fromIterable(events) }))
}

/** Requests that a dialect has not checked are checked before they are looked up. */
const withChecked = <A, R>(
  input: Request,
  answer: (request: Request) => Effect.Effect<A, InferenceError, R>
): Effect.Effect<A, InferenceError, R> =>
  isChecked(input) ? answer(input) : Effect.flatMap(validated(input, Validation.chat), answer)

/** Chat completions with the cache, for the models that have one. */
const withCache = (cached: CachedChat, { chat, lookup }: Parts): Chat => {
  const answer = <A, R>(
    input: Request,
    through: Answered<A, R>,
    past: (request: Request) => Effect.Effect<A, InferenceError, R>
  ): Effect.Effect<A, InferenceError, R> =>
    withChecked(input, (request) =>
      Effect.withFiber((fiber) => {
        const found = lookup.of(request)
        if (found !== undefined) return through({ fiber, request, found })
        cached.count(request.model, bypass)
        return past(request)
      }))
  const generate = generated(cached)
  const open = opened(cached)
  const bypassed = <A extends AnsweredBy>(answer: A): A => ({ ...answer, cache: bypass })
  return {
    generate: (input) =>
      lookup.applies(input)
        ? answer(input, generate, (request) => Effect.map(chat.generate(request), bypassed))
        : chat.generate(input),
    deliver: (input, sink) =>
      lookup.applies(input)
        ? answer(input, delivered(cached, sink), (request) => chat.deliver(request, new BypassSink(sink)))
        : chat.deliver(input, sink),
    open: (input) =>
      lookup.applies(input)
        ? answer(input, open, (request) => Effect.map(chat.open(request), bypassed))
        : chat.open(input)
  }
}

/** Which caches models have. */
export type Caches = "none" | "exact" | "semantic"

const byMuch: ReadonlyArray<Caches> = ["semantic", "exact", "none"]

/** The one of the two that has more. */
export const most = (one: Caches, other: Caches): Caches => byMuch.find((caches) => caches === one || caches === other)!

export const cachesOf = (models: ReadonlyArray<Model>): Caches => {
  if (models.some(({ cache }) => cache?.semantic !== undefined)) return "semantic"
  return models.some(({ cache }) => cache !== undefined) ? "exact" : "none"
}

/** Adds the cache to chat completions if a model has one. */
export const make = Effect.fnUntraced(function*(pipeline: Pipeline, chat: Chat, caches: Caches) {
  const cache = yield* ResponseCache
  const registry = yield* Registry
  if (caches === "none") return chat
  const lookup = new CacheLookup({ cache, registry, router: yield* Router, routingOf })
  yield* CacheUpkeep.run(cache, lookup)
  const parts: Parts = {
    cache,
    callbacks: yield* GuardedCallbacks.make,
    chat,
    clock: yield* Clock.Clock,
    lookup,
    metrics: bounded(yield* Metrics, registry),
    pipeline,
    similar: caches === "semantic" && cache.similar !== undefined
      ? new SimilarQuestions(cache, cache.similar, Tasks.embedChecked(pipeline))
      : undefined
  }
  return withCache(new CachedChat(parts), parts)
})

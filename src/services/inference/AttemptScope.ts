/**
 * One attempt, from the admission by its deployment's circuit to the end of its scope: it is measured and recorded, has the
 * time limits of its policy, and leases an engine.
 */
import type { Cause } from "effect"
import { Context, Deferred, Effect, Exit, Result, Scope } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import type { LatencySample } from "../../domain/Measurement.ts"
import type { Message } from "../../domain/Message.ts"
import * as Money from "../../domain/Money.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import * as SignedReasoning from "../../domain/SignedReasoning.ts"
import type { Source } from "../../domain/Source.ts"
import { dialectOf } from "../../domain/Source.ts"
import type { Ticket, UsedTokens } from "../admission/Admission.ts"
import { free } from "../admission/Admission.ts"
import type { Engine, EventReceiver, StartedAnswer } from "../engines/Engine.ts"
import type { Breaker, ClosedCall } from "../health/Breaker.ts"
import type { Ending } from "../health/Circuit.ts"
import { endingOf } from "../health/Circuit.ts"
import type { ObservedAttempt } from "../models/ConcurrencyLimiter.ts"
import type { Slot } from "../models/Lease.ts"
import type { Models } from "../models/Models.ts"
import type { Waits } from "../models/Waits.ts"
import { RequestWaits } from "../models/Waits.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { Metrics } from "../observability/Metrics.ts"
import { Content } from "../observability/TraceContent.ts"
import type { Start } from "../resilience/AttemptPlan.ts"
import * as Deadlines from "../resilience/Deadlines.ts"
import type { Watch, WatchedAttempt } from "../resilience/DeadlineWatch.ts"
import type { TrialAttempt } from "../rollout/Split.ts"
import type { AttemptDraft } from "../routing/DecisionLog.ts"
import { addAttempt } from "../routing/DecisionLog.ts"
import type { Route } from "../routing/Route.ts"
import { listsOf } from "../routing/Route.ts"
import type { Router } from "../routing/Router.ts"
import type { ReasoningMakers } from "./ReasoningMakers.ts"
import * as RecordedFailure from "./RecordedFailure.ts"
import type { AttemptStats, RequestState, RoutedRequest } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"
import * as TaskBatcher from "./TaskBatcher.ts"

/** An attempt that its deployment's circuit has admitted. */
export interface AttemptContext {
  readonly deployment: Deployment
  /** The caller, with low priority if the plan says so. */
  readonly caller: Caller
  /** What the plan changes about the request. */
  readonly start: Start
  /** Leases the engine with a slot, within the queue's time limit. */
  readonly lease: Effect.Effect<Engine, InferenceError, Scope.Scope>
  readonly deadlines: Deadlines.Deadlines
  readonly stats: AttemptStats
  /**
   * Enters the attempt's slot, which the engine has granted: fails with `CircuitOpen` if the circuit has opened while the
   * attempt waited. `lease` includes it.
   */
  readonly admit: Effect.Effect<void, InferenceError, Scope.Scope>
  /** Called when the first content has arrived. */
  readonly content: () => void
  /** The signed reasoning of earlier answers that the deployment must not get. */
  readonly loss: SignedReasoning.Loss | undefined
  /** A time limit or another attempt ended it, not the caller. */
  superseded: boolean
}

/** Completes the record of an attempt. */
const completeRecord = (draft: AttemptDraft, exit: Exit.Exit<unknown, InferenceError>, tookMs: number): void => {
  draft.tookMs = tookMs
  draft.outcome = Exit.isSuccess(exit) ? "answered" : "left"
  if (Exit.isSuccess(exit)) return
  draft.error = RecordedFailure.ofAttempt(exit)
  if (draft.error !== undefined) draft.outcome = "failed"
}

/** A time limit that ends an attempt before it has a slot does not count against the deployment. */
const withoutQueueTimeout = ({ granted }: AttemptStats, ending: Ending): Ending =>
  !granted && ending.reason?._tag === "UpstreamTimeout" ? { ...ending, verdict: "left" } : ending

export interface Parts {
  readonly breaker: Breaker["Service"]
  readonly callbacks: GuardedCallbacks
  readonly makers: Pick<ReasoningMakers, "makerIn" | "note"> & Partial<Pick<ReasoningMakers, "recall">>
  readonly metrics: Metrics["Service"]
  readonly models: Models["Service"]
  readonly router: Router["Service"]
  readonly watch: Watch
  /** monotonic ms */
  readonly now: () => number
  /** The same with fractions. */
  readonly precise: () => number
}

const measurementsName = "router's measurements"
const noSample: LatencySample = { granted: () => {}, content: () => {}, end: () => {} }

/**
 * Whether no other deployment can take the request. Fallbacks for long prompts and refused content do not count: they do not
 * replace a deployment that is not available.
 */
export const isAlone = ({ alone, deployments, fallbacks: { ordinary } }: Route): boolean =>
  alone === true || deployments.length + ordinary.length === 1

/** Whether the limit of the deployment's concurrency follows what is measured. */
const isAdaptive = ({ options }: Deployment): boolean =>
  options.engine === "remote" && typeof options.maxConcurrent === "object"

type Reasoned = Caller & SignedReasoning.Request

/** The content to capture; undefined where its capture is off. */
const contentOf = ({ request, state: { trace } }: RoutedRequest<Reasoned>): Content | undefined =>
  trace?.capturesContent === true && request.messages !== undefined
    ? new Content(request.messages as ReadonlyArray<Message>)
    : undefined

/** What another instance of this service tells where the request waits there; undefined: its caller does not ask. */
const waitsOf = ({ isTroupe }: RequestTelemetry.Server, { context }: RequestState): Waits | undefined =>
  isTroupe === true ? Context.get(context, RequestWaits) : undefined

const statsOf = ({ makers }: Parts, routed: RoutedRequest<Reasoned>, deployment: Deployment): AttemptStats => {
  const server = RequestTelemetry.serverOf(deployment)
  const stats = RequestTelemetry.makeStats(server, makers)
  const { trace } = routed.state
  const waits = waitsOf(server, routed.state)
  if (trace !== undefined) stats.trace = trace.attempt(deployment, contentOf(routed))
  if (waits !== undefined) stats.waits = waits
  return stats
}

/** Whether a request may have signed reasoning: one that a dialect has checked has it in unknown fields only. */
const mayHaveSigned = ({ messages = [], source }: Reasoned): boolean =>
  source?.unknownFields !== undefined || source?.responses !== undefined ||
  (source?.isChecked !== true && messages.some(({ reasoning }) => reasoning !== undefined))

const none: ReadonlyArray<Deployment> = []

const lossAt = (
  { makers }: Parts,
  request: Reasoned,
  deployment: Deployment,
  tried: ReadonlyArray<Deployment>
): SignedReasoning.Loss | undefined =>
  mayHaveSigned(request)
    ? SignedReasoning.lossOf(request, deployment, tried, (mark) => makers.makerIn(mark))
    : undefined

/** Whether a deployment of the route may get the caller's own body. */
const mayPassOn = (route: Route, { dialect }: Source): boolean =>
  listsOf(route).some((list) => list.some(({ options }) => dialectOf(options) === dialect))

/**
 * Asks for the makers of the request's signed reasoning, before its first attempt; undefined: there is nothing to ask. The record
 * says where there was no answer.
 */
export const recallOf = (
  { makers }: Parts,
  { request, route, state }: RoutedRequest<Caller & Pick<SignedReasoning.Request, "source">>
): Effect.Effect<void> | undefined => {
  if (request.source?.unknownFields === undefined) return undefined
  const recalled = makers.recall?.(request)
  return recalled === undefined || !mayPassOn(route, request.source)
    ? undefined
    : Effect.map(recalled, (hasAnswered) => {
      if (!hasAnswered) state.record.makersUnavailable = true
    })
}

/** The record and the measurement of an attempt. */
class Entry {
  readonly stats: AttemptStats
  readonly #parts: Parts
  readonly #deployment: Deployment
  readonly #draft: AttemptDraft
  readonly #sample: LatencySample
  readonly #state: RequestState
  readonly #trial: TrialAttempt | undefined
  #observed: ObservedAttempt | undefined
  /** When its latest chunk has arrived, monotonic ms with fractions; 0 before the first. */
  #chunkAt = 0
  /** Gets the time between chunks; undefined before the second. */
  #chunks: ((seconds: number) => void) | undefined
  /** monotonic ms */
  readonly startedAt: number

  constructor(
    parts: Parts,
    { route, state }: RoutedRequest,
    deployment: Deployment,
    stats: AttemptStats,
    hedge: boolean
  ) {
    const { callbacks, precise, router } = parts
    const { id } = deployment
    this.#parts = parts
    this.#deployment = deployment
    this.#state = state
    this.stats = stats
    const at = precise()
    state.attemptedAt ??= at
    this.startedAt = Math.floor(at)
    this.#draft = addAttempt(state.record, id, this.startedAt - Math.floor(state.arrivedAt), hedge || undefined)
    this.#sample = callbacks.call(measurementsName, () => router.measure(id, route), noSample)
    this.#trial = route.trial?.attempt(this.startedAt)
  }

  /** What of the request's signed reasoning must not go to the deployment; the record says so. */
  lossOf({ request, route }: RoutedRequest<Reasoned>, unsigned = false): SignedReasoning.Loss | undefined {
    if (!mayHaveSigned(request)) return undefined
    if (unsigned) return this.lose(SignedReasoning.wholeLoss(request))
    const all = listsOf(route).flat()
    const earlier = this.#state.record.attempts.slice(0, this.#state.record.attempts.indexOf(this.#draft))
    const tried = earlier.flatMap(({ deployment }) => all.find(({ id }) => id === deployment) ?? [])
    return this.lose(lossAt(this.#parts, request, this.#deployment, tried))
  }

  lose(loss: SignedReasoning.Loss | undefined): SignedReasoning.Loss | undefined {
    if (loss !== undefined) this.#draft.reasoningDropped = true
    return loss
  }

  granted(): void {
    if (this.stats.granted) return
    this.stats.granted = true
    this.stats.grantedMs = this.#parts.now() - this.startedAt
    this.#draft.grantedMs = this.stats.grantedMs
    this.stats.trace?.granted()
    this.#parts.callbacks.call(measurementsName, () => this.#sample.granted(), undefined)
    this.#trial?.granted(this.#parts.now())
    if (isAdaptive(this.#deployment)) this.#observed = this.#parts.models.observe?.(this.#deployment.id)
  }

  /** A chunk of the answer has arrived. Whether it is the first content. */
  content(): boolean {
    const { callbacks, precise } = this.#parts
    const at = precise()
    const since = this.#chunkAt
    this.#chunkAt = at
    if (since !== 0) {
      this.#chunks ??= RequestTelemetry.chunksOf(this.#parts, this.#state.record, this.stats)
      this.#chunks((at - since) / 1000)
      return false
    }
    const now = Math.floor(at)
    this.#draft.firstTokenMs = now - this.startedAt
    callbacks.call(measurementsName, () => this.#sample.content(), undefined)
    this.#trial?.content(now)
    this.#observed?.content(now)
    return true
  }

  /** Ends both, as the statistics say. */
  end(): Ending {
    const exit = RequestTelemetry.exitOf(this.stats)
    const ending = this.circuitEnding(withoutQueueTimeout(this.stats, endingOf(exit)))
    this.#complete(exit, ending)
    return ending
  }

  /** What it means for the circuit: a check before a deployment gets requests does not count against it. */
  circuitEnding(ending: Ending): Ending {
    const { check } = this.#state.record
    return check === "health" && ending.verdict === "failure" ? { ...ending, verdict: "left" } : ending
  }

  /** Ends both for a call that the circuit refused. */
  refused(cause: Cause.Cause<InferenceError>): void {
    this.#complete(Exit.failCause(cause), { verdict: "left" })
  }

  #complete(exit: Exit.Exit<unknown, InferenceError>, ending: Ending): void {
    const { callbacks, precise } = this.#parts
    const { finish, tokens } = this.stats
    const at = precise()
    const now = Math.floor(at)
    this.#state.leftAt = at
    callbacks.call(measurementsName, () => this.#sample.end(ending.verdict, tokens), undefined)
    this.#trial?.end({ ...ending, tokens, finish: finish?.reason }, now)
    this.#observed?.end({ ...ending, tokens }, now)
    const tookMs = now - this.startedAt
    completeRecord(this.#draft, exit, tookMs)
    this.#draft.skippedEvents = this.stats.skippedEvents
    RequestTelemetry.recordAttempt(this.#parts, this.#state.record, this.stats, this.#draft)
    const { trace } = this.stats
    if (trace !== undefined) RequestTelemetry.endAttempt(trace, this.stats, this.#draft, exit)
    const used = RequestTelemetry.usedBy(this.stats, this.#draft.firstTokenMs !== undefined)
    if (used !== undefined) this.#pay(used, tookMs)
  }

  /** Charges what the attempt has used, and adds its cost to the record. */
  #pay(used: UsedTokens, tookMs: number): void {
    const { record, ticket } = this.#state
    // Counting tokens is free, which accounts know by themselves.
    if (ticket === free && record.operation === "tokenize") return
    const nano = ticket === free ? this.#costOf(used) : this.#charge(ticket, used, tookMs)
    if (nano === undefined) {
      this.#state.unpriced++
      this.#draft.isUnpriced = true
    } else {
      this.#state.cost += nano
      this.#draft.usd = nano === 0 ? 0 : Money.usdOf(nano)
    }
  }

  /** Without accounts, the record has the cost all the same; undefined: unknown. */
  #costOf({ usage }: UsedTokens): Money.Nano | undefined {
    const price = this.stats.server?.price
    const { promptTokens } = usage
    return price && promptTokens !== undefined ? Money.costOf(price, { ...usage, promptTokens }) : undefined
  }

  /** An answer without usage counts what was seen of it. */
  #charge(ticket: Ticket, { isEstimated, usage }: UsedTokens, tookMs: number): Money.Nano | undefined {
    const { record } = this.#state
    return this.#parts.callbacks.call("admission", () => {
      const attempt = record.attempts.indexOf(this.#draft)
      return ticket.charge({ deployment: this.#deployment, decision: record.id, attempt, usage, isEstimated, tookMs })
    }, undefined)
  }
}

/** Enters the deployment's circuit; fails with `CircuitOpen`. */
const makeEnter = (parts: Parts) => {
  const { breaker } = parts
  return Effect.fnUntraced(function*(routed: RoutedRequest, deployment: Deployment, start: Start) {
    const { id } = deployment
    const entry = new Entry(parts, routed, deployment, statsOf(parts, routed, deployment), start.hedge)
    const alone = start.alone === true || isAlone(routed.route)
    let circuitContent = yield* Effect.tapCause(
      breaker.enter(id, () => entry.end(), alone),
      (cause) => Effect.sync(() => entry.refused(cause))
    )
    const openings = breaker.openings(id)
    const ending = () => entry.circuitEnding(endingOf(RequestTelemetry.exitOf(entry.stats)))
    return {
      entry,
      content: () => {
        if (entry.content()) circuitContent()
      },
      /** Enters again if the circuit has opened while this attempt waited for a slot. */
      enterAgain: Effect.suspend(() =>
        breaker.openings(id) === openings
          ? Effect.void
          : Effect.map(breaker.enter(id, ending, alone), (entered) => {
            circuitContent = entered
          })
      )
    }
  }, Effect.uninterruptible)
}

const noDeadlines: Deadlines.Deadlines = {}

const hasDeadlines = ({ firstTokenMs, queueMs, stallMs, totalMs }: Policy["timeouts"]): boolean =>
  queueMs !== undefined || firstTokenMs !== undefined || stallMs !== undefined || totalMs !== undefined

/** The effect within a time limit; undefined: none. */
export const within = <A, E, R>(
  limit: Deadlines.Limit | undefined,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | InferenceError, R> => limit === undefined ? effect : limit(effect)

/** Opens attempts in the scope; fails with `CircuitOpen`. */
export const make = (parts: Parts) => {
  const { models, now } = parts
  const enter = makeEnter(parts)
  return Effect.fnUntraced(
    function*(routed: RoutedRequest, deployment: Deployment, start: Start, deadline: number | undefined) {
      const { request, route, state } = routed
      const { content, enterAgain, entry } = yield* enter(routed, deployment, start)
      const { stats } = entry
      state.stats = stats
      const caller: Caller = start.lowPriority ? { ...request, priority: "low" } : request
      const { timeouts } = route.policy
      const onLimit = () => {
        context.superseded = true
      }
      const deadlines = hasDeadlines(timeouts)
        ? Deadlines.make(deployment.id, timeouts, { deadline, now, onLimit })
        : noDeadlines
      const admit = Effect.map(enterAgain, () => entry.granted())
      const leased = Effect.tap(models.lease(deployment, caller, () => context.superseded), () => admit)
      const context: AttemptContext = {
        deployment,
        caller,
        start,
        lease: within(deadlines.queue, leased),
        deadlines,
        stats,
        admit,
        content,
        loss: entry.lossOf(routed, start.unsigned),
        superseded: false
      }
      return context
    }
  )
}

const noLease: AttemptContext["lease"] = Effect.die(new Error("The attempt has its slot already."))

/** An attempt that a receiver follows. */
export class DirectAttempt {
  readonly deployment: Deployment
  readonly answer: StartedAnswer
  readonly stats: AttemptStats
  /** monotonic ms */
  readonly startedAt: number
  readonly #entry: Entry
  readonly #call: ClosedCall
  readonly #slot: Slot
  /** Undefined without time limits. */
  #watched: WatchedAttempt | undefined
  #isOver = false

  constructor(deployment: Deployment, answer: StartedAnswer, entry: Entry, call: ClosedCall, slot: Slot) {
    this.deployment = deployment
    this.answer = answer
    this.stats = entry.stats
    this.startedAt = entry.startedAt
    this.#entry = entry
    this.#call = call
    this.#slot = slot
  }

  /** Ends the answer when a time limit is reached; the receiver gets the error. */
  limit(watch: Watch, timeouts: Policy["timeouts"], receiver: EventReceiver): void {
    this.#watched = watch(this.deployment.id, timeouts, this.startedAt, (error) => {
      this.answer.close()
      receiver.failed(error)
    })
  }

  /** Called when events have arrived. */
  received(): void {
    this.#watched?.received()
  }

  /** The reader is slow. */
  pause(): void {
    this.#watched?.pause()
    this.answer.pause()
  }

  resume(): void {
    this.#watched?.resume()
    this.answer.resume()
  }

  /** The answer has ended: no time limit applies any more. */
  ended(): void {
    this.#watched?.remove()
  }

  /** Called when the first content has arrived. */
  content(): void {
    this.#entry.content()
  }

  /** Ends it, as its statistics say; the effect, if there is one, records what opens circuits. */
  end(): Effect.Effect<unknown> | undefined {
    if (this.#isOver) return undefined
    this.#isOver = true
    this.ended()
    this.#slot.release()
    return this.#call.leave(this.#entry.end())
  }

  /** Its context where it goes on as an effect. */
  contextOf(caller: Caller, start: Start): AttemptContext {
    return {
      deployment: this.deployment,
      caller,
      start,
      lease: noLease,
      deadlines: this.#watched?.deadlines() ?? noDeadlines,
      stats: this.stats,
      admit: Effect.void,
      content: () => this.content(),
      loss: undefined,
      superseded: false
    }
  }
}

/** Starts an answer. A defect is undefined, too: the same engine meets it again as an effect, which reports it. */
const startWith = (slot: Slot, ...given: Parameters<Slot["start"]>): StartedAnswer | undefined => {
  try {
    return slot.start(...given)
  } catch {
    return undefined
  }
}

/**
 * Opens a first attempt and starts its engine at once; undefined if something has to wait or decide: `make` opens it then.
 *
 * @param hops instances of this service that the request has passed
 */
export const makeDirect = (parts: Parts) => {
  const { breaker, models, watch } = parts
  return (
    routed: RoutedRequest,
    deployment: Deployment,
    generation: Generation,
    hops: number,
    receiver: EventReceiver
  ): DirectAttempt | undefined => {
    const { request, route, state } = routed
    if (recallOf(parts, routed) !== undefined) return undefined
    const call = breaker.enterClosed(deployment.id)
    const slot = call && models.tryLease(deployment, request)
    if (slot === undefined) return undefined
    const stats = statsOf(parts, routed, deployment)
    const loss = lossAt(parts, request, deployment, none)
    const given = loss === undefined ? generation : SignedReasoning.withoutIt(generation, loss)
    const answer = startWith(slot, given, hops, receiver, stats)
    if (answer === undefined) {
      slot.cancel()
      if (stats.trace !== undefined) state.trace?.keep(stats.trace)
      return undefined
    }
    const entry = new Entry(parts, routed, deployment, stats, false)
    state.stats = entry.stats
    entry.lose(loss)
    entry.granted()
    const attempt = new DirectAttempt(deployment, answer, entry, call!, slot)
    const { timeouts } = route.policy
    if (hasDeadlines(timeouts)) attempt.limit(watch, timeouts, receiver)
    return attempt
  }
}

/** Runs a task together with other requests, within the queue's time limit. All results, or the error of the first input that has one. */
const makeBatched = <Input, Output extends Pick<Embedding, "isEstimated" | "promptTokens">>(
  models: Models["Service"],
  task: TaskBatcher.Task<Input, Output>,
  batches: TaskBatcher.Batches
) => {
  const run = TaskBatcher.make(models, task, batches)
  return (
    context: AttemptContext,
    inputs: ReadonlyArray<Input>
  ): Effect.Effect<ReadonlyArray<Output>, InferenceError, Scope.Scope> =>
    Effect.flatMap(Effect.scope, (scope) => {
      const { admit, caller, deadlines, deployment, stats } = context
      const granted = Deferred.makeUnsafe<void>()
      const results = run({
        deployment,
        caller,
        meter: stats,
        movedOn: () => context.superseded,
        admit: Effect.andThen(Scope.provide(admit, scope), Deferred.succeed(granted, undefined))
      }, inputs).pipe(Effect.flatMap((each) => Effect.fromResult(Result.all(each))))
      return deadlines.queue === undefined
        ? results
        : Effect.raceFirst(results, Effect.andThen(deadlines.queue(Deferred.await(granted)), Effect.never))
    })
}

/** The tasks that requests share jobs for. */
export const makeTasks = (models: Models["Service"], batches: TaskBatcher.Batches) => ({
  embed: makeBatched(models, TaskBatcher.embedding, batches),
  classify: makeBatched(models, TaskBatcher.classification, batches),
  rank: makeBatched(models, TaskBatcher.ranking, batches)
})

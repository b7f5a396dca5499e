/**
 * What every operation shares: the route, the telemetry, and the attempts of the request's plan.
 */
import type { Fiber } from "effect"
import { Cause, Clock, Duration, Effect, Result, Scope, SubscriptionRef } from "effect"
import { CheckOf } from "../../domain/Caller.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { AnsweredBy } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InferenceError, make as makeError, Overloaded } from "../../domain/InferenceError.ts"
import type { Message } from "../../domain/Message.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import { estimateTokens, hasImages } from "../../domain/RoutingRequest.ts"
import type { Source } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { Admitting, Demand, Ticket } from "../admission/Admission.ts"
import { Admission, free, Later, TicketReceiver } from "../admission/Admission.ts"
import { choicesOf, mostPromptTokens, siblingsOf } from "../admission/Subject.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import { ResponseCache } from "../cache/ResponseCache.ts"
import type { EventReceiver } from "../engines/Engine.ts"
import { Breaker } from "../health/Breaker.ts"
import { Pressure, PressureOptions, sheds } from "../models/MemoryPressure.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import * as AttemptLog from "../observability/AttemptLog.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Operation } from "../observability/Metrics.ts"
import { Metrics } from "../observability/Metrics.ts"
import { RequestLog } from "../observability/RequestLog.ts"
import { bounded } from "../observability/RequestMetrics.ts"
import type { Tracing } from "../observability/RequestSpans.ts"
import { ServiceTracing } from "../observability/RequestSpans.ts"
import * as RequestTrace from "../observability/RequestTrace.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import * as Backoff from "../resilience/Backoff.ts"
import * as DeadlineWatch from "../resilience/DeadlineWatch.ts"
import * as HedgeBudget from "../resilience/HedgeBudget.ts"
import { callerOf, DecisionLog } from "../routing/DecisionLog.ts"
import type { Route } from "../routing/Route.ts"
import { answeredRoute, isSoonFree, noDeployment } from "../routing/Route.ts"
import { Router } from "../routing/Router.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import * as AttemptScope from "./AttemptScope.ts"
import type { AttemptRequest, Use } from "./PlannedAttempts.ts"
import * as PlannedAttempts from "./PlannedAttempts.ts"
import { ReasoningMakers, SharedMakers } from "./ReasoningMakers.ts"
import * as RefusedRequest from "./RefusedRequest.ts"
import type { RoutedRequest } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"
import { BatchOptions } from "./TaskBatcher.ts"

/** Whether no deployment can answer and a cached response may not, either. */
const cannotAnswer = (route: Route): boolean =>
  route.deployments.length === 0 && !isSoonFree(route) && (!route.cached || route.decision.missing !== undefined)

interface Parts {
  readonly admission: Admitting
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly clock: Clock.Clock
  readonly decisions: DecisionLog["Service"]
  readonly metrics: Metrics["Service"]
  readonly pressure: Pressure["Service"]
  /** How often the pressure is read, ms. */
  readonly pressureEveryMs: number
  readonly router: Router["Service"]
  readonly log: RequestTelemetry.Parts["log"]
  /** Of the service; undefined without one. */
  readonly tracing: Tracing | undefined
}

const noAttributes = () => ({})

/** A request that was routed, or why it was not. A request with a `state` has begun, and must be completed. */
export type Begun<R> =
  | { readonly routed: RoutedRequest<R>; readonly state: RequestTelemetry.RequestState }
  | { readonly error: InferenceError; readonly state?: RequestTelemetry.RequestState }

/** Those that may answer a request. */
const payableOf = ({ deployments, fallbacks: { content, context, ordinary }, held = [] }: Route) =>
  ordinary.length + context.length + content.length + held.length === 0
    ? deployments
    : [...deployments, ...ordinary, ...context, ...content, ...held]

/** The request with the limit of its answer that its budget sets. */
const limited = <R extends AttemptRequest>(request: R, { maxTokens }: Ticket): R =>
  maxTokens === undefined ? request : { ...request, maxTokens }

const admit = (
  { admission, callbacks }: Parts,
  operation: Operation,
  request: AttemptRequest,
  { contextWindows, model, policy }: Route,
  routing: Pick<RoutingRequest, "promptLength">,
  deployments: ReadonlyArray<Deployment>
): ReturnType<Admitting["admit"]> => {
  if (request.identity === undefined && !admission.isForAll) return free
  const demand: Demand = {
    grant: request.identity,
    tenant: request.tenant ?? "",
    model,
    operation,
    deployments,
    windows: contextWindows,
    promptTokens: estimateTokens(routing.promptLength ?? 0),
    mostPromptTokens: () => mostPromptTokens(request),
    siblings: request.source?.siblings && (() => siblingsOf(request)),
    choices: choicesOf(request),
    maxTokens: request.maxTokens,
    generates: operation === "chat",
    hedges: policy.hedge !== undefined
  }
  return callbacks.call("admission", () => admission.admit(demand), free)
}

/** A request that arrives, until its telemetry has begun. */
interface Arriving<R> {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly operation: Operation
  readonly request: R
  readonly routing: RoutingRequest
  readonly attributes: () => Record<string, unknown>
  /** Undefined where nothing records spans. */
  readonly arrival: RequestTrace.Arrival | undefined
  /** Monotonic ms with fractions. */
  readonly at: number
}

/** Undefined where nothing records spans, as for most requests. */
const arrivalOf = (parts: Parts, fiber: Fiber.Fiber<unknown, unknown>): RequestTrace.Arrival | undefined =>
  parts.tracing === undefined && fiber.cache.tracer === undefined ? undefined : RequestTrace.arrive(parts, fiber)

/** Names and attributes of a request's span; it does not have the label of a key's user. */
const namedOf = (
  { attributes, operation, request: { identity, tenant } }: Omit<
    Arriving<AttemptRequest>,
    "arrival" | "at" | "fiber" | "routing"
  >,
  model: string | undefined
): RequestTrace.Named => ({
  operation,
  model,
  attributes: () => ({ "user.id": identity?.keyId ?? tenant, ...attributes() })
})

/** A request that does not begin. */
const refuse = <R extends AttemptRequest>(
  parts: Parts,
  { arrival, attributes, fiber, operation, request }: Omit<Arriving<R>, "at" | "routing">,
  model: { readonly requested: string; readonly configured?: string },
  error: InferenceError,
  admissionMs = 0
): Begun<R> => {
  const refusal = RefusedRequest.record(parts, {
    operation,
    model: model.requested,
    configured: model.configured,
    caller: callerOf(fiber, request),
    check: fiber.getRef(CheckOf),
    error,
    admissionMs,
    context: fiber.context,
    arrival,
    attributes: namedOf({ operation, request, attributes }, undefined).attributes
  })
  return { error: new InferenceError({ reason: error.reason, refusal: refusal ?? RefusedRequest.unrecorded }) }
}

const configured = (model: string) => ({ requested: model, configured: model })

/**
 * Begins the telemetry of a routed request.
 *
 * @param admissionMs how long it has waited for its limits and budgets
 */
const beginAdmitted = <R extends AttemptRequest>(
  parts: Parts,
  arriving: Arriving<R>,
  route: Route,
  ticket: Ticket | Reason,
  admissionMs = 0
): Begun<R> => {
  const { arrival, at, fiber, operation, request, routing } = arriving
  const { decision, deployments: [first], model } = route
  if ("_tag" in ticket) return refuse(parts, arriving, configured(model), makeError(ticket), admissionMs)
  const refused = parts.router.call?.(route, payableOf(route))
  if (refused !== undefined) {
    ticket.end()
    return refuse(parts, arriving, configured(model), refused, admissionMs)
  }
  if (ticket !== free) fiber.getRef(TicketReceiver)?.(ticket)
  const trace = arrival?.begin(namedOf(arriving, model), decision, first?.id)
  const state = RequestTelemetry.begin(parts, fiber, operation, route, trace, ticket, at, request, admissionMs)
  if (!cannotAnswer(route)) return { routed: { request: limited(request, ticket), route, state }, state }
  const { reason } = noDeployment(route.decision, routing)
  const error = new InferenceError({ reason, decision: state.record.id, attempts: [] })
  state.failure = Cause.fail(error)
  return { error, state }
}

/** Routes a request and begins its telemetry. */
const makeBegin = (parts: Parts) => {
  const { pressure, router } = parts
  return <R extends AttemptRequest>(
    fiber: Fiber.Fiber<unknown, unknown>,
    operation: Operation,
    request: R,
    routing: RoutingRequest,
    attributes: () => Record<string, unknown> = noAttributes
  ): Begun<R> | Later<Begun<R>> => {
    const at = Time.preciseOf(parts.clock)
    const arriving = { fiber, operation, request, routing, attributes, arrival: arrivalOf(parts, fiber), at }
    const found = router.route(routing)
    if (Result.isFailure(found)) return refuse(parts, arriving, { requested: routing.model }, found.failure)
    const route = found.success
    if (request.priority === "low" && sheds[SubscriptionRef.getUnsafe(pressure)].refuseLowPriority) {
      const error = makeError(new Overloaded({ retryAfterMs: parts.pressureEveryMs }))
      return refuse(parts, arriving, configured(route.model), error)
    }
    // A request that no deployment can answer counts in no limit.
    if (cannotAnswer(route)) return beginAdmitted(parts, arriving, route, free)
    const admitted = admit(parts, operation, request, route, routing, payableOf(route))
    if (!(admitted instanceof Later)) return beginAdmitted(parts, arriving, route, admitted)
    arriving.arrival?.waits()
    return new Later(
      Effect.map(
        admitted.outcome,
        (ticket) => beginAdmitted(parts, arriving, route, ticket, Time.nowOf(parts.clock) - Math.floor(at))
      )
    )
  }
}

/** Begins a request that has an answer already: it costs nothing, and counts in limits of requests. */
const makeBeginAnswered = (parts: Parts) =>
(
  fiber: Fiber.Fiber<unknown, unknown>,
  model: Model,
  request: AttemptRequest,
  attributes: () => Record<string, unknown>
): Begun<AttemptRequest> => {
  const at = Time.preciseOf(parts.clock)
  const route = answeredRoute(model)
  const arrival = arrivalOf(parts, fiber)
  const named = () => namedOf({ operation: "chat", request, attributes }, model.name)
  const ticket = admit(parts, "chat", request, route, {}, [])
  if (ticket instanceof Later) throw new Error("A request without deployments is admitted at once.")
  if ("_tag" in ticket) {
    const refused = { arrival, attributes, fiber, operation: "chat" as const, request }
    return refuse(parts, refused, configured(model.name), makeError(ticket))
  }
  const state = RequestTelemetry.begin(parts, fiber, "chat", route, arrival?.begin(named()), ticket, at, request)
  return { routed: { request, route, state }, state }
}

/** A request that the end of the scope completes. */
const scoped =
  (parts: Parts, operation: Operation) =>
  <R>(begun: Begun<R>): Effect.Effect<RoutedRequest<R>, InferenceError, Scope.Scope> => {
    const { state } = begun
    const outcome = "error" in begun ? Effect.fail(begun.error) : Effect.succeed(begun.routed)
    if (state === undefined) return outcome
    // Not `Effect.addFinalizer`, which copies the whole context.
    return Effect.flatMap(Effect.scope, (scope) =>
      Effect.andThen(
        Scope.addFinalizer(scope, Effect.sync(() => RequestTelemetry.complete(parts, operation, state))),
        outcome
      ))
  }

/** Routes a request and begins its telemetry, which the end of the scope completes. */
const makeScopedBegin = (parts: Parts) => {
  const begin = makeBegin(parts)
  return <R extends AttemptRequest>(
    operation: Operation,
    request: R,
    routing: RoutingRequest,
    attributes?: () => Record<string, unknown>
  ): Effect.Effect<RoutedRequest<R>, InferenceError, Scope.Scope> =>
    Effect.uninterruptible(Effect.withFiber((fiber) => {
      const begun = begin(fiber, operation, request, routing, attributes)
      const finish = scoped(parts, operation)
      return begun instanceof Later ? Effect.flatMap(begun.outcome, finish) : finish(begun)
    }))
}

/** Fields of a request that say whether it has been checked. */
interface Checkable {
  readonly messages?: ReadonlyArray<Message> | undefined
  readonly input?: string | { readonly messages: ReadonlyArray<Message> } | undefined
  readonly source?: Source | undefined
}

/** A program without types may give no request at all. */
export const isChecked = (request: Checkable | null | undefined): boolean => {
  if (request?.source?.isChecked !== true) return false
  const { input, messages } = request
  return !hasImages(messages ?? (typeof input === "object" ? input.messages : []))
}

/** The request, validated unless a dialect has checked it when it decoded the request. Dialects do not check images. */
export const validated = <R extends object>(
  request: R,
  validate: (request: R) => Effect.Effect<R, InferenceError>
): Effect.Effect<R, InferenceError> => isChecked(request) ? Effect.succeed(request) : validate(request)

/** The winning attempt without its value. */
export const answeredByOf = ({ admitted, attempts, decision, deployment }: WinningAttempt<unknown>): AnsweredBy =>
  admitted === undefined ? { deployment, attempts, decision } : { deployment, attempts, decision, admitted }

/** A first attempt that a receiver follows. */
export interface Direct {
  readonly attempt: AttemptScope.DirectAttempt
  /** The attempt has won. */
  readonly won: () => AnsweredBy
  /** The attempt's context where it goes on as an effect. */
  readonly context: () => AttemptContext
  /**
   * Goes on with the attempt as an effect, and with those after it.
   *
   * @param rest of this attempt: its events, or its failure
   */
  readonly resume: <A>(use: Use<A>, rest: Use<A>) => Effect.Effect<WinningAttempt<A>, InferenceError, Scope.Scope>
}

class FirstAttempt implements Direct {
  readonly attempt: AttemptScope.DirectAttempt
  readonly #resume: ReturnType<typeof PlannedAttempts.makeResume>
  readonly #routed: RoutedRequest<AttemptRequest>

  constructor(
    attempt: AttemptScope.DirectAttempt,
    resume: ReturnType<typeof PlannedAttempts.makeResume>,
    routed: RoutedRequest<AttemptRequest>
  ) {
    this.attempt = attempt
    this.#resume = resume
    this.#routed = routed
  }

  won(): AnsweredBy {
    const { id } = this.attempt.deployment
    const { record, ticket } = this.#routed.state
    record.answeredBy = id
    const by = { deployment: id, attempts: 1, decision: record.id }
    return ticket === free ? by : { ...by, admitted: ticket }
  }

  /** The plan is made here: most requests need none. */
  context(): AttemptContext {
    return PlannedAttempts.begunWith(this.#routed, this.attempt).context
  }

  resume<A>(use: Use<A>, rest: Use<A>): Effect.Effect<WinningAttempt<A>, InferenceError, Scope.Scope> {
    return this.#resume(this.#routed, this.attempt, use, rest)
  }
}

/** The deployment of the first attempt, as `AttemptMachine.begin` chooses it. */
const firstDeployment = (
  route: Route,
  breaker: Breaker["Service"],
  now: number
): Deployment | undefined => {
  const { deployments, fallbacks: { ordinary }, policy } = route
  if (policy.maxAttempts < 1) return undefined
  const alone = AttemptScope.isAlone(route)
  const isFree = ({ id }: Deployment) => breaker.closedFor(id, now, alone) === 0
  return deployments.find(isFree) ?? ordinary.find(isFree)
}

/** Starts the first attempt of a request at once; undefined if something has to wait or decide: see `execute`. */
const makeDirect = (attempts: PlannedAttempts.Parts) => {
  const resume = PlannedAttempts.makeResume(attempts)
  const startDirect = AttemptScope.makeDirect(attempts.attemptScope)
  const { attemptScope: { breaker, now } } = attempts
  return (
    routed: RoutedRequest<AttemptRequest>,
    generation: Generation,
    hops: number,
    receiver: EventReceiver
  ): Direct | undefined => {
    const { route } = routed
    if (route.policy.hedge !== undefined) return undefined
    const deployment = firstDeployment(route, breaker, now())
    const attempt = deployment && startDirect(routed, deployment, generation, hops, receiver)
    return attempt && new FirstAttempt(attempt, resume, routed)
  }
}

/** What the pipeline of copies does differently. */
export interface OfCopies {
  readonly makers: AttemptScope.Parts["makers"]
  readonly logFailed: PlannedAttempts.Parts["logFailed"]
}

/** @param copies left out, it is that of callers */
export const make = Effect.fnUntraced(function*(copies?: OfCopies) {
  const clock = yield* Clock.Clock
  const models = yield* Models
  const now = () => Time.nowOf(clock)
  const parts: Parts = {
    admission: yield* Admission,
    callbacks: yield* GuardedCallbacks.make,
    clock,
    decisions: yield* DecisionLog,
    metrics: bounded(yield* Metrics, yield* Registry),
    pressure: yield* Pressure,
    pressureEveryMs: Duration.toMillis((yield* PressureOptions).every),
    router: yield* Router,
    tracing: yield* ServiceTracing,
    log: yield* RequestLog
  }
  const makers = copies?.makers ?? new ReasoningMakers(yield* SharedMakers)
  const attempts: PlannedAttempts.Parts = {
    attemptScope: {
      breaker: yield* Breaker,
      callbacks: parts.callbacks,
      metrics: parts.metrics,
      makers,
      models,
      router: parts.router,
      watch: yield* DeadlineWatch.make(now),
      now,
      precise: () => Time.preciseOf(clock)
    },
    hedges: HedgeBudget.make(),
    logFailed: copies?.logFailed ?? AttemptLog.make(),
    makeSchedule: (yield* Backoff.Backoff).schedule
  }
  return {
    makers,
    begin: makeScopedBegin(parts),
    /** As `begin`, at once; `complete` ends a request that has begun. */
    beginNow: makeBegin(parts),
    complete: (operation: Operation, state: RequestTelemetry.RequestState) =>
      RequestTelemetry.complete(parts, operation, state),
    /** Tries the route's deployments as the plan says, until `use` succeeds at one of them. */
    execute: PlannedAttempts.makeExecute(attempts),
    direct: makeDirect(attempts),
    batched: AttemptScope.makeTasks(models, yield* BatchOptions),
    /** Begins a request that has an answer already; `complete` ends it. It may be rejected by its limits. */
    beginAnswered: makeBeginAnswered(parts),
    cached: CachedResponses.makeFallback({ cache: yield* ResponseCache, callbacks: parts.callbacks })
  }
})

export type Pipeline = Effect.Success<ReturnType<typeof make>>

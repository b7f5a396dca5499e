/**
 * What every operation shares: the route, the telemetry, and the attempts of the request's plan.
 */
import type { Scope } from "effect"
import { Clock, Duration, Effect, SubscriptionRef } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { AnsweredBy } from "../../domain/Inference.ts"
import { InferenceError, make as makeError, Overloaded } from "../../domain/InferenceError.ts"
import type { Message } from "../../domain/Message.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import { hasImages } from "../../domain/RoutingRequest.ts"
import type { Source } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import { Breaker } from "../health/Breaker.ts"
import { interval, Pressure, sheds } from "../models/MemoryPressure.ts"
import { Models } from "../models/Models.ts"
import * as AttemptLog from "../observability/AttemptLog.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Operation } from "../observability/Metrics.ts"
import { Metrics } from "../observability/Metrics.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import * as AttemptDriver from "../resilience/AttemptDriver.ts"
import * as AttemptMachine from "../resilience/AttemptMachine.ts"
import type { Plan, Target } from "../resilience/AttemptPlan.ts"
import * as Backoff from "../resilience/Backoff.ts"
import * as HedgeBudget from "../resilience/HedgeBudget.ts"
import { DecisionLog } from "../routing/DecisionLog.ts"
import { factsOf } from "../routing/DeploymentFacts.ts"
import type { Route } from "../routing/Route.ts"
import { noDeployment } from "../routing/Route.ts"
import { Router } from "../routing/Router.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import * as AttemptScope from "./AttemptScope.ts"
import type { RoutedRequest } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"

/** Fields of a request that the attempts depend on. */
type AttemptRequest = Caller & { readonly maxTokens?: number | undefined }

const deploymentOf = ({ deployments, fallbacks: { content, context, ordinary } }: Route, id: string): Deployment => {
  for (const list of [deployments, ordinary, context, content]) {
    for (const deployment of list) if (deployment.id === id) return deployment
  }
  throw new Error(`The plan names the deployment "${id}", which is not in the route.`)
}

const targets = new WeakMap<Deployment, Target>()

/** @param reported the context window that its engine or its files report, tokens */
const targetOf = (deployment: Deployment, reported: number | undefined): Target => {
  const known = targets.get(deployment)
  if (known !== undefined && (reported === undefined || reported === known.contextWindow)) return known
  const created: Target = {
    deployment: deployment.id,
    contextWindow: reported ?? factsOf(deployment).contextWindow
  }
  targets.set(deployment, created)
  return created
}

const planOf = (
  { contextWindows, deployments, fallbacks: { content, context, ordinary }, model, policy, slowestFirstTokenMs }: Route,
  { maxTokens, priority }: AttemptRequest,
  now: number
): Plan => {
  const target = (deployment: Deployment) => targetOf(deployment, contextWindows?.get(deployment.id))
  return AttemptMachine.makePlan({
    model,
    policy,
    lists: {
      ordinary: [...deployments, ...ordinary].map(target),
      context: context.map(target),
      content: content.map(target)
    },
    slowestFirstTokenMs,
    now,
    maxTokens,
    lowPriority: priority === "low"
  })
}

/** Whether the first attempt has content; a buffered answer has content long before its end. */
const hasContent = ({ state: { record: { attempts: [first] } } }: RoutedRequest): boolean =>
  first?.firstTokenMs !== undefined

/** Whether no deployment can answer and a cached response may not, either. */
const cannotAnswer = ({ cached, decision, deployments }: Route): boolean =>
  deployments.length === 0 && (!cached || decision.missing !== undefined)

interface Parts {
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly decisions: DecisionLog["Service"]
  readonly metrics: Metrics["Service"]
  readonly pressure: Pressure["Service"]
  readonly router: Router["Service"]
}

/** Routes a request and begins its telemetry, which the end of the scope completes. */
const makeBegin = (parts: Parts) => {
  const { pressure, router } = parts
  return Effect.fnUntraced(function*<R extends AttemptRequest>(
    operation: Operation,
    request: R,
    routing: RoutingRequest,
    attributes: Record<string, unknown> = {}
  ) {
    const route = yield* Effect.fromResult(router.route(routing))
    if (request.priority === "low" && sheds[yield* SubscriptionRef.get(pressure)].refuseLowPriority) {
      return yield* makeError(new Overloaded({ retryAfterMs: Duration.toMillis(interval) }))
    }
    const state = yield* RequestTelemetry.begin(parts, operation, route, attributes)
    if (cannotAnswer(route)) {
      const { reason } = noDeployment(route.decision, routing)
      const error = new InferenceError({ reason, decision: state.record.id, attempts: [] })
      return yield* RequestTelemetry.recordFailure(state)(Effect.fail(error))
    }
    return { request, route, state } satisfies RoutedRequest<R>
  })
}

/** Fields of a request that say whether it has been checked. */
interface Checkable {
  readonly messages?: ReadonlyArray<Message> | undefined
  readonly input?: string | { readonly messages: ReadonlyArray<Message> } | undefined
  readonly source?: Source | undefined
}

/** A program without types may give no request at all. */
const isChecked = (request: Checkable | null | undefined): boolean => {
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
export const answeredByOf = ({ attempts, decision, deployment }: WinningAttempt<unknown>): AnsweredBy => ({
  deployment,
  attempts,
  decision
})

/** An attempt's work within the request's time limit. A missing capability that it finds is reported to the router. */
const makeAttempt =
  ({ callbacks, router }: Parts) =>
  <A, R>({ deadlines, stats }: AttemptContext, work: Effect.Effect<A, InferenceError, R>) =>
    Effect.tapError(
      RequestTelemetry.recordFailure(stats)(AttemptScope.within(deadlines.total, work)),
      ({ reason }) => Effect.sync(() => callbacks.call("router", () => router.noteFailure(reason), undefined))
    )

const makeDelays =
  ({ callbacks }: Parts, makeSchedule: Backoff.MakeSchedule) => ({ policy }: Route): Backoff.Delays => {
    const { next, reset } = Backoff.make(makeSchedule, policy)
    return { reset, next: (...failure) => callbacks.runWithin("backoff", next(...failure), undefined) }
  }

/** A route without deployments. */
const failWithout = ({ route, state }: RoutedRequest): Effect.Effect<never, InferenceError> => {
  const { reason } = noDeployment(route.decision)
  return RequestTelemetry.recordFailure(state)(
    Effect.fail(new InferenceError({ reason, decision: state.record.id, attempts: [] }))
  )
}

const makeExecute = (
  parts: Parts,
  breaker: Breaker["Service"],
  models: Models["Service"],
  now: () => number,
  makeSchedule: Backoff.MakeSchedule
) => {
  const open = AttemptScope.make({ breaker, callbacks: parts.callbacks, models, router: parts.router, now })
  const attempt = makeAttempt(parts)
  const delaysOf = makeDelays(parts, makeSchedule)
  const hedges = HedgeBudget.make()
  const logFailed = AttemptLog.make()

  return Effect.fnUntraced(function*<A>(
    routed: RoutedRequest<AttemptRequest>,
    use: (context: AttemptContext) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) {
    const { request, route, state } = routed
    if (route.deployments.length === 0) return yield* failWithout(routed)
    const plan = planOf(route, request, now())
    const alone = AttemptScope.isAlone(route)
    const contexts: Array<AttemptContext | undefined> = []
    if (route.policy.hedge !== undefined) hedges.earn(route.model, route.policy)
    const hooks: AttemptDriver.Hooks<A> = {
      decision: state.record.id,
      now,
      attempt: (start) =>
        Effect.flatMap(open(routed, deploymentOf(route, start.deployment), start, plan.deadline), (context) => {
          contexts[start.attempt] = context
          return attempt(context, use(context))
        }),
      closedFor: (deployment) => breaker.closedFor(deployment, now(), alone),
      supersede: (attempt) => {
        const context = contexts[attempt]
        if (context !== undefined) context.superseded = true
      },
      won: (attempt) => {
        const { deployment, stats } = contexts[attempt]!
        state.stats = stats
        state.record.answeredBy = deployment.id
      },
      failed: (deployment, reason) => logFailed({ deployment, reason, decision: state.record.id, now: now() }),
      payHedge: () => !hasContent(routed) && hedges.spend(route.model),
      delays: () => delaysOf(route)
    }
    return yield* RequestTelemetry.recordFailure(state)(AttemptDriver.drive(hooks, plan))
  })
}

export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const models = yield* Models
  const parts: Parts = {
    callbacks: yield* GuardedCallbacks.make,
    decisions: yield* DecisionLog,
    metrics: yield* Metrics,
    pressure: yield* Pressure,
    router: yield* Router
  }
  return {
    begin: makeBegin(parts),
    /** Tries the route's deployments as the plan says, until `use` succeeds at one of them. */
    execute: makeExecute(
      parts,
      yield* Breaker,
      models,
      () => Time.nowOf(clock),
      (yield* Backoff.Backoff).schedule
    ),
    embed: AttemptScope.makeEmbed(models),
    cached: CachedResponses.makeFallback(yield* CachedResponses.CachedResponses, parts.callbacks)
  }
})

export type Pipeline = Effect.Success<typeof make>

/**
 * What every operation does alike: route, books, and the attempts of its plan, each with a circuit, a measurement and the
 * time that its policy gives it.
 */
import type { Cause, Scope } from "effect"
import { Clock, Deferred, Duration, Effect, SubscriptionRef } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { By } from "../../domain/Inference.ts"
import { InferenceError, make, Overloaded } from "../../domain/InferenceError.ts"
import type { Embedding } from "../../domain/Job.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import type { Engine } from "../engines/Engine.ts"
import { Breaker } from "../health/Breaker.ts"
import { interval, Pressure, sheds } from "../models/MemoryPressure.ts"
import { Models } from "../models/Models.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Operation as OperationName } from "../observability/Metrics.ts"
import { Metrics } from "../observability/Metrics.ts"
import * as Attempts from "../resilience/AttemptDriver.ts"
import type { Action } from "../resilience/AttemptPlan.ts"
import * as Plan from "../resilience/AttemptPlan.ts"
import type { Limits } from "../resilience/Deadlines.ts"
import * as TimeLimits from "../resilience/Deadlines.ts"
import type { HedgeBudgets } from "../resilience/HedgeBudget.ts"
import * as Hedges from "../resilience/HedgeBudget.ts"
import { DecisionLog } from "../routing/DecisionLog.ts"
import { factsOf } from "../routing/DeploymentFacts.ts"
import type { Route } from "../routing/Route.ts"
import { noDeployment } from "../routing/Route.ts"
import { Router } from "../routing/Router.ts"
import type { Begun } from "./AttemptScope.ts"
import * as Trials from "./AttemptScope.ts"
import * as Embedder from "./EmbeddingBatcher.ts"
import type { Tally } from "./RequestTelemetry.ts"
import * as Operation from "./RequestTelemetry.ts"

export type Start = Extract<Action, { type: "start" }>
type Attributes = Record<string, unknown>

/** What an attempt gives the request. */
export interface Engaged {
  readonly deployment: Deployment
  /** How the caller stands there. */
  readonly standing: Caller
  /** What the plan asks otherwise than the caller. */
  readonly start: Start
  /** Its engine with a slot of it, within the time for that. */
  readonly borrow: Effect.Effect<Engine, InferenceError, Scope.Scope>
  /** Embeds, with other requests, within the time for its slot. */
  readonly embed: (inputs: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Embedding>, InferenceError>
  readonly limits: Limits
  /** To be kept by who uses it. */
  readonly tally: Tally
  /** Content has come. */
  readonly content: () => void
}

/** What a request is committed to. */
export interface Committed<A> {
  readonly value: A
  readonly by: By
  /** See `Attempts.Committed`. */
  readonly resume: (cause: Cause.Cause<InferenceError>) => Effect.Effect<Committed<A>, InferenceError>
}

const deploymentOf = ({ deployments, fallbacks: { content, context, ordinary } }: Route, id: string): Deployment => {
  for (const list of [deployments, ordinary, context, content]) {
    for (const deployment of list) if (deployment.id === id) return deployment
  }
  throw new Error(`The plan names a deployment that its route has not: "${id}".`)
}

const targets = new WeakMap<Deployment, Plan.Target>()

const targetOf = (deployment: Deployment): Plan.Target => {
  const known = targets.get(deployment)
  if (known !== undefined) return known
  const made: Plan.Target = { deployment: deployment.id, contextWindow: factsOf(deployment).contextWindow }
  targets.set(deployment, made)
  return made
}

/** What may be tried for a request. */
const planOf = (
  { deployments, fallbacks: { content, context, ordinary }, model, policy, slowestFirstTokenMs }: Route,
  { maxTokens, priority }: Caller & { readonly maxTokens?: number | undefined },
  now: number
): Plan.Plan =>
  Plan.make({
    model,
    policy,
    lists: {
      ordinary: [...deployments, ...ordinary].map(targetOf),
      context: context.map(targetOf),
      content: content.map(targetOf)
    },
    slowestFirstTokenMs,
    now,
    maxTokens,
    lowPriority: priority === "low"
  })

interface Parts {
  readonly models: Models["Service"]
  readonly enter: ReturnType<typeof Trials.make>
  /** ms of `Monotonic` */
  readonly now: () => number
}

/** Attempts that a time limit or another attempt has ended, and not the request's caller. */
type Moved = Set<number>

const makeEngage = ({ enter, models, now }: Parts) => {
  const embedder = Embedder.make(models)
  return Effect.fnUntraced(
    function*(begun: Begun, standing: Caller, start: Start, { deadline }: Plan.Plan, moved: Moved) {
      const deployment = deploymentOf(begun.route, start.deployment)
      const { content, enterAgain, granted, tally } = yield* enter(begun, deployment, start.hedge)
      begun.progress.tally = tally
      const own: Caller = start.lowPriority ? { ...standing, priority: "low" } : standing
      const onLimit = () => void moved.add(start.attempt)
      const movedOn = () => moved.has(start.attempt)
      const limits = TimeLimits.make(deployment.id, begun.route.policy.timeouts, { deadline, now, onLimit })
      const entered = Effect.map(enterAgain, granted)
      const borrowed = Effect.tap(models.lease(deployment, own, movedOn), () => entered)
      return {
        deployment,
        standing: own,
        start,
        borrow: limits.queue(borrowed),
        embed: (inputs) =>
          Effect.suspend(() => {
            const waits = Deferred.makeUnsafe<void>()
            const asking = {
              deployment,
              standing: own,
              movedOn,
              granted() {
                granted()
                Deferred.doneUnsafe(waits, Effect.void)
              }
            }
            const embeddings = embedder(asking, inputs)
            return limits.queue === TimeLimits.unlimited
              ? embeddings
              : Effect.raceFirst(embeddings, Effect.andThen(limits.queue(Deferred.await(waits)), Effect.never))
          }),
        limits,
        tally,
        content
      } satisfies Engaged
    }
  )
}

/** What the machine came to, in the request's books. */
const telling = <A, R>(
  begun: Begun,
  driven: Effect.Effect<Attempts.Committed<readonly [A, Engaged]>, InferenceError, R>
): Effect.Effect<Committed<A>, InferenceError, R> => {
  const { progress, progress: { record } } = begun
  return Effect.mapBoth(driven, {
    onSuccess: ({ attempts, resume, value: [value, { deployment, tally }] }) => {
      progress.tally = tally
      record.answeredBy = deployment.id
      return {
        value,
        by: { deployment: deployment.id, attempts, decision: record.id },
        resume: (cause) => telling(begun, resume(cause))
      }
    },
    onFailure: ({ attempts, reason }) =>
      new InferenceError({ reason, decision: record.id, ...(attempts === undefined ? {} : { attempts }) })
  })
}

/** Whether the first attempt, beside which a hedge would be, has brought content: whole answers do long before their end. */
const hasBegun = ({ progress: { record: { attempts: [first] } } }: Begun): boolean => first?.firstTokenMs !== undefined

/** There is nobody, nor may an earlier answer be given. */
const isOver = ({ cached, decision, deployments }: Route): boolean =>
  deployments.length === 0 && (!cached || decision.missing !== undefined)

interface Front {
  readonly decisions: DecisionLog["Service"]
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly metrics: Metrics["Service"]
  readonly pressure: Pressure["Service"]
  readonly router: Router["Service"]
}

/** The route, and the request's books, which the scope's end settles. */
const makeBegin = ({ decisions, callbacks, metrics, pressure, router }: Front) =>
  Effect.fnUntraced(function*(operation: OperationName, wish: Caller & RoutingRequest, attributes: Attributes = {}) {
    const route = yield* Effect.fromResult(router.route(wish))
    if (wish.priority === "low" && sheds[yield* SubscriptionRef.get(pressure)].refuseLowPriority) {
      return yield* make(new Overloaded({ retryAfterMs: Duration.toMillis(interval) }))
    }
    const progress = yield* Operation.begin({ decisions, callbacks, metrics }, operation, route, attributes)
    if (isOver(route)) {
      const { reason } = noDeployment(route.decision, wish)
      const error = new InferenceError({ reason, decision: progress.record.id, attempts: [] })
      return yield* Operation.noting(progress)(Effect.fail(error))
    }
    return { route, progress }
  })

/** An attempt's work within its request's time, its failure kept and learned from. */
const makeNoted = ({ callbacks, router }: Pick<Front, "callbacks" | "router">) =>
<A, R>(
  { limits, tally }: Engaged,
  work: Effect.Effect<A, InferenceError, R>
): Effect.Effect<A, InferenceError, R> =>
  Effect.tapError(
    Operation.noting(tally)(limits.total(work)),
    ({ reason }) => Effect.sync(() => callbacks.call("router", () => router.noteFailure(reason), undefined))
  )

export const makeStage = Effect.gen(function*() {
  const router = yield* Router
  const models = yield* Models
  const metrics = yield* Metrics
  const decisions = yield* DecisionLog
  const pressure = yield* Pressure
  const breaker = yield* Breaker
  const clock = yield* Clock.Clock
  const now = () => Monotonic.nowOf(clock)
  const hedges: HedgeBudgets = Hedges.make()
  const callbacks = yield* GuardedCallbacks.make
  const engage = makeEngage({ models, enter: Trials.make({ breaker, callbacks, router, now }), now })

  const begin = makeBegin({ decisions, callbacks, metrics, pressure, router })
  const noted = makeNoted({ callbacks, router })

  /** Tries the route's deployments as its plan says, until one has brought what `use` waits for. */
  const commit = Effect.fnUntraced(function*<A>(
    begun: Begun,
    request: Caller & { readonly maxTokens?: number | undefined },
    use: (engaged: Engaged) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) {
    const { route } = begun
    const plan = planOf(route, request, now())
    const alone = Trials.isAlone(route)
    const moved: Moved = new Set()
    hedges.earn(route)
    const stage: Attempts.Stage<readonly [A, Engaged]> = {
      attempt: (start) =>
        Effect.flatMap(
          engage(begun, request, start, plan, moved),
          (engaged) => Effect.map(noted(engaged, use(engaged)), (value) => [value, engaged] as const)
        ),
      now,
      closedFor: (deployment) => breaker.closedFor(deployment, now(), alone),
      moveOn: (attempt) => void moved.add(attempt),
      payHedge: Effect.sync(() => !hasBegun(begun) && hedges.spend(route))
    }
    return yield* Operation.noting(begun.progress)(telling(
      begun,
      route.deployments.length === 0 ? Effect.fail(noDeployment(route.decision)) : Attempts.drive(stage, plan)
    ))
  })

  /** The same, of what is answered whole. */
  const attempt = <A>(
    begun: Begun,
    request: Caller & { readonly maxTokens?: number | undefined },
    use: (engaged: Engaged) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) => Effect.map(commit(begun, request, use), ({ by, value }) => ({ value, ...by }))

  return { attempt, begin, cached: CachedResponses.makeFallback(yield* CachedResponses.CachedResponses), commit }
})

export type Stage = Effect.Success<typeof makeStage>

/**
 * What every operation does alike: route, books, and the attempts of its plan, each with an engine's slot, a circuit and
 * a measurement.
 */
import { Cause, Clock, Duration, Effect, Exit, Option, Scope, SubscriptionRef } from "effect"
import { Breaker } from "../../services/Breaker.ts"
import type { Engine } from "../../services/Engine.ts"
import type { InferenceError } from "../../services/InferenceError.ts"
import { make, Overloaded } from "../../services/InferenceError.ts"
import type { Operation as OperationName } from "../../services/Metrics.ts"
import { Metrics } from "../../services/Metrics.ts"
import type { Deployment } from "../../services/Model.ts"
import type { Standing } from "../../services/Models.ts"
import { Models } from "../../services/Models.ts"
import type { Action } from "../../services/Plan.ts"
import * as Plan from "../../services/Plan.ts"
import { interval, Pressure, sheds } from "../../services/Pressure.ts"
import { classify } from "../../services/Retry.ts"
import type { Route, Trial, Wish } from "../../services/Selector.ts"
import { Selector } from "../../services/Selector.ts"
import * as Attempts from "./Attempts.ts"
import * as Embedder from "./Embedder.ts"
import type { Progress } from "./Operation.ts"
import * as Operation from "./Operation.ts"

export type Start = Extract<Action, { type: "start" }>
type Attributes = Record<string, unknown>

/** What an attempt gives the request. */
export interface Engaged {
  readonly engine: Engine
  readonly deployment: Deployment
  /** What the plan asks otherwise than the caller. */
  readonly start: Start
  readonly trial: Trial
}

/** What the end of an attempt says of its deployment. */
const outcomeOf = (
  exit: Exit.Exit<unknown, unknown>,
  { done, failure }: Progress
): Exit.Exit<void, InferenceError> | undefined => {
  const cause = Exit.isFailure(exit) ? exit.cause as Cause.Cause<InferenceError> : failure
  if (cause !== undefined) return Cause.hasInterruptsOnly(cause) ? undefined : Exit.failCause(cause)
  // A consumer that stops reading says nothing of who answers.
  return done ? Exit.void : undefined
}

const verdictOf = (outcome: Exit.Exit<void, InferenceError> | undefined): Parameters<Trial["end"]>[0] => {
  if (outcome === undefined) return "left"
  if (Exit.isSuccess(outcome)) return "success"
  const error = Cause.findErrorOption(outcome.cause)
  return Option.isSome(error) && classify(error.value.reason).counts ? "failure" : "left"
}

/** A provider's keys are turned over by whoever calls it. */
const targetOf = ({ id }: Deployment): Plan.Target => ({ deployment: id, keys: 1 })

/** What may be tried for a request. */
const planOf = (
  { deployments, fallbacks: { content, context, ordinary }, model, policy, slowestFirstTokenMs }: Route,
  { maxTokens, priority }: Standing & { readonly maxTokens?: number | undefined },
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

export const makeStage = Effect.gen(function*() {
  const selector = yield* Selector
  const models = yield* Models
  const metrics = yield* Metrics
  const pressure = yield* Pressure
  const breaker = yield* Breaker
  const clock = yield* Clock.Clock

  /** The route, and the request's books, which the scope's end settles. */
  const begin = Effect.fnUntraced(
    function*(operation: OperationName, wish: Standing & Wish, attributes: Attributes = {}) {
      const route = yield* selector.route(wish)
      if (wish.priority === "low" && sheds[yield* SubscriptionRef.get(pressure)].refuseLowPriority) {
        return yield* make(new Overloaded({ retryAfterMs: Duration.toMillis(interval) }))
      }
      return { route, progress: yield* Operation.begin(metrics, operation, route, attributes) }
    }
  )

  /** An engine's slot for one attempt, which is measured to the end of its scope. */
  const engage = Effect.fnUntraced(function*(route: Route, progress: Progress, standing: Standing, start: Start) {
    const { fallbacks: { content, context, ordinary } } = route
    const all = [...route.deployments, ...ordinary, ...context, ...content]
    const deployment = all.find(({ id }) => id === start.deployment)!
    const settle = yield* breaker.enter(deployment.id)
    const trial = yield* selector.measure(deployment.id)
    yield* Scope.addFinalizerExit(yield* Effect.scope, (exit) => {
      const outcome = outcomeOf(exit, progress)
      trial.end(verdictOf(outcome), progress.tokens)
      return outcome === undefined ? Effect.void : settle(outcome)
    })
    const priority = start.lowPriority ? "low" : standing.priority
    const engine = yield* models.borrow(deployment, { ...standing, priority })
    return { engine, deployment, start, trial } satisfies Engaged
  })

  /** Tries the route's deployments as its plan says, until one has brought what `use` waits for. */
  const attempt = Effect.fnUntraced(function*<A>(
    { progress, route }: { readonly route: Route; readonly progress: Progress },
    request: Standing & { readonly maxTokens?: number | undefined },
    use: (engaged: Engaged) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) {
    const stage: Attempts.Stage<A> = {
      attempt: (start) => Effect.flatMap(engage(route, progress, request, start), use),
      closedFor: (deployment) => breaker.closedFor(deployment, clock.currentTimeMillisUnsafe()),
      payHedge: Effect.succeed(false)
    }
    const { value } = yield* Attempts.drive(stage, planOf(route, request, clock.currentTimeMillisUnsafe()))
    return value
  })

  return { attempt, begin, embedder: Embedder.make(models) }
})

export type Stage = Effect.Success<typeof makeStage>

/**
 * What every operation does alike: route, books, and the attempts of its plan, each with an engine's slot, a circuit and
 * a measurement.
 */
import type { Scope } from "effect"
import { Clock, Duration, Effect, Exit, SubscriptionRef } from "effect"
import type { Verdict } from "../../services/Breaker.ts"
import * as Breakers from "../../services/Breaker.ts"
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
const verdictOf = (exit: Exit.Exit<unknown, unknown>, { done, failure }: Progress): Verdict => {
  if (Exit.isFailure(exit)) return Breakers.verdictOf(exit as Exit.Exit<unknown, InferenceError>)
  if (failure !== undefined) return Breakers.verdictOf(Exit.failCause(failure))
  // A consumer that stops reading says nothing of who answers.
  return done ? "success" : "left"
}

const deploymentOf = ({ deployments, fallbacks: { content, context, ordinary } }: Route, id: string): Deployment => {
  for (const list of [deployments, ordinary, context, content]) {
    for (const deployment of list) if (deployment.id === id) return deployment
  }
  throw new Error(`The plan names a deployment that its route has not: "${id}".`)
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
  const breaker = yield* Breakers.Breaker
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()

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
    const deployment = deploymentOf(route, start.deployment)
    // It begins when the call is let through.
    const trial: { begun?: Trial } = {}
    yield* breaker.enter(deployment.id, (exit) => {
      const verdict = verdictOf(exit, progress)
      trial.begun?.end(verdict, progress.tokens)
      return verdict
    })
    trial.begun = selector.measure(deployment.id)
    const engine = yield* models.borrow(deployment, start.lowPriority ? { ...standing, priority: "low" } : standing)
    return { engine, deployment, start, trial: trial.begun } satisfies Engaged
  })

  /** Tries the route's deployments as its plan says, until one has brought what `use` waits for. */
  const attempt = Effect.fnUntraced(function*<A>(
    { progress, route }: { readonly route: Route; readonly progress: Progress },
    request: Standing & { readonly maxTokens?: number | undefined },
    use: (engaged: Engaged) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) {
    const stage: Attempts.Stage<A> = {
      attempt: (start) => Effect.flatMap(engage(route, progress, request, start), use),
      now,
      closedFor: (deployment) => breaker.closedFor(deployment, now()),
      payHedge: Effect.succeed(false)
    }
    const { value } = yield* Attempts.drive(stage, planOf(route, request, now()))
    return value
  })

  return { attempt, begin, embedder: Embedder.make(models) }
})

export type Stage = Effect.Success<typeof makeStage>

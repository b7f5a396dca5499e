/**
 * The attempts of a request as its plan says: all of them where `Pipeline.direct` starts none, else those that go on as an
 * effect.
 */
import { Effect, Scope } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { InferenceError, make as makeError } from "../../domain/InferenceError.ts"
import { free, Later } from "../admission/Admission.ts"
import type { Prompt } from "../admission/Subject.ts"
import type * as AttemptLog from "../observability/AttemptLog.ts"
import * as AttemptDriver from "../resilience/AttemptDriver.ts"
import * as AttemptMachine from "../resilience/AttemptMachine.ts"
import type { Plan, Step, Target } from "../resilience/AttemptPlan.ts"
import * as Backoff from "../resilience/Backoff.ts"
import type * as HedgeBudget from "../resilience/HedgeBudget.ts"
import { factsOf } from "../routing/DeploymentFacts.ts"
import type { Route } from "../routing/Route.ts"
import { isSoonFree, listsOf, noDeployment } from "../routing/Route.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import * as AttemptScope from "./AttemptScope.ts"
import type { RoutedRequest } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"

/** Fields of a request that the attempts depend on. */
export type AttemptRequest = Caller & Prompt & { readonly maxTokens?: number | undefined }

const deploymentOf = (route: Route, id: string): Deployment => {
  for (const list of listsOf(route)) {
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

/** Without another deployment, its failure is that of the request. */
const candidateOf = ({ deployments, split }: Route): string | undefined =>
  deployments.length > 1 ? split?.first : undefined

const planOf = (
  route: Route,
  { maxTokens, priority }: AttemptRequest,
  now: number
): Plan => {
  const { contextWindows, deployments, fallbacks: { content, context, ordinary }, held = [], model, policy } = route
  const target = (deployment: Deployment) => targetOf(deployment, contextWindows?.get(deployment.id))
  return AttemptMachine.makePlan({
    model,
    policy,
    candidate: candidateOf(route),
    lists: {
      ordinary: [...deployments, ...ordinary, ...held].map(target),
      context: context.map(target),
      content: content.map(target)
    },
    slowestFirstTokenMs: route.slowestFirstTokenMs,
    now,
    maxTokens,
    lowPriority: priority === "low"
  })
}

/** Whether the first attempt has content; a buffered answer has content long before its end. */
const hasContent = ({ state: { record: { attempts: [first] } } }: RoutedRequest): boolean =>
  first?.firstTokenMs !== undefined

/** An attempt's work within the request's time limit. A missing capability that it finds is reported to the router. */
const makeAttempt =
  ({ attemptScope: { callbacks, router } }: Parts) =>
  <A, R>({ deadlines, stats }: AttemptContext, work: Effect.Effect<A, InferenceError, R>) =>
    Effect.tapError(
      RequestTelemetry.recordFailure(stats)(AttemptScope.within(deadlines.total, work)),
      ({ reason }) => Effect.sync(() => callbacks.call("router", () => router.noteFailure(reason), undefined))
    )

const makeDelays = ({ attemptScope: { callbacks }, makeSchedule }: Parts) => ({ policy }: Route): Backoff.Delays => {
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

/** What the attempts of every request share. */
export interface Parts {
  readonly attemptScope: AttemptScope.Parts
  readonly hedges: HedgeBudget.HedgeBudget
  readonly logFailed: ReturnType<typeof AttemptLog.make>
  readonly makeSchedule: Backoff.MakeSchedule
}

export type Use<A> = (context: AttemptContext) => Effect.Effect<A, InferenceError, Scope.Scope>

/** The hooks of a request, and its attempts by their numbers. */
const makeHooks = (parts: Parts) => {
  const { attemptScope, hedges, logFailed } = parts
  const { breaker, now } = attemptScope
  const open = AttemptScope.make(attemptScope)
  const attempt = makeAttempt(parts)
  const delaysOf = makeDelays(parts)
  return <A>(routed: RoutedRequest<AttemptRequest>, plan: Plan, use: Use<A>) => {
    const { route, state } = routed
    const alone = AttemptScope.isAlone(route)
    const contexts: Array<AttemptContext | undefined> = []
    const hooks: AttemptDriver.Hooks<A> = {
      decision: state.record.id,
      admitted: state.ticket === free ? undefined : state.ticket,
      now,
      attempt: (start) => {
        const refusal = state.ticket.again()
        if (refusal !== undefined && !(refusal instanceof Later)) return Effect.fail(makeError(refusal))
        const opened = open(routed, deploymentOf(route, start.deployment), start, plan.deadline)
        const started = Effect.flatMap(opened, (context) => {
          contexts[start.attempt] = context
          return attempt(context, use(context))
        })
        return refusal === undefined ? started : Effect.flatMap(
          // What was reserved is noted before the attempt can be interrupted.
          Effect.uninterruptible(refusal.outcome),
          (refused) => refused === undefined ? started : Effect.fail(makeError(refused))
        )
      },
      closedFor: (deployment, noOther = false) => breaker.closedFor(deployment, now(), alone || noOther),
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
      payHedge: () => !hasContent(routed) && hedges.spend(route.model) && state.ticket.another(),
      delays: () => delaysOf(route)
    }
    return { hooks, contexts }
  }
}

/** Tries the route's deployments as the plan says, until `use` succeeds at one of them. */
export const makeExecute = (parts: Parts) => {
  const hooksOf = makeHooks(parts)
  const { attemptScope: { now }, hedges } = parts
  return Effect.fnUntraced(function*<A>(routed: RoutedRequest<AttemptRequest>, use: Use<A>) {
    const { request, route, state } = routed
    if (route.deployments.length === 0 && !isSoonFree(route)) return yield* failWithout(routed)
    const recalled = AttemptScope.recallOf(parts.attemptScope, routed)
    if (recalled !== undefined) yield* recalled
    const plan = planOf(route, request, now())
    if (route.policy.hedge !== undefined) hedges.earn(route.model, route.policy)
    const { hooks } = hooksOf(routed, plan, use)
    return yield* RequestTelemetry.recordFailure(state)(AttemptDriver.drive(hooks, plan))
  })
}

/** The step that started the first attempt at the deployment. */
const firstStep = (plan: Plan, { deployment, startedAt }: AttemptScope.DirectAttempt) => {
  const step = AttemptMachine.begin(plan, {
    now: startedAt,
    closedFor: (id) => id === deployment.id ? 0 : Number.POSITIVE_INFINITY
  })
  const start = step.actions.find((action) => action.type === "start")!
  return { start, step }
}

/** The plan of a request whose first attempt has been started, and that attempt as an effect has it. */
export const begunWith = (
  { request, route }: RoutedRequest<AttemptRequest>,
  first: AttemptScope.DirectAttempt
): { readonly plan: Plan; readonly step: Step; readonly context: AttemptContext } => {
  const plan = planOf(route, request, first.startedAt)
  const { start, step } = firstStep(plan, first)
  return { plan, step, context: first.contextOf(request, start) }
}

/** Goes on with a first attempt as an effect, and with those after it. */
export const makeResume = (parts: Parts) => {
  const attempt = makeAttempt(parts)
  const hooksOf = makeHooks(parts)
  return <A>(
    routed: RoutedRequest<AttemptRequest>,
    first: AttemptScope.DirectAttempt,
    use: Use<A>,
    rest: Use<A>
  ): Effect.Effect<AttemptDriver.WinningAttempt<A>, InferenceError, Scope.Scope> => {
    const { context, plan, step } = begunWith(routed, first)
    const { contexts, hooks } = hooksOf(routed, plan, use)
    contexts[context.start.attempt] = context
    const begun = {
      startedAt: first.startedAt,
      rest: Effect.flatMap(Effect.scope, (scope) =>
        Effect.andThen(
          Scope.addFinalizer(scope, Effect.suspend(() => first.end() ?? Effect.void)),
          attempt(context, rest(context))
        ))
    }
    return RequestTelemetry.recordFailure(routed.state)(AttemptDriver.resumeFirst(hooks, step, begun))
  }
}

/**
 * Drives one request's attempts as `services/resilience/AttemptMachine` says: starts them, waits, cancels, and gives the one that brought
 * the first content.
 *
 * **Details**
 *
 * An attempt has a scope of its own. The scopes of those that failed or lost are closed at once; that of the one that is
 * committed to lives as long as the request, or until another goes on with its answer. A plan without a hedge has one
 * attempt at a time, which runs on the request's own fiber; so do those that go on.
 */
import { Cause, Effect, Exit, Fiber, Option, Queue, Random, Scope } from "effect"
import { isCancellation } from "../../domain/FailureClass.ts"
import { EngineFailed, InferenceError } from "../../domain/InferenceError.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as Attempts from "./AttemptMachine.ts"
import type { Action, Event, Plan, State, Step, View } from "./AttemptPlan.ts"

type Start = Extract<Action, { type: "start" }>

/** What the attempts are made of. */
export interface Stage<A> {
  /** ms of `Monotonic` */
  readonly now: () => number
  /** Ends with the first content, or fails before it. */
  readonly attempt: (start: Start) => Effect.Effect<A, InferenceError, Scope.Scope>
  /** ms for which a deployment must not be called; 0, it is free. */
  readonly closedFor: (deployment: string) => number
  /** Called before an attempt is cancelled because another has brought content. */
  readonly moveOn: (attempt: number) => void
  /** Pays for a hedge, if there is enough. */
  readonly payHedge: Effect.Effect<boolean>
}

/** The attempt that is committed to. */
export interface Committed<A> {
  readonly value: A
  /** How many were started. */
  readonly attempts: number
  /** Goes on elsewhere, when this one's answer has broken off; fails with what broke it off where nobody can. */
  readonly resume: (cause: Cause.Cause<InferenceError>) => Effect.Effect<Committed<A>, InferenceError>
}

const viewOf = <A>({ closedFor, now }: Stage<A>): Effect.Effect<View> =>
  Effect.map(Random.next, (random) => ({ now: now(), random, closedFor }))

/** No pause is drawn before the first attempt. */
const firstViewOf = <A>({ closedFor, now }: Stage<A>): View => ({ now: now(), random: 0, closedFor })

/** Why an attempt failed, of which a defect is a reason too; its words may hold anything and are the log's. */
const reasonOf = (cause: Cause.Cause<InferenceError>, deployment: string): Effect.Effect<Reason> =>
  Option.match(Cause.findErrorOption(cause), {
    onSome: ({ reason }) => Effect.succeed(reason),
    onNone: () =>
      Effect.as(
        Effect.logError(`An attempt at "${deployment}" ended in a defect.`, cause),
        new EngineFailed({ deployment, detail: "It ended in a defect." })
      )
  })

/** What the caller is told: all attempts, where there was more than one. */
const failure = ({ attempts, reason }: Extract<Action, { type: "fail" }>): InferenceError =>
  new InferenceError({ reason, ...(attempts.length > 1 ? { attempts } : {}) })

const runOne = <A>({ attempt }: Stage<A>, start: Start, scope: Scope.Closeable): Effect.Effect<A, InferenceError> =>
  Scope.provide(start.afterMs > 0 ? Effect.delay(attempt(start), start.afterMs) : attempt(start), scope)

/** Ends an attempt. What goes wrong with that is nothing that the request or another attempt should fail of. */
const close = (scope: Scope.Closeable, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Effect.catchCause(
    Scope.close(scope, exit),
    (cause) => Effect.logError("What an attempt held could not be given back.", cause)
  )

/** An attempt's scope, which the request's scope closes where nothing else has. */
const scopeOf = (request: Scope.Scope): Effect.Effect<Scope.Closeable> =>
  Effect.suspend(() => {
    const scope = Scope.makeUnsafe()
    return Effect.as(Scope.addFinalizerExit(request, (exit) => close(scope, exit)), scope)
  })

/** An attempt that has brought content. */
interface Won<A> {
  readonly start: Start
  readonly scope: Scope.Closeable
  /** ms of `Monotonic` */
  readonly began: number
  readonly value: A
}

/** Goes on with an answer that has broken off: see `Committed.resume`. */
const goOn = Effect.fnUntraced(function*<A>(
  stage: Stage<A>,
  request: Scope.Scope,
  state: State,
  { began, scope, start: { afterMs, attempt, deployment } }: Won<A>,
  cause: Cause.Cause<InferenceError>
) {
  yield* close(scope, Exit.failCause(cause))
  const view = yield* viewOf(stage)
  const committed = Attempts.next(state, { type: "content", attempt }, view).state
  const reason = yield* reasonOf(cause, deployment)
  const tookMs = view.now - began - afterMs
  return yield* inTurn(stage, request, Attempts.next(committed, { type: "cut", attempt, reason, tookMs }, view))
})

/** @param request the scope of the request */
const commit = <A>(stage: Stage<A>, request: Scope.Scope, state: State, won: Won<A>): Committed<A> => ({
  value: won.value,
  attempts: state.started,
  resume: (cause) => goOn(stage, request, state, won, cause)
})

/** One attempt after another. */
const inTurn: <A>(
  stage: Stage<A>,
  request: Scope.Scope,
  first: Step
) => Effect.Effect<Committed<A>, InferenceError> = Effect.fnUntraced(function*<A>(
  stage: Stage<A>,
  request: Scope.Scope,
  first: Step
) {
  let step = first
  for (;;) {
    const failed = step.actions.find((action) => action.type === "fail")
    if (failed !== undefined) return yield* failure(failed)
    const start = step.actions.find((action) => action.type === "start")!
    const began = stage.now()
    const scope = yield* scopeOf(request)
    const exit = yield* Effect.exit(runOne(stage, start, scope))
    if (Exit.isSuccess(exit)) return commit(stage, request, step.state, { start, scope, began, value: exit.value })
    // The request's scope closes the attempt's.
    if (isCancellation(exit.cause)) return yield* Effect.failCause(exit.cause)
    yield* close(scope, exit)
    const view = yield* viewOf(stage)
    const reason = yield* reasonOf(exit.cause, start.deployment)
    step = Attempts.next(
      step.state,
      { type: "failed", attempt: start.attempt, reason, tookMs: view.now - began - start.afterMs },
      view
    )
  }
})

/** What the fibers of a hedged request tell. */
type Told<A> = Event | { readonly type: "brought"; readonly attempt: number; readonly value: A }

/** An attempt beside others. */
interface Racer extends Omit<Won<unknown>, "value"> {
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

/** When another may start beside the first. Only one that does is paid for: see `pay`. */
const makeTimer = <A>(told: Queue.Enqueue<Told<A>>) => {
  let timer: Fiber.Fiber<unknown> | undefined
  return {
    start: ({ afterMs, attempt }: Extract<Action, { type: "await-hedge" }>) => {
      const due = Effect.sync(() => Queue.offerUnsafe(told, { type: "hedge-due", attempt }))
      return Effect.map(Effect.forkScoped(Effect.delay(due, afterMs)), (fiber) => {
        timer = fiber
      })
    },
    /** The request's scope would end it, but may last as long as the answer. */
    stop: Effect.suspend(() => timer === undefined ? Effect.void : Fiber.interrupt(timer))
  }
}

const makeRace = Effect.fnUntraced(function*<A>(stage: Stage<A>) {
  const request = yield* Effect.scope
  const told = yield* Queue.unbounded<Told<A>>()
  const racers = new Map<number, Racer>()
  const timer = makeTimer(told)

  const run = Effect.fnUntraced(function*(start: Start, scope: Scope.Closeable, began: number) {
    const exit = yield* Effect.exit(runOne(stage, start, scope))
    if (Exit.isFailure(exit)) yield* close(scope, exit)
    const tookMs = stage.now() - began - start.afterMs
    const { attempt, deployment } = start
    Queue.offerUnsafe(
      told,
      Exit.isSuccess(exit)
        ? { type: "brought", attempt, value: exit.value }
        : { type: "failed", attempt, reason: yield* reasonOf(exit.cause, deployment), tookMs }
    )
  })
  const start = Effect.fnUntraced(function*(action: Start) {
    const scope = yield* scopeOf(request)
    const began = stage.now()
    const fiber = yield* Effect.forkScoped(run(action, scope, began))
    racers.set(action.attempt, { start: action, scope, began, fiber })
  })
  /** Also of one that has brought something in the same moment as the other. */
  const cancel = (attempt: number) => {
    const { fiber, scope } = racers.get(attempt)!
    stage.moveOn(attempt)
    return Effect.andThen(Fiber.interrupt(fiber), close(scope, Exit.void))
  }

  const act = (action: Action): Effect.Effect<unknown, InferenceError, Scope.Scope> => {
    switch (action.type) {
      case "start":
        return start(action)
      case "await-hedge":
        return timer.start(action)
      case "cancel":
        return cancel(action.attempt)
      case "fail":
        return Effect.andThen(timer.stop, failure(action))
      case "commit":
        return timer.stop
    }
  }
  return { act, racers, told }
})

/** What the machine says of an event, unless that is a hedge for which there is not enough. */
const pay = <A>({ payHedge }: Stage<A>, before: Step, after: Step): Effect.Effect<Step> =>
  after.actions.some((action) => action.type === "start" && action.hedge)
    ? Effect.map(payHedge, (paid) => paid ? after : { state: before.state, actions: [] })
    : Effect.succeed(after)

/** Attempts beside each other. */
const hedged = Effect.fnUntraced(function*<A>(stage: Stage<A>, plan: Plan) {
  const request = yield* Effect.scope
  const { act, racers, told } = yield* makeRace(stage)
  const values = new Map<number, A>()
  let step = Attempts.begin(plan, firstViewOf(stage))
  for (;;) {
    yield* Effect.forEach(step.actions, act, { discard: true })
    const won = step.actions.find((action) => action.type === "commit")
    if (won !== undefined) {
      return commit(stage, request, step.state, { ...racers.get(won.attempt)!, value: values.get(won.attempt)! })
    }
    const event = yield* Queue.take(told)
    if (event.type === "brought") values.set(event.attempt, event.value)
    const seen: Event = event.type === "brought" ? { type: "content", attempt: event.attempt } : event
    step = yield* pay(stage, step, Attempts.next(step.state, seen, yield* viewOf(stage)))
  }
})

/** The first content of whoever brings it. The scope's end ends whatever still runs. */
export const drive = <A>(stage: Stage<A>, plan: Plan): Effect.Effect<Committed<A>, InferenceError, Scope.Scope> =>
  plan.hedgeAfterMs === undefined
    ? Effect.flatMap(Effect.scope, (request) => inTurn(stage, request, Attempts.begin(plan, firstViewOf(stage))))
    : hedged(stage, plan)

/**
 * Drives one request's attempts as `services/Attempts` says: starts them, waits, cancels, and gives the one that brought
 * the first content.
 *
 * **Details**
 *
 * An attempt has a scope of its own. The scopes of those that failed or lost are closed at once; that of the one that is
 * committed to lives as long as the request. A plan without a hedge has one attempt at a time, which runs on the
 * request's own fiber.
 */
import { Cause, Effect, Exit, Fiber, Option, Queue, Random, Scope } from "effect"
import * as Attempts from "../../services/Attempts.ts"
import { EngineFailed, InferenceError } from "../../services/InferenceError.ts"
import type { Reason } from "../../services/InferenceError.ts"
import type { Action, Event, Plan, View } from "../../services/Plan.ts"

type Start = Extract<Action, { type: "start" }>

/** What the attempts are made of. */
export interface Stage<A> {
  /** ms since 1970 */
  readonly now: () => number
  /** Ends with the first content, or fails before it. */
  readonly attempt: (start: Start) => Effect.Effect<A, InferenceError, Scope.Scope>
  /** ms for which a deployment must not be called; 0, it is free. */
  readonly closedFor: (deployment: string) => number
  /** Pays for a hedge, if there is enough. */
  readonly payHedge: Effect.Effect<boolean>
}

/** The attempt that is committed to. */
export interface Committed<A> {
  readonly value: A
  /** How many were started. */
  readonly attempts: number
}

const viewOf = <A>({ closedFor, now }: Stage<A>): Effect.Effect<View> =>
  Effect.map(Random.next, (random) => ({ now: now(), random, closedFor }))

/** No pause is drawn before the first attempt. */
const firstViewOf = <A>({ closedFor, now }: Stage<A>): View => ({ now: now(), random: 0, closedFor })

/** Why an attempt failed, of which an error nobody foresaw is a reason too. */
const reasonOf = (cause: Cause.Cause<InferenceError>, deployment: string): Reason =>
  Option.match(Cause.findErrorOption(cause), {
    onSome: ({ reason }) => reason,
    onNone: () => new EngineFailed({ deployment, detail: String(Cause.squash(cause)).split("\n")[0] ?? "" })
  })

/** What the caller is told: all attempts, where there was more than one. */
const failure = ({ attempts, reason }: Extract<Action, { type: "fail" }>): InferenceError =>
  new InferenceError({ reason, ...(attempts.length > 1 ? { attempts } : {}) })

const runOne = <A>({ attempt }: Stage<A>, start: Start, scope: Scope.Closeable): Effect.Effect<A, InferenceError> =>
  Scope.provide(start.afterMs > 0 ? Effect.delay(attempt(start), start.afterMs) : attempt(start), scope)

/** One attempt after another. */
const inTurn = Effect.fnUntraced(function*<A>(stage: Stage<A>, plan: Plan) {
  const request = yield* Effect.scope
  let step = Attempts.begin(plan, firstViewOf(stage))
  for (;;) {
    const failed = step.actions.find((action) => action.type === "fail")
    if (failed !== undefined) return yield* failure(failed)
    const start = step.actions.find((action) => action.type === "start")!
    const began = stage.now()
    const scope = yield* Scope.fork(request)
    const exit = yield* Effect.exit(runOne(stage, start, scope))
    if (Exit.isSuccess(exit)) return { value: exit.value, attempts: start.attempt } satisfies Committed<A>
    // The request's scope closes the attempt's.
    if (Cause.hasInterrupts(exit.cause)) return yield* Effect.failCause(exit.cause)
    yield* Scope.close(scope, exit)
    const view = yield* viewOf(stage)
    const reason = reasonOf(exit.cause, start.deployment)
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
interface Racer {
  readonly scope: Scope.Closeable
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

const makeRace = Effect.fnUntraced(function*<A>(stage: Stage<A>) {
  const request = yield* Effect.scope
  const told = yield* Queue.unbounded<Told<A>>()
  const racers = new Map<number, Racer>()

  const run = Effect.fnUntraced(function*(start: Start, scope: Scope.Closeable) {
    const began = stage.now()
    const exit = yield* Effect.exit(runOne(stage, start, scope))
    if (Exit.isFailure(exit)) yield* Scope.close(scope, exit)
    const tookMs = stage.now() - began - start.afterMs
    const { attempt, deployment } = start
    Queue.offerUnsafe(
      told,
      Exit.isSuccess(exit)
        ? { type: "brought", attempt, value: exit.value }
        : { type: "failed", attempt, reason: reasonOf(exit.cause, deployment), tookMs }
    )
  })
  const start = Effect.fnUntraced(function*(action: Start) {
    const scope = yield* Scope.fork(request)
    racers.set(action.attempt, { scope, fiber: yield* Effect.forkScoped(run(action, scope)) })
  })
  const awaitHedge = ({ afterMs, attempt }: Extract<Action, { type: "await-hedge" }>) =>
    Effect.forkScoped(
      Effect.map(
        Effect.andThen(Effect.sleep(afterMs), stage.payHedge),
        (allowed) => Queue.offerUnsafe(told, { type: "hedge-due", attempt, allowed })
      )
    )
  /** Also of one that has brought something in the same moment as the other. */
  const cancel = (attempt: number) => {
    const { fiber, scope } = racers.get(attempt)!
    return Effect.andThen(Fiber.interrupt(fiber), Scope.close(scope, Exit.void))
  }

  const act = (action: Action): Effect.Effect<unknown, InferenceError, Scope.Scope> => {
    switch (action.type) {
      case "start":
        return start(action)
      case "await-hedge":
        return awaitHedge(action)
      case "cancel":
        return cancel(action.attempt)
      case "fail":
        return Effect.fail(failure(action))
      case "commit":
      case "done":
        return Effect.void
    }
  }
  return { act, told }
})

/** Attempts beside each other. */
const hedged = Effect.fnUntraced(function*<A>(stage: Stage<A>, plan: Plan) {
  const { act, told } = yield* makeRace(stage)
  const values = new Map<number, A>()
  let step = Attempts.begin(plan, firstViewOf(stage))
  for (;;) {
    yield* Effect.forEach(step.actions, act, { discard: true })
    const commit = step.actions.find((action) => action.type === "commit")
    if (commit !== undefined) {
      return { value: values.get(commit.attempt)!, attempts: step.state.started } satisfies Committed<A>
    }
    const event = yield* Queue.take(told)
    if (event.type === "brought") values.set(event.attempt, event.value)
    const seen: Event = event.type === "brought" ? { type: "content", attempt: event.attempt } : event
    step = Attempts.next(step.state, seen, yield* viewOf(stage))
  }
})

/** The first content of whoever brings it. The scope's end ends whatever still runs. */
export const drive = <A>(stage: Stage<A>, plan: Plan): Effect.Effect<Committed<A>, InferenceError, Scope.Scope> =>
  plan.hedgeAfterMs === undefined ? inTurn(stage, plan) : hedged(stage, plan)

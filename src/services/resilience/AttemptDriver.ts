/**
 * Performs the actions of `AttemptMachine` for one request: starts attempts, waits, cancels, and returns the winning one.
 *
 * **Details**
 *
 * Every attempt has a scope. The scope of an attempt that failed or lost is closed at once; the winning attempt's scope
 * lasts as long as the request, or until another deployment continues its answer. A plan without a hedge runs one attempt at
 * a time, on the request's own fiber; continued answers do so, too.
 */
import { Cause, Effect, Exit, Fiber, Option, Queue, Scope } from "effect"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Admitted, AnsweredBy } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { EngineFailed, InferenceError } from "../../domain/InferenceError.ts"
import * as AttemptMachine from "./AttemptMachine.ts"
import type { Action, Event, Fail, Plan, Start, State, Step, View } from "./AttemptPlan.ts"
import type { Delays } from "./Backoff.ts"

/** The functions that the driver calls. */
export interface Hooks<A> {
  /** The id of the request's decision record. */
  readonly decision: string
  /** What limits and budgets say of the request. */
  readonly admitted?: Admitted | undefined
  /** monotonic ms */
  readonly now: () => number
  /** Ends with the first content, or fails before it. */
  readonly attempt: (start: Start) => Effect.Effect<A, InferenceError, Scope.Scope>
  readonly closedFor: View["closedFor"]
  /** Called before an attempt is cancelled because another won. */
  readonly supersede: (attempt: number) => void
  /** Called when an attempt has won. */
  readonly won: (attempt: number) => void
  /** Pays for a hedged attempt; false if the budget does not suffice. */
  readonly payHedge: () => boolean
  /** Called when an attempt has failed, unless in a defect. */
  readonly failed: (deployment: string, reason: Reason) => Effect.Effect<void>
  /** Made when the first attempt has failed. */
  readonly delays: () => Delays
}

/** The attempt whose answer the caller gets. */
export interface WinningAttempt<A> extends AnsweredBy {
  readonly value: A
  /** Continues the answer elsewhere after it broke off; fails with that cause if no deployment can. */
  readonly resume: (cause: Cause.Cause<InferenceError>) => Effect.Effect<WinningAttempt<A>, InferenceError>
}

/** One request's drive. */
interface Drive<A> {
  readonly hooks: Hooks<A>
  /** The scope of the request. */
  readonly scope: Scope.Scope
  delays: Delays | undefined
}

/** An attempt and its scope. */
interface StartedAttempt {
  readonly start: Start
  readonly scope: Scope.Closeable
  /** monotonic ms */
  readonly startedAt: number
}

const viewOf = <A>({ hooks: { closedFor, now } }: Drive<A>): View => ({ now: now(), closedFor })

/** The reason of a failed attempt. A defect's text may hold secrets: it is logged only. */
const reasonOf = <A>(
  { hooks: { failed } }: Drive<A>,
  cause: Cause.Cause<InferenceError>,
  deployment: string
): Effect.Effect<Reason> =>
  Option.match(Cause.findErrorOption(cause), {
    onSome: ({ reason }) => Effect.as(failed(deployment, reason), reason),
    onNone: () =>
      Effect.as(
        Effect.logError(`An attempt at "${deployment}" ended in a defect.`, cause),
        new EngineFailed({ deployment, detail: "It ended in a defect." })
      )
  })

/** The request's error, with all failed attempts if there were several. */
const failure = <A>(
  { hooks: { decision } }: Drive<A>,
  { attempts, reason, started }: Fail
): InferenceError =>
  new InferenceError({
    reason,
    decision,
    ...(attempts.length > 1 ? { attempts } : {}),
    ...(started === attempts.length ? {} : { started })
  })

const run = <A>({ hooks: { attempt } }: Drive<A>, start: Start, scope: Scope.Closeable) =>
  Scope.provide(start.afterMs > 0 ? Effect.delay(attempt(start), start.afterMs) : attempt(start), scope)

/** Ends an attempt. A failure to release its resources fails neither the request nor another attempt. */
const close = (scope: Scope.Closeable, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Effect.catchCause(
    Scope.close(scope, exit),
    (cause) => Effect.logError("The resources of an attempt could not be released.", cause)
  )

/** An attempt's scope; the request's scope closes it at the latest. */
const makeScope = (request: Scope.Scope): Effect.Effect<Scope.Closeable> =>
  Effect.suspend(() => {
    const scope = Scope.makeUnsafe()
    return Effect.as(Scope.addFinalizerExit(request, (exit) => close(scope, exit)), scope)
  })

/** The event of a failed attempt, with the next backoff of its deployment. */
const failedEvent = Effect.fnUntraced(function*<A>(
  drive: Drive<A>,
  type: "failed" | "cut",
  { start: { afterMs, attempt, deployment }, startedAt }: StartedAttempt,
  cause: Cause.Cause<InferenceError>
) {
  const now = drive.hooks.now()
  const reason = yield* reasonOf(drive, cause, deployment)
  drive.delays ??= drive.hooks.delays()
  const backoffMs = yield* drive.delays.next(deployment, reason, now)
  return { type, attempt, reason, tookMs: now - startedAt - afterMs, backoffMs } satisfies Event
})

/** Continues an answer that broke off: see `WinningAttempt.resume`. */
const resume = Effect.fnUntraced(function*<A>(
  drive: Drive<A>,
  state: State,
  started: StartedAttempt,
  cause: Cause.Cause<InferenceError>
) {
  yield* close(started.scope, Exit.failCause(cause))
  const event = yield* failedEvent(drive, "cut", started, cause)
  const view = viewOf(drive)
  const committed = AttemptMachine.next(state, { type: "content", attempt: event.attempt }, view).state
  return yield* inTurn(drive, AttemptMachine.next(committed, event, view))
})

const commit = <A>(drive: Drive<A>, state: State, started: StartedAttempt, value: A): WinningAttempt<A> => {
  const { hooks: { admitted, decision, won } } = drive
  won(started.start.attempt)
  return {
    value,
    deployment: started.start.deployment,
    attempts: state.started,
    decision,
    ...(admitted === undefined ? {} : { admitted }),
    resume: (cause) => resume(drive, state, started, cause)
  }
}

/** A first attempt that has begun. */
export interface BegunAttempt<A> {
  /** monotonic ms */
  readonly startedAt: number
  /** The rest of it. */
  readonly rest: Effect.Effect<A, InferenceError, Scope.Scope>
}

/** Runs one attempt after another. */
const inTurn: <A>(
  drive: Drive<A>,
  first: Step,
  begun?: BegunAttempt<A>
) => Effect.Effect<WinningAttempt<A>, InferenceError> = Effect.fnUntraced(
  function*<A>(drive: Drive<A>, first: Step, begun?: BegunAttempt<A>) {
    let step = first
    let running = begun
    for (;;) {
      const failed = step.actions.find((action) => action.type === "fail")
      if (failed !== undefined) return yield* failure(drive, failed)
      const start = step.actions.find((action) => action.type === "start")!
      const started: StartedAttempt = {
        start,
        startedAt: running?.startedAt ?? drive.hooks.now(),
        scope: yield* makeScope(drive.scope)
      }
      const attempt = running === undefined
        ? run(drive, start, started.scope)
        : Scope.provide(running.rest, started.scope)
      running = undefined
      const exit = yield* Effect.exit(attempt)
      if (Exit.isSuccess(exit)) return commit(drive, step.state, started, exit.value)
      // The request's scope closes the attempt's.
      if (isCancellation(exit.cause)) return yield* Effect.failCause(exit.cause)
      yield* close(started.scope, exit)
      const event = yield* failedEvent(drive, "failed", started, exit.cause)
      step = AttemptMachine.next(step.state, event, viewOf(drive))
    }
  }
)

/** What the fibers of a hedged request report. */
type Report<A> = Event | { readonly type: "succeeded"; readonly attempt: number; readonly value: A }

/** An attempt on its own fiber. */
interface ForkedAttempt extends StartedAttempt {
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

/** The time until a second attempt may start. The budget is charged when it starts: see `pay`. */
const makeTimer = <A>(reports: Queue.Enqueue<Report<A>>) => {
  let timer: Fiber.Fiber<unknown> | undefined
  return {
    start: ({ afterMs, attempt }: Extract<Action, { type: "await-hedge" }>) => {
      const due = Effect.sync(() => Queue.offerUnsafe(reports, { type: "hedge-due", attempt }))
      return Effect.map(Effect.forkScoped(Effect.delay(due, afterMs)), (fiber) => {
        timer = fiber
      })
    },
    /** The request's scope would end it, but may last as long as the answer. */
    stop: Effect.suspend(() => timer === undefined ? Effect.void : Fiber.interrupt(timer))
  }
}

const makeRace = Effect.fnUntraced(function*<A>(drive: Drive<A>) {
  const reports = yield* Queue.unbounded<Report<A>>()
  const forked = new Map<number, ForkedAttempt>()
  const timer = makeTimer(reports)

  const report = Effect.fnUntraced(function*(started: StartedAttempt) {
    const exit = yield* Effect.exit(run(drive, started.start, started.scope))
    if (Exit.isSuccess(exit)) {
      Queue.offerUnsafe(reports, { type: "succeeded", attempt: started.start.attempt, value: exit.value })
      return
    }
    yield* close(started.scope, exit)
    Queue.offerUnsafe(reports, yield* failedEvent(drive, "failed", started, exit.cause))
  })
  const start = Effect.fnUntraced(function*(action: Start) {
    const started: StartedAttempt = {
      start: action,
      startedAt: drive.hooks.now(),
      scope: yield* makeScope(drive.scope)
    }
    const fiber = yield* Effect.forkScoped(report(started))
    forked.set(action.attempt, { ...started, fiber })
  })
  /** Also of an attempt that has content at the same moment as the winner. */
  const cancel = (attempt: number) => {
    const { fiber, scope, start: { deployment } } = forked.get(attempt)!
    drive.hooks.supersede(attempt)
    drive.delays?.reset(deployment)
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
        return Effect.andThen(timer.stop, failure(drive, action))
      case "commit":
        return timer.stop
    }
  }
  return { act, forked, reports }
})

/** The step after an event. A hedged attempt that the budget does not cover is not started. */
const pay = <A>({ hooks: { payHedge } }: Drive<A>, before: Step, after: Step): Step =>
  after.actions.some((action) => action.type === "start" && action.hedge) && !payHedge()
    ? { state: before.state, actions: [] }
    : after

/** Runs several attempts at a time. */
const hedged = Effect.fnUntraced(function*<A>(drive: Drive<A>, plan: Plan) {
  const { act, forked, reports } = yield* makeRace(drive)
  const values = new Map<number, A>()
  let step = AttemptMachine.begin(plan, viewOf(drive))
  for (;;) {
    yield* Effect.forEach(step.actions, act, { discard: true })
    const won = step.actions.find((action) => action.type === "commit")
    if (won !== undefined) return commit(drive, step.state, forked.get(won.attempt)!, values.get(won.attempt)!)
    const report = yield* Queue.take(reports)
    if (report.type === "succeeded") values.set(report.attempt, report.value)
    const event: Event = report.type === "succeeded" ? { type: "content", attempt: report.attempt } : report
    step = pay(drive, step, AttemptMachine.next(step.state, event, viewOf(drive)))
  }
})

/** The first attempt with content. The end of the scope ends all others. */
export const drive = <A>(hooks: Hooks<A>, plan: Plan): Effect.Effect<WinningAttempt<A>, InferenceError, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) => {
    const drive: Drive<A> = { hooks, scope, delays: undefined }
    return plan.hedgeAfterMs === undefined
      ? inTurn(drive, AttemptMachine.begin(plan, viewOf(drive)))
      : hedged(drive, plan)
  })

/**
 * Goes on with a first attempt that has begun, and with those after it.
 *
 * @param step has started that attempt
 */
export const resumeFirst = <A>(
  hooks: Hooks<A>,
  step: Step,
  begun: BegunAttempt<A>
): Effect.Effect<WinningAttempt<A>, InferenceError, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) => inTurn({ hooks, scope, delays: undefined }, step, begun))

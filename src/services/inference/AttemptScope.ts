/** One attempt, let through by its deployment's circuit, measured and written down to the end of its scope. */
import { Cause, Effect, Exit } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Breaker } from "../health/Breaker.ts"
import type { Ending, Verdict } from "../health/Circuit.ts"
import { endingOf } from "../health/Circuit.ts"
import type { LatencySample } from "../health/LatencyStats.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { AttemptDraft } from "../routing/DecisionLog.ts"
import type { Route } from "../routing/Route.ts"
import type { Router } from "../routing/Router.ts"
import type { Progress } from "./RequestTelemetry.ts"
import * as Operation from "./RequestTelemetry.ts"

/** A request that has been routed. */
export interface Begun {
  readonly route: Route
  readonly progress: Progress
}

/** Writes down how an attempt ended. */
const close = (draft: AttemptDraft, exit: Exit.Exit<unknown, InferenceError>, tookMs: number): void => {
  draft.tookMs = tookMs
  draft.outcome = Exit.isSuccess(exit) ? "answered" : "left"
  if (Exit.isSuccess(exit) || isCancellation(exit.cause)) return
  const error = Cause.squash(exit.cause) as Partial<InferenceError>
  // A defect's words may hold anything.
  draft.error = error.reason === undefined
    ? { reason: "Defect", message: "It ended in a defect." }
    : { reason: error.reason._tag, message: error.reason.message }
  draft.outcome = "failed"
}

/** A time limit that ends an attempt before it has a slot says nothing of the deployment, whichever limit it is. */
const waitingEnded = ({ granted }: Operation.Tally, ending: Ending): Ending =>
  !granted && ending.reason?._tag === "UpstreamTimeout" ? { ...ending, verdict: "left" } : ending

interface Parts {
  readonly breaker: Breaker["Service"]
  readonly callbacks: GuardedCallbacks
  readonly router: Router["Service"]
  /** ms of `Monotonic` */
  readonly now: () => number
}

const measurementsName = "router's measurements"
const unmeasured: LatencySample = { granted: () => {}, content: () => {}, end: () => {} }

/**
 * Whether no other deployment can take the request. Those that stand in for long prompts and refused content only do not
 * count: they are not asked when this one is not available.
 */
export const isAlone = ({ alone, deployments, fallbacks: { ordinary } }: Route): boolean =>
  alone === true || deployments.length + ordinary.length === 1

/** Begins attempts, and nobody leaves in between; fails with `CircuitOpen`. */
export const make = ({ breaker, callbacks, now, router }: Parts) =>
  Effect.fnUntraced(function*({ progress, route }: Begun, deployment: Deployment, hedge: boolean) {
    const { id } = deployment
    const tally = Operation.tally(Operation.serverOf(deployment))
    const began = now()
    const draft: AttemptDraft = { deployment: id, startedMs: began - progress.began, outcome: "running" }
    if (hedge) draft.hedge = true
    progress.record.attempts.push(draft)
    const trial = callbacks.call(measurementsName, () => router.measure(id, route), unmeasured)
    const end = (exit: Exit.Exit<unknown, InferenceError>, verdict: Verdict) => {
      callbacks.call(measurementsName, () => trial.end(verdict, tally.tokens), undefined)
      close(draft, exit, now() - began)
    }
    const ending = () => {
      const exit = Operation.exitOf(tally)
      const ending = waitingEnded(tally, endingOf(exit))
      end(exit, ending.verdict)
      return ending
    }
    const granted = () => {
      if (tally.granted) return
      tally.granted = true
      callbacks.call(measurementsName, trial.granted, undefined)
    }
    const alone = isAlone(route)
    let noteContent = yield* Effect.tapCause(
      breaker.enter(id, ending, alone),
      (cause) => Effect.sync(() => end(Exit.failCause(cause), "left"))
    )
    const content = () => {
      if (draft.firstTokenMs !== undefined) return
      draft.firstTokenMs = now() - began
      noteContent()
      callbacks.call(measurementsName, trial.content, undefined)
    }
    const openings = breaker.openings(id)
    /** Whoever was called first may have found out, while this one waited, that it must not be called. */
    const enterAgain = Effect.suspend(() =>
      breaker.openings(id) === openings
        ? Effect.void
        : Effect.map(breaker.enter(id, () => endingOf(Operation.exitOf(tally)), alone), (entered) => {
          noteContent = entered
        })
    )
    return { tally, granted, content, enterAgain }
  }, Effect.uninterruptible)

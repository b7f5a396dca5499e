/**
 * The backoff between two attempts at one deployment, as a `Schedule` built from the policy.
 *
 * **Details**
 *
 * The schedule is stepped once for every failed attempt at a deployment, with the failure's reason as input; its delay is
 * the pause before the next attempt there. Each request and deployment has its own schedule. A schedule that ends allows no
 * further attempt at the deployment; `retries`, `maxAttempts` and Retry-After of the policy hold in addition.
 *
 * **Example** (a program's own backoff)
 *
 * ```ts
 * const backoff = Backoff.layerWith(() => Schedule.spaced("1 second"))
 * const runtime = App.layer({ services: { backoff } })
 * ```
 */
import { Context, Duration, Effect, Layer, Pull, Schedule } from "effect"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

/** Makes the schedule of a policy. */
export type MakeSchedule = (policy: Policy) => Schedule.Schedule<unknown, Reason>

/** The range that `Schedule.jittered` multiplies delays by, so that requests that failed together do not retry together. */
export const jitter = { least: 0.8, most: 1.2 } as const

/** Exponential by `factor` from `initialMs` up to `capMs`, with jitter. */
export const fromPolicy: MakeSchedule = ({ backoff: { capMs, factor, initialMs } }) =>
  Schedule.jittered(Schedule.min([Schedule.exponential(initialMs, factor), Schedule.spaced(capMs)]))

/** Makes the schedules of backoff. */
export class Backoff extends Context.Service<Backoff, {
  /** Called once for each request and deployment with a failed attempt. */
  readonly schedule: MakeSchedule
}>()("troupe/services/resilience/Backoff") {}

/** Schedules of the program's own. */
export const layerWith = (schedule: MakeSchedule): Layer.Layer<Backoff> =>
  Layer.succeed(Backoff, Backoff.of({ schedule }))

/** Schedules as the policies say. */
export const layer = layerWith(fromPolicy)

/** The backoff delays of one request. */
export interface Delays {
  /** Steps the deployment's schedule: ms before its next attempt, or undefined if the schedule has ended. */
  readonly next: (deployment: string, reason: Reason, now: number) => Effect.Effect<number | undefined>
  /** Resets the deployment's schedule. */
  readonly reset: (deployment: string) => void
}

type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, Reason, never, never>>>

/** The delays of one request, in memory. */
export const make = (makeSchedule: MakeSchedule, policy: Policy): Delays => {
  const steps = new Map<string, Step>()
  const stepOf = (deployment: string) =>
    Effect.suspend(() => {
      const known = steps.get(deployment)
      return known !== undefined
        ? Effect.succeed(known)
        : Effect.tap(Schedule.toStep(makeSchedule(policy)), (step) => Effect.sync(() => steps.set(deployment, step)))
    })
  return {
    next: (deployment, reason, now) =>
      Effect.flatMap(stepOf(deployment), (step) =>
        Pull.matchEffect(step(now, reason), {
          onSuccess: ([, delay]) => Effect.succeed(Math.round(Duration.toMillis(delay))),
          onFailure: Effect.failCause,
          onDone: () => Effect.undefined
        })),
    reset: (deployment) => void steps.delete(deployment)
  }
}

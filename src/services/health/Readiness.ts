/** Whether the service takes requests, and what `GET /health/ready` answers. */
import { Context, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import { StoreState } from "./StoreHealth.ts"

/** The service takes requests while it is `ready`. */
export const Status = Schema.Literals(["starting", "ready", "stopping"])
export type Status = typeof Status.Type

/** The state of one configured deployment. */
const DeploymentHealth = Schema.Struct({
  deployment: Schema.String,
  state: Schema.Literals(["cold", "loading", "ready", "draining", "failed"]),
  running: Schema.Int,
  queued: Schema.Int,
  lastFailure: Schema.optionalKey(Schema.String),
  /** Why it cannot answer now; left out, it can. */
  unavailable: Schema.optionalKey(Schema.String)
})

/** The body of `GET /health/ready`. */
export const Report = Schema.Struct({
  /**
   * `unavailable`: no model can answer, since keys are in cooldown, circuits are open or engines have failed; or a store does
   * not answer without which requests are rejected.
   */
  status: Schema.Literals([...Status.literals, "unavailable"]),
  deployments: Schema.Array(DeploymentHealth),
  /** Left out where there are none. */
  stores: Schema.optionalKey(Schema.Array(StoreState))
})
export type Report = typeof Report.Type

/** The status of the service. The application sets it once every model is loaded; the server sets it when it stops. */
export class Readiness extends Context.Service<Readiness, {
  status: Status
  /** Whether another generation of processes takes the requests: connections without a request are to end. */
  isReplaced?: boolean
}>()("troupe/services/health/Readiness") {}

/** Whether the process is about to end. */
export const isLeaving = ({ isReplaced = false, status }: Readiness["Service"]): boolean =>
  isReplaced || status === "stopping"

const lookEvery = Schedule.spaced(Duration.millis(250))

/** Waits until the process is about to end: for what a client would keep open for ever. */
export const untilLeaving = (readiness: Readiness["Service"], isIdle = () => true): Effect.Effect<void> =>
  Effect.asVoid(Effect.repeat(Effect.sync(() => isLeaving(readiness) && isIdle()), {
    schedule: lookEvery,
    until: (isOver: boolean) => isOver
  }))

/** A service that starts. */
export const layer = Layer.sync(Readiness, () => Readiness.of({ status: "starting" }))

/** The status of the service and the state of each configured deployment. */
export const makeReport = Effect.gen(function*() {
  const models = yield* Models
  const readiness = yield* Readiness
  const registry = yield* Registry
  const statuses = yield* Effect.forEach(registry.models().flatMap(({ deployments }) => deployments), models.status)
  return {
    status: readiness.status,
    deployments: statuses.map(({ deployment, lastFailure, queued, running, state }) => ({
      deployment,
      state,
      running,
      queued,
      ...(lastFailure === undefined ? {} : { lastFailure })
    }))
  }
})

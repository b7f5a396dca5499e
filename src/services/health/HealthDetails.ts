/**
 * What `GET /health/details` answers: which models can answer now and why others cannot, and how the service did lately.
 *
 * **Details**
 *
 * A deployment cannot answer while its circuit is open, while all of its keys are in cooldown, or after its restarts are used up.
 *
 * The windows begin when the service is first ready: the time of a start is no failure.
 */
import { Clock, Context, Effect, Layer, Metric, Option, Schedule, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import * as Time from "../../domain/Time.ts"
import { Providers } from "../engines/Providers.ts"
import { VirtualKeys } from "../keys/VirtualKeys.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import type { NewEvent } from "../observability/OperatorEvents.ts"
import { OperatorEvents } from "../observability/OperatorEvents.ts"
import { callerErrors } from "../observability/RequestMetrics.ts"
import { gauge, SampledGauges } from "../observability/Series.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"
import { first } from "../processes/Shares.ts"
import type { Resolved } from "../settings/Settings.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import { Availability, targets, Window, windows } from "./Availability.ts"
import type { WindowName } from "./Availability.ts"
import { Breaker } from "./Breaker.ts"
import * as Readiness from "./Readiness.ts"
import * as StoreHealth from "./StoreHealth.ts"
import { Stores } from "./StoreHealth.ts"

/** The body of `GET /health/details`. */
export const Report = Schema.Struct({
  /** As `GET /health/ready` says it. */
  status: Readiness.Report.fields.status,
  /** Of the service. */
  uptimeSeconds: Schema.Int,
  /** Of each of its processes: one that has crashed begins again. Left out if the service is one process. */
  processUptimeSeconds: Schema.optionalKey(Schema.Array(Schema.Int)),
  targets: Schema.Struct({ availability: Schema.Finite, errorRate: Schema.Finite }),
  windows: Schema.Array(Window),
  models: Schema.Array(Schema.Struct({
    model: Schema.String,
    /** Whether one of its deployments can answer. */
    available: Schema.Boolean,
    deployments: Readiness.Report.fields.deployments
  })),
  /** Left out where there are none. */
  stores: Readiness.Report.fields.stores
})
export type Report = typeof Report.Type

/** The state of the models and stores, and the windows. */
export class HealthDetails extends Context.Service<HealthDetails, {
  readonly report: Effect.Effect<Report>
  /** What `GET /health/ready` answers. */
  readonly ready: Effect.Effect<Readiness.Report>
  /** The stores, as they were asked last. */
  readonly stores: () => ReadonlyArray<StoreHealth.StoreState>
}>()("troupe/services/health/HealthDetails") {}

/** Requests until now, of all models, without those whose callers are the cause of their failure. */
const requestsUntilNow = Effect.map(Metric.snapshot, (snapshots) => {
  let answered = 0
  let failed = 0
  for (const snapshot of snapshots) {
    if (snapshot.type !== "Counter") continue
    const count = Number(snapshot.state.count)
    if (snapshot.id === callerErrors.id) failed -= count
    if (snapshot.id !== "llm_requests_total") continue
    if (snapshot.attributes?.["success"] === "true") answered += count
    else failed += count
  }
  return { answered, failed }
})

const available = gauge("troupe_model_available", "Whether a model can answer (1) or not (0), by model")

const secondsText = (ms: number): string => `${Math.ceil(ms / 1000)} s`

/** Which models can answer now. */
const makeModels = Effect.gen(function*() {
  const models = yield* Models
  const registry = yield* Registry
  const breaker = yield* Breaker
  const providers = yield* Providers

  /** Why a deployment cannot answer now. */
  const problemOf = (deployment: Deployment, state: string, now: number): string | undefined => {
    if (models.drained?.has(deployment.id) === true) return "an operator has drained it: troupe resume ends that"
    if (state === "failed") return "it has failed and is not started again: troupe load tries it"
    const closedFor = breaker.closedFor(deployment.id, now, true)
    if (closedFor > 0) return `its circuit is open; a call may try it in ${secondsText(closedFor)}`
    const waiting = providers.waitingKeys(deployment, now)
    return waiting !== undefined && waiting.total > 0 && waiting.waiting === waiting.total
      ? `all of its keys are in cooldown; the first one may be used in ${secondsText(waiting.retryAfterMs)}`
      : undefined
  }

  const detailsOf = Effect.fnUntraced(function*(deployment: Deployment) {
    const { lastFailure, queued, running, state } = yield* models.status(deployment)
    const unavailable = problemOf(deployment, state, yield* Time.now)
    return {
      deployment: deployment.id,
      state,
      running,
      queued,
      ...(lastFailure === undefined ? {} : { lastFailure }),
      ...(unavailable === undefined ? {} : { unavailable })
    }
  })

  const detailsOfModel = ({ deployments, name }: Model) =>
    Effect.map(Effect.forEach(deployments, detailsOf), (details) => ({
      model: name,
      available: details.some((one) => !("unavailable" in one)),
      deployments: details
    }))

  // A reload changes the models.
  return Effect.suspend(() => Effect.forEach(registry.models(), detailsOfModel))
})

const isAnyAvailable = (models: Report["models"]): boolean =>
  models.length === 0 || models.some(({ available }) => available)

/** Whether a key has a budget of its own. */
const keyBudgets = Effect.map(
  Effect.serviceOption(VirtualKeys),
  (keys) =>
    Option.isNone(keys)
      ? Effect.succeed(false)
      : Effect.map(keys.value.list, (all) => all.some(({ budgets = [] }) => budgets.length > 0))
)

/** All processes share the stores: one publishes. */
const makePublish = Effect.zipWith(OperatorEvents, ProcessGroup, (events, member) => {
  const publishes = member === undefined || member.index === first
  return (all: ReadonlyArray<NewEvent>): void => {
    if (publishes) { for (const event of all) events.publish(event) }
  }
})

/** The uptimes of the service and of this process, from the start of this process on. */
export const makeUptime = Effect.gen(function*() {
  const startedAt = yield* Time.now
  const member = yield* ProcessGroup
  const clock = yield* Clock.Clock
  return (): Pick<Report, "processUptimeSeconds" | "uptimeSeconds"> => {
    const own = Math.round((Time.nowOf(clock) - startedAt) / 1000)
    if (member === undefined) return { uptimeSeconds: own }
    const { since = Number.POSITIVE_INFINITY } = member
    const ofService = Math.round((clock.currentTimeMillisUnsafe() - since) / 1000)
    return { uptimeSeconds: Math.max(own, ofService), processUptimeSeconds: [own] }
  }
})

const make = Effect.gen(function*() {
  const readiness = yield* Readiness.Readiness
  const { sampleEvery = Defaults.sampleInterval } = yield* Settings
  const uptime = yield* makeUptime
  const availability = new Availability()
  const gauges = new SampledGauges(yield* Effect.context())
  const models = yield* makeModels
  const stores = yield* Stores
  let settings: Pick<Resolved, "admission"> = yield* Settings
  ;(yield* SettingsChanges).follow((next) => {
    settings = next
  })
  let states: ReadonlyArray<StoreHealth.StoreState> = []
  const publish = yield* makePublish
  const keysHaveBudgets = yield* keyBudgets
  const ofStores = () => stores.length === 0 ? {} : { stores: states }
  const canAnswer = (all: Report["models"]) => isAnyAvailable(all) && !StoreHealth.isMissing(states)
  const statusOf = (all: Report["models"]): Report["status"] =>
    readiness.status === "ready" && !canAnswer(all) ? "unavailable" : readiness.status

  const sample = Effect.gen(function*() {
    const asked = yield* StoreHealth.ask(stores, settings, keysHaveBudgets)
    publish(StoreHealth.eventsOf(states, asked))
    states = StoreHealth.dated(states, asked, yield* Clock.currentTimeMillis)
    const all = yield* models
    for (const one of all) gauges.set(available, one.available ? 1 : 0, { model: one.model })
    gauges.end()
    const counts = { at: yield* Time.now, ...(yield* requestsUntilNow) }
    // The windows begin when the service is first ready.
    if (readiness.status === "starting") return availability.begin(counts)
    availability.add({ ...counts, isAvailable: statusOf(all) === "ready" })
  })
  yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(sampleEvery)))

  const report = Effect.gen(function*() {
    yield* sample
    const all = yield* models
    return {
      status: statusOf(all),
      ...uptime(),
      targets,
      windows: (Object.keys(windows) as Array<WindowName>).map((window) => availability.over(window)),
      models: all,
      ...ofStores()
    }
  })
  const ready = Effect.map(models, (all): Readiness.Report => ({
    status: statusOf(all),
    deployments: all.flatMap(({ deployments }) => deployments),
    ...ofStores()
  }))
  return HealthDetails.of({ report, ready, stores: () => states })
})

/** Samples until the scope ends. */
export const layer = Layer.effect(HealthDetails, make)

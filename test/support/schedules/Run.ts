/** Runs a world: the true `Inference` over true actors, and whoever calls. */
import { Clock, Duration, Effect, Layer, Metric, Random, References, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as CachedResponsesLayer from "../../../src/layers/cache/CachedResponses.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import * as InferenceLayer from "../../../src/services/inference/Inference.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { Pressure } from "../../../src/services/models/MemoryPressure.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Metrics from "../../../src/services/observability/Metrics.ts"
import * as Backoff from "../../../src/services/resilience/Backoff.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import * as Router from "../../../src/services/routing/Router.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import type { Stage } from "../Stage.ts"
import { settingsOf, settle, stage } from "../Stage.ts"
import type { Theatre } from "./Play.ts"
import { direct, pause } from "./Play.ts"
import type { Moment, Record, Visit } from "./Record.ts"
import { isRunning, makeRecord } from "./Record.ts"
import type { Happening, World } from "./World.ts"
import { span } from "./World.ts"

const requestOf = ({ id, keepAlive, maxTokens, model, priority, tenant }: Visit["caller"]): Request => ({
  model,
  messages: [{ role: "user", content: id }],
  tenant,
  priority,
  ...(maxTokens === undefined ? {} : { maxTokens }),
  ...(keepAlive === undefined ? {} : { keepAlive })
})

const read = (visit: Visit, moment: () => Moment) => (event: Event) => {
  if (visit.finishes.length > 0) visit.eventsAfterFinish++
  if (event.type === "finish") visit.finishes.push(event)
  if (event.type === "text") visit.text += event.text
  visit.first ??= moment()
  return visit.caller.readMs > 0 ? Effect.sleep(visit.caller.readMs) : Effect.void
}

const ask = ({ generate, stream }: Inference["Service"], visit: Visit, moment: () => Moment) => {
  const request = requestOf(visit.caller)
  const { streams, takes } = visit.caller
  if (streams) {
    const events = stream(request)
    return Stream.runForEach(takes === undefined ? events : Stream.take(events, takes), read(visit, moment))
  }
  return Effect.map(generate(request), ({ deployment, finishReason, text, usage }) => {
    visit.text = text
    visit.deployment = deployment
    visit.first = moment()
    visit.finishes.push({ type: "finish", reason: finishReason, usage })
  })
}

const call = Effect.fnUntraced(function*(inference: Inference["Service"], visit: Visit, moment: () => Moment) {
  const { at, leavesAfter } = visit.caller
  const begin = Effect.sync(() => {
    visit.began = moment()
  })
  const fiber = yield* Effect.forkChild(Effect.andThen(pause(at), Effect.andThen(begin, ask(inference, visit, moment))))
  fiber.addObserver((exit) => void visit.ends.push({ moment: moment(), exit }))
  if (leavesAfter === undefined) return
  const leave = Effect.sync(() => fiber.interruptUnsafe())
  yield* Effect.forkChild(Effect.andThen(pause(at), Effect.andThen(pause(leavesAfter), leave)))
})

/** What else happens, at its time. */
const happen = (models: Models["Service"], place: Stage, world: World) => ({ at, deployment: id, what }: Happening) => {
  const deployment = world.models.flatMap(({ deployments }) => deployments).find((one) => one.id === id)!
  const does = {
    unload: () => models.unload(deployment),
    replace: () => Effect.ignore(models.replace({ ...deployment, options: { ...deployment.options } })),
    load: () => Effect.ignore(models.load(deployment)),
    crash: () => {
      const engine = place.engines.find(({ deployment, open, readyAs }) =>
        deployment.id === id && open && readyAs !== undefined
      )
      return engine === undefined ? Effect.void : engine.crash("By chance.")
    },
    "unload idle": () => Effect.asVoid(models.unloadIdle(Duration.seconds(1)))
  }
  return Effect.andThen(pause(at), Effect.suspend<void, never, never>(does[what]))
}

const layerOf = ({ breaker, models }: World, place: Stage) =>
  InferenceLayer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(Router.layer, Metrics.layer, DecisionLog.layer, CachedResponsesLayer.layer, Backoff.layer)
    ),
    Layer.provide(Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))),
    Layer.provideMerge(Breaker.layerWith(breaker)),
    Layer.provideMerge(Registry.layer),
    Layer.provide(Layer.succeed(Settings, { ...settingsOf({}), models })),
    Layer.provideMerge(place.layer)
  )

const countMetrics = ({ counts }: Record) =>
  Effect.map(Metric.snapshot, (snapshots) => {
    for (const { attributes, id, state } of snapshots) {
      const { model, success } = attributes ?? {}
      const name = [id, model, ...(success === undefined ? [] : [success])].join(" ")
      const { count } = state as { readonly count?: number }
      if (count !== undefined) counts.set(name, count)
    }
  })

/** A time limit or a hedge may end an attempt whose caller has not left: the load that it began continues. */
const mayMoveOn = ({ models }: World): boolean =>
  models.some(({ routing }) =>
    routing !== undefined &&
    (routing.policy.hedge !== undefined || routing.policy.timeouts.totalMs !== undefined ||
      routing.policy.timeouts.queueMs !== undefined)
  )

/** Nobody is there, and nothing else has asked for a load. */
const unaskedLoads = ({ visits, world }: Record, { engines }: Stage): ReadonlyArray<string> => {
  if (visits.some(({ began, ends }) => began !== undefined && ends.length === 0)) return []
  if (world.happenings.some(({ what }) => what === "load" || what === "replace")) return []
  if (mayMoveOn(world)) return []
  const wasReady = (id: string) =>
    engines.some(({ deployment, readyAs }) => deployment.id === id && readyAs !== undefined)
  return engines.filter(({ deployment, open }) => open && !wasReady(deployment.id)).map(({ deployment }) =>
    deployment.id
  )
}

/** Steps in which everyone arrives, and a time after which nothing may be left. */
const steps = [...Array.from({ length: 3 }, () => span / 3), Duration.toMillis("1 day")]

const perform = Effect.fnUntraced(function*({ moment, record }: Theatre, place: Stage, fibers: () => number) {
  const { world } = record
  const inference = yield* Inference
  const models = yield* Models
  const { transitions } = yield* Breaker.Breaker
  yield* Effect.forkScoped(Stream.runForEach(transitions, (one) => Effect.sync(() => record.transitions.push(one))))
  yield* settle
  record.fibers.idle = fibers()
  const deployments = world.models.flatMap((model) => model.deployments)
  const glance = Effect.map(models.statuses, (statuses) => {
    record.glances.push({
      moment: moment(),
      callers: record.visits.filter(({ began, ends }) => began !== undefined && ends.length === 0).length,
      running: statuses.reduce((sum, { running }) => sum + running, 0),
      queued: statuses.reduce((sum, { queued }) => sum + queued, 0),
      jobs: record.calls.filter(isRunning).length,
      unaskedLoads: unaskedLoads(record, place)
    })
  })
  for (const visit of record.visits) yield* call(inference, visit, moment)
  for (const one of world.happenings) yield* Effect.forkChild(happen(models, place, world)(one))
  for (const step of steps) {
    yield* TestClock.adjust(step)
    yield* glance
  }
  for (const deployment of deployments) yield* Effect.forkChild(models.unload(deployment))
  yield* TestClock.adjust("1 minute")
  record.fibers.emptied = fibers()
  record.enginesLeft = place.engines.filter(({ open }) => open).length
  yield* countMetrics(record)
}, Effect.scoped)

/** What is seen of this world from its beginning to its end. */
export const run = (world: World): Effect.Effect<Record> => {
  const record = makeRecord(world)
  let fibers = 0
  const performance = Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const fork = Effect.runForkWith(yield* Effect.context())
    let order = 0
    const moment = () => ({ order: order++, at: clock.currentTimeMillisUnsafe() })
    const theatre: Theatre = { record, moment, fork }
    const place = stage(direct(theatre))
    record.fibers.before = fibers
    yield* Effect.provide(perform(theatre, place, () => fibers), layerOf(world, place), { local: true })
    yield* settle
    record.fibers.after = fibers
    return record
  })
  return performance.pipe(
    Random.withSeed(world.seed),
    Effect.provide(TestClock.layer()),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void fibers++,
      recordFiberEnd: () => void fibers--
    })
  )
}

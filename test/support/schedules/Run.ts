/** Runs a schedule: callers of the real `Inference` over real actors. */
import { Clock, Duration, Effect, Layer, Metric, Random, References, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { AnswerSink, Event, Request } from "../../../src/domain/Inference.ts"
import * as ResponseCacheLayer from "../../../src/layers/cache/ResponseCache.ts"
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
import type { ScriptedEngines } from "../ScriptedEngines.ts"
import { scriptedEngines, settingsOf, settle } from "../ScriptedEngines.ts"
import type { RunContext } from "./EngineScript.ts"
import { behaviourOf, pause } from "./EngineScript.ts"
import type { Moment, Record, Visit } from "./Record.ts"
import { isRunning, makeRecord } from "./Record.ts"
import type { Schedule, ScheduledAction } from "./Schedule.ts"
import { span } from "./Schedule.ts"

const requestOf = ({ id, keepAlive, maxTokens, model, priority, tenant }: Visit["caller"]): Request => ({
  model,
  messages: [{ role: "user", content: id }],
  tenant,
  priority,
  ...(maxTokens === undefined ? {} : { maxTokens }),
  ...(keepAlive === undefined ? {} : { keepAlive })
})

const note = (visit: Visit, moment: () => Moment) => (event: Event): void => {
  if (visit.finishes.length > 0) visit.eventsAfterFinish++
  if (event.type === "finish") visit.finishes.push(event)
  if (event.type === "text") visit.text += event.text
  visit.first ??= moment()
}

const read = (visit: Visit, moment: () => Moment) => {
  const noted = note(visit, moment)
  return (event: Event) => {
    noted(event)
    return visit.caller.readMs > 0 ? Effect.sleep(visit.caller.readMs) : Effect.void
  }
}

/** A sink that takes `readMs` for the events that arrive together. */
const sinkOf = (visit: Visit, moment: () => Moment, fork: RunContext["fork"]): AnswerSink => {
  const { caller: { readMs } } = visit
  const noted = note(visit, moment)
  return {
    begin: () => {},
    events: (events) => {
      for (const event of events) noted(event)
      return readMs === 0
    },
    whenDrained: (callback) => void fork(Effect.delay(Effect.sync(callback), readMs))
  }
}

const ask = (
  { deliver, generate, stream }: Inference["Service"],
  visit: Visit,
  moment: () => Moment,
  fork: RunContext["fork"]
) => {
  const request = requestOf(visit.caller)
  const { id, streams, takes } = visit.caller
  // Every other caller that reads to the end takes its events by a sink.
  if (streams && takes === undefined && Number(id.slice(1)) % 2 === 0) {
    return deliver(request, sinkOf(visit, moment, fork))
  }
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

const call = Effect.fnUntraced(function*(
  inference: Inference["Service"],
  visit: Visit,
  { fork, moment }: Pick<RunContext, "fork" | "moment">
) {
  const { at, cancelsAfter } = visit.caller
  const begin = Effect.sync(() => {
    visit.began = moment()
  })
  const fiber = yield* Effect.forkChild(
    Effect.andThen(pause(at), Effect.andThen(begin, ask(inference, visit, moment, fork)))
  )
  fiber.addObserver((exit) => void visit.ends.push({ moment: moment(), exit }))
  if (cancelsAfter === undefined) return
  const leave = Effect.sync(() => fiber.interruptUnsafe())
  yield* Effect.forkChild(Effect.andThen(pause(at), Effect.andThen(pause(cancelsAfter), leave)))
})

/** Runs an action at its time. */
const runAction =
  (models: Models["Service"], setup: ScriptedEngines, schedule: Schedule) =>
  ({ at, deployment: id, what }: ScheduledAction) => {
    const deployment = schedule.models.flatMap(({ deployments }) => deployments).find((one) => one.id === id)!
    const does = {
      unload: () => models.unload(deployment),
      replace: () => Effect.ignore(models.replace({ ...deployment, options: { ...deployment.options } })),
      load: () => Effect.ignore(models.load(deployment)),
      crash: () => {
        const engine = setup.engines.find(({ deployment, open, readyOrder }) =>
          deployment.id === id && open && readyOrder !== undefined
        )
        return engine === undefined ? Effect.void : engine.crash("Scripted failure.")
      },
      "unload idle": () => Effect.asVoid(models.unloadIdle(Duration.seconds(1)))
    }
    return Effect.andThen(pause(at), Effect.suspend<void, never, never>(does[what]))
  }

const layerOf = ({ breaker, models }: Schedule, setup: ScriptedEngines) =>
  InferenceLayer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(Router.layer, Metrics.layer, DecisionLog.layer, ResponseCacheLayer.layer, Backoff.layer)
    ),
    Layer.provide(Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))),
    Layer.provideMerge(Breaker.layerWith(breaker)),
    Layer.provideMerge(Registry.layer),
    Layer.provide(Layer.succeed(Settings, { ...settingsOf({}), models })),
    Layer.provideMerge(setup.layer)
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

/** A time limit or a hedge may end an attempt whose caller still waits: the load that it began continues. */
const mayMoveOn = ({ models }: Schedule): boolean =>
  models.some(({ routing }) =>
    routing !== undefined &&
    (routing.policy.hedge !== undefined || routing.policy.timeouts.totalMs !== undefined ||
      routing.policy.timeouts.queueMs !== undefined)
  )

/** Loads without a caller or an action that requested them. */
const unaskedLoads = ({ visits, schedule }: Record, { engines }: ScriptedEngines): ReadonlyArray<string> => {
  if (visits.some(({ began, ends }) => began !== undefined && ends.length === 0)) return []
  if (schedule.actions.some(({ what }) => what === "load" || what === "replace")) return []
  if (mayMoveOn(schedule)) return []
  const wasReady = (id: string) =>
    engines.some(({ deployment, readyOrder }) => deployment.id === id && readyOrder !== undefined)
  return engines.filter(({ deployment, open }) => open && !wasReady(deployment.id)).map(({ deployment }) =>
    deployment.id
  )
}

/** Steps in which all requests arrive, and a time after which nothing may be left. */
const steps = [...Array.from({ length: 3 }, () => span / 3), Duration.toMillis("1 day")]

const perform = Effect.fnUntraced(
  function*({ fork, moment, record }: RunContext, setup: ScriptedEngines, fibers: () => number) {
    const { schedule } = record
    const inference = yield* Inference
    const models = yield* Models
    const { transitions } = yield* Breaker.Breaker
    yield* Effect.forkScoped(Stream.runForEach(transitions, (one) => Effect.sync(() => record.transitions.push(one))))
    yield* settle
    record.fibers.idle = fibers()
    const deployments = schedule.models.flatMap((model) => model.deployments)
    const snapshot = Effect.map(models.statuses, (statuses) => {
      record.snapshots.push({
        moment: moment(),
        callers: record.visits.filter(({ began, ends }) => began !== undefined && ends.length === 0).length,
        running: statuses.reduce((sum, { running }) => sum + running, 0),
        queued: statuses.reduce((sum, { queued }) => sum + queued, 0),
        jobs: record.calls.filter(isRunning).length,
        unaskedLoads: unaskedLoads(record, setup)
      })
    })
    for (const visit of record.visits) yield* call(inference, visit, { fork, moment })
    for (const one of schedule.actions) yield* Effect.forkChild(runAction(models, setup, schedule)(one))
    for (const step of steps) {
      yield* TestClock.adjust(step)
      yield* snapshot
    }
    for (const deployment of deployments) yield* Effect.forkChild(models.unload(deployment))
    yield* TestClock.adjust("1 minute")
    record.fibers.emptied = fibers()
    record.enginesLeft = setup.engines.filter(({ open }) => open).length
    yield* countMetrics(record)
  },
  Effect.scoped
)

/** The record of a complete run. */
export const run = (schedule: Schedule): Effect.Effect<Record> => {
  const record = makeRecord(schedule)
  let fibers = 0
  const execution = Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const fork = Effect.runForkWith(yield* Effect.context())
    let order = 0
    const moment = () => ({ order: order++, at: clock.currentTimeMillisUnsafe() })
    const context: RunContext = { record, moment, fork }
    const setup = scriptedEngines(behaviourOf(context))
    record.fibers.before = fibers
    yield* Effect.provide(perform(context, setup, () => fibers), layerOf(schedule, setup), { local: true })
    yield* settle
    record.fibers.after = fibers
    return record
  })
  return execution.pipe(
    Random.withSeed(schedule.seed),
    Effect.provide(TestClock.layer()),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void fibers++,
      recordFiberEnd: () => void fibers--
    })
  )
}

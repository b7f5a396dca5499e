/**
 * Scripted engines: `Models` over a real `LocalEngine` with a host that the test controls, with configurable memory, in
 * test time.
 */
import { Clock, Deferred, Duration, Effect, Layer, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Caller } from "../../src/domain/Caller.ts"
import type { Deployment, DeploymentOptions } from "../../src/domain/Deployment.ts"
import type { EngineHost } from "../../src/domain/EngineProtocol.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import type { EngineFailure, Job, JobCommand, JobEvent } from "../../src/domain/Job.ts"
import { isTerminal } from "../../src/domain/Job.ts"
import * as LocalEngine from "../../src/layers/engines/LocalEngine.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { Engines } from "../../src/services/engines/Engine.ts"
import { pathOf } from "../../src/services/engines/EngineKinds.ts"
import { ModelFileError, ModelFiles, Unreadable } from "../../src/services/engines/ModelFiles.ts"
import type { ActorEvent } from "../../src/services/models/Actor.ts"
import type { Reading } from "../../src/services/models/Memory.ts"
import { Memory } from "../../src/services/models/Memory.ts"
import { layer as modelsLayer, Models } from "../../src/services/models/Models.ts"
import { Settings } from "../../src/services/settings/Settings.ts"
import type { Header, Value } from "../../src/services/store/Gguf.ts"
import { deployment, settings } from "./Deployments.ts"

export const MiB = 2 ** 20

/** The machine's uptime at the start of a test, longer than any idle time: a monotonic clock starts at any value. */
const uptimeNanos = 400n * 86_400n * 1_000_000_000n

/** The test clock of a machine with this uptime. */
const upClock = Effect.map(Clock.Clock, (base) => {
  const monotonicTimeNanosUnsafe = () => base.monotonicTimeNanosUnsafe() + uptimeNanos
  const clock: Clock.Clock = Object.assign(Object.create(base), {
    monotonicTimeNanosUnsafe,
    monotonicTimeNanos: Effect.sync(monotonicTimeNanosUnsafe)
  })
  return clock
})

/** A deployment that needs this much memory. */
export const large = (id: string, mebibytes: number, more: Partial<Deployment> = {}): Deployment =>
  deployment(id, { options: { engine: "fake", memory: mebibytes * MiB }, ...more })

export const crashed = (detail: string) =>
  InferenceError.make(new InferenceError.EngineCrashed({ deployment: "a", detail }))

export const loadFailed = InferenceError.make(
  new InferenceError.ModelLoadFailed({ deployment: "a", detail: "No such file." })
)

/** A job whose events the test sends. */
export interface ScriptedJob {
  readonly job: Job
  readonly commands: Array<JobCommand>
  readonly emit: (...events: ReadonlyArray<JobEvent>) => void
  ended: boolean
}

export const finished: JobEvent = {
  type: "finished",
  reason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
}

/** A scripted engine: it occupies its memory from the start of its load to its end. */
export interface ScriptedEngine {
  readonly index: number
  readonly deployment: Deployment
  readonly jobs: Array<ScriptedJob>
  readonly crash: (detail: string) => Effect.Effect<void>
  readonly die: (failure: EngineFailure) => Effect.Effect<void>
  /** The reported memory, bytes. */
  memoryBytes: number
  /** Position in the order in which engines became ready; undefined while loading. */
  readyOrder: number | undefined
  open: boolean
}

/** Callbacks of a job after its start. */
export interface JobListener {
  readonly onCommand: (command: JobCommand) => void
  readonly onEnd: () => void
}

export interface EngineBehaviour {
  /** Called when a job starts. */
  readonly onJob?: (engine: ScriptedEngine, job: ScriptedJob) => JobListener
  readonly errorOf?: (deployment: Deployment, failure: EngineFailure) => InferenceError.InferenceError
  /** Replaces the engine for its callers. */
  readonly wrap?: (engine: Engine, deployment: Deployment) => Engine
  readonly load?: (index: number, deployment: Deployment) => Effect.Effect<void, InferenceError.InferenceError>
  readonly close?: (index: number) => Effect.Effect<void>
  /** MiB; left out, every model fits. */
  readonly budget?: number
  /** The machine's memory, without a budget. */
  readonly reading?: () => Reading
  readonly hold?: Duration.Duration
  /** Bits and MiB of GGUF files, by name. */
  readonly files?: Readonly<Record<string, { readonly mebibytes: number; readonly bits: 4 | 8 | 16 }>>
  /** Called whenever an engine begins to load, has loaded or has ended. */
  readonly onChange?: () => void
}

export interface ScriptedEngines {
  /** The time of each start, ms. */
  readonly tries: Array<number>
  /** In the order of their starts. */
  readonly engines: Array<ScriptedEngine>
  readonly layer: Layer.Layer<Models | ModelFiles>
}

/** A ready host whose jobs the test controls. */
const makeHost = (engine: ScriptedEngine, { onJob }: EngineBehaviour) => {
  let dead: EngineFailure | undefined
  const host: EngineHost = {
    ready: new Promise(() => {}),
    exited: new Promise(() => {}),
    isOver: () => dead !== undefined,
    memoryBytes: () => engine.memoryBytes,
    abandon: () => {},
    close: () => Promise.resolve(),
    start(job, onEvents) {
      if (dead !== undefined) {
        onEvents([{ type: "failed", failure: dead }])
        return () => {}
      }
      const one: ScriptedJob = {
        job,
        commands: [],
        ended: false,
        emit(...events) {
          if (one.ended) return
          one.ended = events.some(isTerminal)
          if (one.ended) listener?.onEnd()
          onEvents(events)
        }
      }
      engine.jobs.push(one)
      const listener = onJob?.(engine, one)
      return (command) => {
        one.commands.push(command)
        listener?.onCommand(command)
      }
    }
  }
  const die = (failure: EngineFailure) => {
    dead ??= failure
    for (const job of engine.jobs) job.emit({ type: "failed", failure })
  }
  return { host, die }
}

const defaultErrorOf = (_: Deployment, failure: EngineFailure) =>
  failure.kind === "stopped"
    ? InferenceError.make(new InferenceError.EngineStopped({ deployment: "a" }))
    : crashed(failure.kind === "crashed" ? failure.message : failure.kind)

const fileTypes = { 4: 2, 8: 7, 16: 1 } as const

const filesOf = ({ files = {} }: EngineBehaviour) => {
  const unreadable = (path: string) =>
    new ModelFileError({ reason: new Unreadable({ path, detail: "There is no such file." }) })
  const estimateOf = (bytes: number) => ({ weightsBytes: bytes, kvCacheBytes: 0, computeBytes: 0, totalBytes: bytes })
  return ModelFiles.of({
    describe: (options: DeploymentOptions) => {
      if (options.engine === "fake") return Effect.succeed(estimateOf(Number(options.memory ?? 0)))
      const file = files[pathOf(options) ?? ""]
      return file === undefined
        ? Effect.fail(unreadable("?"))
        : Effect.succeed({ ...estimateOf(file.mebibytes * MiB), bits: file.bits })
    },
    inspectFile: (path) => {
      const file = files[path]
      if (file === undefined) return Effect.fail(unreadable(path))
      const metadata = new Map<string, Value>([["general.file_type", fileTypes[file.bits]]])
      const header: Header = { version: 3, metadata, tensors: [], weightsOffset: 0 }
      return Effect.succeed({ path, bytes: file.mebibytes * MiB, changedAt: 0, header })
    }
  })
}

export const settingsOf = ({ budget, hold = Duration.seconds(5), reading }: EngineBehaviour) =>
  settings({
    memory: {
      ...settings().memory,
      budgetBytes: reading !== undefined ? undefined : budget === undefined ? Number.POSITIVE_INFINITY : budget * MiB,
      hold
    }
  })

export const scriptedEngines = (behaviour: EngineBehaviour = {}): ScriptedEngines => {
  const { close = () => Effect.void, wrap, load = () => Effect.void, onChange = () => {}, reading } = behaviour
  const tries: Array<number> = []
  const engines: Array<ScriptedEngine> = []
  let ready = 0

  const start = Effect.fnUntraced(function*(deployment: Deployment) {
    const index = tries.length
    const errorOf = (failure: EngineFailure) => (behaviour.errorOf ?? defaultErrorOf)(deployment, failure)
    tries.push(yield* Clock.currentTimeMillis)
    const crash = yield* Deferred.make<never, InferenceError.InferenceError>()
    const end = (failure: EngineFailure) =>
      // As with a real host, the jobs get the failure before the actor does.
      Effect.sync(() => die(failure)).pipe(
        Effect.andThen(Effect.repeat(Effect.yieldNow, { times: 5 })),
        Effect.andThen(Deferred.fail(crash, errorOf(failure)))
      )
    const scripted: ScriptedEngine = {
      index,
      deployment,
      jobs: [],
      crash: (message) => end({ kind: "crashed", message }),
      die: end,
      memoryBytes: 0,
      readyOrder: undefined,
      open: true
    }
    const { die, host } = makeHost(scripted, behaviour)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        engines.push(scripted)
        onChange()
      }),
      () =>
        Effect.andThen(
          close(index),
          Effect.sync(() => {
            die({ kind: "stopped" })
            scripted.open = false
            onChange()
          })
        )
    )
    yield* load(index, deployment)
    scripted.readyOrder = ready++
    onChange()
    const slots = ("slots" in deployment.options ? deployment.options.slots : undefined) ?? 4
    const describe = {
      engine: "fake",
      contextWindow: 4096,
      slots,
      capabilities: ["generate", "embed"],
      details: { index }
    } as const
    const engine: Engine = {
      ...LocalEngine.make(host, describe, errorOf, { random: yield* Random.Random, clock: yield* Clock.Clock }),
      crashed: Deferred.await(crash),
      stop: end({ kind: "stopped" })
    }
    return wrap?.(engine, deployment) ?? engine
  })

  const files = Layer.succeed(ModelFiles, filesOf(behaviour))
  const dependencies = Layer.mergeAll(
    Layer.succeed(Engines, Engines.of({ start })),
    Layer.succeed(Settings, settingsOf(behaviour)),
    files,
    Layer.succeed(
      Memory,
      Memory.of({ read: Effect.sync(() => reading?.() ?? { totalBytes: 0, availableBytes: 0 }) })
    )
  )
  const models = modelsLayer.pipe(
    Layer.provide(dependencies),
    Layer.provide(Layer.effect(Clock.Clock, upClock))
  )
  return { tries, engines, layer: Layer.merge(models, files) }
}

export const generation: Generation = {
  messages: [{ role: "user", content: "Hello" }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: []
}

/** Runs every fiber as far as possible at the current time. */
export const settle = TestClock.adjust(0)

/** The index of a leased engine. */
export const indexOf = ({ describe }: Engine): number => Number(describe.details["index"])

/** Leases the engine, uses it, and releases it. */
export const using = <A, E>(
  deployment: Deployment,
  use: (engine: Engine) => Effect.Effect<A, E>,
  caller: Caller = {}
) => Models.use(({ lease }) => Effect.flatMap(lease(deployment, caller), use)).pipe(Effect.scoped)

/** Leases the engine until the fiber ends. */
export const hold = (deployment: Deployment, caller: Caller = {}) =>
  Effect.forkChild(using(deployment, () => Effect.never, caller))

/** Leases the engine for this duration; the result is the engine's index. */
export const workFor = (deployment: Deployment, duration: Duration.Input, caller: Caller = {}) =>
  Effect.forkChild(using(deployment, (engine) => Effect.as(Effect.sleep(duration), indexOf(engine)), caller))

export const statusOf = (deployment: Deployment) => Models.use(({ status }) => status(deployment))

/** The events from now on, in a list that grows. */
export const listen = Effect.gen(function*() {
  const received: Array<ActorEvent> = []
  const { events } = yield* Models
  yield* Effect.forkChild(Stream.runForEach(events, (event) => Effect.sync(() => received.push(event))))
  yield* settle
  return received
})

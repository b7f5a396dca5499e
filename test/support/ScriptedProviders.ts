/**
 * `Inference` over remote engines whose providers are scripts: a dispatcher in this process in place of sockets, in test
 * time. A request runs with or without `Engine.start`, and everything that it leaves behind is observed.
 */
import type * as Undici from "@effect/platform-node/Undici"
import {
  Cause,
  Clock,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Random,
  Redacted,
  References,
  Stream,
  SubscriptionRef
} from "effect"
import { TestClock } from "effect/testing"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Deployment, Model, RemoteDeployment } from "../../src/domain/Deployment.ts"
import type { AnsweredBy, AnswerSink, Event, Request } from "../../src/domain/Inference.ts"
import type { InferenceError } from "../../src/domain/InferenceError.ts"
import type { Policy } from "../../src/domain/RoutingPolicy.ts"
import * as RoutingPolicy from "../../src/domain/RoutingPolicy.ts"
import * as ResponseCacheLayer from "../../src/layers/cache/ResponseCache.ts"
import * as ModelFiles from "../../src/layers/engines/ModelFiles.ts"
import * as DeploymentKeys from "../../src/layers/providers/DeploymentKeys.ts"
import * as HttpExchange from "../../src/layers/providers/HttpExchange.ts"
import { dialects } from "../../src/layers/providers/Providers.ts"
import * as RemoteEngine from "../../src/layers/providers/RemoteEngine.ts"
import type { Used } from "../../src/services/admission/Admission.ts"
import { Admission, free } from "../../src/services/admission/Admission.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { Engines } from "../../src/services/engines/Engine.ts"
import * as Breaker from "../../src/services/health/Breaker.ts"
import * as InferenceLayer from "../../src/services/inference/Inference.ts"
import { Inference } from "../../src/services/inference/Inference.ts"
import type { Level } from "../../src/services/models/MemoryPressure.ts"
import { Pressure } from "../../src/services/models/MemoryPressure.ts"
import { layerUnbounded, Models } from "../../src/services/models/Models.ts"
import * as Registry from "../../src/services/models/Registry.ts"
import * as Metrics from "../../src/services/observability/Metrics.ts"
import * as Backoff from "../../src/services/resilience/Backoff.ts"
import * as DecisionLog from "../../src/services/routing/DecisionLog.ts"
import * as Router from "../../src/services/routing/Router.ts"
import { Settings } from "../../src/services/settings/Settings.ts"
import { deployment, settings } from "./Deployments.ts"

/** The answer of a provider to one request. */
export interface Script {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** ms until the headers; default 0. */
  readonly headMs?: number
  /** Each after a wait, ms. */
  readonly pieces: ReadonlyArray<readonly [afterMs: number, bytes: Uint8Array]>
  /** After the pieces; default `end`. `silent`: no headers come; `refused`: the connection cannot be opened. */
  readonly end?: "end" | "cut" | "stall" | "silent" | "refused"
  /** ms before the end. */
  readonly endMs?: number
}

const sse = { "content-type": "text/event-stream" }

type Fork = (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown, unknown>

/** A provider without sockets. */
class Provider {
  /** Exchanges that have neither ended nor been closed. */
  open = 0
  /** Exchanges so far. */
  count = 0
  /** Pieces sent. After `pause` one more is sent, as undici may have read it. */
  sent = 0
  readonly #scripts: ReadonlyArray<Script>
  readonly #fork: Fork

  constructor(scripts: ReadonlyArray<Script>, fork: Fork) {
    this.#scripts = scripts
    this.#fork = fork
  }

  get dispatcher(): Undici.Dispatcher {
    return { dispatch: (_: unknown, handler: Undici.Dispatcher.DispatchHandler) => this.#dispatch(handler) } as never
  }

  #dispatch(handler: Undici.Dispatcher.DispatchHandler): boolean {
    const script = this.#scripts[Math.min(this.count, this.#scripts.length - 1)]!
    this.count++
    this.open++
    let isOver = false
    let isPaused = false
    let wake: (() => void) | undefined
    const finish = (call: () => void) => {
      if (isOver) return
      isOver = true
      this.open--
      call()
    }
    const controller = {
      get paused() {
        return isPaused
      },
      pause: () => {
        isPaused = true
      },
      resume: () => {
        isPaused = false
        wake?.()
      },
      abort: (reason: Error) => {
        playing?.interruptUnsafe()
        finish(() => handler.onResponseError?.(controller as never, reason))
      }
    }
    const resumed = Effect.callback<void>((resume) => {
      if (!isPaused) return resume(Effect.void)
      wake = () => resume(Effect.void)
    })
    const send = ([afterMs, bytes]: readonly [number, Uint8Array]) => {
      const sent = Effect.suspend(() => {
        this.sent++
        handler.onResponseData?.(controller as never, Buffer.from(bytes))
        return resumed
      })
      return afterMs > 0 ? Effect.delay(sent, afterMs) : sent
    }
    const { end = "end", endMs = 0, headers = sse, headMs = 0, pieces, status = 200 } = script
    const play = Effect.gen(function*() {
      yield* headMs > 0 ? Effect.sleep(headMs) : Effect.yieldNow
      if (end === "silent") return yield* Effect.never
      if (end === "refused") {
        const error = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
        return finish(() => handler.onResponseError?.(controller as never, error))
      }
      handler.onResponseStart?.(controller as never, status, headers)
      yield* Effect.forEach(pieces, send, { discard: true })
      if (endMs > 0) yield* Effect.sleep(endMs)
      if (end === "stall") return yield* Effect.never
      if (end === "end") return finish(() => handler.onResponseEnd?.(controller as never, {}))
      finish(() => handler.onResponseError?.(controller as never, new Error("other side closed")))
    })
    if (end !== "refused") handler.onRequestStart?.(controller as never, undefined)
    const playing = this.#fork(play)
    return true
  }
}

/** A request and its circumstances. */
export interface Scenario {
  /** The answers of the deployments `m#0`, `m#1` and so on; the last one repeats. */
  readonly scripts: ReadonlyArray<ReadonlyArray<Script>>
  readonly policy?: Partial<Policy>
  readonly options?: Partial<RemoteDeployment>
  readonly request?: Partial<Request>
  /** ms after which the caller leaves, a multiple of `step`. */
  readonly leavesMs?: number | undefined
  /** The dialect of the deployments; default openai's. */
  readonly dialect?: (own: Dialect) => Dialect
  /** The engines in place of those of the providers. */
  readonly engine?: (own: Engine) => Engine
  /** Called at each step of the clock. */
  readonly each?: (index: number) => void
  /** The requests before it. */
  readonly earlier?: number
  /** Follows the answer in place of a sink that is always ready. */
  readonly sink?: (sink: AnswerSink, leave: () => void) => AnswerSink
}

/** Tasks with one buffered result. */
export const taskNames = ["embed", "embedNative", "rerank", "classify", "tokenize", "count"] as const
export type TaskName = typeof taskNames[number]

/** How a request is made: without `Engine.start`, `deliver` and `generate` go through the driver of effects. */
export interface Way {
  readonly operation: "deliver" | "open" | "generate" | TaskName
  readonly starts: boolean
}

/** What can be seen of a request. */
export interface Observation {
  readonly begun: ReadonlyArray<Omit<AnsweredBy, "decision">>
  readonly events: ReadonlyArray<Event>
  readonly answer: unknown
  readonly end: unknown
  /** The decision records. */
  readonly records: unknown
  readonly outcomes: ReadonlyArray<Metrics.Outcome>
  /** What each attempt was charged, without its decision. */
  readonly charges: ReadonlyArray<unknown>
  readonly circuits: unknown
  /** The calls of each latency sample. */
  readonly samples: ReadonlyArray<ReadonlyArray<unknown>>
  readonly keys: unknown
  /** Exchanges of each deployment. */
  readonly exchanges: ReadonlyArray<number>
}

/** What a request has left behind; all of it must be empty. */
export interface Remains {
  readonly running: number
  readonly open: number
  readonly fibers: number
  readonly runningRecords: number
  readonly takenKeys: number
  readonly completions: number
}

const request: Request = { model: "m", messages: [{ role: "user", content: "Hello" }] }

const timeouts = { firstByte: 303, firstToken: 503, stall: 203, total: 2003 } as const

const limits = Object.fromEntries(Object.entries(timeouts).map(([name, ms]) => [name, `${ms} millis`])) as never

/** A record, an error or an event without ids that are drawn at random. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value ?? null, (name, field: unknown) =>
      name === "decision" && typeof field === "string" || name === "id" ? undefined : field)
  )

const endOf = (exit: Exit.Exit<unknown, InferenceError>): unknown => {
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.hasInterruptsOnly(exit.cause)) return "left"
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "None"
    ? `defect: ${String(Cause.squash(exit.cause))}`
    : plain({ error: error.value, reason: error.value.reason, message: error.value.reason.message })
}

interface Stage {
  readonly scenario: Scenario
  readonly way: Way
  readonly providers: Array<Provider>
  readonly keys: Array<DeploymentKeys.DeploymentKeys>
  readonly outcomes: Array<Metrics.Outcome>
  readonly charges: Array<unknown>
  readonly samples: Array<Array<unknown>>
  /** Keys that requests probe now, and have probed. */
  held: number
  probes: number
}

const deploymentsOf = ({ options, scripts }: Scenario): ReadonlyArray<Deployment> =>
  scripts.map((_, index) =>
    deployment(`m#${index}`, {
      // No timer that unloads it.
      pinned: true,
      options: {
        engine: "remote",
        provider: "openai",
        model: "gpt",
        baseUrl: "http://provider.test/v1",
        key: Redacted.make("sk-secret"),
        timeouts: limits,
        ...options
      } as RemoteDeployment
    })
  )

/** Counts the keys that requests hold as probes. */
const countProbes = (stage: Stage, keys: DeploymentKeys.DeploymentKeys): DeploymentKeys.DeploymentKeys => {
  const probing = new Set<unknown>()
  const settle = (held: DeploymentKeys.Held) => {
    if (probing.delete(held)) stage.held--
  }
  return {
    ...keys,
    take: (...given) => {
      const taken = keys.take(...given)
      if (taken._tag === "Success" && taken.success.probes) {
        probing.add(taken.success)
        stage.held++
        stage.probes++
      }
      return taken
    },
    note: (held, reason) => {
      settle(held)
      keys.note(held, reason)
    },
    release: (held) => {
      settle(held)
      keys.release(held)
    }
  }
}

const layerEngines = (stage: Stage) => {
  const { scenario: { dialect: disguise = (own) => own, engine: replaced = (own) => own, scripts } } = stage
  return Layer.succeed(
    Engines,
    Engines.of({
      start: Effect.fnUntraced(function*({ id, model, options }) {
        const remote = options as RemoteDeployment
        const fork = Effect.runForkWith(yield* Effect.context())
        const index = Number(id.split("#")[1])
        const provider = new Provider(scripts[index]!, fork)
        const keys = countProbes(stage, DeploymentKeys.make(remote, yield* DeploymentKeys.sources))
        stage.providers[index] = provider
        stage.keys[index] = keys
        const dialect = disguise(dialects[remote.provider])
        const target = { deployment: id, model, options: remote }
        const { dispatcher } = provider
        const exchange = yield* HttpExchange.make({ target, dialect, dispatcher, keys, baseUrl: remote.baseUrl! })
        const media = { prepare: () => Effect.die(new Error("There are no images.")) }
        const { start, ...engine } = replaced(RemoteEngine.make(dialect, target, exchange, media))
        yield* Effect.addFinalizer(() => engine.stop)
        return (stage.way.starts ? { ...engine, start } : engine) as Engine
      })
    })
  )
}

/** Admits every request and keeps what it is charged. A token of an answer costs 1,000 nano-dollars; `m#1` has no price. */
const layerAdmission = ({ charges }: Stage) =>
  Layer.succeed(Admission, {
    isForAll: true,
    admit: () => ({
      ...free,
      charge: ({ attempt, deployment, isEstimated, tookMs, usage }: Used) => {
        charges.push({ attempt, deployment: deployment.id, isEstimated, tookMs, usage })
        return deployment.id === "m#1" ? undefined : usage.completionTokens * 1_000
      }
    })
  })

const layerOf = (stage: Stage) => {
  const { scenario: { policy } } = stage
  const [first, ...others] = deploymentsOf(stage.scenario)
  const own: Policy = {
    ...RoutingPolicy.defaults,
    backoff: { initialMs: 20, factor: 1, capMs: 100 },
    ...policy
  }
  const model: Model = {
    name: "m",
    deployments: [first!, ...others],
    routing: { policy: own, fallbacks: { ordinary: [], context: [], content: [] } }
  }
  const router = Layer.effect(
    Router.Router,
    Effect.map(Router.Router, (router) =>
      Router.Router.of({
        ...router,
        measure: (deployment, route) => {
          const sample = router.measure(deployment, route)
          const calls: Array<unknown> = [deployment]
          stage.samples.push(calls)
          return {
            granted: () => {
              calls.push("granted")
              sample.granted()
            },
            content: () => {
              calls.push("content")
              sample.content()
            },
            end: (...given) => {
              calls.push(...given)
              sample.end(...given)
            }
          }
        }
      }))
  ).pipe(Layer.provide(Router.layer))
  const metrics = Metrics.Metrics.of({ begin: () => {}, end: (outcome) => void stage.outcomes.push(outcome) })
  return InferenceLayer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        router,
        Layer.succeed(Metrics.Metrics, metrics),
        DecisionLog.layer,
        ResponseCacheLayer.layer,
        Backoff.layer
      )
    ),
    Layer.provide(layerAdmission(stage)),
    Layer.provide(Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))),
    Layer.provideMerge(Breaker.layerWith({ opensAfter: 2 })),
    Layer.provide([Registry.layer, ModelFiles.layer]),
    Layer.provideMerge(Layer.provideMerge(layerUnbounded, layerEngines(stage))),
    Layer.provide(Layer.succeed(Settings, settings({ models: [model] })))
  )
}

/** The observations of one request. */
interface Seen {
  readonly begun: Array<Omit<AnsweredBy, "decision">>
  readonly events: Array<Event>
  answer: unknown
}

const body = { model: "m", input: "Hello" }

const tasksOf = ({ classify, count, embed, rerank, tokenize }: Inference["Service"]) =>
  ({
    embed: embed({ model: "m", inputs: ["Hello", "world"] }),
    embedNative: embed({ model: "m", inputs: ["Hello"], source: { dialect: "openai", task: "embeddings", body } }),
    rerank: rerank({ model: "m", query: "Hello", documents: ["a", "b"] }),
    classify: classify({ model: "m", inputs: ["Hello", "world"] }),
    tokenize: tokenize({ model: "m", input: "Hello" }),
    count: count({ model: "m", input: { messages: request.messages } })
  }) satisfies Record<TaskName, Effect.Effect<unknown, InferenceError>>

const ask = (inference: Inference["Service"], { scenario, way }: Stage, seen: Seen, leave: () => void) => {
  const asked: Request = { ...request, ...scenario.request }
  switch (way.operation) {
    case "generate":
      return Effect.map(inference.generate(asked), (answer) => {
        seen.answer = plain(answer)
      })
    case "open":
      return Effect.scoped(Effect.flatMap(inference.open(asked), ({ attempts, deployment, events }) => {
        seen.begun.push({ attempts, deployment })
        return Stream.runForEach(events, (event) => Effect.sync(() => seen.events.push(event)))
      }))
    case "deliver": {
      const sink: AnswerSink = {
        begin: ({ attempts, deployment }) => void seen.begun.push({ attempts, deployment }),
        events: (events) => {
          seen.events.push(...events)
          return true
        },
        whenDrained: (callback) => callback()
      }
      return inference.deliver(asked, scenario.sink?.(sink, leave) ?? sink)
    }
    default:
      return Effect.asVoid<unknown, InferenceError, never>(tasksOf(inference)[way.operation])
  }
}

/** Steps of the clock until the request has ended, ms. */
export const step = 5
const mostSteps = 4_000
const firstAt = 3_600_000

const runOne = Effect.fnUntraced(function*(stage: Stage, seen: Seen) {
  const { scenario: { each, leavesMs } } = stage
  const inference = yield* Inference
  const leave = () => fiber.interruptUnsafe()
  const fiber: Fiber.Fiber<void, InferenceError> = yield* Effect.forkChild(ask(inference, stage, seen, leave))
  for (let index = 0; index < mostSteps && fiber.pollUnsafe() === undefined; index++) {
    if (index * step === leavesMs) leave()
    each?.(index)
    yield* TestClock.adjust(step)
    yield* settled
  }
  const exit = fiber.pollUnsafe()
  if (exit === undefined) yield* Fiber.interrupt(fiber)
  return exit
})

/** Lets all fibers run as far as they can at this time. */
const settled = Effect.repeat(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), { times: 3 })

const noneSeen = (): Seen => ({ begun: [], events: [], answer: undefined })

const perform = Effect.fnUntraced(function*(stage: Stage, fibers: () => number) {
  const { scenario } = stage
  const models = yield* Models
  const breaker = yield* Breaker.Breaker
  const decisions = yield* DecisionLog.DecisionLog
  const deployments = deploymentsOf(scenario)
  for (const one of deployments) yield* Effect.forkChild(models.load(one))
  yield* TestClock.setTime(firstAt)
  const before = fibers()
  for (let index = 0; index < (scenario.earlier ?? 0); index++) {
    yield* runOne(stage, noneSeen())
    // Each request begins at the same time, however many steps the one before took.
    yield* TestClock.setTime(firstAt + (index + 1) * mostSteps * step)
  }
  const seen = noneSeen()
  const exit = yield* runOne(stage, seen)
  const circuits = {
    states: plain(
      (yield* breaker.states).map(({ deployment, phase, successes }) => [deployment, phase, successes].join(" ")).sort()
    ),
    openings: deployments.map(({ id }) => [breaker.openings(id), breaker.failures(id) ?? null])
  }
  const now = (yield* Clock.Clock).currentTimeMillisUnsafe()
  const kept = decisions.latest(100)
  const observation: Observation = {
    ...seen,
    end: exit === undefined ? "never" : endOf(exit),
    records: plain(kept),
    outcomes: stage.outcomes,
    charges: stage.charges,
    circuits,
    samples: stage.samples,
    keys: plain(stage.keys.map((keys) => keys.waiting(now))),
    exchanges: stage.providers.map(({ count }) => count)
  }
  // The timers of circuits, connections and caches.
  yield* TestClock.adjust("1 minute")
  const statuses = yield* models.statuses
  const remains: Remains = {
    running: statuses.reduce((sum, { queued, running }) => sum + running + queued, 0),
    open: stage.providers.reduce((sum, { open }) => sum + open, 0),
    fibers: fibers() - before,
    runningRecords: kept.flatMap(({ attempts }) => attempts).filter(({ outcome }) => outcome === "running").length,
    takenKeys: stage.held,
    completions: stage.outcomes.length - 1 - (scenario.earlier ?? 0)
  }
  return { observation, remains, providers: stage.providers, probes: stage.probes }
})

export const nothing: Remains = { running: 0, open: 0, fibers: 0, runningRecords: 0, takenKeys: 0, completions: 0 }

/** Runs a scenario's request. */
export const observe = (scenario: Scenario, way: Way) => {
  const stage: Stage = {
    scenario,
    way,
    providers: [],
    keys: [],
    outcomes: [],
    charges: [],
    samples: [],
    held: 0,
    probes: 0
  }
  let fibers = 0
  return Effect.provide(perform(stage, () => fibers), layerOf(stage), { local: true }).pipe(
    Effect.scoped,
    Random.withSeed(1),
    Effect.provide(TestClock.layer()),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void fibers++,
      recordFiberEnd: () => void fibers--
    })
  )
}

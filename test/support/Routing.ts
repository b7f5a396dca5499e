/**
 * `Inference` with the complete routing, over scripted engines, in test time.
 */
import type { Context } from "effect"
import { Effect, Layer, Result, Stream, SubscriptionRef } from "effect"
import type { CacheSettings } from "../../src/domain/CacheControl.ts"
import type { Caller } from "../../src/domain/Caller.ts"
import type { Deployment, DeploymentOptions, Model } from "../../src/domain/Deployment.ts"
import { engineCapabilities } from "../../src/domain/EngineProtocol.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../src/domain/RoutingPolicy.ts"
import * as ResponseCacheLayer from "../../src/layers/cache/ResponseCache.ts"
import * as ModelFiles from "../../src/layers/engines/ModelFiles.ts"
import { ResponseCache } from "../../src/services/cache/ResponseCache.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { GuardPolicy } from "../../src/services/guard/RequestGuard.ts"
import * as Breaker from "../../src/services/health/Breaker.ts"
import * as InferenceLayer from "../../src/services/inference/Inference.ts"
import type { Inference } from "../../src/services/inference/Inference.ts"
import type { ActorEvent } from "../../src/services/models/Actor.ts"
import type { Level } from "../../src/services/models/MemoryPressure.ts"
import { Pressure } from "../../src/services/models/MemoryPressure.ts"
import { Models } from "../../src/services/models/Models.ts"
import * as Registry from "../../src/services/models/Registry.ts"
import * as Metrics from "../../src/services/observability/Metrics.ts"
import * as Backoff from "../../src/services/resilience/Backoff.ts"
import * as Shadows from "../../src/services/rollout/Shadows.ts"
import type { ShadowSettings } from "../../src/services/rollout/ShadowSettings.ts"
import * as Standing from "../../src/services/rollout/Standing.ts"
import * as DecisionLog from "../../src/services/routing/DecisionLog.ts"
import * as Router from "../../src/services/routing/Router.ts"
import type { GuardSettings } from "../../src/services/settings/GuardSettings.ts"
import { allRules } from "../../src/services/settings/GuardSettings.ts"
import { Settings } from "../../src/services/settings/Settings.ts"
import * as Deployments from "./Deployments.ts"

/** The behaviour of an engine for each of its jobs. */
export interface Part {
  /** The answer, one event per piece; default the deployment's id. */
  readonly pieces?: ReadonlyArray<string>
  /** Events before the pieces; default none. */
  readonly events?: ReadonlyArray<Event>
  /** Delay before the first piece, and before each other piece. */
  readonly firstMs?: number
  readonly gapMs?: number
  /** The number of pieces before the failure, default 0. */
  readonly fails?: { readonly after?: number; readonly reason: InferenceError.Reason }
  /** The number of failing jobs; default all. */
  readonly failures?: number
  /** The embedding of a text; default the same for all. */
  readonly vectorOf?: (text: string) => ReadonlyArray<number>
  /** The number of successful jobs before the first failure; default 0. */
  readonly successes?: number
}

/** A job of an engine. */
export interface Job {
  readonly deployment: string
  readonly caller: Caller
  readonly generation: Generation | undefined
  /** It was interrupted. */
  left: boolean
}

export interface World {
  readonly jobs: Array<Job>
  readonly layer: Layer.Layer<Inference | Breaker.Breaker | DecisionLog.DecisionLog | Router.Router>
}

export interface Setting {
  /** The engines of each model's deployments. */
  readonly models: Readonly<Record<string, ReadonlyArray<Part & { readonly options?: Partial<DeploymentOptions> }>>>
  readonly policy?: Partial<RoutingPolicy.Policy>
  /** Other policies that requests may name. */
  readonly policies?: ReadonlyArray<RoutingPolicy.Policy>
  readonly fallbacks?: Readonly<Record<string, ReadonlyArray<string>>>
  /** Of every model. */
  readonly cache?: CacheSettings
  /** The input policy; default none. */
  readonly guard?: Partial<GuardSettings>
  /** Measurements of deployments before the first request. */
  readonly events?: ReadonlyArray<ActorEvent>
  /** The program's own instead of the built-in one. */
  readonly backoff?: Backoff.MakeSchedule
  readonly metrics?: Metrics.Metrics["Service"]
  readonly responseCache?: ResponseCache["Service"]
  readonly decisionLog?: DecisionLog.DecisionLog["Service"]
  readonly measure?: Router.Router["Service"]["measure"]
  /** The wait for a slot. */
  readonly queue?: Effect.Effect<void>
  /** Copies of the requests of models. */
  readonly shadows?: Readonly<Record<string, ShadowSettings>>
  readonly pressure?: SubscriptionRef.SubscriptionRef<Level>
  /** Requests that wait at a deployment. */
  readonly queued?: (deployment: string) => number
  /** The engines behind `Models`. */
  readonly disguise?: (engine: Engine) => Engine
}

const usageOf = (completionTokens: number) => ({ promptTokens: 3, completionTokens, cachedTokens: 0 })

const answer = (id: string, { events = [], fails, firstMs = 0, gapMs = 0, pieces = [id] }: Part) => {
  const sent = fails === undefined ? pieces : pieces.slice(0, fails.after ?? 0)
  const waits = Stream.fromIterable(sent.map((text, index) => ({ text, ms: index === 0 ? firstMs : gapMs })))
  const texts = Stream.mapEffect(
    waits,
    ({ ms, text }) =>
      Effect.as(ms > 0 ? Effect.sleep(ms) : Effect.void, { type: "text", text, tokens: 1 } satisfies Event)
  )
  const end: Stream.Stream<Event, InferenceError.InferenceError> = fails === undefined
    ? Stream.succeed({ type: "finish", reason: "stop", usage: usageOf(pieces.length) })
    : Stream.fromEffect(
      Effect.andThen(sent.length === 0 ? Effect.sleep(firstMs) : Effect.void, InferenceError.make(fails.reason))
    )
  return Stream.concat(Stream.concat(Stream.fromIterable(events), texts), end)
}

const makeEngine = (world: World, id: string, part: Part, caller: Caller): Engine => {
  const begin = (generation?: Generation) => {
    const job: Job = { deployment: id, caller, generation, left: false }
    const earlier = world.jobs.filter((one) => one.deployment === id).length
    world.jobs.push(job)
    const { fails: _, ...sound } = part
    const { failures = Number.POSITIVE_INFINITY, successes = 0 } = part
    const played: Part = earlier >= successes && earlier < successes + failures ? part : sound
    return { job, played }
  }
  const played = <A>(result: A) =>
    Effect.suspend(() => {
      const { played: { fails, firstMs = 0 } } = begin()
      const ended = fails === undefined ? Effect.succeed(result) : InferenceError.make(fails.reason)
      return firstMs > 0 ? Effect.delay(ended, firstMs) : ended
    })
  return Deployments.engine({
    describe: { capabilities: engineCapabilities },
    rerank: (_, documents) => played({ scores: documents.map(() => 1), promptTokens: 1 }),
    classify: (inputs) => played(inputs.map(() => Result.succeed({ labels: [], promptTokens: 1 }))),
    tokenize: () => played([1]),
    generate: (generation) =>
      Stream.unwrap(Effect.sync(() => {
        const { job, played } = begin(generation)
        return Stream.onExit(answer(id, played), (exit) =>
          Effect.sync(() => {
            job.left = exit._tag === "Failure" && exit.cause.reasons.some((reason) => reason._tag === "Interrupt")
          }))
      })),
    embed: (inputs) =>
      played(inputs.map((text) => {
        const { vectorOf = () => [1] } = part
        return Result.succeed({ vector: Float32Array.from(vectorOf(String(text))), promptTokens: 1 })
      }))
  })
}

/** The given service, or the built-in one. */
const serviceOr = <I, S>(tag: Context.Service<I, S>, given: S | undefined, builtIn: Layer.Layer<I>): Layer.Layer<I> =>
  given === undefined ? builtIn : Layer.succeed(tag, given)

const pressureOf = ({ pressure }: Setting) =>
  Layer.effect(Pressure, pressure === undefined ? SubscriptionRef.make<Level>("normal") : Effect.succeed(pressure))

/** What copies of requests need, if there are any. */
const copiesOf = ({ shadows }: Setting) =>
  shadows === undefined ? Layer.empty : Layer.provideMerge(Standing.layer, Shadows.layer)

/** A setup with these models; `a` has the deployments `a#0`, `a#1` and so on. */
export const world = (setting: Setting): World => {
  const { disguise = (engine) => engine, events = [], fallbacks = {}, measure, metrics, models, queue = Effect.void } =
    setting
  const { backoff = Backoff.fromPolicy, responseCache, decisionLog, policies = [], policy = {} } = setting
  const parts = new Map<string, Part>()
  const own: RoutingPolicy.Policy = { ...RoutingPolicy.defaults, retries: 0, ...policy }
  const configured = Object.entries(models).map(([name, deployments]): Model => {
    const [first, ...others] = deployments.map((part, index): Deployment => {
      const id = `${name}#${index}`
      parts.set(id, part)
      return Deployments.deployment(id, { options: { engine: "fake", ...part.options } as DeploymentOptions })
    })
    const routing = { policy: own, fallbacks: { ordinary: fallbacks[name] ?? [], context: [], content: [] } }
    const { cache } = setting
    return { name, deployments: [first!, ...others], routing, ...(cache === undefined ? {} : { cache }) }
  })
  const actors = Layer.mock(Models)({
    drained: new Map(),
    tryLease: () => undefined,
    renew: () => {},
    snapshot: (id) => ({ queued: setting.queued?.(id) ?? 0, state: "ready" }),
    events: Stream.fromIterable(events),
    lease: ({ id }, caller) => Effect.as(queue, disguise(makeEngine(made, id, parts.get(id)!, caller))),
    status: ({ id }) => Effect.succeed({ deployment: id, state: "ready", running: 0, queued: 0, memoryBytes: 0 }),
    statuses: Effect.succeed([])
  })
  const guard: GuardSettings = { modes: allRules("off"), ...setting.guard }
  const shadows = new Map(Object.entries(setting.shadows ?? {}))
  const settings = { guard, models: configured, policies: [own, ...policies], shadows } as Partial<Settings["Service"]>
  const routerLayer = measure === undefined
    ? Router.layer
    : Layer.effect(Router.Router, Effect.map(Router.Router, (own) => Router.Router.of({ ...own, measure }))).pipe(
      Layer.provide(Router.layer)
    )
  const layer = InferenceLayer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        routerLayer,
        serviceOr(DecisionLog.DecisionLog, decisionLog, DecisionLog.layer),
        serviceOr(ResponseCache, responseCache, ResponseCacheLayer.layer),
        Backoff.layerWith(backoff)
      )
    ),
    Layer.provide([
      serviceOr(Metrics.Metrics, metrics, Metrics.layer),
      pressureOf(setting)
    ]),
    Layer.provideMerge(Breaker.layer),
    Layer.provideMerge(copiesOf(setting)),
    Layer.provide([Registry.layer, actors, ModelFiles.layer]),
    Layer.provide(Layer.succeed(GuardPolicy, guard)),
    Layer.provide(Layer.succeed(Settings, settings as Settings["Service"]))
  )
  const made: World = { jobs: [], layer }
  return made
}

/**
 * Rollouts with the complete routing, over scripted engines and an SQLite file, in test time.
 *
 * **Details**
 *
 * A second of traffic is a number of requests at once and a step of the clock. A process may end after any write of the
 * store, before it does anything else; another one then goes on with the same database.
 */
import { Context, Effect, Exit, Fiber, Layer, Option, Random, References, Scope, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Deployment, Model } from "../../src/domain/Deployment.ts"
import { engineCapabilities } from "../../src/domain/EngineProtocol.ts"
import type { Event } from "../../src/domain/Inference.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import { textOf } from "../../src/domain/Message.ts"
import * as RoutingPolicy from "../../src/domain/RoutingPolicy.ts"
import * as ResponseCacheLayer from "../../src/layers/cache/ResponseCache.ts"
import * as ModelFiles from "../../src/layers/engines/ModelFiles.ts"
import * as Storage from "../../src/layers/persistence/Storage.ts"
import { GuardPolicy } from "../../src/services/guard/RequestGuard.ts"
import * as Breaker from "../../src/services/health/Breaker.ts"
import * as InferenceLayer from "../../src/services/inference/Inference.ts"
import { Inference } from "../../src/services/inference/Inference.ts"
import * as Added from "../../src/services/models/Deployments.ts"
import type { Level } from "../../src/services/models/MemoryPressure.ts"
import { Pressure } from "../../src/services/models/MemoryPressure.ts"
import { Models } from "../../src/services/models/Models.ts"
import * as Registry from "../../src/services/models/Registry.ts"
import * as Metrics from "../../src/services/observability/Metrics.ts"
import * as Backoff from "../../src/services/resilience/Backoff.ts"
import * as ExperimentStore from "../../src/services/rollout/ExperimentStore.ts"
import * as Rollouts from "../../src/services/rollout/Rollouts.ts"
import type { ExperimentSettings, RolloutSettings } from "../../src/services/rollout/RolloutSettings.ts"
import { resolveExperiment } from "../../src/services/rollout/RolloutSettings.ts"
import type { Stored } from "../../src/services/rollout/RolloutStore.ts"
import * as RolloutStore from "../../src/services/rollout/RolloutStore.ts"
import * as Standing from "../../src/services/rollout/Standing.ts"
import * as DecisionLog from "../../src/services/routing/DecisionLog.ts"
import * as Router from "../../src/services/routing/Router.ts"
import { allRules } from "../../src/services/settings/GuardSettings.ts"
import { Settings } from "../../src/services/settings/Settings.ts"
import * as SettingsChanges from "../../src/services/settings/SettingsChanges.ts"
import * as Deployments from "./Deployments.ts"

/** What an engine does with a request. */
export interface Played {
  readonly fails?: boolean
  /** Its provider answers 429. */
  readonly isLimited?: boolean
  /** ms until the first token; default 100. */
  readonly firstMs?: number
}

/** By the number of the deployment's request, from 0, the prompt, and the most tokens of the answer. */
export type Behavior = (index: number, prompt: string, maxTokens: number | undefined) => Played

/** What happens in all processes. */
export interface World {
  /** Of `chat#0` and `chat#1`. */
  readonly behaviors: [Behavior, Behavior]
  readonly counts: [number, number]
  /** Loads and unloads, in order. */
  readonly log: Array<string>
  readonly prompts: (index: number) => string
  /** Errors that callers have seen. */
  readonly errors: Array<unknown>
  /** Requests so far. */
  asked: number
  /** Writes of the store after which the process ends; undefined: never. */
  writesLeft: number | undefined
  readonly settings: RolloutSettings
  readonly policy: RoutingPolicy.Policy
  /** The A/B test of the model. */
  readonly experiment?: ExperimentSettings
  /** Of the model. */
  readonly deployments: Model["deployments"]
}

const deploymentOf = (id: string, reply: string, more: object) =>
  Deployments.deployment(id, { options: { engine: "fake", reply, ...more } })

/** Deployments by their ids and what they serve. */
export const deployments = {
  old: deploymentOf("chat#0", "old", {}),
  candidate: deploymentOf("chat#1", "new", { rollout: "candidate" }),
  /** The candidate after its promotion, without the old one and the mark. */
  renamed: deploymentOf("chat#0", "new", {}),
  /** Another one in place of the old one. */
  edited: deploymentOf("chat#0", "other", {})
}

const policy: RoutingPolicy.Policy = { ...RoutingPolicy.defaults, retries: 0 }

export const makeWorld = (given: Partial<World> = {}): World => ({
  behaviors: [() => ({}), () => ({})],
  counts: [0, 0],
  log: [],
  prompts: () => "Hello",
  errors: [],
  asked: 0,
  writesLeft: undefined,
  settings: {},
  policy,
  deployments: [deployments.old, deployments.candidate],
  ...given
})

const finish: Event = {
  type: "finish",
  reason: "stop",
  usage: { promptTokens: 3, completionTokens: 20, cachedTokens: 0 }
}

const engineOf = (world: World, { id }: Deployment) => {
  const which = id === "chat#0" ? 0 : 1
  return Deployments.engine({
    describe: { capabilities: engineCapabilities },
    generate: ({ maxTokens, messages }) =>
      Stream.unwrap(Effect.sync(() => {
        const { fails = false, firstMs = 100, isLimited = false } = world.behaviors[which](
          world.counts[which]++,
          textOf(messages.at(-1)!.content),
          maxTokens
        )
        const failure = isLimited
          ? new InferenceError.RateLimited({ deployment: id })
          : new InferenceError.EngineFailed({ deployment: id, detail: "No." })
        const first = fails || isLimited
          ? Effect.andThen(Effect.sleep(1), InferenceError.make(failure))
          : Effect.as(Effect.sleep(firstMs), { type: "text", text: id, tokens: 1 } satisfies Event)
        const rest = Effect.as(Effect.sleep(200), finish)
        return Stream.concat(Stream.fromEffect(first), Stream.fromEffect(rest)) as Stream.Stream<
          Event,
          InferenceError.InferenceError
        >
      }))
  })
}

const modelsLayer = (world: World) => {
  const running = new Map<string, number>()
  const change = (id: string, by: number) => Effect.sync(() => void running.set(id, (running.get(id) ?? 0) + by))
  return Layer.mock(Models)({
    drained: new Map(),
    tryLease: () => undefined,
    renew: () => {},
    snapshot: () => ({ queued: 0, state: "ready" }),
    events: Stream.empty,
    lease: (deployment) =>
      Effect.as(
        Effect.acquireRelease(change(deployment.id, 1), () => change(deployment.id, -1)),
        engineOf(world, deployment)
      ),
    load: ({ id }) => Effect.sync(() => void world.log.push(`load ${id}`)),
    unload: ({ id }) => Effect.sync(() => void world.log.push(`unload ${id} with ${running.get(id) ?? 0}`)),
    status: ({ id }) =>
      Effect.sync(() => ({ deployment: id, state: "ready", running: running.get(id) ?? 0, queued: 0, memoryBytes: 0 })),
    statuses: Effect.succeed([])
  })
}

/** The store of a process that ends after some writes. */
const storeLayer = (world: World) =>
  Layer.effect(
    RolloutStore.RolloutStore,
    Effect.map(RolloutStore.RolloutStore, (store) => {
      const isOver = () => world.writesLeft === 0
      const alive = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.suspend(() => isOver() ? Effect.never as Effect.Effect<A, E> : effect)
      const written = <A, E>(effect: Effect.Effect<A, E>) =>
        alive(Effect.flatMap(effect, (value) => {
          if (world.writesLeft !== undefined) world.writesLeft--
          return alive(Effect.succeed(value))
        }))
      return RolloutStore.RolloutStore.of({
        ...store,
        insert: (stored) => written(store.insert(stored)),
        update: (versioned) => written(store.update(versioned)),
        lead: (...given) => alive(store.lead(...given)),
        resign: (owner) => isOver() ? Effect.void : store.resign(owner)
      })
    })
  ).pipe(Layer.provide(RolloutStore.layer))

const chat = ({ policy }: World, deployments: Model["deployments"]): Model => ({
  name: "chat",
  deployments,
  routing: { policy, fallbacks: { ordinary: [], context: [], content: [] } }
})

const settingsOf = (world: World, folder: string) =>
  Deployments.settings({
    models: [chat(world, world.deployments)],
    policies: [world.policy],
    storage: { type: "sqlite", folder },
    rollouts: new Map([["chat", world.settings]]),
    ...(world.experiment === undefined
      ? {}
      : { experiments: new Map([["chat", resolveExperiment(world.experiment)]]) })
  })

const processLayer = (world: World, folder: string) => {
  const guard = { modes: allRules("off") }
  const settings = settingsOf(world, folder)
  return Layer.provide(Rollouts.layer, [storeLayer(world), ExperimentStore.layer]).pipe(
    Layer.provideMerge(InferenceLayer.layer),
    Layer.provideMerge(Layer.mergeAll(Router.layer, DecisionLog.layer, ResponseCacheLayer.layer, Backoff.layer)),
    Layer.provide([Metrics.layer, Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))]),
    Layer.provide(Breaker.layer),
    Layer.provide([Added.layer, Standing.layer]),
    Layer.provideMerge(Registry.layer),
    Layer.provide([modelsLayer(world), ModelFiles.layer]),
    Layer.provide([Layer.succeed(GuardPolicy, guard), Layer.succeed(Settings, settings)]),
    Layer.provide(Storage.layerAt({ type: "sqlite", folder })),
    Layer.provideMerge(SettingsChanges.layer)
  )
}

/** One process. */
export interface Process {
  readonly rollouts: Rollouts.Rollouts["Service"]
  /** Another configuration; undefined: without the model. */
  readonly replace: (deployments: Model["deployments"] | undefined) => void
  /** Another configuration of the A/B test; undefined: none. */
  readonly test: (experiment: ExperimentSettings | undefined) => Effect.Effect<void>
  /** Some requests at once, and a second. */
  readonly second: (requests: number) => Effect.Effect<void>
  /** Ends it as a kill does: what has not been written is lost. */
  readonly kill: Effect.Effect<void>
}

/** The folder of a database that outlives processes. */
export const database: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "troupe-rollouts-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

export const startProcess = Effect.fnUntraced(function*(world: World, folder: string) {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(Layer.fresh(processLayer(world, folder)), scope)
  const rollouts = Context.get(context, Rollouts.Rollouts)
  const { stream } = Context.get(context, Inference)
  const registry = Context.get(context, Registry.Registry)
  const ask = Effect.suspend(() =>
    Stream.runDrain(stream({ model: "chat", messages: [{ role: "user", content: world.prompts(world.asked++) }] }))
  ).pipe(Effect.catchCause((cause) => Effect.sync(() => void world.errors.push(cause))))
  return {
    rollouts,
    replace: (deployments) => registry.replace!(deployments === undefined ? [] : [chat(world, deployments)]),
    test: (experiment) =>
      Effect.orDie(Effect.map(
        Context.get(context, SettingsChanges.SettingsChanges).prepare(
          settingsOf({ ...world, ...(experiment === undefined ? {} : { experiment }) }, folder),
          settingsOf(world, folder)
        ),
        ({ commit }) => commit()
      )),
    second: Effect.fnUntraced(function*(requests: number) {
      const fibers = yield* Effect.replicateEffect(Effect.forkChild(ask), requests)
      yield* TestClock.adjust(1_000)
      yield* Fiber.joinAll(fibers)
    }),
    kill: Effect.suspend(() => {
      world.writesLeft = 0
      return Effect.andThen(
        Scope.close(scope, Exit.void),
        Effect.sync(() => {
          world.writesLeft = undefined
        })
      )
    })
  } satisfies Process
})

/** Seconds of traffic until the rollout has ended, or as many as given. */
export const until = Effect.fnUntraced(function*(
  { rollouts, second }: Process,
  check: (stored: Stored) => boolean,
  requests = 20,
  most = 400
) {
  for (let index = 0; index < most; index++) {
    const found = yield* Effect.option(rollouts.find("chat"))
    if (Option.isSome(found) && check(found.value)) return found.value
    yield* second(requests)
  }
  return yield* Effect.orDie(rollouts.find("chat"))
})

export const isOver = ({ rollout: { phase } }: Stored): boolean => phase._tag === "Ended"

/** Runs a test at a fixed seed, in test time. */
export const inTestTime = <A, E>(test: Effect.Effect<A, E, Scope.Scope>): Effect.Effect<A, E> =>
  Effect.scoped(test).pipe(
    Random.withSeed(1),
    Effect.provide(TestClock.layer()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

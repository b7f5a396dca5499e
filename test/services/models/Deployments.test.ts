import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { Engines } from "../../../src/services/engines/Engine.ts"
import { Deployments, layer } from "../../../src/services/models/Deployments.ts"
import { layerUnbounded, Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import { deployment, engine } from "../../support/Deployments.ts"

interface Started {
  readonly deployment: Deployment
  isOpen: boolean
}

/** A registry of the model `chat` with one deployment, and the engines that were started. */
const house = (
  load: (deployment: Deployment) => Effect.Effect<void, InferenceError.InferenceError> = () => Effect.void
) => {
  const started: Array<Started> = []
  const start = (deployment: Deployment) =>
    Effect.andThen(
      load(deployment),
      Effect.acquireRelease(
        Effect.sync(() => {
          const made = { deployment, isOpen: true }
          started.push(made)
          return { made, engine: engine({ stop: Effect.void }) }
        }),
        ({ made }) =>
          Effect.sync(() => {
            made.isOpen = false
          })
      )
    ).pipe(Effect.map(({ engine }) => engine))
  const registry = Registry.make([
    { name: "chat", deployments: [deployment("chat#0")] },
    { name: "other", deployments: [deployment("other#0")] }
  ])
  const services = Layer.merge(Layer.succeed(Registry.Registry, registry), layerUnbounded).pipe(
    Layer.provide(Layer.succeed(Engines, Engines.of({ start })))
  )
  const idsOf = () => registry.models().map(({ deployments }) => deployments.map(({ id }) => id))
  const openOf = () => started.filter(({ isOpen }) => isOpen).map(({ deployment }) => deployment.id)
  return { started, registry, idsOf, openOf, layer: Layer.provideMerge(layer, services) }
}

const settle = TestClock.adjust(0)

const holdSlot = Effect.fnUntraced(function*(one: Deployment) {
  const scope = yield* Scope.make()
  yield* Models.use((models) => models.lease(one, {})).pipe(Effect.provideService(Scope.Scope, scope))
  return Scope.close(scope, Exit.void)
})

describe("Deployments", () => {
  it.effect("adds a deployment to its model after it is loaded", () => {
    const loaded = Deferred.makeUnsafe<void>()
    const { idsOf, layer, openOf, registry } = house(() => Deferred.await(loaded))
    return Effect.gen(function*() {
      const deployments = yield* Deployments
      const [, other] = registry.models()
      const adding = yield* Effect.forkChild(deployments.add(deployment("chat#1")))
      yield* settle
      assert.deepStrictEqual(idsOf(), [["chat#0"], ["other#0"]])
      yield* Deferred.succeed(loaded, undefined)
      yield* Fiber.join(adding)
      assert.deepStrictEqual(idsOf(), [["chat#0", "chat#1"], ["other#0"]])
      assert.deepStrictEqual(openOf(), ["chat#1"])
      assert.strictEqual(registry.models()[1], other, "an unchanged model stays the same object")
    }).pipe(Effect.provide(layer))
  })

  it.effect("changes nothing if the load fails, the model is unknown or the id is in use", () => {
    const failed = InferenceError.make(
      new InferenceError.ModelLoadFailed({ deployment: "chat#1", detail: "No such file." })
    )
    const { idsOf, layer } = house(() => Effect.fail(failed))
    return Effect.gen(function*() {
      const { add } = yield* Deployments
      assert.strictEqual(yield* Effect.flip(add(deployment("chat#1"))), failed)
      for (const [id, part] of [["none#0", "no model"], ["chat#0", "in use"]] as const) {
        const { message, reason } = yield* Effect.flip(add(deployment(id)))
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.include(message, part)
      }
      assert.deepStrictEqual(idsOf(), [["chat#0"], ["other#0"]])
    }).pipe(Effect.provide(layer))
  })

  it.effect("retires a deployment: no new request gets it, and it is unloaded after its last one", () => {
    const { idsOf, layer, openOf } = house()
    return Effect.gen(function*() {
      const { add, retire } = yield* Deployments
      const one = deployment("chat#1", { pinned: true, idleUnload: Duration.infinity })
      yield* add(one)
      const end = yield* holdSlot(one)
      const retiring = yield* Effect.forkChild(retire("chat#1"))
      yield* settle
      assert.deepStrictEqual(idsOf(), [["chat#0"], ["other#0"]])
      assert.deepStrictEqual(openOf(), ["chat#1"])
      assert.isUndefined(retiring.pollUnsafe())
      yield* end
      yield* Fiber.join(retiring)
      assert.deepStrictEqual(openOf(), [])
      // A request that was routed to it before and tries again.
      yield* Effect.flatten(holdSlot(one))
      yield* settle
      assert.deepStrictEqual(openOf(), [])
    }).pipe(Effect.provide(layer))
  })

  it.effect("retires one that is not loaded at once, and can add it again", () => {
    const { idsOf, layer, openOf } = house()
    return Effect.gen(function*() {
      const { add, retire } = yield* Deployments
      const one = deployment("chat#1")
      yield* add(one, { load: false })
      assert.deepStrictEqual(openOf(), [])
      yield* retire("chat#1")
      yield* add(one)
      yield* settle
      assert.deepStrictEqual(idsOf(), [["chat#0", "chat#1"], ["other#0"]])
      assert.deepStrictEqual(openOf(), ["chat#1"])
      assert.include((yield* Effect.flip(retire("other#0"))).message, "only deployment")
    }).pipe(Effect.provide(layer))
  })

  it.effect("keeps added deployments in another configuration, as long as it has their model", () => {
    const { layer } = house()
    return Effect.gen(function*() {
      const { add, withAdded } = yield* Deployments
      const idsIn = (models: ReadonlyArray<Model>) => models.map(({ deployments }) => deployments.map(({ id }) => id))
      yield* add(deployment("chat#1"))
      const chat = { name: "chat", deployments: [deployment("chat#0", { queueLimit: 1 })] } as const
      assert.deepStrictEqual(idsIn(withAdded([chat])), [["chat#0", "chat#1"]])
      const more = { name: "more", deployments: [deployment("more#0")] } as const
      assert.deepStrictEqual(idsIn(withAdded([more])), [["more#0"]])
      assert.deepStrictEqual(idsIn(withAdded([chat])), [["chat#0"]])
    }).pipe(Effect.provide(layer))
  })
})

describe("Models.prepare", () => {
  it.effect("loads an engine beside the current one, which has the jobs until the commit", () => {
    const { layer, openOf, started } = house()
    return Effect.gen(function*() {
      const models = yield* Models
      const before = deployment("chat#0")
      const after = deployment("chat#0", { queueLimit: 7 })
      const end = yield* holdSlot(before)
      const prepared = yield* models.prepare(after)
      assert.strictEqual(started.length, 2)
      yield* Effect.flatten(holdSlot(before))
      prepared.commit()
      yield* settle
      assert.deepStrictEqual(openOf(), ["chat#0", "chat#0"], "the first one has a request")
      yield* end
      yield* settle
      assert.deepStrictEqual(started.map(({ isOpen }) => isOpen), [false, true])
      assert.strictEqual(models.snapshot("chat#0").state, "ready")
    }).pipe(Effect.provide(layer))
  })

  it.effect("unloads it again if it is canceled; the current one stays", () => {
    const { layer, started } = house()
    return Effect.gen(function*() {
      const models = yield* Models
      yield* models.load(deployment("chat#0"))
      const { cancel } = yield* models.prepare(deployment("chat#0", { queueLimit: 7 }))
      yield* cancel
      assert.deepStrictEqual(started.map(({ isOpen }) => isOpen), [true, false])
      assert.strictEqual(models.snapshot("chat#0").state, "ready")
    }).pipe(Effect.provide(layer))
  })
})

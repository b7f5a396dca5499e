/** Replicas that follow the load of scripted engines, in test time. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Logger, Metric, References } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import { Memory } from "../../../src/services/models/Memory.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Autoscaler from "../../../src/services/scaling/Autoscaler.ts"
import { Machine } from "../../../src/services/scaling/Machine.ts"
import { ScalingReports } from "../../../src/services/scaling/ScalingReport.ts"
import type { ScalingSettings } from "../../../src/services/scaling/ScalingSettings.ts"
import { scalingOf } from "../../../src/services/scaling/ScalingSettings.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import * as SettingsChanges from "../../../src/services/settings/SettingsChanges.ts"
import { deployment, settings } from "../../support/Deployments.ts"
import type { EngineBehaviour } from "../../support/ScriptedEngines.ts"
import { crashed, hold, large, scriptedEngines, settle, using } from "../../support/ScriptedEngines.ts"

const chat = deployment("a", { options: { engine: "fake", slots: 1, maxReplicas: 3 }, idleUnload: Duration.days(1) })
const modelOf = (one: Deployment): Model => ({ name: one.id, deployments: [one] })

/** A machine with these shares in use, and the application with these deployments. */
const world = (
  scaling: ScalingSettings | "off" = {},
  { behaviour = {}, deployments = [chat] }: {
    readonly behaviour?: EngineBehaviour
    readonly deployments?: ReadonlyArray<Deployment>
  } = {}
) => {
  const machine = { cpu: 0.1, memory: 0.1, gpu: undefined as number | undefined, fails: false, gpuReads: 0 }
  const configured = settings({
    models: deployments.map(modelOf),
    ...(scaling === "off" ? {} : { scaling: scalingOf(scaling) })
  })
  const logs: Array<{ readonly text: string; readonly data: Readonly<Record<string, unknown>> }> = []
  const engines = scriptedEngines(behaviour)
  let usedMs = 0
  const reader = Machine.of({
    // Each reading is 5 s after the one before.
    processors: Effect.suspend(() => {
      if (machine.fails) return Effect.die("no reading")
      usedMs += machine.cpu * 4 * 5_000
      return Effect.succeed([{ name: "machine", usedMs, cores: 4 }])
    }),
    gpu: Effect.sync(() => {
      machine.gpuReads++
      return machine.gpu
    })
  })
  const logger = Logger.make<unknown, void>(({ fiber, message }) => {
    logs.push({ text: String(message), data: fiber.getRef(References.CurrentLogAnnotations) })
  })
  const layer = Autoscaler.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(
      engines.layer,
      Registry.layer.pipe(Layer.provide(Layer.succeed(Settings, configured))),
      Layer.succeed(Settings, configured),
      Layer.succeed(Machine, reader),
      Layer.succeed(Memory, {
        read: Effect.sync(() => ({ totalBytes: 100, availableBytes: 100 * (1 - machine.memory) }))
      })
    )),
    Layer.provideMerge(SettingsChanges.layer),
    Layer.provideMerge(Logger.layer([logger])),
    Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
  )
  /** Applies another section `scaling`. */
  const apply = (next: ScalingSettings | undefined) =>
    Effect.gen(function*() {
      const { scaling: _, ...others } = configured
      const after: Resolved = { ...others, ...(next === undefined ? {} : { scaling: scalingOf(next) }) }
      const { commit } = yield* (yield* SettingsChanges.SettingsChanges).prepare(after, configured)
      commit()
    })
  return { apply, engines, layer, logs, machine }
}

const replicas = (one = chat) =>
  Effect.map(Models.use(({ occupancy }) => occupancy(one.id)), (found) => found?.replicas)
const report = (one = chat) => Effect.map(ScalingReports, (reports) => reports.of(one.id))
const callers = (count: number, one = chat) => Effect.forEach(Array.from({ length: count }), () => hold(one))

const valueOf = (id: string, attributes: Readonly<Record<string, string>>) =>
  Effect.map(Metric.snapshot, (all) => {
    const found = all.find((one) =>
      one.id === id && Object.entries(attributes).every(([name, value]) => one.attributes?.[name] === value)
    )
    return found?.type === "Gauge"
      ? Number(found.state.value)
      : found?.type === "Counter"
      ? Number(found.state.count)
      : 0
  })

describe("replicas that follow the load", () => {
  it.effect("are added while callers wait, up to the maximum, and removed when they are idle", () => {
    const { engines, layer, logs } = world()
    return Effect.gen(function*() {
      const waiting = yield* callers(6)
      yield* TestClock.adjust("36 seconds")
      assert.strictEqual(yield* replicas(), 2)
      assert.deepInclude(yield* report(), { replicas: 2, minReplicas: 1, maxReplicas: 3 })
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(yield* replicas(), 3)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* replicas(), 3)
      assert.include((yield* report())!.reason, "above 84 %; the maximum is 3 replicas")
      yield* Fiber.interruptAll(waiting)
      yield* TestClock.adjust("9 minutes")
      assert.strictEqual(yield* replicas(), 2)
      yield* TestClock.adjust("6 minutes")
      assert.strictEqual(yield* replicas(), 1)
      assert.deepStrictEqual(engines.engines.map(({ open }) => open).filter(Boolean).length, 1)
      const changes = logs.filter(({ data }) => "direction" in data)
      assert.deepStrictEqual(changes.map(({ data }) => [data["direction"], data["before"], data["replicas"]]), [
        ["up", 1, 2],
        ["up", 2, 3],
        ["down", 3, 2],
        ["down", 2, 1]
      ])
      assert.match(changes[0]!.text, /^a has 2 instead of 1 replicas: \d+ % of the slots used, above 84 %\.$/)
      assert.deepInclude(changes[0]!.data, { deployment: "a", cause: "demand", measure: "slots" })
      const last = (yield* report())!
      assert.deepInclude(last.changed, { direction: "down" })
      assert.strictEqual(yield* valueOf("llm_replica_changes_total", { deployment: "a", direction: "up" }), 2)
      assert.strictEqual(yield* valueOf("llm_replicas", { deployment: "a" }), 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("are not added without the section, for a remote deployment, or beyond its own maximum", () => {
    const fixed = deployment("b", { options: { engine: "fake", slots: 1, maxReplicas: 1 } })
    const remote = deployment("c", {
      options: { engine: "remote", provider: "openai", model: "x" } as Deployment["options"]
    })
    const off = world("off")
    const on = world({}, { deployments: [fixed, remote] })
    const play = (one: Deployment) =>
      Effect.gen(function*() {
        yield* callers(4, one)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(yield* replicas(one), 1)
        assert.isUndefined(yield* report(one))
      })
    return Effect.gen(function*() {
      yield* play(chat).pipe(Effect.provide(off.layer))
      yield* Effect.andThen(play(fixed), play(remote)).pipe(Effect.provide(on.layer))
    })
  })

  it.effect("are as many as the machine has room for, and one less where memory runs out", () => {
    const { engines: { engines }, layer, machine } = world({ maxReplicas: 2 }, {
      deployments: [deployment("a", { options: { engine: "fake", slots: 1 } })]
    })
    return Effect.gen(function*() {
      machine.cpu = 0.9
      yield* callers(4)
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* replicas(), 1)
      assert.match((yield* report())!.reason, /^\d+ % of the processor used, target 70 %; no room for another replica$/)
      machine.cpu = 0.3
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* replicas(), 2)
      machine.memory = 0.99
      yield* TestClock.adjust("4 minutes")
      assert.strictEqual(yield* replicas(), 2)
      // The removed one ends after its job.
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* replicas(), 1)
      assert.deepStrictEqual(engines.map(({ open }) => open), [true, true])
      assert.match((yield* report())!.changed!.reason, /^\d+ % of the memory used, above 96 %$/)
    }).pipe(Effect.provide(layer))
  })

  it.effect("read a GPU only for deployments that use one", () => {
    const { layer, machine } = world()
    const onGpu = world({}, {
      deployments: [deployment("a", { options: { engine: "llama", file: "a", gpu: "auto", slots: 1 } })]
    })
    return Effect.gen(function*() {
      yield* Effect.andThen(hold(chat), TestClock.adjust("1 minute")).pipe(Effect.provide(layer))
      assert.strictEqual(machine.gpuReads, 0)
      onGpu.machine.gpu = 0.9
      const [own] = [deployment("a", { options: { engine: "llama", file: "a", gpu: "auto", slots: 1 } })]
      yield* Effect.gen(function*() {
        yield* callers(9, own)
        yield* TestClock.adjust("2 minutes")
        assert.include((yield* report())!.reason, "90 % of the GPU used, target 85 %")
      }).pipe(Effect.provide(onGpu.layer))
    })
  })

  it.effect("that have no memory leave the other models loaded, and are tried again", () => {
    const [first, other] = [large("a", 400), large("b", 300)]
    const { layer, logs } = world({}, {
      deployments: [first, other],
      behaviour: { budget: 1_000, hold: Duration.zero }
    })
    return Effect.gen(function*() {
      yield* using(other, () => Effect.void)
      const waiting = yield* callers(9, first)
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual(yield* replicas(first), 1)
      assert.strictEqual(yield* replicas(other), 1)
      assert.include(logs.at(-1)!.text, "a replica was not added")
      yield* Models.use(({ unload }) => unload(other))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* replicas(first), 2)
      yield* Fiber.interruptAll(waiting)
    }).pipe(Effect.provide(layer))
  })

  it.effect("do not stop following after a load or a reading that failed", () => {
    let fails = true
    const { layer, logs, machine } = world({}, {
      behaviour: { load: (index) => index > 0 && fails ? Effect.fail(crashed("No.")) : Effect.void }
    })
    return Effect.gen(function*() {
      yield* callers(6)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* replicas(), 1)
      assert.isTrue(logs.some(({ text }) => text.includes("a replica was not added")))
      fails = false
      machine.fails = true
      yield* TestClock.adjust("1 minute")
      assert.isTrue(logs.some(({ text }) => text.startsWith("The load could not be read")))
      machine.fails = false
      yield* TestClock.adjust("2 minutes")
      assert.isAbove((yield* replicas())!, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("keep their cool-down while the model is not loaded, which has no report then", () => {
    const { layer } = world({ addition: Duration.hours(1) })
    return Effect.gen(function*() {
      const waiting = yield* callers(6)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* replicas(), 2)
      yield* Fiber.interruptAll(waiting)
      yield* Models.use(({ unload }) => unload(chat))
      yield* TestClock.adjust("5 seconds")
      assert.isUndefined(yield* report())
      assert.strictEqual(yield* valueOf("llm_replicas", { deployment: "a" }), 0)
      yield* callers(6)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* replicas(), 1)
      assert.include((yield* report())!.reason, "the next change is possible in")
    }).pipe(Effect.provide(layer))
  })

  it.effect("follow other settings while they run, and drain without any", () => {
    const { apply, layer } = world("off")
    return Effect.gen(function*() {
      yield* callers(2)
      yield* TestClock.adjust("2 minutes")
      yield* apply({ upAfter: Duration.seconds(10), maxReplicas: 9 })
      yield* TestClock.adjust("16 seconds")
      assert.strictEqual(yield* replicas(), 2)
      yield* apply({ targets: { slots: 0.9 } })
      yield* TestClock.adjust("5 seconds")
      assert.include((yield* report())!.reason, "target 90 %")
      yield* apply(undefined)
      yield* settle
      assert.deepInclude(yield* Models.use(({ occupancy }) => occupancy("a")), { replicas: 1 })
      assert.isUndefined(yield* report())
    }).pipe(Effect.provide(layer))
  })

  describe.each(
    [
      ["a replica loads", false],
      ["a changed deployment loads the replicas that it had", true]
    ] as const
  )("without the section, while %s", (_, isChanged) => {
    it.effect("are as many as configured, also when the load has ended", () => {
      const two = { ...chat, options: { engine: "fake", slots: 1, replicas: 2, maxReplicas: 4 } } as const
      const { apply, engines, layer, logs } = world({ upAfter: Duration.seconds(10), cooldown: Duration.seconds(10) }, {
        deployments: [two],
        behaviour: {
          load: (index) => index === 0 ? Effect.void : Effect.sleep(index === 2 ? "10 seconds" : "1 minute")
        }
      })
      const open = () => engines.engines.filter(({ open }) => open).length
      return Effect.gen(function*() {
        const waiting = yield* callers(9, two)
        yield* TestClock.adjust("40 seconds")
        assert.strictEqual(open(), 2)
        if (isChanged) {
          const { replace } = yield* Models
          yield* Effect.forkChild(replace({ ...two, queueLimit: 100 }))
          yield* TestClock.adjust("11 seconds")
          assert.include((yield* report())!.reason, "another version of it is loaded instead")
        }
        yield* apply(undefined)
        yield* Fiber.interruptAll(waiting)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(yield* replicas(two), 2)
        assert.strictEqual(open(), 1)
        assert.isFalse(logs.some(({ text }) => text.includes("before the answer was complete")))
      }).pipe(Effect.provide(layer))
    })
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Engines } from "../../../src/services/engines/Engine.ts"
import { progressOf } from "../../../src/services/models/Drains.ts"
import { layerUnbounded, Models } from "../../../src/services/models/Models.ts"
import { deployment, engine } from "../../support/Deployments.ts"

const models = Layer.provide(
  layerUnbounded,
  Layer.succeed(Engines, Engines.of({ start: () => Effect.succeed(engine({ stop: Effect.void })) }))
)

const chat = { ...deployment("chat#0"), pinned: true, idleUnload: Duration.minutes(5) }
const remote = { options: { engine: "remote", provider: "openai", model: "gpt" } } as unknown as Parameters<
  typeof progressOf
>[0]

const settle = TestClock.adjust(0)

describe("drain", () => {
  it.effect("lets what runs end, unloads, and ends with resume", () =>
    Effect.gen(function*() {
      const { drain, drained, lease, load, resume, status } = yield* Models
      const scope = yield* Scope.make()
      yield* Effect.provideService(lease(chat, {}), Scope.Scope, scope)
      yield* drain(chat)
      yield* settle
      assert.isTrue(drained!.has("chat#0"))
      assert.deepInclude(yield* status(chat), { state: "ready", running: 1, drain: "draining" })
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepInclude(yield* status(chat), { state: "cold", running: 0, drain: "drained" })
      yield* resume(chat)
      yield* load(chat)
      yield* TestClock.adjust("10 minutes")
      // It is pinned again.
      const after = yield* status(chat)
      assert.strictEqual(after.state, "ready")
      assert.isUndefined(after.drain)
      assert.isFalse(drained!.has("chat#0"))
    }).pipe(Effect.provide(models)))

  it.effect("stays through another configuration, which applies after resume", () =>
    Effect.gen(function*() {
      const { drain, load, renew, resume, status } = yield* Models
      yield* drain(chat)
      const changed = { ...chat, pinned: false, idleUnload: Duration.minutes(1) }
      renew(changed)
      assert.strictEqual((yield* status(changed)).drain, "drained")
      yield* resume(changed)
      yield* load(changed)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* status(changed)).state, "ready")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* status(changed)).state, "cold")
    }).pipe(Effect.provide(models)))

  it("of a remote deployment is over with its last request", () => {
    const of = (running: number, queued: number) => progressOf(remote, { running, queued, state: "ready" })
    assert.deepStrictEqual([of(1, 0), of(0, 1), of(0, 0)], ["draining", "draining", "drained"])
  })
})

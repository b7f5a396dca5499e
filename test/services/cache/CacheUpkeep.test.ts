/** What clears the cache by itself: a replaced model, and an emergency of memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, PubSub, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import type { CacheSettings } from "../../../src/domain/CacheControl.ts"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { CacheLookup } from "../../../src/services/cache/CacheLookup.ts"
import * as CacheUpkeep from "../../../src/services/cache/CacheUpkeep.ts"
import type { Selection, Similar } from "../../../src/services/cache/ResponseCache.ts"
import { none } from "../../../src/services/cache/ResponseCache.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { Pressure } from "../../../src/services/models/MemoryPressure.ts"
import type { ActorEvent } from "../../../src/services/models/Models.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Deployments from "../../support/Deployments.ts"

const event = (state: ActorEvent["state"], cause?: string) => ({
  deployment: "chat#0",
  state,
  ...(cause === undefined ? {} : { cause })
})

const replaced = (...events: ReadonlyArray<ReturnType<typeof event>>) => {
  const replacements = new CacheUpkeep.Replacements()
  return events.map((one) => replacements.note(one))
}

describe("a replaced deployment", () => {
  it("is one whose other instance is ready while the first is loaded", () => {
    const events = [event("loading"), event("ready"), event("loading"), event("ready"), event("draining")]
    assert.deepStrictEqual(replaced(...events), [false, false, false, true, false])
  })

  it("is none that was unloaded, crashed or failed before it loads again", () => {
    const unloaded = [event("ready"), event("draining"), event("gone"), event("loading"), event("ready")]
    const crashed = [event("ready"), event("loading", "It crashed."), event("ready")]
    const failed = [event("ready"), event("loading"), event("failed"), event("ready")]
    for (const events of [unloaded, crashed, failed]) assert.notInclude(replaced(...events), true)
  })
})

describe("the upkeep of the cache", () => {
  it.effect("forgets the questions that a replaced model embedded", () =>
    Effect.gen(function*() {
      const events = yield* PubSub.unbounded<ActorEvent>()
      const forgotten: Array<Selection> = []
      const similar = { clear: (which: Selection) => void forgotten.push(which) } as Similar
      const semantic = { embeddings: "embedder", threshold: 0.9, margin: 0, timeoutMs: 1, entries: 1, bytes: 1 }
      const modelOf = (name: string, cache?: CacheSettings): Model => ({
        name,
        deployments: [Deployments.deployment(`${name}#0`)],
        ...(cache === undefined ? {} : { cache })
      })
      yield* CacheUpkeep.run({ ...none, similar }, { forgetVersions: () => {} } as CacheLookup).pipe(
        Effect.provide(Layer.mergeAll(
          Layer.mock(Models)({
            drained: new Map(),
            tryLease: () => undefined,
            renew: () => {},
            snapshot: () => ({ queued: 0, state: "ready" }),
            events: Stream.fromPubSub(events)
          }),
          Layer.succeed(
            Registry.Registry,
            Registry.make([
              modelOf("chat", { when: "always", ttlMs: 1, semantic }),
              modelOf("other", { when: "always", ttlMs: 1, semantic: { ...semantic, embeddings: "another" } }),
              modelOf("exact", { when: "always", ttlMs: 1 }),
              modelOf("embedder")
            ])
          ),
          Layer.succeed(Pressure, yield* SubscriptionRef.make<Level>("normal"))
        ))
      )
      yield* TestClock.adjust(0)
      for (const state of ["ready", "loading", "ready"] as const) {
        yield* PubSub.publish(events, { deployment: "embedder#0", state, at: 0 } as ActorEvent)
      }
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(forgotten, [{ model: "chat" }])
    }).pipe(Effect.scoped))

  it.effect("clears a replaced model, reads the files of each that is loaded, and turns memory off in an emergency", () =>
    Effect.gen(function*() {
      const events = yield* PubSub.unbounded<ActorEvent>()
      const pressure = yield* SubscriptionRef.make<Level>("normal")
      const cleared: Array<Selection> = []
      const off: Array<boolean> = []
      let forgotten = 0
      const cache = {
        ...none,
        clear: (which: Selection) => Effect.sync(() => cleared.push(which)),
        turnMemoryOff: (isOff: boolean) => void off.push(isOff)
      }
      const lookup = { forgetVersions: () => void forgotten++ } as CacheLookup
      yield* CacheUpkeep.run(cache, lookup).pipe(
        Effect.provide(Layer.mergeAll(
          Layer.mock(Models)({
            drained: new Map(),
            tryLease: () => undefined,
            renew: () => {},
            snapshot: () => ({ queued: 0, state: "ready" }),
            events: Stream.fromPubSub(events)
          }),
          Layer.succeed(
            Registry.Registry,
            Registry.make([{ name: "chat", deployments: [Deployments.deployment("chat#0")] }])
          ),
          Layer.succeed(Pressure, pressure)
        ))
      )
      yield* TestClock.adjust(0)
      for (const state of ["ready", "loading", "ready"] as const) {
        yield* PubSub.publish(events, { deployment: "chat#0", state, at: 0 } as ActorEvent)
      }
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(cleared, [{ model: "chat" }])
      assert.strictEqual(forgotten, 2)
      for (const level of ["critical", "emergency", "warning"] as const) {
        yield* SubscriptionRef.set(pressure, level)
        yield* TestClock.adjust(0)
      }
      assert.deepStrictEqual(off, [false, false, true, false])
    }))
})

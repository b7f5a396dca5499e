import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as CachedResponsesLayer from "../../../src/layers/cache/CachedResponses.ts"
import type { Response } from "../../../src/services/cache/CachedResponses.ts"
import { bytesOf, CachedResponses } from "../../../src/services/cache/CachedResponses.ts"

const ask = (content: string, tenant = ""): Request => ({
  model: "a",
  messages: [{ role: "user", content }],
  tenant
})

const say = (text: string): Response => ({
  text,
  toolCalls: [],
  finishReason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
})

const within = (bounds: Partial<CachedResponsesLayer.Options>) =>
  Effect.provide(CachedResponsesLayer.layerWith({ ...Defaults.cachedResponses, ...bounds }))

const recall = (content: string, tenant?: string) =>
  CachedResponses.use(({ recall }) => Effect.map(recall(ask(content, tenant)), (found) => found?.text))

const keep = (content: string, text: string, tenant?: string) =>
  CachedResponses.use(({ keep }) => keep(ask(content, tenant), say(text)))

describe("CachedResponses", () => {
  it.effect("returns the newest answer to a request, to its own tenant only", () =>
    Effect.gen(function*() {
      assert.isUndefined(yield* recall("Hello", "one"))
      yield* keep("Hello", "first", "one")
      yield* keep("Hello", "second", "one")
      assert.strictEqual(yield* recall("Hello", "one"), "second")
      assert.isUndefined(yield* recall("Hello", "two"))
      assert.isUndefined(yield* recall("Hello"))
    }).pipe(within({})))

  it.effect("removes an answer after an hour, even if it is used meanwhile", () =>
    Effect.gen(function*() {
      yield* keep("Hello", "Hi")
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(yield* recall("Hello"), "Hi")
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(yield* recall("Hello"))
    }).pipe(within({})))

  it.effect("has at most its capacity, and removes the least recently used answer", () =>
    Effect.gen(function*() {
      yield* keep("a", "A")
      yield* keep("b", "B")
      yield* recall("a")
      yield* keep("c", "C")
      assert.deepStrictEqual([yield* recall("a"), yield* recall("b"), yield* recall("c")], ["A", undefined, "C"])
    }).pipe(within({ entries: 2 })))

  it.effect("holds so many bytes, of answers that were replaced none", () =>
    Effect.gen(function*() {
      for (let index = 0; index < 10; index++) yield* keep("a", "A")
      yield* keep("b", "B")
      assert.deepStrictEqual([yield* recall("a"), yield* recall("b")], ["A", "B"])
      yield* keep("c", "C")
      assert.deepStrictEqual([yield* recall("a"), yield* recall("b"), yield* recall("c")], [undefined, "B", "C"])
    }).pipe(within({ bytes: 2 * bytesOf(say("A")) + 1 })))

  it.effect("keeps no answer that is too large, and then still has the others", () =>
    Effect.gen(function*() {
      yield* keep("a", "A")
      yield* keep("b", "B".repeat(Defaults.cachedResponses.largestBytes))
      assert.deepStrictEqual([yield* recall("a"), yield* recall("b")], ["A", undefined])
    }).pipe(within({ timeToLive: Duration.hours(1) })))
})

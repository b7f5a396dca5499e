/** What is counted and logged of matches and refusals. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import type { Identity } from "../../../src/domain/Identity.ts"
import * as SecurityEvents from "../../../src/services/guard/SecurityEvents.ts"
import { Metrics } from "../../../src/services/observability/Metrics.ts"

const observe = () => {
  const counted: Array<string> = []
  const logged: Array<string> = []
  const metrics = Layer.succeed(Metrics, {
    begin: () => {},
    end: () => {},
    security: (rule, action, count) => counted.push(`${rule} ${action} ${count}`)
  })
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => logged.push(`${logLevel} ${String(message)}`))
  return { counted, logged, layer: Layer.merge(metrics, Logger.layer([logger])) }
}

const identity: Identity = { keyId: "k1", tenant: "shop", user: "ada@example.com", isAdmin: false, setsTenant: false }

describe("security events", () => {
  it.effect("are counted each, and logged once in an interval", () => {
    const { counted, layer, logged } = observe()
    return Effect.gen(function*() {
      const events = yield* SecurityEvents.make
      for (let count = 0; count < 3; count++) events.record("email", "flag", { model: "a", identity })
      events.record("unchecked", "flag", { model: "a" }, 7)
      yield* TestClock.adjust("10 seconds")
      events.record("email", "flag", { model: "a", identity })
      assert.deepStrictEqual(counted, [
        "email flag 1",
        "email flag 1",
        "email flag 1",
        "unchecked flag 7",
        "email flag 1"
      ])
      assert.deepStrictEqual(logged, [
        "Info The input policy flagged a request (rule email, key k1).",
        "Info The input policy flagged a request (rule unchecked).",
        "Info The input policy flagged a request (rule email, key k1). 2 before it were not logged."
      ])
    }).pipe(Effect.provide(layer))
  })

  it.effect("of refused requests have the id of a key or the kind of an address", () => {
    const { counted, layer, logged } = observe()
    return Effect.gen(function*() {
      const { record } = yield* SecurityEvents.Refusals
      for (let count = 0; count < 1000; count++) record("key", { address: "public" })
      for (const refusal of ["access", "limit", "budget"] as const) record(refusal, { identity })
      yield* TestClock.adjust("10 seconds")
      record("key", { address: "private" })
      assert.lengthOf(counted, 1004)
      assert.includeMembers(counted, ["limit reject 1", "budget reject 1"])
      assert.deepStrictEqual(logged, [
        "Warn Refused a request from a public address: no valid API key.",
        "Warn Refused a request of key k1: an API key that does not allow it.",
        "Warn Refused a request from a private address: no valid API key. 999 before it were not logged."
      ])
    }).pipe(Effect.provide(Layer.provideMerge(SecurityEvents.layerRefusals, layer)))
  })
})

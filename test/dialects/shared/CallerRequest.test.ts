import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as fc from "fast-check"
import { bearerTokenOf, callerOf, keepAliveOf } from "../../../src/dialects/shared/CallerRequest.ts"

describe("CallerRequest", () => {
  describe("keep_alive", () => {
    it.each<[value: number | string, duration: Duration.Input]>([
      [0, 0],
      ["0", 0],
      ["0s", 0],
      [300, "5 minutes"],
      [0.5, "500 millis"],
      ["5m", "5 minutes"],
      ["30s", "30 seconds"],
      ["1h30m", "90 minutes"],
      ["1.5h", "90 minutes"],
      ["+.5s", "500 millis"],
      ["2h3m4s5ms", 7_384_005],
      ["1us", 1],
      [-1, Duration.infinity],
      ["-1m", Duration.infinity],
      ["99999999999999h", Duration.infinity]
    ])("%j", (value, duration) => {
      assert.deepStrictEqual(Duration.toMillis(keepAliveOf(value)), Duration.toMillis(duration))
    })

    it("is the same as a duration and as seconds", () => {
      fc.assert(fc.property(fc.nat({ max: 1e9 }), (seconds) => {
        const text = `${Math.floor(seconds / 3600)}h${Math.floor(seconds / 60) % 60}m${seconds % 60}s`
        assert.deepStrictEqual(keepAliveOf(text), keepAliveOf(seconds))
      }))
    })

    it("unloads at once only if it is 0", () => {
      fc.assert(fc.property(fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }), (seconds) => {
        assert.strictEqual(Duration.isZero(keepAliveOf(seconds)), seconds === 0)
      }))
    })
  })

  it.each<[header: string | undefined, token: string | undefined]>([
    ["Bearer abc", "abc"],
    ["bearer  abc ", "abc"],
    ["Basic abc", undefined],
    ["Bearer", undefined],
    ["Bearer ", undefined],
    ["Bearer a b", undefined],
    ["", undefined],
    [undefined, undefined]
  ])("reads from the header %j the token %j", (header, token) => {
    assert.strictEqual(bearerTokenOf(header), token)
  })
})

describe("the tenant of a request with a key", () => {
  const identity = { keyId: "k", tenant: "shop", isAdmin: false, setsTenant: false }
  const named = { "x-troupe-tenant": "other" }

  it("is that of the key, whatever the request names", () => {
    const caller = callerOf({ user: "u", safety_identifier: "s" }, { identity, headers: named })
    assert.deepStrictEqual(caller, { identity, tenant: "shop" })
  })

  it("is the named one for a key that may set it", () => {
    const forwarding = { ...identity, setsTenant: true }
    assert.strictEqual(callerOf({}, { identity: forwarding, headers: named }).tenant, "other")
    assert.strictEqual(callerOf({}, { identity: forwarding }).tenant, "shop")
    const long = callerOf({}, { identity: forwarding, headers: { "x-troupe-tenant": "x".repeat(101) } })
    assert.strictEqual(long.tenant?.length, 20)
  })
})

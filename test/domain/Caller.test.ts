import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import * as Caller from "../../src/domain/Caller.ts"

describe("the address of a caller", () => {
  it.each([
    ["192.0.2.1", undefined, "192.0.2.1"],
    ["::ffff:192.0.2.1", undefined, "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", undefined, "2001:db8:1:2::/64"],
    ["2001:db8:1:2::9", undefined, "2001:db8:1:2::/64"],
    ["2001:db8::9", undefined, "2001:db8::/64"],
    ["::1", undefined, "::/64"],
    ["192.0.2.1", "198.51.100.7", "192.0.2.1"],
    ["10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2", "198.51.100.7"],
    ["10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"],
    ["2001:db8::a:1", "198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "10.0.0.2", "10.0.0.2"],
    ["10.0.0.1", "203.0.113.9, 10.0.0.2, 10.0.0.1", "203.0.113.9"],
    ["10.0.0.1", "198.51.100.7:50312", "198.51.100.7"],
    ["10.0.0.1", "[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"],
    ["10.0.0.1", "unknown", "unknown"],
    ["10.0.0.1", "198.51.100.7, unknown", "unknown"],
    ["10.0.0.1", "", ""],
    ["fe80::9%eth0", undefined, "fe80::/64"],
    ["", undefined, ""]
  ])("%s, forwarded for %s, is %s", (remote, forwardedFor, expected) => {
    const trusted = Caller.trustedProxiesOf(["10.0.0.1", "::ffff:a00:2", "2001:0DB8::a:0001"])
    assert.strictEqual(Caller.addressOf(remote, forwardedFor, trusted), expected)
  })

  it("is one for all spellings of an IPv6 address", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 }), (groups) => {
      const full = groups.map((group) => group.toString(16).padStart(4, "0").toUpperCase()).join(":")
      const short = groups.map((group) => group.toString(16)).join(":")
      const key = Caller.addressOf(short, undefined, new Set())
      assert.strictEqual(Caller.addressOf(full, undefined, new Set()), key)
      const neighbor = [...groups.slice(0, 4), 1, 2, 3, 4].map((group) => group.toString(16)).join(":")
      if (groups.slice(0, 4).some((group) => group !== 0)) {
        assert.strictEqual(Caller.addressOf(neighbor, undefined, new Set()), key)
      }
    }))
  })
})

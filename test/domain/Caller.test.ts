import { assert, describe, it } from "@effect/vitest"
import * as Caller from "../../src/domain/Caller.ts"

describe("the address of a caller", () => {
  it.each([
    ["192.0.2.1", undefined, "192.0.2.1"],
    ["::ffff:192.0.2.1", undefined, "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", undefined, "2001:db8:1:2"],
    ["2001:db8:1:2::9", undefined, "2001:db8:1:2"],
    ["2001:db8::9", undefined, "2001:db8:0:0"],
    ["::1", undefined, "0:0:0:0"],
    ["192.0.2.1", "198.51.100.7", "192.0.2.1"],
    ["10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"],
    ["10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2", "198.51.100.7"],
    ["10.0.0.1", "10.0.0.2", "10.0.0.2"]
  ])("%s, forwarded for %s, is %s", (remote, forwardedFor, expected) => {
    assert.strictEqual(Caller.addressOf(remote, forwardedFor, new Set(["10.0.0.1", "10.0.0.2"])), expected)
  })
})

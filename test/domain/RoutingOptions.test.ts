import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as RoutingOptions from "../../src/domain/RoutingOptions.ts"

const decode = Schema.decodeUnknownResult(RoutingOptions.RoutingOptions)
const isTaken = (headers: Readonly<Record<string, string>>): boolean =>
  Result.isSuccess(decode(RoutingOptions.fromHeaders(headers)))

describe("overrides in headers", () => {
  it("are numbers, booleans and lists by their text", () => {
    assert.deepStrictEqual(
      RoutingOptions.fromHeaders({
        "x-troupe-retries": "2",
        "x-troupe-timeout-ms": "1500",
        "x-troupe-continue": "false",
        "x-troupe-except": "a#0, a#1"
      }),
      { retries: 2, timeoutMs: 1500, continue: false, except: ["a#0", "a#1"] }
    )
  })

  it("are refused where they are something else, and not taken for what they are not", () => {
    for (const text of ["", " ", "0x2", "2e0", "two", "-1"]) assert.isFalse(isTaken({ "x-troupe-retries": text }), text)
    for (const text of ["", "yes", "TRUE", "constructor"]) assert.isFalse(isTaken({ "x-troupe-continue": text }), text)
  })
})

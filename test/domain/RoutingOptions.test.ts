import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Problem from "../../src/domain/Problem.ts"
import * as RoutingOptions from "../../src/domain/RoutingOptions.ts"

const decode = Schema.decodeUnknownResult(RoutingOptions.RoutingOptions)
const isTaken = (headers: Readonly<Record<string, string>>): boolean =>
  Result.isSuccess(decode(RoutingOptions.fromHeaders(headers)))

describe("options in a body", () => {
  it("of unknown names are rejected with the nearest one", () => {
    const joined = RoutingOptions.join({ troupe: { polcy: "x" } }, {})
    assert.isTrue(Result.isFailure(joined))
    if (Result.isFailure(joined)) {
      assert.strictEqual(joined.failure.path, "troupe.polcy")
      assert.match(joined.failure.detail, /^Expected one of policy, strategy, .*\. Did you mean policy\?$/)
    }
  })
})

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

  it.each([
    ...["1.5", "many", "", "11", "-1"].map((text) => ["retries", text, "Expected a whole number from 0 to 10"]),
    ...["0", "0.5", "86400001"].map((text) => ["timeout-ms", text, "Expected a whole number from 1 to 86400000"]),
    ["continue", "yes", "Expected true or false"]
  ])("%s: %s is rejected with what is expected and the limit", (name, text, expected) => {
    const decoded = Problem.decoderOf(RoutingOptions.RoutingOptions)(
      RoutingOptions.fromHeaders({ [`x-troupe-${name}`]: text })
    )
    assert.isTrue(Result.isFailure(decoded))
    const problems = Result.isFailure(decoded) ? Problem.fromSchemaError(decoded.failure) : []
    assert.deepStrictEqual(problems.map((problem) => problem.expected), [expected])
  })
})

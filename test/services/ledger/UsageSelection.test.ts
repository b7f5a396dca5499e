import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { UsageSelection } from "../../../src/services/ledger/UsageSelection.ts"
import { queryOf } from "../../../src/services/ledger/UsageSelection.ts"

const failing = (selection: UsageSelection) => Result.getOrThrow(Result.flip(queryOf(selection))).path

describe("queryOf", () => {
  it("includes the day `to`, and excludes the time `to`", () => {
    const { by, from, to, where } = Result.getOrThrow(queryOf({ from: "2027-01-01", to: "2027-01-31", user: "ada" }))
    assert.deepStrictEqual(by, ["day", "model"])
    assert.deepStrictEqual([from, to], [Date.UTC(2027, 0, 1), Date.UTC(2027, 1, 1)])
    assert.deepStrictEqual(where, { user: "ada" })
    const times = Result.getOrThrow(queryOf({ from: "2027-01-01T12:00+01:00", to: "2027-01-31T00:00:00.5Z" }))
    assert.deepStrictEqual([times.from, times.to], [Date.UTC(2027, 0, 1, 11), Date.UTC(2027, 0, 31) + 500])
  })

  it("has each group once, in the given order; none for one sum", () => {
    assert.deepStrictEqual(Result.getOrThrow(queryOf({ by: "user, day,user" })).by, ["user", "day"])
    assert.deepStrictEqual(Result.getOrThrow(queryOf({ by: "" })).by, [])
  })

  it("rejects a range that ends before it begins, but not a day", () => {
    assert.strictEqual(failing({ from: "2027-02-01", to: "2027-01-31" }), "from")
    assert.strictEqual(failing({ from: "2027-02-01T00:00Z", to: "2027-01-31" }), "from")
    assert.isTrue(Result.isSuccess(queryOf({ from: "2027-01-31", to: "2027-01-31" })))
  })

  it("names the field that is invalid", () => {
    assert.strictEqual(failing({ by: "users" }), "by")
    for (const text of ["", "2027", "2027-02-30", "2027-01-01T12:00", "2027-01-01T25:00Z", "1 January 2027", "-1"]) {
      assert.strictEqual(failing({ from: text }), "from", text)
      assert.strictEqual(failing({ to: text }), "to", text)
    }
  })
})

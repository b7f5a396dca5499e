/** The signals that end the process immediately. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { endsImmediately } from "../../src/cli/Signals.ts"

describe("a signal", () => {
  it.each<[what: string, first: number | undefined, now: number, script: string | undefined, expected: boolean]>([
    ["the first", undefined, 9_000, undefined, false],
    ["the first, under npm start", undefined, 9_000, "start", false],
    ["a second", 1_000, 1_000, undefined, true],
    ["a second, under another script", 1_000, 1_000, "test", true],
    ["the same one, forwarded by npm start", 1_000, 1_100, "start", false],
    ["a second, under npm start", 1_000, 1_500, "start", true]
  ])("%s ends the process immediately or not", (_, first, now, script, expected) => {
    assert.strictEqual(endsImmediately(first, now, script), expected)
  })
})

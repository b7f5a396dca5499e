import { assert, describe, it } from "@effect/vitest"
import { piecesOf, wordsOf } from "../../src/ui/bars.ts"

const attempt = { deployment: "chat#0", startedMs: 100, grantedMs: 20, tookMs: 200, outcome: "answered" } as const

const barOf = (...args: Parameters<typeof piecesOf>) =>
  piecesOf(...args).map(({ from, kind, tookMs }) => [kind, from, tookMs])

describe("the bar of an attempt", () => {
  it("is divided at the first token of an answer that is streamed", () => {
    assert.deepStrictEqual(barOf({ ...attempt, firstTokenMs: 50 }, 40, 300), [
      ["pause", 60, 40],
      ["slot", 100, 20],
      ["first", 120, 30],
      ["after", 150, 150]
    ])
  })

  it("has an answer that is not streamed as a whole", () => {
    assert.deepStrictEqual(barOf(attempt, 0, 300), [["slot", 100, 20], ["whole", 120, 180]])
    assert.strictEqual(
      wordsOf(attempt, 90),
      "started at 100 ms, after a pause of 90 ms, waited 20 ms for a slot or the load, answered after 200 ms, not streamed"
    )
  })

  it("is of one kind where the attempt failed, runs or was given up", () => {
    for (const outcome of ["failed", "left"] as const) {
      assert.deepStrictEqual(barOf({ ...attempt, outcome }, 0, 300), [["slot", 100, 20], [outcome, 120, 180]])
      assert.notInclude(wordsOf({ ...attempt, outcome }, 0), "streamed")
    }
    const { tookMs: _, ...running } = attempt
    assert.deepStrictEqual(barOf({ ...running, outcome: "running" }, 0, 400), [["slot", 100, 20], [
      "running",
      120,
      280
    ]])
  })
})

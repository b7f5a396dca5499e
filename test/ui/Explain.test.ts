import { assert, describe, it } from "@effect/vitest"
import { failuresOf, mainReason, partsOf, pauseBefore } from "../../src/ui/explain.ts"

const failed = {
  deployment: "remote#0",
  startedMs: 10,
  tookMs: 700,
  outcome: "failed",
  error: { reason: "ProviderError", message: "The server is overloaded" }
} as const

const answered = { deployment: "chat#0", startedMs: 900, firstTokenMs: 50, tookMs: 100, outcome: "answered" } as const

describe("the explanation of a request", () => {
  it("divides its time into parts that follow each other", () => {
    assert.deepStrictEqual(partsOf({ attempts: [failed, answered], tookMs: 1_010 }), [
      { kind: "before", deployment: undefined, tookMs: 10 },
      { kind: "failed", deployment: "remote#0", tookMs: 700 },
      { kind: "pause", deployment: undefined, tookMs: 190 },
      { kind: "firstToken", deployment: "chat#0", tookMs: 50 },
      { kind: "answer", deployment: "chat#0", tookMs: 50 }
    ])
  })

  it("begins with the wait for limits and budgets, also where the request was refused after it", () => {
    const parts = partsOf({ admissionMs: 8, attempts: [{ ...answered, startedMs: 10 }], tookMs: 110 })
    assert.deepStrictEqual(parts.map(({ kind, tookMs }) => [kind, tookMs]), [
      ["admission", 8],
      ["before", 2],
      ["firstToken", 50],
      ["answer", 50]
    ])
    assert.strictEqual(
      mainReason({ admissionMs: 1_000, attempts: [], tookMs: 1_000 }),
      "Most of the time: 1 s of waiting for limits and budgets (100 %)."
    )
  })

  it("has an answer that is not streamed as one part, and a pause before a retry", () => {
    const { firstTokenMs: _, ...whole } = answered
    const attempts = [failed, { ...whole, grantedMs: 20 }]
    assert.deepStrictEqual(partsOf({ attempts, tookMs: 1_000 }).slice(2).map(({ kind, tookMs }) => [kind, tookMs]), [
      ["pause", 190],
      ["slot", 20],
      ["whole", 80]
    ])
    assert.deepStrictEqual([0, 1].map((index) => pauseBefore(attempts, index)), [0, 190])
    assert.strictEqual(pauseBefore([failed, { ...answered, startedMs: 300 }], 1), 0)
    assert.strictEqual(
      mainReason({ attempts: [whole], tookMs: 1_000 }),
      "Most of the time: 900 ms before the first attempt: checks of the request, cache (90 %)."
    )
  })

  it("counts an attempt beside another from when the other one ended", () => {
    const hedge = { ...answered, startedMs: 300, firstTokenMs: 500, tookMs: 600, hedge: true } as const
    const parts = partsOf({ attempts: [{ ...failed, outcome: "left" }, hedge], tookMs: 900 })
    assert.deepStrictEqual(parts.map(({ tookMs }) => tookMs), [10, 700, 90, 100])
  })

  it("names the longest part and the deployment that failed", () => {
    assert.strictEqual(
      mainReason({ attempts: [failed, answered], tookMs: 1_010 }),
      "Most of the time: 700 ms in an attempt at remote#0 that did not answer (70 %)."
    )
    assert.deepStrictEqual(failuresOf({ attempts: [failed, answered] }), [
      "remote#0 failed after 700 ms: ProviderError: The server is overloaded"
    ])
  })

  it("has nothing to say of a request without attempts and time", () => {
    assert.isUndefined(mainReason({ attempts: [], tookMs: 0 }))
  })
})

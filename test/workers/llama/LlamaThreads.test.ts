import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { Computed } from "../../../src/workers/llama/LlamaThreads.ts"
import { makeThreadChoice, threadsFor } from "../../../src/workers/llama/LlamaThreads.ts"

const weightsBytes = 4e9

describe("threadsFor", () => {
  it.each([
    [1, 1, 1, 1],
    [2, 1, 1, 1],
    [4, 1, 2, 3],
    [8, 1, 4, 7],
    [8, 2, 2, 3],
    [8, 16, 1, 1],
    [16, 1, 8, 15],
    [64, 1, 16, 32]
  ])("of %i cores for %i replicas are %i for answers and %i for prompts", (cores, replicas, answers, prompts) => {
    assert.deepStrictEqual(threadsFor({ cores, replicas, weightsBytes }), { answers, prompts })
  })

  it("are one for a small model", () => {
    assert.deepStrictEqual(threadsFor({ cores: 16, replicas: 1, weightsBytes: 3e6 }), { answers: 1, prompts: 1 })
  })

  it("are those of the settings", () => {
    const machine = { cores: 8, replicas: 1, weightsBytes: 3e6 }
    assert.deepStrictEqual(threadsFor(machine, { threads: 6 }), { answers: 6, prompts: 6 })
    assert.deepStrictEqual(threadsFor(machine, { promptThreads: 6 }), { answers: 1, prompts: 6 })
    assert.deepStrictEqual(threadsFor(machine, { threads: 2, promptThreads: 8 }), { answers: 2, prompts: 8 })
  })

  it("never use all cores, nor fewer for prompts than for answers", () => {
    const counts = fc.integer({ min: 2, max: 256 })
    fc.assert(fc.property(counts, fc.integer({ min: 1, max: 8 }), fc.nat(1e11), (cores, replicas, weightsBytes) => {
      const { answers, prompts } = threadsFor({ cores, replicas, weightsBytes })
      assert.isAtLeast(answers, 1)
      assert.isAtLeast(prompts, answers)
      if (cores > replicas) assert.isBelow(prompts * replicas, cores)
    }))
  })
})

/** The threads of the last of so many batches. */
const lastOf = (
  choice: ReturnType<typeof makeThreadChoice>,
  batch: Computed,
  msOf: (threads: number) => number,
  batches = 20
): ReadonlyArray<number> =>
  Array.from({ length: batches }, () => {
    const threads = choice.choose(batch)
    choice.record(batch, threads, msOf(threads))
    return threads
  })

describe("makeThreadChoice", () => {
  const prompts: Computed = { tokens: 128 }
  const many: Computed = { tokens: 16, runs: [16] }
  const few: Computed = { tokens: 9, runs: [8, 1] }

  it("has more threads for prompts and for many next tokens, while that is faster", () => {
    const choice = makeThreadChoice({ answers: 2, prompts: 3 })
    for (const batch of [prompts, many]) assert.strictEqual(lastOf(choice, batch, (threads) => 10 / threads).at(-1), 3)
    // The threads collapse, as if a core were busy with something else.
    const later = lastOf(choice, prompts, (threads) => threads === 3 ? 100 : 5, 1_000)
    assert.strictEqual(later.at(-1), 2)
    assert.isBelow(later.filter((threads) => threads === 3).length, 12)
    // The other batches have a measurement of their own.
    assert.strictEqual(choice.choose(many), 3)
    // The core is free again.
    assert.strictEqual(lastOf(choice, prompts, (threads) => 10 / threads, 5_000).at(-1), 3)
  })

  it("has the same threads for next tokens that are computed alone, whatever they cost", () => {
    const choice = makeThreadChoice({ answers: 2, prompts: 3 })
    const used = lastOf(choice, few, (threads) => 10 / threads, 300)
    assert.deepStrictEqual(new Set(used), new Set([2]))
  })

  it("does not measure the small end of a prompt", () => {
    const choice = makeThreadChoice({ answers: 2, prompts: 3 })
    lastOf(choice, prompts, (threads) => 10 / threads)
    lastOf(choice, { tokens: 2 }, () => 1_000)
    assert.strictEqual(choice.choose(prompts), 3)
  })
})

/** The choice of a batch's tokens, and the measurement of batches. */
import * as fc from "fast-check"
import type { BatchItem, LlamaContext, Token } from "node-llama-cpp"
import { assert, describe, it } from "vitest"
import { makeBatches } from "../../../src/workers/llama/LlamaBatches.ts"
import type { Threads } from "../../../src/workers/llama/LlamaThreads.ts"

/** Tokens that wait, with the number of their sequence. */
interface Queued extends BatchItem {
  readonly sequenceId: number
}

const item = (sequenceId: number, tokens: number): Queued => ({
  sequenceId,
  tokens: Array.from({ length: tokens }, (_, index) => index as Token),
  logits: [],
  evaluationPriority: 5
})

/** A context whose batches take as long as `msOf` of the latest one. */
const contextOf = (
  mostOfPrompts: number,
  msOf: (items: ReadonlyArray<Queued>, threads: number) => number = () => 1,
  threads: Threads = { answers: 1, prompts: 1 }
) => {
  let time = 0
  let queued: ReadonlyArray<Queued> = []
  let latest: ReadonlyArray<Queued> = []
  let used = 0
  const native = {
    setThreads: (threads: number) => {
      used = threads
    },
    decodeBatch: () => {
      time += msOf(latest, used)
      return Promise.resolve()
    }
  }
  const { attach, strategy } = makeBatches(mostOfPrompts, threads, () => time)
  attach({
    _ctx: native,
    get _queuedDecodes() {
      return queued
    }
  } as unknown as LlamaContext)
  const take = (items: ReadonlyArray<Queued>, size = 512) => {
    queued = items
    const taken = strategy({ items, size })
    latest = taken.map(({ item }) => item as Queued)
    return taken
  }
  return {
    take,
    threads: () => used,
    batch: async (items: ReadonlyArray<Queued>) => {
      const taken = take(items)
      await native.decodeBatch()
      return taken
    }
  }
}

const sequencesOf = (taken: ReadonlyArray<{ readonly item: BatchItem }>): Array<number> =>
  taken.map(({ item }) => (item as Queued).sequenceId)

describe("batches", () => {
  it("are in the order of their sequences, whatever the order of requests", () => {
    const { take } = contextOf(128)
    assert.deepStrictEqual(sequencesOf(take([3, 0, 2, 1].map((id) => item(id, 1)))), [0, 1, 2, 3])
    assert.deepStrictEqual(sequencesOf(take([2, 0, 1].map((id) => item(id, 40)))), [0, 1, 2])
  })

  it("take complete pieces of prompts up to the limit, those that wait longest first", () => {
    const [one, two, three] = [item(2, 64), item(0, 64), item(1, 40)]
    assert.deepStrictEqual(contextOf(128).take([one, two, three]), [
      { item: two, processAmount: 64 },
      { item: one, processAmount: 64 }
    ])
  })

  it("alternate between next tokens and prompts while both wait", async () => {
    const { batch } = contextOf(128)
    const waiting = [item(0, 64), item(1, 1), item(2, 64), item(3, 1)]
    const turns = [await batch(waiting), await batch(waiting), await batch(waiting)]
    assert.deepStrictEqual(turns.map(sequencesOf), [[1, 3], [0, 2], [1, 3]])
  })

  it("take a part of an item that is larger than any batch", () => {
    const large = item(0, 300)
    assert.deepStrictEqual(contextOf(512).take([large], 256), [{ item: large, processAmount: 256 }])
  })

  it("always make progress, within their size, with each item at most once", () => {
    fc.assert(fc.property(
      fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 32 }),
      fc.integer({ min: 1, max: 512 }),
      fc.integer({ min: 1, max: 512 }),
      (lengths, most, size) => {
        const items = lengths.map((length, index) => item(lengths.length - index, length))
        const taken = contextOf(most).take(items, size)
        const tokens = taken.reduce((sum, { processAmount }) => sum + processAmount, 0)
        assert.isAtLeast(tokens, 1)
        assert.isAtMost(tokens, size)
        assert.strictEqual(new Set(taken.map(({ item }) => item)).size, taken.length)
        assert.deepStrictEqual(sequencesOf(taken), sequencesOf(taken).toSorted((one, other) => one - other))
        for (const { item, processAmount } of taken) {
          assert.include(items, item)
          assert.isAtLeast(processAmount, 1)
          assert.isAtMost(processAmount, item.tokens.length)
        }
      }
    ))
  })

  it("take every item before one that came later twice, whatever they cost", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.integer({ min: 0, max: 15 }), { minLength: 2, maxLength: 8 }),
        fc.boolean(),
        fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }),
        async (sequences, isAloneCheaper, prompts) => {
          const { batch } = contextOf(64, (items) => items.length * (items.length > 1 === isAloneCheaper ? 9 : 1))
          let queue = sequences.map((id) => item(id, 1))
          const taken = new Map(sequences.map((id) => [id, 0]))
          for (const isPrompt of prompts) {
            const done = new Set(sequencesOf(await batch(queue)))
            for (const id of done) taken.set(id, taken.get(id)! + 1)
            // What has been computed waits again, behind all others.
            queue = [
              ...queue.filter(({ sequenceId }) => !done.has(sequenceId)),
              ...[...done].map((id) => item(id, isPrompt && id % 2 === 0 ? 64 : 1))
            ]
          }
          assert.isAtLeast(Math.min(...taken.values()), Math.floor(prompts.length / sequences.length / 2) - 1)
        }
      ),
      { numRuns: 20 }
    )
  })

  it("are measured if they have next tokens", async () => {
    const { batch } = contextOf(
      128,
      (items) => items[0]!.tokens.length > 1 ? 10_000 : items.length === 1 ? 1 : 2 * items.length
    )
    const next = Array.from({ length: 4 }, (_, id) => item(id, 1))
    for (let turn = 0; turn < 20; turn++) await batch(next)
    assert.strictEqual((await batch(next)).length, 1)
    // Prompts in between take long, and are not measured.
    for (let turn = 0; turn < 20; turn++) await batch([...next, item(4, 64)])
    assert.strictEqual((await batch(next)).length, 1)
  })

  it("have the threads of prompts, or of answers", async () => {
    const { batch, threads } = contextOf(128, (items) => items.length, { answers: 2, prompts: 3 })
    await batch([item(0, 64)])
    assert.strictEqual(threads(), 3)
    await batch([item(0, 1)])
    assert.strictEqual(threads(), 2)
    await batch(Array.from({ length: 8 }, (_, id) => item(id, 1)))
    assert.strictEqual(threads(), 3)
  })

  it("report a library version other than the pinned one", () => {
    assert.throws(() => makeBatches(128, { answers: 1, prompts: 1 }).attach({} as LlamaContext))
  })
})

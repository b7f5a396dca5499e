import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { ordered } from "../../../src/services/placement/MoveOrder.ts"
import { defaults } from "../../../src/services/placement/Placement.ts"
import type { Replica } from "../../../src/services/placement/Places.ts"
import { Places } from "../../../src/services/placement/Places.ts"

/** Replicas of models with this memory, each with the node that it is on, -1 for none, and the one that it is to be on. */
type Given = ReadonlyArray<readonly [memory: number, from: number, to: number]>

const memory = 10

const orderOf = (given: Given, nodes: number) => {
  const models = given.map(([memory], index) => ({ name: `m${index}`, memory }))
  const machines = Array.from({ length: nodes }, (_, index) => ({ name: `n${index}`, memory, models: [] }))
  const places = new Places(machines, models, defaults)
  const replicas = given.map(([, from, to], model) => {
    const replica: Replica = { model, origin: from === -1 ? -1 : 2 * from, place: -1 }
    places.put(replica, 2 * to)
    return replica
  })
  return ordered(places, replicas, replicas.filter(({ origin, place }) => origin !== place)).map((
    { replica: { model }, unloadsFirst }
  ) => ({ model, unloadsFirst }))
}

const usedOn = (given: Given, node: number, at: 1 | 2) =>
  given.reduce((sum, replica) => replica[at] === node ? sum + replica[0] : sum, 0)

describe("the order of moves", () => {
  it("waits for memory that another move frees", () => {
    assert.deepStrictEqual(orderOf([[6, 0, 1], [6, 1, 2]], 3), [
      { model: 1, unloadsFirst: false },
      { model: 0, unloadsFirst: false }
    ])
  })

  it("unloads one of two replicas first that change places", () => {
    assert.deepStrictEqual(orderOf([[6, 0, 1], [6, 1, 0]], 2), [
      { model: 1, unloadsFirst: false },
      { model: 0, unloadsFirst: true }
    ])
  })

  it("has every move, each of which fits when its turn comes", () => {
    const node = fc.integer({ min: 0, max: 3 })
    const replica = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.oneof(node, fc.constant(-1)), node)
    fc.assert(
      fc.property(fc.array(replica, { maxLength: 10 }), (all) => {
        const given: Array<typeof all[number]> = []
        for (const one of all) {
          const fits = [1, 2] as const
          if (fits.every((at) => one[at] === -1 || usedOn(given, one[at], at) + one[0] <= memory)) given.push(one)
        }
        const steps = orderOf(given, 4)
        assert.strictEqual(steps.length, given.filter(([, from, to]) => from !== to).length)
        const used = [0, 1, 2, 3].map((node) => usedOn(given, node, 1))
        const early = new Set(steps.filter(({ unloadsFirst }) => unloadsFirst).map(({ model }) => model))
        for (const model of early) used[given[model]![1]]! -= given[model]![0]
        for (const { model } of steps) {
          const [bytes, from, to] = given[model]!
          used[to]! += bytes
          assert.isAtMost(used[to]!, memory)
          if (from !== -1 && !early.has(model)) used[from]! -= bytes
        }
      }),
      { numRuns: 200 }
    )
  })
})

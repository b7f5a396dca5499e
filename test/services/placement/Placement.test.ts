import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { cluster } from "../../../bench/Placement.ts"
import type { Input, Model, Move, Node, Plan } from "../../../src/services/placement/Placement.ts"
import { defaults, plan } from "../../../src/services/placement/Placement.ts"
import { repetitions } from "../../support/Repetitions.ts"

const GiB = 2 ** 30

const node = (name: string, more: Partial<Node> = {}): Node => ({ name, memory: 64 * GiB, models: [], ...more })

const model = (name: string, more: Partial<Model> = {}): Model => ({ name, memory: 8 * GiB, ...more })

const placesOf = ({ assignment }: Plan) =>
  assignment.map(({ device, model, node }) => `${model} ${node} ${device}`).toSorted()

const movesOf = ({ moves }: Plan) =>
  moves.map(({ from = "-", model, to = "-", type }) => `${type} ${model} ${from} ${to}`)

/** The state after the moves. */
const after = (input: Input, { assignment }: Plan): Input => ({
  ...input,
  nodes: input.nodes.filter(({ isLost }) => isLost !== true).map((node) => ({
    ...node,
    files: [...node.files ?? [], ...node.models.map(({ model }) => model)],
    models: assignment.filter((one) => one.node === node.name).map(({ device, model }) => ({ device, model }))
  }))
})

const anyInput: fc.Arbitrary<Input> = fc.record({
  nodes: fc.array(
    fc.record({
      memory: fc.constantFrom(0, 16, 64),
      gpuMemory: fc.constantFrom(0, 24),
      load: fc.constantFrom(0, 0.2, 1),
      models: fc.uniqueArray(fc.nat(7), { maxLength: 4 }),
      isLost: fc.constantFrom(false, false, false, true)
    }),
    { minLength: 1, maxLength: 8 }
  ),
  models: fc.array(
    fc.record({
      memory: fc.constantFrom(1, 8, 20),
      replicas: fc.nat(3),
      device: fc.constantFrom(undefined, undefined, "gpu" as const, "cpu" as const),
      load: fc.constantFrom(0, 0.1, 0.5, 1.5),
      cpuLoad: fc.constantFrom(undefined, 2)
    }),
    { minLength: 8, maxLength: 8 }
  ),
  horizonMs: fc.constantFrom(60_000, 3_600_000),
  coldMs: fc.constantFrom(0, 30_000)
}).map(({ models, nodes, ...options }) => ({
  ...options,
  models: models.map((given, index) => ({ ...given, name: `m${index}`, memory: given.memory * GiB })),
  nodes: nodes.map(({ gpuMemory, memory, models, ...given }, index) => ({
    ...given,
    name: `n${index}`,
    memory: memory * GiB,
    gpuMemory: gpuMemory * GiB,
    models: models.map((one) => ({ model: `m${one}` }))
  }))
}))

/** Bytes that replicas use, by node and device. */
const usedOf = ({ models }: Input, assignment: Plan["assignment"]) => {
  const used = new Map<string, number>()
  for (const { device, model, node } of assignment) {
    const key = `${node} ${device}`
    used.set(key, (used.get(key) ?? 0) + models.find(({ name }) => name === model)!.memory)
  }
  return used
}

const capacityOf = ({ nodes }: Input, key: string): number => {
  const [name, device] = key.split(" ")
  const { gpuMemory = 0, memory = 0 } = nodes.find((one) => one.name === name)!
  return device === "gpu" ? gpuMemory : memory
}

const each = (check: (input: Input, planned: Plan) => void) =>
  fc.assert(fc.property(anyInput, (input) => check(input, plan(input))), { numRuns: repetitions(40, 200) })

describe("a placement", () => {
  it("fits every replica into the memory of its place, on a node that is not lost", () => {
    each((input, { assignment }) => {
      for (const [key, bytes] of usedOf(input, assignment)) assert.isAtMost(bytes, capacityOf(input, key))
      const lost = new Set(input.nodes.flatMap(({ isLost, name }) => isLost === true ? [name] : []))
      assert.deepStrictEqual(assignment.filter(({ node }) => lost.has(node)), [])
    })
  })

  it("has the wanted replicas, on different nodes, or says which are missing", () => {
    each(({ models }, { assignment, unplaced }) => {
      for (const { device, name, replicas = 1 } of models) {
        const own = assignment.filter(({ model }) => model === name)
        assert.strictEqual(new Set(own.map(({ node }) => node)).size, own.length)
        assert.strictEqual(own.length + (unplaced.find(({ model }) => model === name)?.replicas ?? 0), replicas)
        if (device !== undefined) assert.isTrue(own.every((one) => one.device === device))
      }
    })
  })

  it("costs no more than without moves", () => {
    each((_, { cost: { plannedMs, stayMs } }) => assert.isAtMost(plannedMs, stayMs + 1e-6))
  })

  it("moves nothing when it is made again", () => {
    each((input, planned) => {
      const again = plan(after(input, planned))
      assert.deepStrictEqual(again.moves, [])
      assert.deepStrictEqual(placesOf(again), placesOf(planned))
    })
  })

  it("has moves that lead to it, in an order in which each fits when its turn comes", () => {
    each((input, planned) => {
      const loaded = input.nodes.flatMap(({ isLost = false, models, name: node }) =>
        isLost ? [] : models.map(({ model }) => ({ model, node }))
      )
      const remove = ({ from, model }: Move) => {
        if (from === undefined) return
        const at = loaded.findIndex((one) => one.model === model && one.node === from)
        assert.notStrictEqual(at, -1)
        loaded.splice(at, 1)
      }
      for (const move of planned.moves) {
        remove(move)
        if (move.to !== undefined) loaded.push({ model: move.model, node: move.to })
      }
      const keys = (all: ReadonlyArray<{ readonly model: string; readonly node: string }>) =>
        all.map(({ model, node }) => `${model} ${node}`).toSorted()
      assert.deepStrictEqual(keys(loaded), keys(planned.assignment))
    })
  })

  it("places the models of a lost node before new ones, those with the fewest replicas left first", () => {
    const planned = plan({
      nodes: [
        node("a", { isLost: true, memory: 64 * GiB, models: [{ model: "two" }, { model: "one" }] }),
        node("b", { memory: 8 * GiB, models: [{ model: "two" }] }),
        node("c", { memory: 8 * GiB })
      ],
      models: [model("new", { load: 1 }), model("two", { replicas: 2, load: 1 }), model("one")]
    })
    assert.deepStrictEqual(movesOf(planned), ["load one - c"])
    assert.strictEqual(planned.moves[0]?.reason, "a is lost")
    assert.deepStrictEqual(planned.unplaced.map(({ model }) => model), ["two", "new"])
  })

  it("moves a replica from a busy node to an idle one when that saves more than it costs, and not otherwise", () => {
    const input = (load: number): Input => ({
      nodes: [node("a", { models: [{ model: "x" }, { model: "y" }] }), node("b")],
      models: [model("x", { load }), model("y", { load })]
    })
    const [move] = plan(input(0.5)).moves
    assert.deepInclude(move, { type: "move", from: "a", to: "b", unloadsFirst: false })
    assert.isAbove(move!.savedMs!, defaults.margin * move!.loadMs)
    assert.deepStrictEqual(plan(input(0.1)).moves, [])
  })

  it("prefers a node that has the file, and a GPU where the processor is slow", () => {
    const nodes = [node("a"), node("b", { files: ["x"] }), node("c", { gpuMemory: 24 * GiB })]
    assert.deepStrictEqual(placesOf(plan({ nodes, models: [model("x")] })), ["x b cpu"])
    const models = [model("x", { load: 0.2, cpuLoad: 3 })]
    assert.deepStrictEqual(placesOf(plan({ nodes, models })), ["x c gpu"])
  })

  it("unloads what is not wanted, and says why", () => {
    const planned = plan({
      nodes: [
        node("a", { models: [{ model: "x" }, { model: "old" }] }),
        node("b", { load: 0.5, models: [{ model: "x" }] })
      ],
      models: [model("x")]
    })
    assert.deepStrictEqual(planned.moves.map(({ from, model, reason }) => [model, from, reason]), [
      ["old", "a", "not in the list of models"],
      ["x", "b", "2 replicas, 1 wanted"]
    ])
  })

  it("says what is missing for a replica that fits nowhere", () => {
    const { unplaced } = plan({
      nodes: [node("a", { memory: 4 * GiB, gpuMemory: 6 * GiB })],
      models: [model("x"), model("y", { device: "cpu" }), model("z", { memory: GiB, replicas: 2 })]
    })
    assert.deepStrictEqual(unplaced.map(({ model, reason }) => [model, reason]), [
      ["x", "needs 8 GiB of memory; at most 5 GiB are free, on a"],
      ["y", "needs 8 GiB of cpu memory; at most 4 GiB are free, on a"],
      ["z", "every node with enough memory has a replica already"]
    ])
  })

  it("balances many nodes", () => {
    const input = cluster(repetitions(200, 1_000), 1)
    const planned = plan(input)
    assert.deepStrictEqual(planned.unplaced, [])
    assert.isBelow(planned.cost.plannedMs, planned.cost.stayMs)
    assert.deepStrictEqual(plan(after(input, planned)).moves, [])
  })
})

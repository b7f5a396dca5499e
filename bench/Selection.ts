/** The cost of one routing decision by the number of deployments. */
import type { Condition } from "../src/domain/DeploymentFacts.ts"
import { prepare, ready } from "../src/domain/DeploymentFacts.ts"
import { draw } from "../src/domain/Hashing.ts"
import { unmeasured } from "../src/domain/Measurement.ts"
import * as Measurement from "../src/domain/Measurement.ts"
import { defaults } from "../src/domain/SelectionOptions.ts"
import type { Name } from "../src/domain/Strategies.ts"
import * as Selection from "../src/services/routing/Selection.ts"
import type { Outcome, Row, Scenario } from "./Scenario.ts"
import { median } from "./Statistics.ts"

const name = "selection"

/** Decisions between two reads of the clock. */
const batch = 20

const scene = (size: number) => {
  const indices = Array.from({ length: size }, (_, index) => index)
  const table = prepare(indices.map((index) => ({
    deployment: `model#${index}`,
    price: { input: draw(1, index), output: draw(2, index) * 4 },
    quality: 0.8 + draw(3, index) * 0.2,
    contextWindow: 8192,
    capabilities: ["generate", "tools"],
    slots: 4
  })))
  const conditions = indices.map((index): Condition => {
    const sample = { ok: true, tookMs: 500 + draw(4, index) * 1_000, firstTokenMs: 100 * draw(5, index), tokens: 100 }
    return { ...ready, measured: Measurement.ended(Measurement.started(unmeasured), sample, 0) }
  })
  return { table, conditions }
}

/** µs per decision: the median of batches, so that other load on the machine has no effect. */
const measure = (strategy: Name, size: number, ms: number): number => {
  const { conditions, table } = scene(size)
  const options = { ...defaults, strategy }
  const end = performance.now() + ms
  const batches: Array<number> = []
  while (batches.length < 3 || performance.now() < end) {
    const start = performance.now()
    for (let turn = 0; turn < batch; turn++) {
      const request = {
        model: "model",
        capabilities: ["tools"] as const,
        promptTokens: 500,
        route: { session: `s${turn}` }
      }
      const { candidates } = Selection.decide(table, conditions, request, options, { now: 1_000, seed: turn, turn })
      if (candidates.length !== 3) throw new Error(`${strategy} named ${candidates.length} candidates of ${size}`)
    }
    batches.push((performance.now() - start) * 1_000 / batch)
  }
  return median(batches)
}

const sizes = [10, 100, 1_000]

/** The target for this number of deployments. */
const boundOf = (size: number) => size === 1_000 ? { comparison: "none", target: { atMost: 50 } } as const : {}

const run: Scenario["run"] = async ({ roundMs, rounds, warmUpMs }): Promise<Outcome> => {
  const rows = (["balanced", "latency", "session"] as const).flatMap((strategy) => {
    for (const size of sizes) measure(strategy, size, warmUpMs / 10)
    return sizes.map((size): Row => ({
      scenario: name,
      measure: `${strategy}, ${size} deployments`,
      unit: "µs",
      troupe: median(Array.from({ length: rounds }, () => measure(strategy, size, roundMs / 10))),
      ...boundOf(size)
    }))
  })
  return { rows, notes: [], raw: rows }
}

export const selection: Scenario = { name, run }

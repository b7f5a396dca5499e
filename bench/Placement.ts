/** The cost of one placement by the number of nodes. */
import { draw } from "../src/domain/Hashing.ts"
import type { Input } from "../src/services/placement/Placement.ts"
import { plan } from "../src/services/placement/Placement.ts"
import type { Outcome, Row, Scenario } from "./Scenario.ts"
import { median } from "./Statistics.ts"

const name = "placement"

const GiB = 2 ** 30

/**
 * Nodes, a third of them with a GPU, and half as many models with 1 to 3 replicas each, on nodes by chance, so that some are
 * busy; one node in 100 is lost.
 */
export const cluster = (size: number, seed: number): Input => {
  const models = Array.from({ length: Math.ceil(size / 2) }, (_, index) => ({
    name: `model-${index}`,
    memory: (1 + Math.floor(draw(seed, 5 * index) * 12)) * GiB,
    replicas: 1 + Math.floor(draw(seed, 5 * index + 1) * 3),
    load: draw(seed, 5 * index + 2) ** 2,
    cpuLoad: draw(seed, 5 * index + 2) ** 2 * 2
  }))
  const on = Array.from({ length: size }, (): Array<{ readonly model: string }> => [])
  for (const [index, { name, replicas }] of models.entries()) {
    const first = Math.floor(draw(seed + 1, index) * size)
    for (let at = 0; at < replicas; at++) on[(first + at) % size]!.push({ model: name })
  }
  const nodes = on.map((loaded, index) => ({
    name: `node-${index}`,
    memory: 64 * GiB,
    gpuMemory: index % 3 === 0 ? 24 * GiB : 0,
    models: loaded,
    isLost: index % 100 === 99
  }))
  return { nodes, models }
}

const sizes = [10, 100, 1_000]

/** ms. A placement of 1,000 nodes that takes the second one fails, also with `--smoke` on a machine that does other things. */
const target = { atMost: 100 }
const mostMs = 2_000

const boundOf = (size: number) => size === 1_000 ? { comparison: "none", target } as const : {}

const measure = (size: number, seed: number): number => {
  const input = cluster(size, seed)
  const start = performance.now()
  if (plan(input).moves.length === 0) throw new Error(`Nothing moves among ${size} nodes.`)
  const took = performance.now() - start
  if (took > mostMs) throw new Error(`A placement of ${size} nodes took ${Math.round(took)} ms.`)
  return took
}

const run: Scenario["run"] = async ({ rounds }): Promise<Outcome> => {
  const rows = sizes.map((size): Row => {
    measure(size, 0)
    return {
      scenario: name,
      measure: `${size} nodes, ${Math.ceil(size / 2)} models`,
      unit: "ms",
      troupe: median(Array.from({ length: Math.max(3, rounds) }, (_, round) => measure(size, round + 1))),
      ...boundOf(size)
    }
  })
  return { rows, notes: [], raw: rows }
}

export const placement: Scenario = { name, run }

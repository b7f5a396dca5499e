/**
 * Process entry: simulates the scenarios of `docs/scaling.md` and prints its table of adaptive limits.
 *
 * `node bench/limits.ts` takes 10 seeds of each, `node bench/limits.ts 2` takes 2. Equal seeds give equal results.
 */
import type { Reached, Scenario } from "./LimitSimulation.ts"
import { scenarios, simulate, simulateFixed } from "./LimitSimulation.ts"

const seeds = Number(process.argv[2] ?? 10)
const fixedLimits = [3, 6, 10, 12, 15, 20, 30, 40, 50, 60, 80]

const meanOf = (run: (seed: number) => Reached): Reached => {
  const all = Array.from({ length: seeds }, (_, seed) => run(seed + 1))
  const mean = (field: keyof Reached) => all.reduce((sum, one) => sum + one[field], 0) / seeds
  return {
    throughput: mean("throughput"),
    limit: mean("limit"),
    slowdown: mean("slowdown"),
    rejected: mean("rejected")
  }
}

const percent = (share: number): string => `${Number((100 * share).toFixed(1))} %`

const row = (scenario: Scenario): string => {
  const own = meanOf((seed) => simulate(scenario, seed))
  const all = fixedLimits.map((limit) => meanOf((seed) => simulateFixed(scenario, seed, limit)))
  const most = Math.max(...all.map(({ throughput }) => throughput))
  // Of limits with about the same throughput, the one with the least queue.
  const best = all.findIndex(({ throughput }) => throughput >= 0.99 * most)
  return [
    scenario.name,
    scenario.knee(scenario.measured[1] - 1),
    Math.round(own.limit),
    percent(own.throughput / most),
    `${fixedLimits[best]}`,
    `${own.slowdown.toFixed(1)} x`,
    `${all[fixedLimits.indexOf(60)]!.slowdown.toFixed(1)} x`,
    percent(own.rejected)
  ].join(" | ")
}

console.log(
  "| provider | knee | mean limit | throughput, of the best fixed limit's | best fixed limit | time to first token | with 60 fixed | rejected |"
)
console.log("|---|---|---|---|---|---|---|---|")
for (const scenario of Object.values(scenarios)) console.log(`| ${row(scenario)} |`)

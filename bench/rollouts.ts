/**
 * Process entry: simulates the scenarios of `docs/rollouts.md` and prints its table.
 *
 * `node bench/rollouts.ts` takes 1,000 seeds of each, some minutes; `node bench/rollouts.ts 50` takes 50. Equal seeds
 * give equal results.
 */
import { scenarios, summarize } from "./RolloutSimulation.ts"
import type { Scenario, Summary } from "./RolloutSimulation.ts"

const seeds = Number(process.argv[2] ?? 1_000)
const rates = [1, 10]

const percent = (count: number): string => `${Number((100 * count / seeds).toFixed(1))} %`

const duration = (ms: number | undefined): string => {
  if (ms === undefined) return "-"
  return ms < 60_000 ? `${Math.round(ms / 1000)} s` : `${Number((ms / 60_000).toFixed(1))} min`
}

const row = ({ callers, isWorse, name }: Scenario, rate: number, summary: Summary): string =>
  [
    name,
    callers === undefined ? rate : "-",
    isWorse ? "-" : percent(summary.rolledBack),
    isWorse ? percent(seeds - summary.rolledBack) : "-",
    duration(isWorse ? summary.medianMs : undefined),
    isWorse ? summary.medianRequests ?? "-" : "-"
  ].join(" | ")

console.log("| new version | requests/s | false rollbacks | missed | time to rollback | its requests until then |")
console.log("|---|---|---|---|---|---|")
for (const scenario of Object.values<Scenario>(scenarios)) {
  for (const rate of scenario.callers === undefined ? rates : rates.slice(0, 1)) {
    console.log(`| ${row(scenario, rate, summarize(scenario, rate, seeds))} |`)
  }
}

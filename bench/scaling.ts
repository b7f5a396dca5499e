/**
 * Process entry: simulates the days of `docs/scaling.md` and prints its table.
 *
 * `node bench/scaling.ts` takes 20 seeds of each day, half a minute; `node bench/scaling.ts 5` takes 5. Equal seeds give equal
 * results.
 */
import { rulesOf, scalingOf } from "../src/services/scaling/ScalingSettings.ts"
import type { Day } from "./ScalingSimulation.ts"
import { dayOf, scenarios } from "./ScalingSimulation.ts"

const seeds = Array.from({ length: Number(process.argv[2] ?? 20) }, (_, seed) => seed)
const rules = rulesOf(scalingOf({}))

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`

const range = (values: ReadonlyArray<number>, text: (value: number) => string = String): string => {
  const [least, most] = [text(Math.min(...values)), text(Math.max(...values))]
  return least === most ? least : `${least} to ${most}`
}

const row = (name: string, days: ReadonlyArray<Day>): string => {
  const reversal = Math.min(...days.map(({ shortestReversal }) => shortestReversal))
  const cells = [
    name,
    range(days.map(({ changes }) => changes)),
    Number.isFinite(reversal) ? `${(reversal / 60).toFixed(1)} min` : "-",
    range(days.map(({ meanReplicas }) => meanReplicas), (mean) => mean.toFixed(2)),
    percent(Math.min(...days.map(({ inBand }) => inBand))),
    percent(Math.max(...days.map(({ late }) => late)))
  ]
  return `| ${cells.join(" | ")} |`
}

console.log(
  "| day | changes | shortest time to a change back | mean replicas | follows the load | requests that waited over 10 s |"
)
console.log("|---|---|---|---|---|---|")
for (const scenario of scenarios) {
  console.log(row(scenario.name, seeds.map((seed) => dayOf(rules, { least: 1, most: 3 }, scenario, seed))))
}
for (const replicas of [1, 2, 3]) {
  const bounds = { least: replicas, most: replicas }
  const name = `${scenarios[0]!.name}, ${replicas} fixed`
  console.log(row(name, seeds.map((seed) => dayOf(rules, bounds, scenarios[0]!, seed))))
}

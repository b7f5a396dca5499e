/** Process entry: runs the scenarios, prints one table and keeps every figure in `bench/results`. */
import { mkdir, writeFile } from "node:fs/promises"
import { constants } from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { cacheHits } from "./CacheHits.ts"
import { concurrency } from "./Concurrency.ts"
import { embeddings } from "./Embeddings.ts"
import { engineKinds } from "./EngineKinds.ts"
import { fairness } from "./Fairness.ts"
import { faults } from "./Faults.ts"
import { install } from "./Install.ts"
import { keptPrefix } from "./KeptPrefix.ts"
import { load } from "./LoadTime.ts"
import * as Machine from "./Machine.ts"
import { observability } from "./Observability.ts"
import { overhead } from "./Overhead.ts"
import { memory } from "./PeakMemory.ts"
import { placement } from "./Placement.ts"
import { prefix } from "./Prefix.ts"
import { processes } from "./Processes.ts"
import { proxy } from "./Proxy.ts"
import { recovery } from "./Recovery.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import { selection } from "./Selection.ts"
import { stall } from "./Stall.ts"
import { start } from "./Start.ts"
import { synthetic } from "./Synthetic.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"
import * as Table from "./Table.ts"
import { team } from "./Team.ts"
import { tokens } from "./Tokens.ts"

const scenarios: ReadonlyArray<Scenario> = [
  tokens,
  synthetic,
  load,
  memory,
  prefix,
  keptPrefix,
  fairness,
  recovery,
  faults,
  engineKinds,
  embeddings,
  overhead,
  proxy,
  concurrency,
  processes,
  selection,
  placement,
  cacheHits,
  team,
  observability,
  stall,
  start,
  install
]

const fullEffort: Effort = { rounds: 5, roundMs: 2_000, warmUpMs: 2_000, shape: SyntheticGguf.whole }
const smokeEffort: Effort = { rounds: 1, roundMs: 300, warmUpMs: 50, shape: SyntheticGguf.small }

const usage = `Usage: npm run bench -- [--smoke] [--only <name>] [--minutes <number>] [--profile]

  --smoke    each scenario for about a second: checks that it works, not how fast
  --only     one scenario: ${scenarios.map(({ name }) => name).join(", ")}
  --minutes  how long the run with faults takes (--only faults); default 1
  --profile  keep CPU profiles of the service in bench/results (which slows it)
`

const results = fileURLToPath(new URL("results/", import.meta.url))

// The command line sets it for the service and its engines; here every side has it.
process.env["NODE_COMPILE_CACHE"] ??= `${results}compiled`

interface Options {
  readonly smoke: boolean
  readonly effort: Effort
  readonly chosen: ReadonlyArray<Scenario>
  readonly nodeOptions: ReadonlyArray<string>
}

const minutesOf = (text: string | undefined): Pick<Effort, "minutes"> => {
  if (text === undefined) return {}
  const minutes = Number(text)
  if (!(minutes > 0)) throw new Error(`--minutes must be a number above 0, got "${text}"`)
  return { minutes }
}

const readOptions = (): Options => {
  const { values } = parseArgs({
    options: {
      smoke: { type: "boolean", default: false },
      only: { type: "string" },
      minutes: { type: "string" },
      profile: { type: "boolean", default: false }
    }
  })
  const chosen = scenarios.filter(({ name }) => values.only === undefined || name === values.only)
  if (chosen.length === 0) throw new Error(`There is no scenario "${values.only}"`)
  return {
    smoke: values.smoke,
    effort: { ...values.smoke ? smokeEffort : fullEffort, ...minutesOf(values.minutes) },
    chosen,
    nodeOptions: values.profile ? ["--cpu-prof", `--cpu-prof-dir=${results}`] : []
  }
}

/** The result of a scenario; a failed one has no rows. */
interface Report extends Outcome {
  readonly name: string
  readonly failure?: string
}

const runScenario = async ({ name, run }: Scenario, { effort, nodeOptions }: Options): Promise<Report> => {
  console.error(`${name} ...`)
  try {
    const outcome = await run(effort, nodeOptions)
    const unsound = outcome.rows.filter((row) => !Table.isSound(row)).map(({ measure }) => measure)
    return unsound.length === 0
      ? { name, ...outcome }
      : { name, ...outcome, failure: `No figure: ${unsound.join("; ")}` }
  } catch (cause) {
    return { name, rows: [], notes: [], raw: null, failure: cause instanceof Error ? cause.message : String(cause) }
  }
}

const save = async (machine: Machine.Machine, effort: Effort, reports: ReadonlyArray<Report>): Promise<string> => {
  const date = new Date().toISOString()
  const name = `${date.replaceAll(":", "-")}.json`
  await mkdir(results, { recursive: true })
  await writeFile(`${results}${name}`, `${JSON.stringify({ date, machine, effort, reports }, null, 2)}\n`)
  return `bench/results/${name}`
}

const bench = async (options: Options): Promise<void> => {
  const machine = Machine.describe()
  const reports: Array<Report> = []
  for (const scenario of options.chosen) reports.push(await runScenario(scenario, options))
  const file = await save(machine, options.effort, reports)
  const failures = reports.flatMap(({ failure, name }) => failure === undefined ? [] : [`FAILED ${name}: ${failure}`])
  const notes = new Set(reports.flatMap((report) => report.notes))
  console.log([
    Table.format(reports.flatMap((report) => report.rows)),
    "",
    ...notes,
    ...(options.smoke
      ? ["A smoke run: its figures are those of cold code and only show that the scenarios work."]
      : []),
    Machine.format(machine),
    `Every figure: ${file}`,
    ...failures
  ].join("\n"))
  if (failures.length > 0) process.exitCode = 1
}

// `exit` also ends the children of each scenario.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => process.exit(128 + constants.signals[signal]))
}

let options: Options
try {
  options = readOptions()
} catch (cause) {
  console.error(`${(cause as Error).message}\n\n${usage}`)
  process.exit(64)
}
await bench(options)

/**
 * The start of the service until it listens, with all its models loaded, and its memory when idle.
 *
 * **Details**
 *
 * The measured service is the built package, `dist/main.js`; the baseline runs the sources. Without `dist` the sources
 * are measured, without a baseline.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Config from "./Config.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import * as ProcessMemory from "./ProcessMemory.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import { tinyChat } from "./Tokens.ts"

const name = "start"
const targets = { remote: { atMost: 300 }, embedded: { atMost: 900 }, memory: { atMost: 120 } }
const sources = fileURLToPath(new URL("../src/main.ts", import.meta.url))
const built = fileURLToPath(new URL("../dist/main.js", import.meta.url))
const moduleCounter = new URL("moduleCounter.ts", import.meta.url).href

const unbuilt = "start: dist does not exist, so the sources were measured; run npm run build first."

const configs = {
  // No request is sent to it.
  remote: Config.make({
    remote: { provider: "openai", model: "none", baseUrl: "http://127.0.0.1:9/v1", key: "${BENCH_KEY}" }
  }),
  embedded: Config.make({ "tiny-chat": { engine: "llama", file: tinyChat } })
}

type Kind = keyof typeof configs

/** One start of a service. */
interface Start {
  /** Until it listens, ms. */
  readonly time: number
  /** Of the service's process until it listens, ms. */
  readonly cpu: number
  /** Resident memory of the service's process when idle, MB. */
  readonly memory: number
}

/** @param idleMs from the listening line until the memory is read */
const startOnce = (
  entry: string,
  kind: Kind,
  idleMs: number,
  nodeOptions: ReadonlyArray<string> = [],
  env: Readonly<Record<string, string>> = {}
): Promise<Start> => {
  const begun = performance.now()
  const options = { entry, config: configs[kind], nodeOptions, env: { BENCH_KEY: "none", ...env } }
  return withService(options, async ({ pid }) => {
    const time = performance.now() - begun
    const cpu = ProcessCpu.ofProcess(pid) / 1_000
    await sleep(idleMs)
    return { time, cpu, memory: ProcessCpu.isAvailable ? ProcessMemory.resident(pid) : Number.NaN }
  })
}

/** JavaScript modules that a service with remote deployments loads, Node's own left out. */
const countModules = async (entry: string): Promise<number> => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
  try {
    const file = join(folder, "modules")
    await startOnce(entry, "remote", 0, ["--import", moduleCounter], { BENCH_MODULES: file })
    return Number(readFileSync(file, "utf8"))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Starts {
  readonly remote: Array<Start>
  readonly uncached: Array<Start>
  readonly embedded: Array<Start>
  modules: number
}

const measure = async (
  entries: ReadonlyArray<string>,
  { roundMs, rounds }: Effort,
  nodeOptions: ReadonlyArray<string>
): Promise<ReadonlyArray<Starts>> => {
  const idleMs = roundMs / 2
  const all = entries.map((): Starts => ({ remote: [], uncached: [], embedded: [], modules: 0 }))
  for (const [index, entry] of entries.entries()) {
    // This also writes the compile cache.
    all[index]!.modules = await countModules(entry)
    await startOnce(entry, "embedded", 0)
  }
  for (let round = 0; round < rounds; round++) {
    for (const [index, entry] of entries.entries()) {
      const starts = all[index]!
      starts.remote.push(await startOnce(entry, "remote", idleMs, nodeOptions))
      starts.uncached.push(await startOnce(entry, "remote", idleMs, nodeOptions, { NODE_DISABLE_COMPILE_CACHE: "1" }))
      starts.embedded.push(await startOnce(entry, "embedded", idleMs, nodeOptions))
    }
  }
  return all
}

interface Measure extends Pick<Row, "measure" | "target" | "unit"> {
  /** Reads `/proc`. */
  readonly linux?: boolean
  readonly of: (starts: Starts) => number
}

const medianOf = (starts: ReadonlyArray<Start>, figure: keyof Start): number => median(starts.map((one) => one[figure]))

const measures: ReadonlyArray<Measure> = [
  {
    measure: "remote deployments only, until it listens",
    unit: "ms",
    target: targets.remote,
    of: ({ remote }) => medianOf(remote, "time")
  },
  { measure: "the same, CPU", unit: "ms", linux: true, of: ({ remote }) => medianOf(remote, "cpu") },
  { measure: "the same without a compile cache", unit: "ms", of: ({ uncached }) => medianOf(uncached, "time") },
  {
    measure: "the same without a compile cache, CPU",
    unit: "ms",
    linux: true,
    of: ({ uncached }) => medianOf(uncached, "cpu")
  },
  {
    measure: "resident memory when idle",
    unit: "MB",
    linux: true,
    target: targets.memory,
    of: ({ remote }) => medianOf(remote, "memory")
  },
  { measure: "modules loaded", unit: "modules", of: ({ modules }) => modules },
  {
    measure: "tiny-chat, until it is loaded",
    unit: "ms",
    target: targets.embedded,
    of: ({ embedded }) => medianOf(embedded, "time")
  },
  {
    measure: "the same, CPU of the service process",
    unit: "ms",
    linux: true,
    of: ({ embedded }) => medianOf(embedded, "cpu")
  }
]

const rowsOf = (measured: Starts, baseline: Starts | undefined): ReadonlyArray<Row> =>
  measures.filter(({ linux }) => linux !== true || ProcessCpu.isAvailable).map(({ of, linux: _, ...row }) => ({
    scenario: name,
    ...row,
    troupe: of(measured),
    comparison: "none",
    ...(baseline === undefined ? {} : { baseline: of(baseline) })
  }))

export const start: Scenario = {
  name,
  async run(effort, nodeOptions): Promise<Outcome> {
    const isBuilt = existsSync(built)
    const [measured, baseline] = await measure(isBuilt ? [built, sources] : [sources], effort, nodeOptions)
    return {
      rows: rowsOf(measured!, baseline),
      notes: [...(isBuilt ? [] : [unbuilt]), ...(ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable])],
      raw: { measured, baseline }
    }
  }
}

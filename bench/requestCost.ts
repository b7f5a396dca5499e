/**
 * Process entry: the Effect operations and the bytes of garbage of one warm proxied chat, buffered and streamed. These are
 * counts, not times: they hold on a busy machine.
 *
 * **When to use**
 *
 * Run it with `npx node bench/requestCost.ts` before and after a change on a request's path. With `--check`, it exits with 1
 * if there are more operations than the limit.
 *
 * **Details**
 *
 * The young generation of the service is so large that no collection runs between two readings of its heap.
 *
 * **Gotchas**
 *
 * Code that is not optimized yet makes more garbage: the bytes fall for about 15 s. The operations are the same from the first
 * request on.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import type { Counts } from "./countOperations.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

/** The most Effect operations of one request, buffered or streamed; `--check` fails above it. */
const mostOperations = 25

/** kB of one buffered request: the goal, which is not reached. */
const targetKilobytes = 25

/** How long requests run between two readings, ms. */
const measuredMs = 300

const key = "bench-key"
const words = Array.from({ length: 20 }, (_, index) => `word${index} `)
const path = "/v1/chat/completions"

const bodyOf = (stream: boolean): string =>
  JSON.stringify({
    model: "quick",
    messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Is it so?" }],
    temperature: 0,
    ...(stream ? { stream } : {})
  })

/** The counts of the service, which writes them to the file when it is asked. */
const read = async (pid: number, file: string): Promise<Counts> => {
  rmSync(file, { force: true })
  process.kill(pid, "SIGUSR2")
  for (;;) {
    try {
      return JSON.parse(readFileSync(file, "utf8")) as Counts
    } catch {
      await pause(5)
    }
  }
}

interface Cost {
  readonly operations: number
  readonly kilobytes: number
}

type Load = (milliseconds: number) => Promise<number>

const measure = async ({ pid }: Service, file: string, load: Load, warmUpMs: number): Promise<Cost> => {
  await load(warmUpMs)
  for (;;) {
    const before = await read(pid, file)
    const requests = await load(measuredMs)
    const after = await read(pid, file)
    if (after.collections > before.collections) continue
    return {
      operations: (after.operations - before.operations) / requests,
      kilobytes: (after.heapBytes - before.heapBytes) / requests / 1_000
    }
  }
}

const { values: { check } } = parseArgs({ options: { check: { type: "boolean", default: false } } })
const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
const file = join(folder, "counts.json")
let isAbove = false

await withChild<UpstreamQuestion, UpstreamAnswer, void>("upstream.ts", async (upstream) => {
  const { port: upstreamPort } = await upstream.ask({ words, key, paceMs: 1 })
  const deployment = {
    provider: "openai",
    model: "quick",
    baseUrl: `http://127.0.0.1:${upstreamPort}/v1`,
    key: "${BENCH_UPSTREAM_KEY}"
  }
  const options = {
    config: Config.make({ quick: deployment }),
    nodeOptions: [
      "--import",
      fileURLToPath(new URL("countOperations.ts", import.meta.url)),
      "--min-semi-space-size=128",
      "--max-semi-space-size=128"
    ],
    env: { BENCH_UPSTREAM_KEY: key, BENCH_COUNTS: file }
  }
  await withService(options, (service) =>
    withChild<LoadQuestion, LoadAnswer, void>("load.ts", async (load) => {
      for (const form of ["buffered", "streamed"] as const) {
        const { kilobytes, operations } = await measure(service, file, async (milliseconds) => {
          const { requests } = await load.ask({
            port: service.port,
            path,
            body: bodyOf(form === "streamed"),
            headers: { authorization: `Bearer ${key}` },
            connections: 1,
            milliseconds
          })
          return requests
        }, check ? 500 : 15_000)
        console.log(
          `${form}: ${operations.toFixed(1)} operations (at most ${mostOperations}), ` +
            `${kilobytes.toFixed(1)} kB (target ${targetKilobytes})`
        )
        isAbove ||= operations > mostOperations
      }
    }))
})
rmSync(folder, { recursive: true })
process.exit(check && isAbove ? 1 : 0)

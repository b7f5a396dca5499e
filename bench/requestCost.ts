/**
 * Process entry: the Effect operations and the bytes of garbage of one warm proxied chat, buffered and streamed, and the share
 * of the time that a loaded service pauses for collections. These are counts, and a share at a fixed rate of requests: they
 * hold on a busy machine, and on a fast one.
 *
 * **When to use**
 *
 * Run it with `npx node bench/requestCost.ts` before and after a change on a request's path. With `--check`, it exits with 1
 * if a figure is above its limit.
 *
 * **Details**
 *
 * The young generation of the service is so large that no collection runs between two readings of its heap. The pauses are
 * those of a second service, with the usual young generation.
 *
 * `--check` repeats a measurement until it is within its limit, for at most a minute or `repeatedRequests`, whichever is later.
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

/** The most that one request may cost; `--check` fails above it. */
const limits = {
  operations: 25,
  /** The goal is 25 for both. */
  kilobytes: { buffered: 42, streamed: 92 },
  /** Of the time of a service at `pausesRate`. */
  pausedShare: 0.02
} as const

/** kB of one request: the goal, which is not reached. */
const targetKilobytes = 25

/** How long a measurement is repeated that is above its limit, ms. */
const repeatedMs = 60_000

/** After as many requests their code is optimized, also on a slow machine. */
const repeatedRequests = 30_000

/** How long requests run between two readings, ms. */
const measuredMs = 300

const { values: { check } } = parseArgs({ options: { check: { type: "boolean", default: false } } })

/** Requests per second, over 32 connections, while pauses are counted: the faster a saturated machine, the more it pauses. */
const pausesRate = 1_000

/** How long pauses are counted, ms. */
const pausesMs = 3_000

/** How long requests run before the first measurement, ms; a part of it with `--check`. */
const warmUpMs = 15_000
const checkedWarmUpMs = warmUpMs / 10

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

type Form = keyof typeof limits.kilobytes
type Load = (milliseconds: number) => Promise<number>

const measure = async ({ pid }: Service, file: string, load: Load): Promise<Cost> => {
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

/** The share of the time of a loaded service in which it pauses for collections. */
const measurePauses = async ({ pid }: Service, file: string, load: Load): Promise<number> => {
  const before = await read(pid, file)
  const begun = performance.now()
  await load(pausesMs)
  const after = await read(pid, file)
  return (after.pausedMs - before.pausedMs) / (performance.now() - begun)
}

/** The measurement of a warm service: with `--check`, the first one that is within its limit, or the last. */
const whenWarm = async <A>(load: Load, take: () => Promise<A>, isWithin: (taken: A) => boolean): Promise<A> => {
  if (!check) {
    await load(warmUpMs)
    return take()
  }
  const end = performance.now() + repeatedMs
  let requests = 0
  for (;;) {
    requests += await load(checkedWarmUpMs)
    const taken = await take()
    if (isWithin(taken) || requests >= repeatedRequests && performance.now() > end) return taken
  }
}

const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
const file = join(folder, "counts.json")
let isAbove = false

/** Measures one service in front of an upstream. */
const withLoaded = (
  flags: ReadonlyArray<string>,
  upstreamPort: number,
  use: (service: Service, loadOf: (form: Form, connections: number, rate?: number) => Load) => Promise<void>
): Promise<void> => {
  const deployment = {
    provider: "openai",
    model: "quick",
    baseUrl: `http://127.0.0.1:${upstreamPort}/v1`,
    key: "${BENCH_UPSTREAM_KEY}"
  }
  const options = {
    config: Config.make({ quick: deployment }),
    nodeOptions: ["--import", fileURLToPath(new URL("countOperations.ts", import.meta.url)), ...flags],
    env: { BENCH_UPSTREAM_KEY: key, BENCH_COUNTS: file }
  }
  return withService(
    options,
    (service) =>
      withChild<LoadQuestion, LoadAnswer, void>(
        "load.ts",
        (load) =>
          use(service, (form, connections, rate) => async (milliseconds) => {
            const { requests } = await load.ask({
              port: service.port,
              path,
              body: bodyOf(form === "streamed"),
              headers: { authorization: `Bearer ${key}` },
              connections,
              milliseconds,
              ...(rate === undefined ? {} : { rate })
            })
            return requests
          })
      )
  )
}

const isCheap = (form: Form) => ({ kilobytes, operations }: Cost): boolean =>
  kilobytes <= limits.kilobytes[form] && operations <= limits.operations

await withChild<UpstreamQuestion, UpstreamAnswer, void>("upstream.ts", async (upstream) => {
  const { port } = await upstream.ask({ words, key, paceMs: 1 })
  const young = ["--min-semi-space-size=128", "--max-semi-space-size=128"]
  await withLoaded(young, port, async (service, loadOf) => {
    for (const form of ["buffered", "streamed"] as const) {
      const load = loadOf(form, 1)
      const cost = await whenWarm(load, () => measure(service, file, load), isCheap(form))
      console.log(
        `${form}: ${cost.operations.toFixed(1)} operations (at most ${limits.operations}), ` +
          `${cost.kilobytes.toFixed(1)} kB (at most ${limits.kilobytes[form]}, target ${targetKilobytes})`
      )
      isAbove ||= !isCheap(form)(cost)
    }
  })
  await withLoaded([], port, async (service, loadOf) => {
    const load = loadOf("buffered", 32, pausesRate)
    const isShort = (share: number) => share <= limits.pausedShare
    const share = await whenWarm(load, () => measurePauses(service, file, load), isShort)
    console.log(
      `pauses: ${(share * 100).toFixed(1)} % of the time at ${pausesRate} requests/s ` +
        `(at most ${(limits.pausedShare * 100).toFixed(0)} %)`
    )
    isAbove ||= !isShort(share)
  })
})
rmSync(folder, { recursive: true })
process.exit(check && isAbove ? 1 : 0)

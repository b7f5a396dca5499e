/**
 * The memory of two replicas of a model, which share the file's pages: the peak of the engine's process during load and
 * answers, compared with the size of the file.
 *
 * **Details**
 *
 * Memory is the proportional set size, from Linux's `/proc/<pid>/smaps_rollup`, read every few milliseconds. The windows
 * are short, since the memory of request contexts is not measured.
 */
import { readFileSync, statSync } from "node:fs"
import * as Config from "./Config.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import * as ProcessMemory from "./ProcessMemory.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"

const name = "memory"
const setup = { contextSize: 256, slots: 2, threads: 1 }
const target = { atMost: 1.5 }
/** ms */
const lookEvery = 10

const megabyte = 1e6

/** Of all children of a process, MB; 0 while there are none. */
const proportionalSize = (parent: number): number =>
  ProcessCpu.childrenOf(parent).reduce((sum, pid) => {
    try {
      const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]
      return sum + Number(kilobytes ?? 0) * 1024 / megabyte
    } catch {
      // The process has ended meanwhile.
      return sum
    }
  }, 0)

const bodyOf = (effort: Effort, number: number) =>
  JSON.stringify({
    model: "synthetic",
    messages: [{ role: "user", content: SyntheticGguf.textOf(effort.shape, number, 64) }],
    max_tokens: 64,
    temperature: 0
  })

/** The peak from the first request, which loads the model, to the last answer, MB. */
const peakOf = async ({ pid, port }: Service, requests: number, effort: Effort): Promise<number> => {
  let most = 0
  const look = () => {
    most = Math.max(most, proportionalSize(pid))
  }
  const timer = setInterval(look, lookEvery)
  try {
    await Promise.all(
      Array.from({ length: requests }, (_, number) => post(port, "/v1/chat/completions", bodyOf(effort, number)))
    )
    look()
    return most
  } finally {
    clearInterval(timer)
  }
}

const rowsOf = (one: number, two: number, size: number): ReadonlyArray<Row> => {
  const row = { scenario: name, unit: "MB", baseline: size, comparison: "ratio" as const }
  return [
    { ...row, measure: "peak of an engine process of 2 replicas, against the file", troupe: two, target },
    { ...row, measure: "the same of 1 replica", troupe: one }
  ]
}

export const memory: Scenario = {
  name,
  async run(effort, nodeOptions): Promise<Outcome> {
    if (!ProcessCpu.isAvailable) return { rows: [], notes: [ProcessMemory.unavailable], raw: null }
    const file = await SyntheticGguf.ensure(effort.shape)
    const measure = (replicas: number): Promise<number> => {
      const config = Config.make({ synthetic: { engine: "llama", file, replicas, ...setup } }, { preload: false })
      return withService({ config, nodeOptions }, (service) => peakOf(service, replicas * setup.slots, effort))
    }
    const one = await measure(1)
    const two = await measure(2)
    return { rows: rowsOf(one, two, statSync(file).size / megabyte), notes: [], raw: { setup, one, two } }
  }
}

/**
 * What two replicas of a model take, which share the file's pages: the most memory that the engine's process has while
 * it loads and answers, against the size of the file.
 *
 * **Details**
 *
 * Memory is the proportional set size, from Linux's `/proc/<pid>/smaps_rollup`, looked at every few milliseconds. The
 * windows are short: what requests take for their contexts is another matter than what a replica takes.
 */
import { readFileSync, statSync } from "node:fs"
import * as Config from "./Config.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"

const name = "memory"
const setup = { contextSize: 256, slots: 2, threads: 1, replicas: 2 }
const targetRatio = 1.5
/** ms */
const lookEvery = 10
const requests = setup.slots * setup.replicas

const unavailable = "Memory is not measured here: it is read from /proc, which this system does not have."

const megabyte = 1e6

/** Of all children of a process, MB; 0 while there are none. */
const proportionalSize = (parent: number): number =>
  ProcessCpu.childrenOf(parent).reduce((sum, pid) => {
    try {
      const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]
      return sum + Number(kilobytes ?? 0) * 1024 / megabyte
    } catch {
      // It has ended since.
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

/** The first request loads the model. */
const measure = async ({ pid, port }: Service, file: string, effort: Effort): Promise<Outcome> => {
  const looks: Array<number> = []
  const timer = setInterval(() => looks.push(proportionalSize(pid)), lookEvery)
  try {
    await Promise.all(
      Array.from({ length: requests }, (_, number) => post(port, "/v1/chat/completions", bodyOf(effort, number)))
    )
    looks.push(proportionalSize(pid))
  } finally {
    clearInterval(timer)
  }
  const row = {
    scenario: name,
    measure: "peak of the engine process, 2 replicas, against the file",
    unit: "MB",
    baseline: statSync(file).size / megabyte,
    troupe: Math.max(...looks),
    comparison: "ratio" as const,
    target: { atMost: targetRatio }
  }
  return { rows: [row], notes: [], raw: { setup, requests, looks } }
}

export const memory: Scenario = {
  name,
  async run(effort, nodeOptions) {
    if (!ProcessCpu.isAvailable) return { rows: [], notes: [unavailable], raw: null }
    const file = await SyntheticGguf.ensure(effort.shape)
    const config = Config.make({ synthetic: { engine: "llama", file, ...setup } }, { preload: false })
    return withService({ config, nodeOptions }, (service) => measure(service, file, effort))
  }
}

/**
 * The gain of prompts that are kept in files: the CPU time to the first token of a prompt that the engine has computed before its
 * model was unloaded, compared with that of a new prompt.
 *
 * **Details**
 *
 * The engine's threads run in this process, so that its CPU time is that of the engine. Each round loads the model, computes a
 * new prompt, unloads, loads again and asks the same twice: the first restores the prompt from its file, the second finds it in
 * its slot. What the first takes longer is the restoration. A short question before runs cold code. The text must be the same.
 */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { EngineHost } from "../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../src/domain/Job.ts"
import { isTerminal } from "../src/domain/Job.ts"
import { makePoolHost } from "../src/layers/engines/PoolHost.ts"
import * as Config from "./Config.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import { median } from "./Statistics.ts"
import * as SyntheticGguf from "./SyntheticGguf.ts"

const name = "kept-prefix"
const setup = { engine: "llama", contextSize: 2_048, slots: 2, threads: Config.computeThreads }
/** With the chat template, 16 pieces of 64 tokens and a few more. */
const words = 1_012
const keptTokens = 1_024
/** ms */
const targetTime = 50
const grace = 10_000

interface Asked {
  readonly text: string
  readonly cachedTokens: number
  /** CPU time of all threads of this process, ms. */
  readonly cpuMs: number
  readonly ms: number
}

const ask = (host: EngineHost, content: string): Promise<Asked> =>
  new Promise((resolve, reject) => {
    const job: GenerateJob = {
      kind: "generate",
      messages: [{ role: "user", content }],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      maxTokens: 1,
      stop: [],
      window: 100
    }
    const begun = performance.now()
    const before = process.cpuUsage()
    const all: Array<JobEvent> = []
    host.start(job, (events) => {
      all.push(...events)
      const last = events.find(isTerminal)
      if (last === undefined) return
      if (last.type !== "finished") return reject(new Error(`The engine answered ${JSON.stringify(last)}`))
      const { system, user } = process.cpuUsage(before)
      resolve({
        text: all.map((event) => event.type === "tokens" ? event.text : "").join(""),
        cachedTokens: last.usage.cachedTokens,
        cpuMs: (user + system) / 1_000,
        ms: performance.now() - begun
      })
    })
  })

/** Asks a loaded engine the same in turn. */
const askLoaded = async (
  file: string,
  folder: string,
  content: string,
  times: number
): Promise<ReadonlyArray<Asked>> => {
  const prefixFiles = { folder, maxBytes: 2 ** 40, idleMs: 60_000 }
  const spec = { ...setup, file, prefixFiles }
  const host = makePoolHost({ spec, replicas: 1, cancelGraceMs: grace, closeGraceMs: grace })
  try {
    await host.ready
    await ask(host, " ")
    const answers: Array<Asked> = []
    while (answers.length < times) answers.push(await ask(host, content))
    return answers
  } finally {
    await host.close()
  }
}

/** A new prompt, the same after an unload, and once more. */
interface Round {
  readonly fresh: Asked
  readonly restored: Asked
  readonly inSlot: Asked
}

const check = (round: Round): void => {
  const { fresh, inSlot, restored } = round
  const isRight = fresh.cachedTokens < words / 2 && restored.cachedTokens === keptTokens &&
    inSlot.cachedTokens === keptTokens && new Set([fresh, restored, inSlot].map(({ text }) => text)).size === 1
  if (!isRight) throw new Error(`Wrong cached tokens or different answers: ${JSON.stringify(round)}`)
}

const bytesIn = async (folder: string): Promise<number> => {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const sizes = await Promise.all(
    entries.filter((entry) => entry.isFile()).map(async ({ name, parentPath }) =>
      (await stat(join(parentPath, name))).size
    )
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}

const measure = async ({ rounds, shape }: Effort, folder: string): Promise<Outcome> => {
  const file = await SyntheticGguf.ensure(shape)
  const measured: Array<Round> = []
  for (let number = 0; number < rounds; number++) {
    const content = SyntheticGguf.textOf(shape, number, words)
    const [fresh] = await askLoaded(file, folder, content, 1)
    const [restored, inSlot] = await askLoaded(file, folder, content, 2)
    const round = { fresh: fresh!, restored: restored!, inSlot: inSlot! }
    check(round)
    measured.push(round)
  }
  const row = { scenario: name, unit: "ms" }
  const cpuMs = (chosen: keyof Round) => median(measured.map((round) => round[chosen].cpuMs))
  const megabytes = Math.round(await bytesIn(folder) / rounds / 1e5) / 10
  return {
    rows: [
      {
        ...row,
        measure: `CPU to first token, ${keptTokens} tokens computed before an unload`,
        baseline: cpuMs("fresh"),
        troupe: cpuMs("restored"),
        comparison: "ratio"
      },
      {
        ...row,
        measure: "CPU of the restoration",
        baseline: cpuMs("inSlot"),
        troupe: cpuMs("restored"),
        comparison: "difference",
        target: { atMost: targetTime }
      }
    ],
    notes: [`${name}: a file has ${megabytes} MB.`],
    raw: { setup, rounds: measured }
  }
}

export const keptPrefix: Scenario = {
  name,
  async run(effort) {
    const folder = await mkdtemp(join(tmpdir(), "troupe-bench-"))
    try {
      return await measure(effort, folder)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }
}

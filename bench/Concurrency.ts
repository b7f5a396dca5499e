/**
 * Many streams at once, word by word: whether all arrive whole, and the memory that they take, compared with the bare proxy.
 *
 * **Details**
 *
 * Each side runs in a new process in every round, since a heap that has grown in an earlier round would hide what these
 * streams need. Fewer streams run before, so that code is loaded and compiled.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { CrowdAnswer, CrowdQuestion } from "./crowd.ts"
import type { PipeAnswer, PipeQuestion } from "./pipeProxy.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import * as ProcessMemory from "./ProcessMemory.ts"
import type { Gateway } from "./ProxyParts.ts"
import * as ProxyParts from "./ProxyParts.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

const name = "concurrency"
const key = "bench-key"
const headers = { authorization: `Bearer ${key}` }
const memoryRatio = 1.5
const mostRounds = 3
/** A smoke run has fewer. */
const mostStreams = 2_000

/** One side in one round. */
interface Turn {
  readonly answer: CrowdAnswer
  /** Memory before, and at most, MB. */
  readonly before: number
  readonly peak: number
}

interface Round {
  readonly bare: Turn
  readonly troupe: Turn
}

type Crowd = Child<CrowdQuestion, CrowdAnswer>

interface Setting {
  readonly streams: number
  readonly upstream: { readonly pid: number; readonly port: number }
  readonly crowd: Crowd
}

const turnOf = async ({ crowd, streams, upstream }: Setting, gateway: Gateway): Promise<Turn> => {
  Cores.part([gateway.pid], [upstream.pid, crowd.pid])
  await ProxyParts.sendCrowd(crowd, gateway, streams / 4, 0)
  const before = ProcessMemory.resident(gateway.pid)
  const [{ answer }, peak] = await ProcessMemory.peakDuring(
    gateway.pid,
    () => ProxyParts.sendCrowd(crowd, gateway, streams, 0)
  )
  return { answer, before, peak }
}

const roundOf = async (setting: Setting, nodeOptions: ReadonlyArray<string>): Promise<Round> => {
  const { streams, upstream } = setting
  const deployment = {
    provider: "openai",
    model: "paced",
    baseUrl: `http://127.0.0.1:${upstream.port}/v1`,
    key: "${BENCH_UPSTREAM_KEY}",
    maxConcurrent: streams
  }
  const service = { config: Config.make({ paced: deployment }), nodeOptions, env: { BENCH_UPSTREAM_KEY: key } }
  return {
    bare: await withChild<PipeQuestion, PipeAnswer, Turn>("pipeProxy.ts", async ({ ask, pid }) => {
      const { port } = await ask({ upstreamPort: upstream.port })
      return turnOf(setting, { side: "bare", pid, port, headers })
    }),
    troupe: await withService(service, (troupe) => turnOf(setting, { side: "troupe", ...troupe, headers }))
  }
}

const rowsOf = (rounds: ReadonlyArray<Round>, streams: number): ReadonlyArray<Row> => {
  const least = (side: keyof Round) => Math.min(...rounds.map((round) => round[side].answer.whole))
  const kilobytes = (side: keyof Round) =>
    median(rounds.map((round) => (round[side].peak - round[side].before) * 1024 / streams))
  const label = `${streams.toLocaleString("en")} streams at once`
  return [
    {
      scenario: name,
      measure: `whole of ${label}`,
      unit: "streams",
      baseline: least("bare"),
      troupe: least("troupe"),
      comparison: "none",
      target: { atLeast: streams }
    },
    {
      scenario: name,
      measure: `${label}, memory`,
      unit: "KB/stream",
      baseline: kilobytes("bare"),
      troupe: kilobytes("troupe"),
      comparison: "ratio",
      target: { atMost: memoryRatio }
    }
  ]
}

const lostBy = (rounds: ReadonlyArray<Round>): ReadonlyArray<string> =>
  rounds.flatMap((round) =>
    (["bare", "troupe"] as const).flatMap((side) => round[side].answer.lost.map((what) => `Lost by ${side}: ${what}`))
  )

const measure = async (setting: Setting, effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> => {
  const rounds: Array<Round> = []
  while (rounds.length < Math.min(effort.rounds, mostRounds)) rounds.push(await roundOf(setting, nodeOptions))
  const { streams } = setting
  return { rows: rowsOf(rounds, streams), notes: [...new Set(lostBy(rounds))], raw: { streams, rounds } }
}

export const concurrency: Scenario = {
  name,
  async run(effort, nodeOptions) {
    if (!ProcessCpu.isAvailable) return { rows: [], notes: [ProcessMemory.unavailable], raw: null }
    const { words } = ProxyParts
    return withChild<UpstreamQuestion, UpstreamAnswer, Outcome>("upstream.ts", async ({ ask, pid }) => {
      // Twice the time of a round: with less, the gateways would fall behind.
      const { port } = await ask({ words, key, paceMs: 2 * effort.roundMs / words.length })
      return withChild("crowd.ts", (crowd: Crowd) =>
        measure(
          { streams: Math.min(mostStreams, effort.roundMs), upstream: { pid, port }, crowd },
          effort,
          nodeOptions
        ))
    })
  }
}

/**
 * The CPU time of a request with metrics, logs and traces, and without all of them.
 *
 * **Details**
 *
 * Four services are in front of one provider, each asked by turns; the encoding of exports counts, the collector does not. Each
 * service sends its spans within the round that made them, but for those of the last `exportEvery`.
 *
 * The machine may be busy: a turn is a number of requests, not a time, and a ratio is the median of those of many pairs of
 * turns, one after the other. Two processes of the same service differ by up to 6 %, in all of their functions: each round
 * has new ones.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import type { CollectorAnswer } from "./collector.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import * as ProxyParts from "./ProxyParts.ts"
import { connections } from "./ProxyRows.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

const name = "observability"
const providerKey = "bench-key"
const exportEvery = "100 millis"
/** Of the CPU time without metrics, logs and traces. */
const cpuRatio = 1.15

const forms = { request: ProxyParts.forms.buffered, stream: ProxyParts.forms.streamed }
type Form = keyof typeof forms
const formNames = ["request", "stream"] as const

/** What a service does; `sample` is undefined without traces. */
const sides = {
  off: { isObserved: false, sample: undefined },
  logged: { isObserved: true, sample: undefined },
  tenth: { isObserved: true, sample: 0.1 },
  all: { isObserved: true, sample: 1 }
} as const
type Side = keyof typeof sides
const sideNames = Object.keys(sides) as ReadonlyArray<Side>

/** A request, µs of CPU time of the service. */
type Costs = Readonly<Record<Side, number>>
type Round = Readonly<Record<Form, Costs>>

interface Setting {
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly collector: Child<null, CollectorAnswer>
  readonly services: Readonly<Record<Side, Service>>
}

/** No turn takes longer, ms. */
const longestTurn = 60_000

const costOf = async ({ load, services }: Setting, side: Side, form: Form, count: number): Promise<number> => {
  const { pid, port } = services[side]
  const limit = { milliseconds: longestTurn, requests: Math.ceil(count / connections) }
  const before = ProcessCpu.ofThreads(pid)
  const { requests } = await load.ask({ ...forms[form], ...limit, connections, port, headers: {} })
  return (ProcessCpu.ofThreads(pid) - before) / requests
}

const measureRound = async (setting: Setting, count: number, turn: number): Promise<Round> => {
  const order = turn % 2 === 0 ? sideNames : sideNames.toReversed()
  const of = async (form: Form): Promise<Costs> => {
    const costs = { off: 0, logged: 0, tenth: 0, all: 0 }
    for (const side of order) costs[side] = await costOf(setting, side, form, count)
    return costs
  }
  return { request: await of("request"), stream: await of("stream") }
}

/** Until the code is compiled, however busy the machine is. */
const warmRequests = 20_000
/** With less time for a warm-up, it is a smoke run. */
const leastWarmUpMs = 100

const warmUp = async ({ load, services }: Setting, milliseconds: number): Promise<void> => {
  const limit = milliseconds < leastWarmUpMs
    ? { milliseconds }
    : { milliseconds: 60_000, requests: warmRequests / connections }
  for (const form of formNames) {
    for (const side of sideNames) {
      await load.ask({ ...forms[form], ...limit, connections, port: services[side].port, headers: {} })
    }
  }
}

const measured: ReadonlyArray<readonly [side: Exclude<Side, "off">, what: string]> = [
  ["logged", "metrics and logs"],
  ["tenth", "metrics, logs and a tenth of the traces"],
  ["all", "metrics, logs and all traces"]
]

const rowsOf = (rounds: ReadonlyArray<Round>): ReadonlyArray<Row> =>
  formNames.flatMap((form) => {
    const baseline = median(rounds.map((round) => round[form].off))
    return measured.map(([side, what]) => ({
      scenario: name,
      measure: `CPU with ${what}, ${form}`,
      unit: `µs/${form}`,
      baseline,
      troupe: baseline * median(rounds.map((round) => round[form][side] / round[form].off)),
      comparison: "ratio" as const,
      target: { atMost: cpuRatio }
    }))
  })

/** Spans that do not arrive cost less. */
const checkExports = async ({ collector }: Setting): Promise<void> => {
  const { bytes, exports } = await collector.ask(null)
  if (exports === 0 || bytes < 1_000) throw new Error(`The collector has got ${bytes} bytes in ${exports} exports.`)
}

/** Pairs of turns in a round, and the requests of a turn for each of its ms. */
const pairs = 6
const requestsOfMs = 0.25

/** The turns of one round. */
const measure = async (setting: Setting, { roundMs, warmUpMs }: Effort): Promise<ReadonlyArray<Round>> => {
  for (const side of sideNames) await ProxyParts.check({ side: "troupe", headers: {}, ...setting.services[side] })
  await warmUp(setting, warmUpMs)
  const rounds: Array<Round> = []
  while (rounds.length < pairs) {
    rounds.push(await measureRound(setting, roundMs * requestsOfMs, rounds.length))
  }
  await checkExports(setting)
  return rounds
}

const serviceOf = (side: Side, upstream: number, collector: number, nodeOptions: ReadonlyArray<string>) => {
  const { isObserved, sample } = sides[side]
  const deployment = {
    provider: "openai",
    model: "quick",
    baseUrl: `http://127.0.0.1:${upstream}/v1`,
    key: "${BENCH_UPSTREAM_KEY}",
    maxConcurrent: 2 * connections
  }
  const config = JSON.parse(Config.make({ quick: deployment })) as object
  return {
    config: JSON.stringify({
      ...config,
      ...(isObserved ? { logRequests: "all", logFormat: "json" } : {}),
      ...(sample === undefined
        ? {}
        : { telemetry: { endpoint: `http://127.0.0.1:${collector}`, sample, every: exportEvery } })
    }),
    nodeOptions,
    env: { BENCH_UPSTREAM_KEY: providerKey, BENCH_METRICS: isObserved ? "on" : "off" },
    entry: observed,
    discardsLog: true
  }
}

const observed = new URL("observed.ts", import.meta.url).pathname

const run = async (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> => {
  if (!ProcessCpu.isAvailable) return { rows: [], notes: [ProcessCpu.unavailable], raw: null }
  return withChild<UpstreamQuestion, UpstreamAnswer, Outcome>("upstream.ts", async (upstream) => {
    const { port } = await upstream.ask({ words: ProxyParts.words, key: providerKey, paceMs: 0 })
    return withChild<null, CollectorAnswer, Outcome>("collector.ts", async (collector) => {
      const { port: collectorPort } = await collector.ask(null)
      return withChild("load.ts", async (load: Child<LoadQuestion, LoadAnswer>): Promise<Outcome> => {
        const round = (
          [side, ...others]: ReadonlyArray<Side>,
          services: Partial<Record<Side, Service>>
        ): Promise<ReadonlyArray<Round>> => {
          if (side !== undefined) {
            return withService(
              serviceOf(side, port, collectorPort, nodeOptions),
              (service) => round(others, { ...services, [side]: service })
            )
          }
          const all = services as Setting["services"]
          Cores.part(sideNames.map((one) => all[one].pid), [upstream.pid, load.pid, collector.pid])
          return measure({ load, collector, services: all }, effort)
        }
        const rounds: Array<Round> = []
        for (let index = 0; index < effort.rounds; index++) rounds.push(...await round(sideNames, {}))
        return { rows: rowsOf(rounds), notes: [], raw: { rounds } }
      })
    })
  })
}

export const observability: Scenario = { name, run }

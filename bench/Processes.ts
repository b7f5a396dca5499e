/**
 * Two processes on one port, compared with one: the CPU time of a request, that of the supervisor included.
 *
 * **Details**
 *
 * Both services share a core, one of them idle, so the throughput of two cores does not show here.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Gateway } from "./ProxyParts.ts"
import * as ProxyParts from "./ProxyParts.ts"
import { connections } from "./ProxyRows.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

const name = "processes"
const key = "bench-key"
/** Of each form, for a process. */
const warmUpRequests = 30_000
const cpuRatio = 1.1

const forms = { request: ProxyParts.forms.buffered, stream: ProxyParts.forms.streamed }
type Form = keyof typeof forms

/** A request, µs of CPU time of all processes of the service. */
type Round = Readonly<Record<Form, { readonly one: number; readonly two: number }>>

interface Setting {
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly one: Gateway
  readonly two: Gateway
}

const slice = async ({ load }: Setting, gateway: Gateway, form: Form, milliseconds: number) => {
  const question = { ...forms[form], connections, milliseconds, port: gateway.port, headers: gateway.headers }
  const [{ requests }, { tree }] = await ProcessCpu.during(gateway.pid, () => load.ask(question))
  return { requests, cost: tree }
}

/** The requests of a form that a process handles before it is measured, until a limit of time. */
const warmUp = async (setting: Setting, effort: Effort): Promise<ReadonlyArray<number>> => {
  const handled: Array<number> = []
  for (const form of ["request", "stream"] as const) {
    // Two processes compile the same code, each with half of the requests.
    for (const [gateway, count] of [[setting.one, 1], [setting.two, 2]] as const) {
      const until = performance.now() + effort.warmUpMs * count * 10
      let requests = 0
      while (requests < count * warmUpRequests && performance.now() < until) {
        requests += (await slice(setting, gateway, form, effort.roundMs)).requests
      }
      handled.push(requests / count)
    }
  }
  return handled
}

const measureRound = async (setting: Setting, effort: Effort, turn: number): Promise<Round> => {
  const order = turn % 2 === 0 ? ["one", "two"] as const : ["two", "one"] as const
  const of = async (form: Form) => {
    const costs = { one: 0, two: 0 }
    for (const side of order) {
      const { cost, requests } = await slice(setting, setting[side], form, effort.roundMs)
      costs[side] = cost / requests
    }
    return costs
  }
  return { request: await of("request"), stream: await of("stream") }
}

const rowOf = (rounds: ReadonlyArray<Round>, form: Form): Row => ({
  scenario: name,
  measure: `CPU of two processes, ${form}`,
  unit: `µs/${form}`,
  baseline: median(rounds.map((round) => round[form].one)),
  troupe: median(rounds.map((round) => round[form].two)),
  comparison: "ratio",
  target: { atMost: cpuRatio }
})

const measure = async (setting: Setting, effort: Effort): Promise<Outcome> => {
  await ProxyParts.check(setting.one)
  await ProxyParts.check(setting.two)
  const warmed = await warmUp(setting, effort)
  const rounds: Array<Round> = []
  while (rounds.length < effort.rounds) rounds.push(await measureRound(setting, effort, rounds.length))
  const notes = warmed.every((requests) => requests >= warmUpRequests)
    ? []
    : [
      `Warm-up of \`processes\`: less than ${warmUpRequests.toLocaleString("en")} requests of each form for a process.`
    ]
  return { rows: [rowOf(rounds, "request"), rowOf(rounds, "stream")], notes, raw: { warmed, rounds } }
}

export const processes: Scenario = {
  name,
  async run(effort, nodeOptions) {
    if (!ProcessCpu.isAvailable) return { rows: [], notes: [ProcessCpu.unavailable], raw: null }
    const { words } = ProxyParts
    return withChild<UpstreamQuestion, UpstreamAnswer, Outcome>("upstream.ts", async (upstream) => {
      const { port } = await upstream.ask({ words, key, paceMs: 0 })
      const deployment = {
        provider: "openai",
        model: "quick",
        baseUrl: `http://127.0.0.1:${port}/v1`,
        key: "${BENCH_UPSTREAM_KEY}",
        maxConcurrent: 2 * connections
      }
      const service = (count: number) => ({
        config: Config.make({ quick: deployment }, {}, { processes: count }),
        nodeOptions,
        env: { BENCH_UPSTREAM_KEY: key }
      })
      const headers = { authorization: `Bearer ${key}` }
      return withChild(
        "load.ts",
        (load: Child<LoadQuestion, LoadAnswer>) =>
          withService(service(1), (one) =>
            withService(service(2), (two) => {
              const measured = [one.pid, two.pid, ...ProcessCpu.childrenOf(two.pid)]
              Cores.part(measured, [upstream.pid, load.pid])
              const gateway = { side: "troupe" as const, headers }
              return measure({ load, one: { ...gateway, ...one }, two: { ...gateway, ...two } }, effort)
            }))
      )
    })
  }
}

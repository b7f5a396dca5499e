/**
 * Two processes on one port, compared with one: the CPU time of a request, that of the supervisor included. The same of
 * pipes shows what two processes of Node cost on one core.
 *
 * **Details**
 *
 * All share a core, and only one side is active at a time, so the throughput of two cores does not show here.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import type { PipeAnswer, PipeQuestion } from "./pipeProxy.ts"
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

const sides = ["one", "two", "pipe", "pipes"] as const
/** A service of one process, one of two, a pipe, and two pipes. */
type Side = typeof sides[number]

interface Measured extends Gateway {
  /** Further processes that are no children of the first. */
  readonly others: ReadonlyArray<number>
}

/** A request, µs of CPU time of all processes of a side. */
type Round = Readonly<Record<Form, Readonly<Record<Side, number>>>>

interface Setting {
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly gateways: Readonly<Record<Side, Measured>>
}

const processesOf = (side: Side): number => side === "two" || side === "pipes" ? 2 : 1

const slice = async ({ gateways, load }: Setting, side: Side, form: Form, milliseconds: number) => {
  const { headers, others, pid, port } = gateways[side]
  const question = { ...forms[form], connections, milliseconds, port, headers }
  const ofOthers = () => others.reduce((sum, one) => sum + ProcessCpu.ofThreads(one), 0)
  const before = ofOthers()
  const [{ requests }, { tree }] = await ProcessCpu.during(pid, () => load.ask(question))
  return { requests, cost: tree + ofOthers() - before }
}

/** The requests of a form that a process handles before it is measured, until a limit of time. */
const warmUp = async (setting: Setting, effort: Effort): Promise<ReadonlyArray<number>> => {
  const handled: Array<number> = []
  for (const form of ["request", "stream"] as const) {
    for (const side of sides) {
      // Two processes compile the same code, each with half of the requests.
      const count = processesOf(side)
      const until = performance.now() + effort.warmUpMs * count * 10
      let requests = 0
      while (requests < count * warmUpRequests && performance.now() < until) {
        requests += (await slice(setting, side, form, effort.roundMs)).requests
      }
      handled.push(requests / count)
    }
  }
  return handled
}

const measureRound = async (setting: Setting, effort: Effort, turn: number): Promise<Round> => {
  const order = turn % 2 === 0 ? sides : sides.toReversed()
  const of = async (form: Form) => {
    const costs = { one: 0, two: 0, pipe: 0, pipes: 0 }
    for (const side of order) {
      const { cost, requests } = await slice(setting, side, form, effort.roundMs)
      costs[side] = cost / requests
    }
    return costs
  }
  return { request: await of("request"), stream: await of("stream") }
}

const rowsOf = (rounds: ReadonlyArray<Round>, form: Form): ReadonlyArray<Row> => {
  const of = (side: Side) => median(rounds.map((round) => round[form][side]))
  return [{
    scenario: name,
    measure: `CPU of two processes, ${form}`,
    unit: `µs/${form}`,
    baseline: of("one"),
    troupe: of("two"),
    comparison: "ratio",
    target: { atMost: cpuRatio }
  }, {
    scenario: name,
    measure: `CPU of two processes, ${form}, against two pipes`,
    unit: "times one process",
    baseline: of("pipes") / of("pipe"),
    troupe: of("two") / of("one"),
    comparison: "ratio"
  }]
}

const measure = async (setting: Setting, effort: Effort): Promise<Outcome> => {
  await ProxyParts.check(setting.gateways.one)
  await ProxyParts.check(setting.gateways.two)
  const warmed = await warmUp(setting, effort)
  const rounds: Array<Round> = []
  while (rounds.length < effort.rounds) rounds.push(await measureRound(setting, effort, rounds.length))
  const notes = warmed.every((requests) => requests >= warmUpRequests)
    ? []
    : [
      `Warm-up of \`processes\`: less than ${warmUpRequests.toLocaleString("en")} requests of each form for a process.`
    ]
  return { rows: [...rowsOf(rounds, "request"), ...rowsOf(rounds, "stream")], notes, raw: { warmed, rounds } }
}

type Pipe = Omit<Measured, "headers" | "side">

/** A pipe with a process of its own, and one with two processes on one port. */
const withPipes = <A>(upstreamPort: number, use: (pipe: Pipe, pipes: Pipe) => Promise<A>): Promise<A> => {
  const withPipe = (next: (child: Child<PipeQuestion, PipeAnswer>) => Promise<A>) =>
    withChild<PipeQuestion, PipeAnswer, A>("pipeProxy.ts", next)
  return withPipe((single) =>
    withPipe((first) =>
      withPipe(async (second) => {
        const { port } = await first.ask({ upstreamPort, sharedPort: 0 })
        await second.ask({ upstreamPort, sharedPort: port })
        const own = await single.ask({ upstreamPort })
        return use({ pid: single.pid, port: own.port, others: [] }, { pid: first.pid, port, others: [second.pid] })
      })
    )
  )
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
      const troupe = { side: "troupe" as const, headers, others: [] }
      const bare = { side: "bare" as const, headers }
      return withPipes(port, (pipe, pipes) =>
        withChild(
          "load.ts",
          (load: Child<LoadQuestion, LoadAnswer>) =>
            withService(service(1), (one) =>
              withService(service(2), (two) => {
                const gateways = {
                  one: { ...troupe, ...one },
                  two: { ...troupe, ...two },
                  pipe: { ...bare, ...pipe },
                  pipes: { ...bare, ...pipes }
                }
                const measured = Object.values(gateways).flatMap(({ others, pid }) => [pid, ...others])
                Cores.part([...measured, ...ProcessCpu.childrenOf(two.pid)], [upstream.pid, load.pid])
                return measure({ load, gateways }, effort)
              }))
        ))
    })
  }
}

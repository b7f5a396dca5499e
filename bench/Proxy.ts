/**
 * The cost of the service in front of a provider, compared with a bare Node proxy that only pipes, and with Portkey's
 * gateway and nginx if they are installed.
 *
 * **Details**
 *
 * All have the same upstream, which answers at once, and get the same requests. Only one of them is active at a time, in
 * every part of every round. If the system supports it, they share one core that the load and the upstream do not use.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { CrowdAnswer, CrowdQuestion } from "./crowd.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as Nginx from "./Nginx.ts"
import type { PipeAnswer, PipeQuestion } from "./pipeProxy.ts"
import * as Portkey from "./Portkey.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Gateway, Parts, Senders } from "./ProxyParts.ts"
import * as ProxyParts from "./ProxyParts.ts"
import type { Round, Side, Warmed } from "./ProxyRows.ts"
import * as ProxyRows from "./ProxyRows.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"
import * as WarmUp from "./WarmUp.ts"

const key = "bench-key"
const { connections, streams } = ProxyRows
const { words } = ProxyParts
/** The most requests of a gateway and form before they are measured. */
const warmUpRequests = 60_000

const config = (upstreamPort: number): string => {
  const baseUrl = `http://127.0.0.1:${upstreamPort}/v1`
  const deployment = (model: string) => ({
    provider: "openai",
    model,
    baseUrl,
    key: "${BENCH_UPSTREAM_KEY}",
    maxConcurrent: streams
  })
  return Config.make({ quick: deployment("quick"), paced: deployment("paced") })
}

/** Runs one part on every gateway that takes part in it, in turn. */
const inTurn = async <Name extends keyof Round>(
  name: Name,
  gateways: ReadonlyArray<Gateway>,
  parts: Parts
): Promise<Round[Name]> => {
  const turns: Partial<Record<Side, Awaited<ReturnType<Parts[Name]>>>> = {}
  for (const gateway of gateways) {
    if (!ProxyParts.sidesOf[name].includes(gateway.side)) continue
    turns[gateway.side] = await parts[name](gateway) as Awaited<ReturnType<Parts[Name]>>
  }
  return turns as Round[Name]
}

const measureRound = async (all: ReadonlyArray<Gateway>, parts: Parts, turn: number): Promise<Round> => {
  // The first gateway is the last one in the next round.
  const gateways = all.map((_, index) => all[(index + turn) % all.length]!)
  return {
    alone: await inTurn("alone", gateways, parts),
    busy: await inTurn("busy", gateways, parts),
    translated: await inTurn("translated", gateways, parts),
    calm: await inTurn("calm", gateways, parts),
    firstToken: await inTurn("firstToken", gateways, parts),
    streamed: await inTurn("streamed", gateways, parts),
    few: await inTurn("few", gateways, parts),
    many: await inTurn("many", gateways, parts),
    crowd: await inTurn("crowd", gateways, parts)
  }
}

/** Loads each gateway with each form of request until its cost is steady. */
const warmUp = async (
  gateways: ReadonlyArray<Gateway>,
  senders: Senders,
  effort: Effort
): Promise<ReadonlyArray<Warmed>> => {
  const warmed: Array<Warmed> = []
  const limits = { requests: warmUpRequests, milliseconds: effort.warmUpMs * effort.rounds * 2 }
  for (const form of ["buffered", "streamed", "translated"] as const) {
    for (const gateway of gateways) {
      if (form === "translated" && gateway.side !== "troupe") continue
      const slice = async () => {
        const options = { connections, milliseconds: effort.roundMs / 2 }
        const { answer, cpu } = await ProxyParts.send(senders, gateway, ProxyParts.forms[form], options)
        // Without CPU time, the time of a request.
        return { requests: answer.requests, cost: ProcessCpu.isAvailable ? cpu : answer.milliseconds * 1_000 }
      }
      warmed.push({ side: gateway.side, form, ...await WarmUp.run(slice, limits) })
    }
  }
  await inTurn("crowd", gateways, ProxyParts.make(senders, effort.roundMs))
  return warmed
}

const unpinned = "The gateways have no core of their own: that requires two cores, and taskset of Linux."

interface Setting {
  readonly gateways: ReadonlyArray<Gateway>
  readonly senders: Senders
  readonly isPinned: boolean
}

const measure = async ({ gateways, isPinned, senders }: Setting, effort: Effort): Promise<Outcome> => {
  for (const gateway of gateways) await ProxyParts.check(gateway)
  const warmed = await warmUp(gateways, senders, effort)
  const parts = ProxyParts.make(senders, effort.roundMs)
  const rounds: Array<Round> = []
  for (let turn = 0; turn < effort.rounds; turn++) rounds.push(await measureRound(gateways, parts, turn))
  const has = (side: Side) => gateways.some((gateway) => gateway.side === side)
  return {
    rows: ProxyRows.make(rounds, warmed, ProcessCpu.isAvailable),
    notes: [
      ...ProxyRows.lost(rounds),
      ...ProxyRows.unsteady(warmed),
      ...(ProcessCpu.isAvailable ? ProxyRows.unsaturated(rounds) : [ProcessCpu.unavailable]),
      ...(has("portkey") ? [] : [Portkey.missing]),
      ...(has("nginx") ? [] : [Nginx.missing]),
      ...(isPinned ? [] : [unpinned])
    ],
    raw: { connections, streams, words: words.length, isPinned, forms: ProxyParts.forms, warmed, rounds }
  }
}

const headers = { authorization: `Bearer ${key}` }

/** Runs every gateway that is installed, in front of the upstream at this port. */
const withGateways = <A>(
  port: number,
  nodeOptions: ReadonlyArray<string>,
  use: (gateways: ReadonlyArray<Gateway>) => Promise<A>
): Promise<A> => {
  const service = { config: config(port), nodeOptions, env: { BENCH_UPSTREAM_KEY: key } }
  return withChild<PipeQuestion, PipeAnswer, A>(
    "pipeProxy.ts",
    (pipe) =>
      withService(service, (troupe) =>
        Portkey.withPortkey(port, (portkey) =>
          Nginx.withNginx(port, async (nginx) => {
            const { port: pipePort } = await pipe.ask({ upstreamPort: port })
            const own = portkey && { ...portkey, headers: { ...headers, ...portkey.headers } }
            return use([
              { side: "bare", pid: pipe.pid, port: pipePort, headers },
              { side: "troupe", ...troupe, headers },
              ...(own === undefined ? [] : [{ side: "portkey" as const, ...own }]),
              ...(nginx === undefined ? [] : [{ side: "nginx" as const, ...nginx, headers }])
            ])
          })))
  )
}

type Load = Child<LoadQuestion, LoadAnswer>
type Crowd = Child<CrowdQuestion, CrowdAnswer>

const run = (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withChild<UpstreamQuestion, UpstreamAnswer, Outcome>("upstream.ts", async (upstream) => {
    const { port } = await upstream.ask({ words, key, paceMs: effort.roundMs / words.length })
    return withGateways(
      port,
      nodeOptions,
      (gateways) =>
        withChild("load.ts", (load: Load) =>
          withChild("crowd.ts", (crowd: Crowd) => {
            const isPinned = Cores.part(gateways.map(({ pid }) => pid), [upstream.pid, load.pid, crowd.pid])
            return measure({ gateways, senders: { load, crowd }, isPinned }, effort)
          }))
    )
  })

export const proxy: Scenario = { name: ProxyRows.name, run }

/**
 * The cost of the service in front of a provider, compared with a bare Node proxy that only pipes, and with Portkey's
 * gateway if it is installed.
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
import type { PipeAnswer, PipeQuestion } from "./pipeProxy.ts"
import * as Portkey from "./Portkey.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Round, Side, Turn } from "./ProxyRows.ts"
import * as ProxyRows from "./ProxyRows.ts"
import type { Effort, Outcome, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

const path = "/v1/chat/completions"
const key = "bench-key"
const { connections, streams } = ProxyRows
const words = Array.from({ length: ProxyRows.words }, (_, index) => `word${index} `)
const expected = words.join("")
/** Silence after which a concurrent stream counts as lost, ms. */
const crowdLimit = 30_000

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

const bodyOf = (model: string, stream: boolean): string =>
  JSON.stringify({
    model,
    messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Is it so?" }],
    temperature: 0,
    ...(stream ? { stream } : {})
  })

const bufferedBody = bodyOf("quick", false)
const streamBody = bodyOf("quick", true)
const pacedBody = bodyOf("paced", true)

/** A gateway in front of the upstream. */
interface Gateway {
  readonly side: Side
  readonly pid: number
  readonly port: number
  readonly headers: Readonly<Record<string, string>>
}

interface Setting {
  readonly gateways: ReadonlyArray<Gateway>
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly crowd: Child<CrowdQuestion, CrowdAnswer>
}

/** The complete answer, which must equal the upstream's. */
const check = async ({ headers, port, side }: Gateway): Promise<void> => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    body: bufferedBody,
    headers: { ...headers, "content-type": "application/json" }
  })
  const text = await response.text()
  const { choices } = JSON.parse(text) as { readonly choices?: ReadonlyArray<{ message: { content: string } }> }
  if (choices?.[0]?.message.content !== expected) throw new Error(`Unexpected answer of ${side}: ${text}`)
}

/** The requests in each part of a round. */
const makeParts = ({ crowd, load }: Setting, milliseconds: number) => {
  const ask = async (gateway: Gateway, body: string, connections: number, part: number): Promise<Turn> => {
    const firstToken = body === streamBody ? { firstToken: `"content":"${words[0]}` } : {}
    const { headers, pid, port } = gateway
    const question = { port, path, body, headers, connections, milliseconds: milliseconds * part, ...firstToken }
    const [answer, cpu] = await ProcessCpu.during(pid, () => load.ask(question))
    return { answer, cpu: cpu.process }
  }
  return {
    // One connection gives times only, which need fewer requests.
    alone: (gateway: Gateway) => ask(gateway, bufferedBody, 1, 0.5),
    busy: (gateway: Gateway) => ask(gateway, bufferedBody, connections, 1),
    firstToken: (gateway: Gateway) => ask(gateway, streamBody, 1, 0.5),
    streamed: (gateway: Gateway) => ask(gateway, streamBody, connections, 1),
    crowd: async ({ headers, pid, port }: Gateway) => {
      const question = { port, path, body: pacedBody, headers, streams, expected, limit: crowdLimit }
      const [answer, cpu] = await ProcessCpu.during(pid, () => crowd.ask(question))
      return { answer, cpu: cpu.process }
    }
  }
}

/** Runs every gateway in turn. */
const inTurn = async <A>(
  gateways: ReadonlyArray<Gateway>,
  measure: (gateway: Gateway) => Promise<A>
): Promise<Readonly<Partial<Record<Side, A>>>> => {
  const turns: Partial<Record<Side, A>> = {}
  for (const gateway of gateways) turns[gateway.side] = await measure(gateway)
  return turns
}

const measureRound = async (setting: Setting, milliseconds: number, turn: number): Promise<Round> => {
  const parts = makeParts(setting, milliseconds)
  // The first gateway is the last one in the next round.
  const gateways = setting.gateways.map((_, index, all) => all[(index + turn) % all.length]!)
  return {
    alone: await inTurn(gateways, parts.alone),
    busy: await inTurn(gateways, parts.busy),
    firstToken: await inTurn(gateways, parts.firstToken),
    streamed: await inTurn(gateways, parts.streamed),
    crowd: await inTurn(gateways, parts.crowd)
  }
}

const unpinned = "The gateways have no core of their own: that requires two cores, and taskset of Linux."

const measure = async (setting: Setting, isPinned: boolean, effort: Effort): Promise<Outcome> => {
  for (const gateway of setting.gateways) await check(gateway)
  await measureRound(setting, effort.warmUpMs, 0)
  const rounds: Array<Round> = []
  for (let turn = 0; turn < effort.rounds; turn++) rounds.push(await measureRound(setting, effort.roundMs, turn))
  return {
    rows: ProxyRows.make(rounds, ProcessCpu.isAvailable),
    notes: [
      ...ProxyRows.lost(rounds),
      ...(Portkey.isInstalled ? [] : [Portkey.missing]),
      ...(isPinned ? [] : [unpinned]),
      ...(ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable])
    ],
    raw: { connections, streams, words: words.length, isPinned, bufferedBody, streamBody, pacedBody, rounds }
  }
}

const run = (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withChild<UpstreamQuestion, UpstreamAnswer, Outcome>("upstream.ts", async (upstream) => {
    const { port } = await upstream.ask({ words, key, paceMs: effort.roundMs / words.length })
    const service = { config: config(port), nodeOptions, env: { BENCH_UPSTREAM_KEY: key } }
    const headers = { authorization: `Bearer ${key}` }
    return withChild<PipeQuestion, PipeAnswer, Outcome>(
      "pipeProxy.ts",
      (pipe) =>
        withService(
          service,
          (troupe) =>
            Portkey.withPortkey(port, (portkey) =>
              withChild<LoadQuestion, LoadAnswer, Outcome>("load.ts", (load) =>
                withChild<CrowdQuestion, CrowdAnswer, Outcome>("crowd.ts", async (crowd) => {
                  const { port: pipePort } = await pipe.ask({ upstreamPort: port })
                  const gateways: ReadonlyArray<Gateway> = [
                    { side: "bare", pid: pipe.pid, port: pipePort, headers },
                    { side: "troupe", ...troupe, headers },
                    ...(portkey === undefined
                      ? []
                      : [{ ...portkey, side: "portkey" as const, headers: { ...headers, ...portkey.headers } }])
                  ]
                  const isPinned = Cores.part(
                    gateways.map(({ pid }) =>
                      pid
                    ),
                    [upstream.pid, load.pid, crowd.pid]
                  )
                  return measure({ gateways, load, crowd }, isPinned, effort)
                })))
        )
    )
  })

export const proxy: Scenario = { name: ProxyRows.name, run }

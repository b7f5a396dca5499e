/**
 * The share of answered requests, and the availability, of a service whose providers and engine fail all the time.
 *
 * **Details**
 *
 * Two providers take turns: one fails for a while, in another way each time, then none does, then the other one. Meanwhile the
 * engine process of a local model is killed again and again; another model is its fallback. Callers send requests at a fixed
 * rate, whole answers and streams. A request counts as answered if its text is complete. No fault is of the whole service: what
 * nothing can answer is not measured here.
 */
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import type { Fault, FaultyProvider } from "./FaultyProvider.ts"
import { kinds, startFaultyProvider, text } from "./FaultyProvider.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"

const name = "faults"

/** Without `--minutes`: all faults at both providers, each for longer than the time limits. */
const defaultMs = 60_000

/** The targets of the table in `docs/performance.md`, percent. */
const targetPercent = 99.9

/** Requests per second. */
const rate = 20

/** Of one fault, ms. */
const longestPhase = 10_000

/** How long a request may take, ms. */
const requestLimit = 20_000

const key = "bench-key"

/** Phases of one provider's faults and of none, for each provider. */
const phases = 2 * 2 * kinds.length

const configOf = (providers: ReadonlyArray<FaultyProvider>, phaseMs: number): string => {
  const remote = ({ url }: FaultyProvider) => ({
    provider: "openai",
    model: "bench-1",
    baseUrl: url,
    key: "${BENCH_UPSTREAM_KEY}"
  })
  return JSON.stringify({
    server: { shutdownGrace: "1 second" },
    cache: { when: "never" },
    // A circuit has been tried again before the other provider fails.
    circuits: { openFor: `${Math.max(50, Math.round(phaseMs / 2))} millis` },
    keyCooldowns: { rateLimited: "1 second" },
    policies: {
      default: {
        continue: true,
        timeouts: { queue: "1 second", firstToken: "1 second", stall: "1 second", total: "15 seconds" }
      }
    },
    models: {
      chat: { deployments: providers.map(remote) },
      "fake/local": { deployments: [{ engine: "fake", reply: text }], fallbacks: ["chat"] }
    }
  })
}

/** What became of one request. */
interface Asked {
  /** ms since the start of the load */
  readonly at: number
  readonly model: string
  readonly stream: boolean
  /** Why it was not answered; undefined, it was. */
  readonly problem: string | undefined
}

/** The text of a streamed answer; undefined if it has no end. */
const textOfStream = (body: string): string | undefined => {
  if (!body.includes("data: [DONE]")) return undefined
  return body.split("\n").flatMap((line) => {
    if (!line.startsWith("data: {")) return []
    const { choices } = JSON.parse(line.slice(6)) as {
      readonly choices?: ReadonlyArray<{ readonly delta?: { readonly content?: string } }>
    }
    return choices?.[0]?.delta?.content ?? []
  }).join("")
}

const textOfAnswer = (body: string): string | undefined =>
  (JSON.parse(body) as { readonly choices?: ReadonlyArray<{ readonly message?: { readonly content?: string } }> })
    .choices?.[0]?.message?.content

/** Each request is another one: an answer is neither cached nor shared. The fake engine's text is exact at temperature 0. */
const requestOf = (model: string, stream: boolean, index: number) => ({
  model,
  stream,
  temperature: 0,
  messages: [{ role: "user", content: `How is it? ${index}` }]
})

const problemOf = async (
  port: number,
  request: ReturnType<typeof requestOf>
): Promise<string | undefined> => {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(requestLimit)
    })
    const body = await response.text()
    if (response.status !== 200) return `${response.status}: ${body.slice(0, 2_000)}`
    const answer = request.stream ? textOfStream(body) : textOfAnswer(body)
    return answer === text ? undefined : `an incomplete answer: ${body.slice(-200)}`
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause)
  }
}

/** Sends requests at the rate, however long they take. */
const load = async (port: number, milliseconds: number): Promise<ReadonlyArray<Asked>> => {
  const begun = performance.now()
  const asked: Array<Promise<Asked>> = []
  for (let index = 0;; index++) {
    const at = performance.now() - begun
    if (at >= milliseconds) break
    const model = index % 4 === 3 ? "fake/local" : "chat"
    const stream = index % 2 === 0
    const request = requestOf(model, stream, index)
    asked.push(problemOf(port, request).then((problem) => ({ at, model, stream, problem })))
    await sleep(Math.max(0, (index + 1) * 1000 / rate - (performance.now() - begun)))
  }
  return Promise.all(asked)
}

/** Whether the process was still there. */
const kill = (pid: number): boolean => {
  try {
    return process.kill(pid, "SIGKILL")
  } catch {
    return false
  }
}

/** Lets the providers fail in turns, and kills the engine process once in a turn of both, until it is over. */
const disturb = async (
  providers: ReadonlyArray<FaultyProvider>,
  { pid }: Service,
  phaseMs: number,
  isOver: () => boolean
): Promise<number> => {
  let kills = 0
  for (let phase = 0; !isOver(); phase++) {
    const provider = providers[Math.floor(phase / 2) % providers.length]!
    const fault: Fault = kinds[Math.floor(phase / 4) % kinds.length]!
    const isPause = phase % 2 === 0
    provider.set(isPause ? undefined : fault)
    if (isPause && phase % 4 === 0) kills += ProcessCpu.childrenOf(pid).filter(kill).length
    await sleep(phaseMs)
    provider.set(undefined)
  }
  return kills
}

interface Health {
  readonly windows: ReadonlyArray<{ readonly window: string; readonly availability: number; readonly requests: number }>
}

/** Of the shortest window that covers the run. */
const availabilityOf = async (port: number, milliseconds: number): Promise<number> => {
  const { windows } = await (await fetch(`http://127.0.0.1:${port}/health/details`)).json() as Health
  const covering = windows.find(({ window }) => window !== "5m" || milliseconds <= 300_000)
  return (covering?.availability ?? Number.NaN) * 100
}

const row = (measure: string, troupe: number): Row => ({
  scenario: name,
  measure,
  unit: "%",
  troupe,
  comparison: "none",
  target: { atLeast: targetPercent }
})

/** The share of the seconds in which a request was answered, of those in which one began. */
const answeredSeconds = (asked: ReadonlyArray<Asked>): number => {
  const seconds = new Map<number, boolean>()
  for (const { at, problem } of asked) {
    const second = Math.floor(at / 1000)
    seconds.set(second, seconds.get(second) === true || problem === undefined)
  }
  return [...seconds.values()].filter((isAnswered) => isAnswered).length / seconds.size * 100
}

const measure = async (
  providers: ReadonlyArray<FaultyProvider>,
  service: Service,
  milliseconds: number,
  phaseMs: number
): Promise<Outcome> => {
  let isOver = false
  const delay = monitorEventLoopDelay()
  delay.enable()
  const disturbed = disturb(providers, service, phaseMs, () => isOver)
  const asked = await load(service.port, milliseconds)
  isOver = true
  const kills = await disturbed
  delay.disable()
  const failed = asked.filter(({ problem }) => problem !== undefined)
  const faulty = providers.reduce((sum, one) => sum + one.failed(), 0)
  const problems = Map.groupBy(failed, ({ problem }) => problem!.slice(0, 80))
  return {
    rows: [
      row("requests answered", (1 - failed.length / asked.length) * 100),
      row("seconds with an answer", answeredSeconds(asked)),
      row("availability by /health/details", await availabilityOf(service.port, milliseconds))
    ],
    notes: [
      `faults: ${asked.length} requests, ${failed.length} without an answer; the providers failed ${faulty} attempts, and an ` +
      `engine process was killed ${kills} times in ${Math.round(milliseconds / 1000)} s.`,
      // Its providers answer as late: with more than a second, time limits have been reached without a fault.
      `faults: the event loop of the bench was late by ${Math.round(delay.max / 1e6)} ms at most.`,
      ...[...problems].slice(0, 5).map(([problem, all]) => `faults: ${all.length} times ${problem}`)
    ],
    raw: failed
  }
}

export const faults: Scenario = {
  name,
  async run({ minutes, roundMs, warmUpMs }: Effort, nodeOptions): Promise<Outcome> {
    const isSmoke = warmUpMs < 1_000
    const milliseconds = minutes === undefined ? isSmoke ? 10 * roundMs : defaultMs : minutes * 60_000
    const phaseMs = Math.min(longestPhase, milliseconds / phases)
    // A rate limit is over before the other provider fails.
    const retryAfterMs = Math.min(1_000, Math.round(phaseMs / 2))
    const providers = await Promise.all([startFaultyProvider(retryAfterMs), startFaultyProvider(retryAfterMs)])
    try {
      return await withService(
        { config: configOf(providers, phaseMs), nodeOptions, env: { BENCH_UPSTREAM_KEY: key } },
        (service) => measure(providers, service, milliseconds, phaseMs)
      )
    } finally {
      for (const provider of providers) provider.close()
    }
  }
}

/**
 * What the house costs a local model: `tiny-chat` streamed by the service over HTTP, against node-llama-cpp called
 * directly in a process of its own.
 *
 * **Details**
 *
 * Both sides run alternately, the other idle, so that a slow spell of the machine meets both. Decoding is greedy: both
 * must tell the same story.
 */
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import type { Round } from "./ClosedLoop.ts"
import { closedLoop } from "./ClosedLoop.ts"
import type { DirectAnswer, DirectQuestion } from "./direct.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { StreamClient } from "./StreamClient.ts"
import { makeStreamClient } from "./StreamClient.ts"

const name = "tokens"
const prompt = "Write a story about a fox."
const maxTokens = 128
const streamCounts = [1, 8]
/** Tokens a second that the service must keep of the direct ones. */
const targetRatio = 0.8

/** No models: the embedded `tiny-chat`, with its 8 slots and 1 thread. */
const config = "server:\n  shutdownGrace: 1 second\n"

const body = JSON.stringify({
  model: "tiny-chat",
  messages: [{ role: "user", content: prompt }],
  temperature: 0,
  max_tokens: maxTokens,
  stream: true,
  stream_options: { include_usage: true }
})

/**
 * As the service sets it for its engine process. With more threads than one, llama.cpp reads the logits of a shared
 * batch from several threads at once, which is faster at times and mixes up the answers.
 */
const directEnvironment = { UV_THREADPOOL_SIZE: "1" }

type Direct = Child<DirectQuestion, DirectAnswer>

/** A round and the CPU time it took, µs. */
interface Measured {
  readonly round: Round
  readonly cpu: ProcessCpu.Spent
}

/** Both sides under the same load, one after the other. */
interface Pair {
  readonly streams: number
  readonly direct: Measured
  readonly service: Measured
}

interface Sides {
  readonly direct: Direct
  readonly service: Service
  readonly client: StreamClient
}

const measured = async (pid: number, work: () => Promise<Round>): Promise<Measured> => {
  const [round, cpu] = await ProcessCpu.during(pid, work)
  return { round, cpu }
}

const measurePair = async (sides: Sides, streams: number, milliseconds: number): Promise<Pair> => ({
  streams,
  direct: await measured(sides.direct.pid, () => sides.direct.ask({ prompt, maxTokens, streams, milliseconds })),
  service: await measured(
    sides.service.pid,
    () => closedLoop(streams, milliseconds, () => sides.client.ask(body))
  )
})

const checkAnswers = (pairs: ReadonlyArray<Pair>): void => {
  const stories = new Set(pairs.flatMap(({ direct, service }) => [...direct.round.texts, ...service.round.texts]))
  const [story = ""] = stories
  if (stories.size !== 1 || !story.includes("fox")) {
    throw new Error(`The answers differ or are wrong: ${JSON.stringify([...stories])}`)
  }
}

const rowsFor = (streams: number, pairs: ReadonlyArray<Pair>): ReadonlyArray<Row> => {
  const label = streams === 1 ? "1 stream" : `${streams} streams`
  const row = (measure: string, unit: string, figure: (side: Measured) => number) => ({
    scenario: name,
    measure: `${label}, ${measure}`,
    unit,
    baseline: median(pairs.map(({ direct }) => figure(direct))),
    troupe: median(pairs.map(({ service }) => figure(service))),
    comparison: "ratio" as const
  })
  const timing = [
    {
      ...row("throughput", "tokens/s", ({ round }) => round.tokensPerSecond),
      target: { atLeast: targetRatio }
    },
    row("time to first token", "ms", ({ round }) => round.firstTokenMs)
  ]
  const cpu = row("CPU with engine process", "µs/token", ({ cpu, round }) => cpu.tree / round.tokens)
  return ProcessCpu.isAvailable ? [...timing, { ...cpu, comparison: "difference" }] : timing
}

const rowsOf = (pairs: ReadonlyArray<Pair>): ReadonlyArray<Row> =>
  streamCounts.flatMap((streams) => rowsFor(streams, pairs.filter((pair) => pair.streams === streams)))

const measure = async (direct: Direct, service: Service, effort: Effort): Promise<Outcome> => {
  const client = makeStreamClient(service.port, Math.max(...streamCounts))
  const sides = { direct, service, client }
  try {
    for (const streams of streamCounts) await measurePair(sides, streams, effort.warmUpMs)
    const pairs: Array<Pair> = []
    for (let round = 0; round < effort.rounds; round++) {
      for (const streams of streamCounts) pairs.push(await measurePair(sides, streams, effort.roundMs))
    }
    checkAnswers(pairs)
    return {
      rows: rowsOf(pairs),
      notes: ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable],
      raw: { prompt, maxTokens, pairs }
    }
  } finally {
    client.close()
  }
}

const run = (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withChild<DirectQuestion, DirectAnswer, Outcome>(
    "direct.ts",
    (direct) => withService({ config, nodeOptions }, (service) => measure(direct, service, effort)),
    directEnvironment
  )

export const tokens: Scenario = { name, run }

/**
 * The overhead for a local model: streamed by the service over HTTP, compared with node-llama-cpp called directly in a
 * process of its own.
 *
 * **Details**
 *
 * Both sides run alternately, so that other load on the machine affects both. Decoding is greedy, and both must give the
 * same texts.
 */
import type { Round } from "./ClosedLoop.ts"
import { closedLoop } from "./ClosedLoop.ts"
import type { DirectSetup } from "./direct.ts"
import type { Direct } from "./DirectSide.ts"
import { withDirect } from "./DirectSide.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { StreamClient } from "./StreamClient.ts"
import { makeStreamClient } from "./StreamClient.ts"
import * as WarmUp from "./WarmUp.ts"

/** The work of both sides. */
export interface Workload {
  /** Of the scenario. */
  readonly name: string
  /** The model's name in requests to the service. */
  readonly model: string
  readonly direct: DirectSetup
  /** The service's `troupe.yaml` with the same options. */
  readonly config: string
  /** The prompts of a round, used in turn. */
  readonly promptsOf: (round: number) => ReadonlyArray<string>
  readonly maxTokens: number
  /** Numbers of callers. */
  readonly streamCounts: ReadonlyArray<number>
  /** Whether a text is the model's expected answer. */
  readonly isRight: (text: string) => boolean
  /** Least share of the direct tokens per second. */
  readonly throughputRatio: number
  /** Limit of the added time to first token, ms. */
  readonly firstTokenMs?: number
  /** Limit of the added CPU time, µs a token. */
  readonly tokenCpu?: number
  /** Another side that is compared only by its tokens per second, for this number of streams. */
  readonly native?: Native | undefined
}

/** llama.cpp's own bench. */
export interface Native {
  readonly streamCounts: ReadonlyArray<number>
  readonly ratio: number
  /** Tokens a second. */
  readonly run: (streams: number) => Promise<number>
}

/** The most tokens of a side before it is measured. */
const warmUpTokens = 30_000

/** A round and its CPU time, µs. */
interface Measured {
  readonly round: Round
  readonly cpu: ProcessCpu.Spent
}

/** All sides under the same load, one after another. */
export interface Pair {
  readonly streams: number
  readonly direct: Measured
  readonly service: Measured
  /** Tokens a second. */
  readonly native?: number | undefined
}

type Side = "direct" | "service"

/** The load of one side before the first round. */
interface Warmed extends WarmUp.WarmUp {
  readonly streams: number
  readonly side: Side
}

const measured = async (pid: number, work: () => Promise<Round>): Promise<Measured> => {
  const [round, cpu] = await ProcessCpu.during(pid, work)
  return { round, cpu }
}

const bodyOf = ({ maxTokens, model }: Workload) => (prompt: string): string =>
  JSON.stringify({
    model,
    messages: [{ role: "user", content: prompt }],
    temperature: 0,
    max_tokens: maxTokens,
    stream: true,
    stream_options: { include_usage: true }
  })

/** A round of one side. */
type Measure = (streams: number, prompts: ReadonlyArray<string>, milliseconds: number) => Promise<Measured>

const sidesOf = (
  direct: Direct,
  service: Service,
  client: StreamClient,
  workload: Workload
): Readonly<Record<Side, Measure>> => ({
  direct: (streams, prompts, milliseconds) =>
    measured(direct.pid, () => direct.run({ prompts, maxTokens: workload.maxTokens, streams, milliseconds })),
  service(streams, prompts, milliseconds) {
    const bodies = prompts.map(bodyOf(workload))
    let asked = 0
    return measured(
      service.pid,
      () => closedLoop(streams, milliseconds, () => client.ask(bodies[asked++ % bodies.length]!))
    )
  }
})

const checkAnswers = ({ isRight }: Workload, pairs: ReadonlyArray<Pair>): void => {
  const texts = new Set(pairs.flatMap(({ direct, service }) => [...direct.round.texts, ...service.round.texts]))
  const [text = ""] = texts
  if (texts.size !== 1 || !isRight(text)) {
    throw new Error(`The answers differ or are wrong: ${JSON.stringify([...texts])}`)
  }
}

const labelOf = (streams: number): string => streams === 1 ? "1 stream" : `${streams} streams`

const rowsFor = (workload: Workload, streams: number, pairs: ReadonlyArray<Pair>): ReadonlyArray<Row> => {
  const { firstTokenMs, name, native, throughputRatio, tokenCpu } = workload
  const label = labelOf(streams)
  const row = (measure: string, unit: string, figure: (side: Measured) => number) => ({
    scenario: name,
    measure: `${label}, ${measure}`,
    unit,
    baseline: median(pairs.map(({ direct }) => figure(direct))),
    troupe: median(pairs.map(({ service }) => figure(service)))
  })
  const throughput = row("throughput", "tokens/s", ({ round }) => round.tokensPerSecond)
  const firstToken = row("time to first token", "ms", ({ round }) => round.firstTokenMs)
  const cpu = {
    ...row("CPU with engine process", "µs/token", ({ cpu, round }) => cpu.tree / round.tokens),
    comparison: "difference" as const
  }
  const own: Row = {
    scenario: name,
    measure: `${label}, CPU of the service's process`,
    unit: "µs/token",
    troupe: median(pairs.map(({ service: { cpu, round } }) => cpu.process / round.tokens)),
    comparison: "none"
  }
  return [
    { ...throughput, comparison: "ratio", target: { atLeast: throughputRatio } },
    ...(native?.streamCounts.includes(streams) === true
      ? [{
        ...throughput,
        measure: `${label}, throughput against llama.cpp's bench`,
        baseline: median(pairs.map((pair) => pair.native ?? Number.NaN)),
        comparison: "ratio" as const,
        target: { atLeast: native.ratio }
      }]
      : []),
    firstTokenMs === undefined
      ? { ...firstToken, comparison: "ratio" }
      : { ...firstToken, comparison: "difference", target: { atMost: firstTokenMs } },
    ...(ProcessCpu.isAvailable ? [tokenCpu === undefined ? cpu : { ...cpu, target: { atMost: tokenCpu } }, own] : [])
  ]
}

/** Loads a side until the cost of a token is steady. */
const warmUp = async (
  measure: Measure,
  streams: number,
  workload: Workload,
  effort: Effort
): Promise<WarmUp.WarmUp> => {
  let round = 0
  const slice = async () => {
    const prompts = workload.promptsOf(--round)
    const { cpu, round: { milliseconds, tokens } } = await measure(streams, prompts, effort.roundMs / 2)
    // Without CPU time, the time of a token.
    return { requests: tokens, cost: ProcessCpu.isAvailable ? cpu.tree : milliseconds * 1_000 }
  }
  return WarmUp.run(slice, { requests: warmUpTokens, milliseconds: effort.warmUpMs * 4 })
}

const unsteady = (warmed: ReadonlyArray<Warmed>): ReadonlyArray<string> =>
  warmed.filter(({ isSteady }) => !isSteady).map(({ requests, side, steady, streams }) =>
    `The CPU time of a token still changed when the rounds began: ${side} (${labelOf(streams)}, ${
      steady.toFixed(0)
    } µs after ${requests} tokens)`
  )

const measure = async (
  workload: Workload,
  measures: Readonly<Record<Side, Measure>>,
  effort: Effort
): Promise<Outcome> => {
  const { native, streamCounts } = workload
  const warmed: Array<Warmed> = []
  const pairs: Array<Pair> = []
  for (const streams of streamCounts) {
    for (const side of ["direct", "service"] as const) {
      warmed.push({ streams, side, ...await warmUp(measures[side], streams, workload, effort) })
    }
  }
  for (let turn = 0; turn < effort.rounds; turn++) {
    for (const [index, streams] of streamCounts.entries()) {
      const prompts = workload.promptsOf(turn * streamCounts.length + index)
      pairs.push({
        streams,
        direct: await measures.direct(streams, prompts, effort.roundMs),
        service: await measures.service(streams, prompts, effort.roundMs),
        ...(native?.streamCounts.includes(streams) === true ? { native: await native.run(streams) } : {})
      })
    }
  }
  checkAnswers(workload, pairs)
  return {
    rows: streamCounts.flatMap((streams) =>
      rowsFor(workload, streams, pairs.filter((pair) => pair.streams === streams))
    ),
    notes: ProcessCpu.isAvailable ? unsteady(warmed) : [ProcessCpu.unavailable],
    raw: { setup: workload.direct, maxTokens: workload.maxTokens, warmed, pairs }
  }
}

/** Runs both sides and compares them. */
export const compare = (workload: Workload, effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withDirect(workload.direct, (direct) =>
    withService({ config: workload.config, nodeOptions }, async (service) => {
      const client = makeStreamClient(service.port, Math.max(...workload.streamCounts))
      try {
        return await measure(workload, sidesOf(direct, service, client, workload), effort)
      } finally {
        client.close()
      }
    }))

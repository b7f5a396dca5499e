/** Rounds of the scenario `proxy` as rows. Pure. */
import type { CrowdAnswer } from "./crowd.ts"
import type { LoadAnswer } from "./load.ts"
import type { Row } from "./Scenario.ts"
import { median } from "./Statistics.ts"
import type { WarmUp } from "./WarmUp.ts"

export const name = "proxy"

/** Of a streamed answer, a chunk each. */
export const words = 20
/** Of the load. */
export const connections = 32
/** Of a load that does not saturate the gateway, requests/s. */
export const rate = 200
/** Concurrent streams. */
export const streams = 512
export const fewStreams = 50

/** The gateways in front of the upstream. */
export type Side = "bare" | "troupe" | "portkey" | "nginx"

/** The results of one side in one part of a round. */
export interface Turn<Answer = LoadAnswer> {
  readonly answer: Answer
  /** µs */
  readonly cpu: number
}

type Turns<Answer = LoadAnswer> = Readonly<Partial<Record<Side, Turn<Answer>>>>

export interface Round {
  /** Whole answers over one connection. */
  readonly alone: Turns
  readonly busy: Turns
  /** The same for a caller of Anthropic's dialect. */
  readonly translated: Turns
  /** Whole answers at a steady rate. */
  readonly calm: Turns
  /** Streams over one connection. */
  readonly firstToken: Turns
  readonly streamed: Turns
  /** Concurrent streams, word by word, which begin one after another. */
  readonly few: Turns<CrowdAnswer>
  readonly many: Turns<CrowdAnswer>
  /** The same, which begin together. */
  readonly crowd: Turns<CrowdAnswer>
}

/** The parts with concurrent streams. */
export type CrowdPart = "few" | "many" | "crowd"

/** The load of one side before the first round. */
export interface Warmed extends WarmUp {
  readonly side: Side
  readonly form: "buffered" | "streamed" | "translated"
}

type Baseline = Exclude<Side, "troupe">

/** A side's figure of a round; undefined if the side is absent. */
type Figure = (round: Round, side: Side) => number | undefined

type Held = Pick<Row, "comparison" | "target">

interface Measure extends Pick<Row, "measure" | "unit">, Partial<Readonly<Record<Baseline, Held>>> {
  readonly figure: Figure
  readonly isCpu?: boolean
  /** Of all rounds; default the median. */
  readonly sum?: (figures: ReadonlyArray<number>) => number
}

const from = <Answer>(
  part: (round: Round) => Turns<Answer>,
  figure: (turn: Turn<Answer>) => number
): Figure =>
(round, side) => {
  const turn = part(round)[side]
  return turn === undefined ? undefined : figure(turn)
}

const cpuOf = ({ answer, cpu }: Turn) => cpu / answer.requests
const rateOf = ({ answer }: Turn) => answer.requests / (answer.milliseconds / 1000)

const ratio: Held = { comparison: "ratio" }
const difference: Held = { comparison: "difference" }
const ratioAtLeast = (atLeast: number): Held => ({ comparison: "ratio", target: { atLeast } })
const ratioAtMost = (atMost: number): Held => ({ comparison: "ratio", target: { atMost } })
const differenceAtMost = (atMost: number): Held => ({ comparison: "difference", target: { atMost } })

const latency = (
  measure: string,
  part: (round: Round) => Turns,
  at: "p50" | "p99",
  bare: Held = difference
): Measure => ({
  measure: `${at}, ${measure}`,
  unit: "ms",
  figure: from(part, ({ answer }) => answer.latency[at]),
  bare
})

const firstToken = (part: "few" | "many", count: number, at: "p50" | "p99", atMost: number): Measure => ({
  measure: `time to first token, ${count} streams, ${at}`,
  unit: "ms",
  figure: from((round) => round[part], ({ answer }) => answer.firstToken[at]),
  bare: differenceAtMost(atMost)
})

const busy = `${connections} connections`
const portkey = difference

const cpu: ReadonlyArray<Measure> = [
  {
    measure: "CPU",
    unit: "µs/request",
    figure: from((round) => round.busy, cpuOf),
    // 60 µs where the bare proxy takes 45.
    bare: ratioAtMost(1.33),
    portkey: ratio,
    nginx: ratio
  },
  {
    measure: `CPU, streams of ${words} words`,
    unit: "µs/stream",
    figure: from(({ streamed }) => streamed, cpuOf),
    // 75 µs where the bare proxy takes 90.
    bare: ratioAtMost(0.83),
    portkey: ratio,
    nginx: ratio
  },
  {
    measure: `CPU, ${streams} streams, word by word`,
    unit: "µs/word",
    figure: from(({ crowd }) => crowd, ({ answer, cpu }) => cpu / (answer.whole * words)),
    bare: difference,
    portkey: ratio
  }
].map((measure) => ({ ...measure, isCpu: true }))

const times: ReadonlyArray<Measure> = [
  { ...latency("1 connection", ({ alone }) => alone, "p50"), portkey },
  { ...latency("1 connection", ({ alone }) => alone, "p99"), portkey },
  latency(`${rate} requests/s`, ({ calm }) => calm, "p50"),
  latency(`${rate} requests/s`, ({ calm }) => calm, "p99", differenceAtMost(1)),
  { ...latency(busy, (round) => round.busy, "p50"), portkey },
  { ...latency(busy, (round) => round.busy, "p99", ratioAtMost(2)), portkey },
  {
    measure: "time to first token, 1 connection",
    unit: "ms",
    figure: from((round) => round.firstToken, ({ answer }) => answer.firstToken?.p50 ?? Number.NaN),
    bare: differenceAtMost(0.5),
    portkey
  },
  firstToken("few", fewStreams, "p50", 0.5),
  firstToken("few", fewStreams, "p99", 5),
  firstToken("many", streams, "p50", 0.5),
  firstToken("many", streams, "p99", 5)
]

const rates: ReadonlyArray<Measure> = [
  {
    measure: `throughput, ${busy}`,
    unit: "requests/s",
    figure: from((round) => round.busy, rateOf),
    bare: ratioAtLeast(0.8),
    portkey: ratioAtLeast(6),
    nginx: ratio
  },
  {
    measure: `throughput, ${busy}, Anthropic's dialect`,
    unit: "requests/s",
    // The bare proxy does not translate: it passes on what the caller sends.
    figure: (round, side) =>
      from(side === "bare" ? (round) => round.busy : ({ translated }) => translated, rateOf)(round, side),
    bare: ratioAtLeast(0.65)
  },
  {
    measure: `throughput, ${busy}, streams of ${words} words`,
    unit: "streams/s",
    figure: from(({ streamed }) => streamed, rateOf),
    bare: ratioAtLeast(1.2),
    portkey: ratioAtLeast(12),
    nginx: ratio
  },
  {
    measure: `whole of ${streams} streams at once`,
    unit: "streams",
    figure: from(({ crowd }) => crowd, ({ answer }) => answer.whole),
    bare: { comparison: "none", target: { atLeast: streams } },
    portkey: { comparison: "none" },
    // A stream that is lost in one round counts as lost.
    sum: (figures) => Math.min(...figures)
  }
]

const suffixes: Readonly<Record<Baseline, string>> = {
  bare: "",
  portkey: ", against Portkey",
  nginx: ", against nginx"
}

const rowOf = (rounds: ReadonlyArray<Round>, measure: Measure, baseline: Baseline): ReadonlyArray<Row> => {
  const held = measure[baseline]
  if (held === undefined) return []
  const { figure, sum = median } = measure
  const all = (side: Side) => sum(rounds.map((round) => figure(round, side) ?? Number.NaN))
  return [{
    scenario: name,
    measure: `${measure.measure}${suffixes[baseline]}`,
    unit: measure.unit,
    baseline: all(baseline),
    troupe: all("troupe"),
    ...held
  }]
}

/** The first slice of load. */
const coldRows = (warmed: ReadonlyArray<Warmed>): ReadonlyArray<Row> =>
  (["buffered", "streamed"] as const).map((form) => {
    const cold = (side: Side) => warmed.find((one) => one.side === side && one.form === form)?.cold ?? Number.NaN
    return {
      scenario: name,
      measure: form === "buffered" ? "CPU, cold" : `CPU, streams of ${words} words, cold`,
      unit: form === "buffered" ? "µs/request" : "µs/stream",
      baseline: cold("bare"),
      troupe: cold("troupe"),
      ...ratio
    }
  })

/** @param hasCpu whether CPU time was measured */
export const make = (
  rounds: ReadonlyArray<Round>,
  warmed: ReadonlyArray<Warmed>,
  hasCpu: boolean
): ReadonlyArray<Row> => {
  const shown = [...(hasCpu ? cpu : []), ...times, ...rates]
  const baselines = (["bare", "portkey", "nginx"] as const).filter((side) => rounds.some(({ busy }) => side in busy))
  return [
    ...(hasCpu ? coldRows(warmed) : []),
    ...baselines.flatMap((baseline) => shown.flatMap((measure) => rowOf(rounds, measure, baseline)))
  ]
}

const noteOf = (what: string, gateways: ReadonlyArray<string>): ReadonlyArray<string> =>
  gateways.length === 0 ? [] : [`${what}: ${gateways.join(", ")}`]

/** The gateways whose cost of a request still changed when the rounds began. */
export const unsteady = (warmed: ReadonlyArray<Warmed>): ReadonlyArray<string> =>
  noteOf(
    "The CPU time of a request still changed when the rounds began",
    warmed.filter(({ isSteady }) => !isSteady).map(({ form, requests, side, steady }) =>
      `${side} (${form}, ${steady.toFixed(0)} µs after ${requests} requests)`
    )
  )

/** The least share of its core that a saturated gateway uses. */
const saturated = 0.9

/** The gateways that did not use their core completely. */
export const unsaturated = (rounds: ReadonlyArray<Round>): ReadonlyArray<string> =>
  noteOf(
    "The load or other processes limited the throughput of",
    (["busy", "streamed", "translated"] as const).flatMap((part) =>
      (["bare", "troupe", "portkey", "nginx"] as const).flatMap((side) => {
        const turns = rounds.flatMap((round) => round[part][side] ?? [])
        const share = median(turns.map(({ answer, cpu }) => cpu / (answer.milliseconds * 1_000)))
        return share < saturated ? [`${side} (${part}, ${(share * 100).toFixed(0)} % of its core)`] : []
      })
    )
  )

/** The outcomes of incomplete streams. */
export const lost = (rounds: ReadonlyArray<Round>): ReadonlyArray<string> => [
  ...new Set(
    rounds.flatMap(({ crowd, few, many }) =>
      [few, many, crowd].flatMap(Object.entries<Turn<CrowdAnswer>>).flatMap(([side, { answer }]) =>
        answer.lost.map((what) => `Lost by ${side}: ${what}`)
      )
    )
  )
]

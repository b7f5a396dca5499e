/** Rounds of the scenario `proxy` as rows. Pure. */
import type { CrowdAnswer } from "./crowd.ts"
import type { LoadAnswer } from "./load.ts"
import type { Row } from "./Scenario.ts"
import { median } from "./Statistics.ts"

export const name = "proxy"

/** Of a streamed answer, a chunk each. */
export const words = 20
/** Of the closed loop. */
export const connections = 16
/** Concurrent streams. */
export const streams = 512

/** The gateways in front of the upstream. */
export type Side = "bare" | "troupe" | "portkey"

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
  /** Streams over one connection. */
  readonly firstToken: Turns
  readonly streamed: Turns
  readonly crowd: Turns<CrowdAnswer>
}

/** A side's figure of a round; undefined if the side is absent. */
type Figure = (round: Round, side: Side) => number | undefined

interface Measure extends Pick<Row, "measure" | "unit"> {
  readonly figure: Figure
  /** Against the bare proxy. */
  readonly bare: Pick<Row, "comparison" | "target">
  /** Compared with Portkey, if that is meaningful. */
  readonly portkey?: Pick<Row, "comparison" | "target">
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

const latency = (
  measure: string,
  part: (round: Round) => Turns,
  at: "p50" | "p99"
): Measure => ({
  measure: `${at}, ${measure}`,
  unit: "ms",
  figure: from(part, ({ answer }) => answer.latency[at]),
  bare: { comparison: "difference" },
  portkey: { comparison: "difference" }
})

const busy = `${connections} connections`

const measures: ReadonlyArray<Measure> = [
  {
    measure: "CPU",
    unit: "µs/request",
    figure: from(({ busy }) => busy, cpuOf),
    bare: { comparison: "difference" },
    portkey: { comparison: "ratio" },
    isCpu: true
  },
  {
    measure: `CPU, streams of ${words} words`,
    unit: "µs/stream",
    figure: from(({ streamed }) => streamed, cpuOf),
    bare: { comparison: "difference" },
    portkey: { comparison: "ratio" },
    isCpu: true
  },
  {
    measure: `CPU, ${streams} streams, word by word`,
    unit: "µs/word",
    figure: from(({ crowd }) => crowd, ({ answer, cpu }) => cpu / (answer.whole * words)),
    bare: { comparison: "difference" },
    portkey: { comparison: "ratio" },
    isCpu: true
  },
  latency("1 connection", ({ alone }) => alone, "p50"),
  latency("1 connection", ({ alone }) => alone, "p99"),
  latency(busy, (round) => round.busy, "p50"),
  latency(busy, (round) => round.busy, "p99"),
  {
    measure: "time to first token, 1 connection",
    unit: "ms",
    figure: from(({ firstToken }) => firstToken, ({ answer }) => answer.firstToken?.p50 ?? Number.NaN),
    bare: { comparison: "difference", target: { atMost: 1 } },
    portkey: { comparison: "difference" }
  },
  {
    measure: `throughput, ${busy}`,
    unit: "requests/s",
    figure: from((round) => round.busy, rateOf),
    bare: { comparison: "ratio", target: { atLeast: 0.5 } },
    portkey: { comparison: "ratio", target: { atLeast: 4 } }
  },
  {
    measure: `throughput, ${busy}, streams of ${words} words`,
    unit: "streams/s",
    figure: from(({ streamed }) => streamed, rateOf),
    bare: { comparison: "ratio" },
    portkey: { comparison: "ratio" }
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

const rowOf = (rounds: ReadonlyArray<Round>, measure: Measure, baseline: "bare" | "portkey"): ReadonlyArray<Row> => {
  const held = measure[baseline]
  if (held === undefined) return []
  const { figure, sum = median } = measure
  const all = (side: Side) => sum(rounds.map((round) => figure(round, side) ?? Number.NaN))
  return [{
    scenario: name,
    measure: `${measure.measure}${baseline === "portkey" ? ", against Portkey" : ""}`,
    unit: measure.unit,
    baseline: all(baseline),
    troupe: all("troupe"),
    ...held
  }]
}

/** @param hasCpu whether CPU time was measured */
export const make = (rounds: ReadonlyArray<Round>, hasCpu: boolean): ReadonlyArray<Row> => {
  const shown = measures.filter(({ isCpu = false }) => hasCpu || !isCpu)
  const hasPortkey = rounds.some(({ busy }) => busy.portkey !== undefined)
  return [
    ...shown.flatMap((measure) => rowOf(rounds, measure, "bare")),
    ...(hasPortkey ? shown.flatMap((measure) => rowOf(rounds, measure, "portkey")) : [])
  ]
}

/** The outcomes of incomplete streams. */
export const lost = (rounds: ReadonlyArray<Round>): ReadonlyArray<string> => [
  ...new Set(
    rounds.flatMap(({ crowd }) =>
      Object.entries(crowd).flatMap(([side, { answer }]) => answer.lost.map((what) => `Lost by ${side}: ${what}`))
    )
  )
]

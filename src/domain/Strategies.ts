/**
 * The strategies: each gives every eligible deployment a score, where higher is better, and the terms of the score. Pure.
 *
 * **When to use**
 *
 * A new strategy is a function of this file, or one that it imports, and a line in `strategies`: settings, routing options, headers, the
 * command line and their documentation follow from that table.
 *
 * **Details**
 *
 * The terms of `balanced`, `speed` and `quality` are from 0 to 1: speed is the shortest expected time divided by that of the
 * deployment, quality is configured, cost is divided by the highest cost; an unknown figure is 0.5. `latency` is the better
 * of two drawn at random ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher) by peak average of latency
 * times load. `session` is rendezvous hashing (Thaler and Ravishankar): adding or removing a deployment moves only its own
 * sessions. `weighted` draws the whole order without replacement (Efraimidis and Spirakis).
 */
import type { CandidateTable, Condition } from "./DeploymentFacts.ts"
import { combine, draw, drawTwo, hashText } from "./Hashing.ts"
import * as Measurement from "./Measurement.ts"
import type { Moment, RoutingRequest } from "./RoutingRequest.ts"
import { promptTokensOf, usualAnswer } from "./RoutingRequest.ts"
import type { Options } from "./SelectionOptions.ts"

/** The input of a score. */
export interface ScoringInput {
  readonly table: CandidateTable
  readonly conditions: ReadonlyArray<Condition>
  readonly request: RoutingRequest
  readonly moment: Moment
  readonly options: Options
  readonly eligible: ReadonlyArray<number>
}

/** Scores by index, of the eligible deployments only. */
export interface Scored {
  readonly scores: ReadonlyArray<number>
  readonly terms: (index: number) => Readonly<Record<string, number>>
}

/** The score of an unknown figure. */
const neutral = 0.5

/** The cost of a free request as a divisor, USD. */
const leastCost = 1e-7

/** The share of a prompt that must be cached for `prefix` to prefer a deployment (SGLang's cache-aware routing). */
const cachedEnough = 0.3

/** Loads are out of balance if they differ by more than both, in requests and as a ratio (also from SGLang). */
const imbalance = { requests: 64, ratio: 1.5 }

/** Not a typed array, which takes ten times the memory of a few numbers. */
const zeros = (size: number): Array<number> => {
  const numbers: Array<number> = []
  numbers.length = size
  return numbers.fill(0)
}

const each = ({ eligible }: ScoringInput, scoreOf: (index: number) => number, size: number): Array<number> => {
  const scores = zeros(size)
  for (let at = 0; at < eligible.length; at++) scores[eligible[at]!] = scoreOf(eligible[at]!)
  return scores
}

/** A score that is its only term. */
const single = (input: ScoringInput, name: string, scoreOf: (index: number) => number): Scored => {
  const scores = each(input, scoreOf, input.table.ids.length)
  return { scores, terms: (index) => ({ [name]: scores[index]! }) }
}

const loadOf = ({ conditions, table }: ScoringInput, index: number): number => {
  const { measured, queued, slots = table.slots[index]! } = conditions[index]!
  return (measured.inFlight + queued) / slots
}

/** From 0, slow, to 1, the fastest; old or unknown measurements are nearer to neutral. */
const speeds = ({ conditions, eligible, moment, request }: ScoringInput): Array<number> => {
  const tokens = request.maxTokens ?? usualAnswer
  const speeds = zeros(conditions.length)
  let shortest = Number.POSITIVE_INFINITY
  for (let at = 0; at < eligible.length; at++) {
    const ms = Measurement.expectedMs(conditions[eligible[at]!]!.measured, tokens) ?? Number.NaN
    if (ms < shortest) shortest = ms
    speeds[eligible[at]!] = ms
  }
  for (let at = 0; at < eligible.length; at++) {
    const index = eligible[at]!
    const ms = speeds[index]!
    const speed = ms > 0 ? shortest / ms : 1
    const confidence = Measurement.confidence(conditions[index]!.measured, moment.now)
    speeds[index] = Number.isNaN(ms) ? neutral : neutral + (speed - neutral) * confidence
  }
  return speeds
}

const qualityOf = ({ table }: ScoringInput, index: number): number => {
  const quality = table.quality[index]!
  return Number.isNaN(quality) ? neutral : quality
}

/** The cost of a request, USD; `NaN` if the price is unknown. */
export const costOf = (table: CandidateTable, index: number, promptTokens: number, answerTokens: number): number =>
  (table.inputPrice[index]! * promptTokens + table.outputPrice[index]! * answerTokens) / 1e6

/** The cost of the request at each deployment, USD; `NaN` if the price is unknown. */
const costs = (input: ScoringInput): Array<number> => {
  const { maxTokens = usualAnswer } = input.request
  const promptTokens = promptTokensOf(input.request)
  const usd = zeros(input.table.ids.length)
  for (let at = 0; at < input.eligible.length; at++) {
    usd[input.eligible[at]!] = costOf(input.table, input.eligible[at]!, promptTokens, maxTokens)
  }
  return usd
}

/** From 0, free, to 1, the most expensive. */
const relativeCosts = (input: ScoringInput): Array<number> => {
  const usd = costs(input)
  let highest = 0
  for (const cost of usd) if (cost > highest) highest = cost
  const divisor = highest === 0 ? 1 : highest
  for (let index = 0; index < usd.length; index++) {
    usd[index] = Number.isNaN(usd[index]!) ? neutral : usd[index]! / divisor
  }
  return usd
}

const taskOf = ({ request: { route }, table }: ScoringInput, index: number): number => {
  const task = route?.task
  if (task === undefined) return 0
  const tasks = table.tasks[index]
  return tasks === undefined ? neutral : tasks.has(task) ? 1 : 0
}

const balanced = (input: ScoringInput): Scored => {
  const { weights } = input.options
  const speed = speeds(input)
  const cost = relativeCosts(input)
  const scores = zeros(speed.length)
  for (let at = 0; at < input.eligible.length; at++) {
    const index = input.eligible[at]!
    scores[index] = speed[index]! * weights.speed + qualityOf(input, index) * weights.quality +
      (1 - cost[index]!) * weights.cost + taskOf(input, index) * weights.task
  }
  return {
    scores,
    terms: (index) => {
      const terms = { speed: speed[index]!, quality: qualityOf(input, index), cost: cost[index]! }
      return input.request.route?.task === undefined ? terms : { ...terms, task: taskOf(input, index) }
    }
  }
}

const speed = (input: ScoringInput): Scored => {
  const scores = speeds(input)
  return { scores, terms: (index) => ({ speed: scores[index]! }) }
}

const quality = (input: ScoringInput): Scored => single(input, "quality", (index) => qualityOf(input, index))

/** The best quality per cost. An unknown figure counts as its limit, which neither excludes nor favors a deployment. */
const cost = (input: ScoringInput): Scored => {
  const { limits } = input.options
  const usd = costs(input)
  const quality = (index: number) => {
    const known = input.table.quality[index]!
    return Number.isNaN(known) ? limits.quality : known
  }
  const costAt = (index: number) => Number.isNaN(usd[index]!) ? limits.cost : usd[index]!
  return {
    scores: each(input, (index) => quality(index) / Math.max(leastCost, costAt(index)), usd.length),
    terms: (index) => ({ quality: quality(index), cost: costAt(index) })
  }
}

/** The least load first; of equals, one at random. */
const leastBusy = (input: ScoringInput): Scored => ({
  scores: each(input, (index) => -loadOf(input, index) - draw(input.moment.seed, index) * 1e-9, input.table.ids.length),
  terms: (index) => ({ load: loadOf(input, index) })
})

/** The cost of one more request, ms. A deployment that was never measured is tried by one request at a time. */
const peakCost = (input: ScoringInput, index: number): number => {
  const { measured } = input.conditions[index]!
  if (measured.latencyMs === undefined) return measured.inFlight === 0 ? 0 : Number.MAX_SAFE_INTEGER
  const ms = measured.latencyMs * Measurement.confidence(measured, input.moment.now)
  return ms * (loadOf(input, index) + 1) / Math.max(0.01, 1 - measured.errorRate)
}

/** The better of two, then the other, then the rest by peak cost. */
const latency = (input: ScoringInput): Scored => {
  const { eligible, moment } = input
  const scores = each(input, (index) => -peakCost(input, index), input.table.ids.length)
  const terms = (index: number) => ({ latency: peakCost(input, index) })
  if (eligible.length < 3) return { scores, terms }
  const [a, b] = drawTwo(eligible.length, moment.seed).map((at) => eligible[at]!) as [number, number]
  const [winner, other] = scores[b]! > scores[a]! ? [b, a] : [a, b]
  scores[winner] = 2
  scores[other] = 1
  return { scores, terms }
}

const roundRobin = (input: ScoringInput): Scored => {
  const { moment: { turn }, eligible } = input
  const scores = zeros(input.table.ids.length)
  for (let at = 0; at < eligible.length; at++) {
    const place = (at - turn % eligible.length + eligible.length) % eligible.length
    scores[eligible[at]!] = -place
  }
  return { scores, terms: (index) => ({ place: -scores[index]! }) }
}

/** Without a session or tenant, a random deployment. */
const session = (input: ScoringInput): Scored => {
  const { moment, request } = input
  const name = request.route?.session ?? request.tenant
  const key = name === undefined ? moment.seed : hashText(name)
  const { hash, weight } = input.table
  return single(input, "affinity", (index) => weight[index]! / -Math.log(draw(combine(key, hash[index]!), 0)))
}

const weighted = (input: ScoringInput): Scored =>
  single(input, "draw", (index) => Math.log(draw(input.moment.seed, index)) / input.table.weight[index]!)

const isOutOfBalance = (input: ScoringInput): boolean => {
  let most = 0
  let least = Number.POSITIVE_INFINITY
  for (let at = 0; at < input.eligible.length; at++) {
    const { measured, queued } = input.conditions[input.eligible[at]!]!
    most = Math.max(most, measured.inFlight + queued)
    least = Math.min(least, measured.inFlight + queued)
  }
  return most - least > imbalance.requests && most > least * imbalance.ratio
}

/** The deployment with most of the prompt, if it has enough of it and loads are in balance; else the least busy. */
const prefix = (input: ScoringInput): Scored => {
  const shares = input.moment.prefixShares
  const idle = leastBusy(input)
  if (shares === undefined || isOutOfBalance(input)) return idle
  const shareOf = (index: number) => shares[index] ?? 0
  return {
    // A load is far from 1e6, so a deployment with enough of the prompt goes first.
    scores: each(
      input,
      (index) => idle.scores[index]! + (shareOf(index) > cachedEnough ? shareOf(index) * 1e6 : 0),
      input.table.ids.length
    ),
    terms: (index) => ({ share: shareOf(index), load: loadOf(input, index) })
  }
}

/** A strategy: its documentation and its score. */
export interface Strategy {
  /** The rule by which it chooses, for the documentation and the configuration's schema. */
  readonly description: string
  readonly score: (input: ScoringInput) => Scored
}

/** All strategies by name. This table is the only place that lists them. */
export const strategies = {
  balanced: {
    description:
      "the highest sum of speed × 0.3, quality × 0.4, (1 − cost) × 0.3 and the match with the request's task × 1; `weights` changes them. The default",
    score: balanced
  },
  speed: {
    description: "the shortest expected time",
    score: speed
  },
  quality: {
    description: "the highest configured quality",
    score: quality
  },
  cost: {
    description:
      "the best quality per cost, with quality of at least 0.8 and a cost of at most 0.01 USD per request (`limits`)",
    score: cost
  },
  weighted: {
    description: "at random, by `weight`",
    score: weighted
  },
  "least-busy": {
    description: "the lowest load per slot",
    score: leastBusy
  },
  latency: {
    description: "the better of two drawn at random, by peak average latency × load",
    score: latency
  },
  "round-robin": {
    description: "each in turn, per model",
    score: roundRobin
  },
  session: {
    description:
      "the same deployment for a session, or for a tenant; adding or removing a deployment moves only its own sessions",
    score: session
  },
  prefix: {
    description: "the deployment that has most of the prompt cached, unless its load is much higher",
    score: prefix
  }
} as const satisfies Readonly<Record<string, Strategy>>

/** The name of a strategy. */
export type Name = keyof typeof strategies

/** The names of all strategies, in the order of the table. */
export const names = Object.keys(strategies) as [Name, ...Array<Name>]

/** Scores by the strategy of the options. */
export const score = (input: ScoringInput): Scored => {
  const { strategy } = input.options
  if (typeof strategy === "string") return strategies[strategy].score(input)
  const { conditions, moment, request, table } = input
  return single(input, strategy.name, (index) => {
    const value = strategy.score(table.facts[index]!, conditions[index]!, request, moment)
    return Number.isFinite(value) ? value : -Number.MAX_VALUE
  })
}

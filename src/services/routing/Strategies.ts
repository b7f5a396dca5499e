/**
 * The strategies: each gives a score to those who can take a request, higher is better, and tells what it is made of.
 *
 * **Details**
 *
 * `balanced`, `speed`, `quality` and `cost` score from 0 to 1 a term: speed is the shortest expected time over one's own,
 * quality as configured, cost one's own over the dearest; what is not known is 0.5. `latency` is the better of two drawn at
 * random ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher) by peak average of latency times load.
 * `session` is rendezvous hashing (Thaler and Ravishankar): of who comes or goes, only his own sessions move. `weighted`
 * draws the whole order without replacement (Efraimidis and Spirakis).
 */
import type { Condition } from "../../domain/DeploymentFacts.ts"
import { combine, draw, hashText } from "../../domain/Hashing.ts"
import type { Moment, RoutingRequest } from "../../domain/RoutingRequest.ts"
import { promptTokensOf, usualAnswer } from "../../domain/RoutingRequest.ts"
import type { Name, Options } from "../../domain/SelectionOptions.ts"
import * as Measurements from "../health/LatencyStats.ts"
import type { CandidateTable } from "./CandidateTable.ts"
import { costOf } from "./CandidateTable.ts"

/** Everything that a score may depend on. */
export interface ScoringInput {
  readonly table: CandidateTable
  readonly conditions: ReadonlyArray<Condition>
  readonly request: RoutingRequest
  readonly moment: Moment
  readonly options: Options
  readonly eligible: ArrayLike<number>
}

/** By index; only those of the eligible mean something. */
export interface Scored {
  readonly scores: Float64Array
  readonly terms: (index: number) => Readonly<Record<string, number>>
}

/** Neither good nor bad. */
const neutral = 0.5

/** What a free request counts as where something is divided by its cost: a tenth of a millionth of a USD. */
const leastCost = 1e-7

/** More than this of a prompt must be cached for it to draw a request (SGLang's cache-aware routing). */
const cachedEnough = 0.3

/** Loads are out of balance where they differ by more than both, in requests and as a ratio (likewise). */
const imbalance = { requests: 64, ratio: 1.5 }

const each = ({ eligible }: ScoringInput, scoreOf: (index: number) => number, size: number): Float64Array => {
  const scores = new Float64Array(size)
  for (let at = 0; at < eligible.length; at++) scores[eligible[at]!] = scoreOf(eligible[at]!)
  return scores
}

/** A score that is its only term. */
const single = (field: ScoringInput, name: string, scoreOf: (index: number) => number): Scored => {
  const scores = each(field, scoreOf, field.table.ids.length)
  return { scores, terms: (index) => ({ [name]: scores[index]! }) }
}

const loadOf = ({ conditions, table }: ScoringInput, index: number): number => {
  const { measured, queued } = conditions[index]!
  return (measured.inFlight + queued) / table.slots[index]!
}

/** From 0, not at all fast, to 1, the fastest; what is old or unknown comes nearer to neutral. */
const speeds = ({ conditions, eligible, moment, request }: ScoringInput): Float64Array => {
  const tokens = request.maxTokens ?? usualAnswer
  const speeds = new Float64Array(conditions.length)
  let shortest = Number.POSITIVE_INFINITY
  for (let at = 0; at < eligible.length; at++) {
    const ms = Measurements.expectedMs(conditions[eligible[at]!]!.measured, tokens) ?? Number.NaN
    if (ms < shortest) shortest = ms
    speeds[eligible[at]!] = ms
  }
  for (let at = 0; at < eligible.length; at++) {
    const index = eligible[at]!
    const ms = speeds[index]!
    const speed = ms > 0 ? shortest / ms : 1
    const confidence = Measurements.confidence(conditions[index]!.measured, moment.now)
    speeds[index] = Number.isNaN(ms) ? neutral : neutral + (speed - neutral) * confidence
  }
  return speeds
}

const qualityOf = ({ table }: ScoringInput, index: number): number => {
  const quality = table.quality[index]!
  return Number.isNaN(quality) ? neutral : quality
}

/** In USD; `NaN` where it is not known. */
const costs = (field: ScoringInput): Float64Array => {
  const { maxTokens = usualAnswer } = field.request
  const promptTokens = promptTokensOf(field.request)
  const usd = new Float64Array(field.table.ids.length)
  for (let at = 0; at < field.eligible.length; at++) {
    usd[field.eligible[at]!] = costOf(field.table, field.eligible[at]!, promptTokens, maxTokens)
  }
  return usd
}

/** From 0, free, to 1, the dearest. */
const relativeCosts = (field: ScoringInput): Float64Array => {
  const usd = costs(field)
  let dearest = 0
  for (const cost of usd) if (cost > dearest) dearest = cost
  // Where all are free, none costs more than another.
  const whole = dearest === 0 ? 1 : dearest
  for (let index = 0; index < usd.length; index++) {
    usd[index] = Number.isNaN(usd[index]!) ? neutral : usd[index]! / whole
  }
  return usd
}

const taskOf = ({ request: { route }, table }: ScoringInput, index: number): number => {
  const task = route?.task
  if (task === undefined) return 0
  const tasks = table.tasks[index]
  return tasks === undefined ? neutral : tasks.has(task) ? 1 : 0
}

const balanced = (field: ScoringInput): Scored => {
  const { weights } = field.options
  const speed = speeds(field)
  const cost = relativeCosts(field)
  const scores = new Float64Array(speed.length)
  for (let at = 0; at < field.eligible.length; at++) {
    const index = field.eligible[at]!
    scores[index] = speed[index]! * weights.speed + qualityOf(field, index) * weights.quality +
      (1 - cost[index]!) * weights.cost + taskOf(field, index) * weights.task
  }
  return {
    scores,
    terms: (index) => ({
      speed: speed[index]!,
      quality: qualityOf(field, index),
      cost: cost[index]!,
      ...(field.request.route?.task === undefined ? {} : { task: taskOf(field, index) })
    })
  }
}

/** The best quality for its cost. Who does not tell one of them stands at its limit: he is not ruled out, and not ahead. */
const cost = (field: ScoringInput): Scored => {
  const { limits } = field.options
  const usd = costs(field)
  const quality = (index: number) => {
    const known = field.table.quality[index]!
    return Number.isNaN(known) ? limits.quality : known
  }
  const costAt = (index: number) => Number.isNaN(usd[index]!) ? limits.cost : usd[index]!
  return {
    scores: each(field, (index) => quality(index) / Math.max(leastCost, costAt(index)), usd.length),
    terms: (index) => ({ quality: quality(index), cost: costAt(index) })
  }
}

/** The least first; of equals, one by chance. */
const leastBusy = (field: ScoringInput): Scored => ({
  scores: each(field, (index) => -loadOf(field, index) - draw(field.moment.seed, index) * 1e-9, field.table.ids.length),
  terms: (index) => ({ load: loadOf(field, index) })
})

/** What one more request there costs, ms. Who was never measured is tried, by one request at a time. */
const peakCost = (field: ScoringInput, index: number): number => {
  const { measured } = field.conditions[index]!
  if (measured.latencyMs === undefined) return measured.inFlight === 0 ? 0 : Number.MAX_SAFE_INTEGER
  const ms = measured.latencyMs * Measurements.confidence(measured, field.moment.now)
  return ms * (loadOf(field, index) + 1) / Math.max(0.01, 1 - measured.errorRate)
}

/** One of so many, and another. */
const twoOf = (count: number, seed: number): readonly [number, number] => {
  const first = Math.floor(draw(seed, 0) * count)
  const second = Math.floor(draw(seed, 1) * (count - 1))
  return [first, second >= first ? second + 1 : second]
}

/** The better of two, then the other, then the rest by what they cost. */
const latency = (field: ScoringInput): Scored => {
  const { eligible, moment } = field
  const scores = each(field, (index) => -peakCost(field, index), field.table.ids.length)
  const terms = (index: number) => ({ latency: peakCost(field, index) })
  if (eligible.length < 3) return { scores, terms }
  const [a, b] = twoOf(eligible.length, moment.seed).map((at) => eligible[at]!) as [number, number]
  const [winner, other] = scores[b]! > scores[a]! ? [b, a] : [a, b]
  scores[winner] = 2
  scores[other] = 1
  return { scores, terms }
}

const roundRobin = (field: ScoringInput): Scored => {
  const { moment: { turn }, eligible } = field
  const scores = new Float64Array(field.table.ids.length)
  for (let at = 0; at < eligible.length; at++) {
    const place = (at - turn % eligible.length + eligible.length) % eligible.length
    scores[eligible[at]!] = -place
  }
  return { scores, terms: (index) => ({ place: -scores[index]! }) }
}

/** Without a session, any. */
const session = (field: ScoringInput): Scored => {
  const { moment, request } = field
  const name = request.route?.session ?? request.tenant
  const key = name === undefined ? moment.seed : hashText(name)
  const { hash, weight } = field.table
  return single(field, "affinity", (index) => weight[index]! / -Math.log(draw(combine(key, hash[index]!), 0)))
}

const weighted = (field: ScoringInput): Scored =>
  single(field, "draw", (index) => Math.log(draw(field.moment.seed, index)) / field.table.weight[index]!)

const isOutOfBalance = (field: ScoringInput): boolean => {
  let most = 0
  let least = Number.POSITIVE_INFINITY
  for (let at = 0; at < field.eligible.length; at++) {
    const { measured, queued } = field.conditions[field.eligible[at]!]!
    most = Math.max(most, measured.inFlight + queued)
    least = Math.min(least, measured.inFlight + queued)
  }
  return most - least > imbalance.requests && most > least * imbalance.ratio
}

/** Whoever has most of the prompt, if it is enough and all are about as busy; else the least busy. */
const prefix = (field: ScoringInput): Scored => {
  const shares = field.moment.prefixShares
  const idle = leastBusy(field)
  if (shares === undefined || isOutOfBalance(field)) return idle
  const shareOf = (index: number) => shares[index] ?? 0
  return {
    // A load is far from 1e6, so who has enough goes before who has not.
    scores: each(
      field,
      (index) => idle.scores[index]! + (shareOf(index) > cachedEnough ? shareOf(index) * 1e6 : 0),
      field.table.ids.length
    ),
    terms: (index) => ({ share: shareOf(index), load: loadOf(field, index) })
  }
}

const strategies: Readonly<Record<Name, (field: ScoringInput) => Scored>> = {
  balanced,
  speed: (field) => {
    const speed = speeds(field)
    return { scores: speed, terms: (index) => ({ speed: speed[index]! }) }
  },
  quality: (field) => single(field, "quality", (index) => qualityOf(field, index)),
  cost,
  weighted,
  "least-busy": leastBusy,
  latency,
  "round-robin": roundRobin,
  session,
  prefix
}

/** Scores by the strategy of the options. */
export const score = (field: ScoringInput): Scored => {
  const { strategy } = field.options
  if (typeof strategy === "string") return strategies[strategy](field)
  const { conditions, moment, request, table } = field
  return single(field, strategy.name, (index) => {
    const value = strategy.score(table.facts[index]!, conditions[index]!, request, moment)
    return Number.isFinite(value) ? value : -Number.MAX_VALUE
  })
}

/**
 * Which of a model's deployments answers a request, and which are next. Pure policy over one snapshot.
 *
 * **Details**
 *
 * `decide` first excludes the deployments that cannot take the request or must not be called now, each with the reason,
 * then scores the others by the strategy and lists the best few in order. The same table, conditions, request and moment
 * give the same decision, which is plain data (`services/routing/DecisionRecord`).
 *
 * An unknown figure of a deployment (price, quality, context window, speed) is neutral: it excludes nothing and is named in
 * the decision. Where speed counts, a deployment that was never measured goes first now and then, while it is idle.
 *
 * A table is made once for each change of the registry (`CandidateTable.prepare`); conditions are read at each decision.
 *
 * **Example**
 *
 * ```ts
 * const table = prepare([
 *   { deployment: "small", price: { input: 0.1, output: 0.4 }, quality: 0.7 },
 *   { deployment: "large", price: { input: 2, output: 8 }, quality: 0.9 }
 * ])
 * const decision = Selection.decide(table, [ready, ready], {
 *   model: "chat", capabilities: [], promptTokens: 500
 * }, { ...defaults, strategy: "quality" }, { now: 0, seed: 1, turn: 0 })
 * decision.candidates[0].deployment // "large"
 * ```
 */
import type { CandidateTable } from "../../domain/CandidateTable.ts"
import { unknownOf } from "../../domain/CandidateTable.ts"
import type { Condition } from "../../domain/DeploymentFacts.ts"
import { draw } from "../../domain/Hashing.ts"
import type { Moment, RoutingRequest } from "../../domain/RoutingRequest.ts"
import type { Options } from "../../domain/SelectionOptions.ts"
import * as Strategies from "../../domain/Strategies.ts"
import type { Candidate, Decision } from "./DecisionRecord.ts"
import { filter } from "./Eligibility.ts"

const isSpilled = ({ queueFull, state }: Condition): boolean => queueFull || state === "loading"

/** The order of two: first the one that does not spill, then the higher score, then the first in the table. */
interface Ranking {
  readonly scores: Float64Array
  readonly behind: Uint8Array
}

const isBefore = ({ behind, scores }: Ranking, a: number, b: number): boolean => {
  if (behind[a] !== behind[b]) return behind[a]! < behind[b]!
  return scores[a] === scores[b] ? a < b : scores[a]! > scores[b]!
}

/** The best few, best first, without sorting the rest. */
const best = (eligible: ArrayLike<number>, keep: number, ranking: Ranking): Array<number> => {
  const top: Array<number> = []
  for (let at = 0; at < eligible.length; at++) {
    const index = eligible[at]!
    if (top.length === keep && !isBefore(ranking, index, top[keep - 1]!)) continue
    let place = top.length < keep ? top.length : keep - 1
    for (; place > 0 && isBefore(ranking, index, top[place - 1]!); place--) top[place] = top[place - 1]!
    top[place] = index
  }
  return top
}

/** An idle deployment that was never measured, if one is to be tried. */
const explored = (
  eligible: ArrayLike<number>,
  conditions: ReadonlyArray<Condition>,
  { exploration, strategy }: Options,
  seed: number
): number | undefined => {
  if (strategy !== "balanced" && strategy !== "speed") return undefined
  if (draw(seed, -1) >= exploration) return undefined
  const untried: Array<number> = []
  for (let at = 0; at < eligible.length; at++) {
    const index = eligible[at]!
    const { measured } = conditions[index]!
    if (measured.samples === 0 && measured.inFlight === 0 && !isSpilled(conditions[index]!)) untried.push(index)
  }
  return untried[Math.floor(draw(seed, -2) * untried.length)]
}

/** The deployments that come after the others; none where all would. */
const spilledOf = (eligible: ArrayLike<number>, conditions: ReadonlyArray<Condition>, { spill }: Options) => {
  const spilled: Array<number> = []
  if (!spill) return spilled
  for (let at = 0; at < eligible.length; at++) if (isSpilled(conditions[eligible[at]!]!)) spilled.push(eligible[at]!)
  return spilled.length === eligible.length ? [] : spilled
}

/** The order in which to try them: the best few, after the one that is explored. */
const rank = (
  eligible: ArrayLike<number>,
  scores: Float64Array,
  conditions: ReadonlyArray<Condition>,
  options: Options,
  seed: number
) => {
  const behind = new Uint8Array(conditions.length)
  const spilled = spilledOf(eligible, conditions, options)
  for (const index of spilled) behind[index] = 1
  const top = best(eligible, options.keep, { scores, behind })
  const first = explored(eligible, conditions, options, seed)
  if (first === undefined || first === top[0]) return { order: top, isExplored: false, spilled }
  const order = [first, ...top.filter((index) => index !== first)].slice(0, options.keep)
  return { order, isExplored: true, spilled }
}

/** The candidates in order, best first; none where all are excluded. */
export const decide = (
  table: CandidateTable,
  conditions: ReadonlyArray<Condition>,
  request: RoutingRequest,
  options: Options,
  moment: Moment
): Decision => {
  const { eligible, excluded, missing, retryAfterMs } = filter(table, conditions, request, options)
  const { scores, terms } = Strategies.score({ table, conditions, request, options, moment, eligible })
  const { isExplored, order, spilled } = rank(eligible, scores, conditions, options, moment.seed)
  return {
    model: request.model,
    strategy: typeof options.strategy === "string" ? options.strategy : options.strategy.name,
    candidates: order.map((index): Candidate => ({
      deployment: table.ids[index]!,
      // -0 is no JSON.
      score: scores[index]! + 0,
      terms: terms(index),
      unknown: unknownOf(table, index, conditions[index]!.measured)
    })),
    eligible: eligible.length,
    excluded,
    ...(isExplored ? { explored: true } : {}),
    ...(spilled.length === 0 ? {} : { spilled: spilled.map((index) => table.ids[index]!) }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(missing === undefined ? {} : { missing })
  }
}

/**
 * Which of a model's deployments answers a request, and which are next. Pure policy over one snapshot.
 *
 * **Details**
 *
 * `decide` first excludes the deployments that cannot take the request or must not be called now, each with the reason,
 * then scores the others by the strategy and lists the best few in order. The same table, conditions, request and moment
 * give the same decision, which is plain data (`services/routing/DecisionRecord`).
 *
 * An unknown figure of a deployment (price, quality, context window, speed) is neutral: it excludes nothing and is
 * named in the decision. If speed counts, an idle deployment without measurements sometimes goes first.
 *
 * A table is made once for each change of the registry (`DeploymentFacts.prepare`); conditions are read at each decision.
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
import type { CandidateTable, Condition } from "../../domain/DeploymentFacts.ts"
import { capabilityNames, engineCapabilities } from "../../domain/EngineProtocol.ts"
import { draw } from "../../domain/Hashing.ts"
import type { Exclusion } from "../../domain/InferenceError.ts"
import type { Measurement } from "../../domain/Measurement.ts"
import type { Moment, RequiredCapability, RoutingRequest, Split } from "../../domain/RoutingRequest.ts"
import { bitsOf, promptTokensOf, usualAnswer } from "../../domain/RoutingRequest.ts"
import type { Options } from "../../domain/SelectionOptions.ts"
import * as Strategies from "../../domain/Strategies.ts"
import type { Candidate, Decision } from "./DecisionRecord.ts"

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** The eligible deployments, by index, and the excluded ones. */
interface Filtered {
  readonly eligible: ReadonlyArray<number>
  readonly excluded: ReadonlyArray<Exclusion>
  /** ms until the first deployment that is excluded for a time may be called. */
  readonly retryAfterMs: number | undefined
  /** The capabilities that exclude every selected deployment; undefined where another reason excludes one. */
  readonly missing: ReadonlyArray<RequiredCapability> | undefined
}

/** One request, and the data that it is compared with. */
interface Inquiry {
  readonly table: CandidateTable
  readonly request: RoutingRequest
  readonly options: Options
  /** The required capabilities, as bits. */
  readonly required: number
  readonly only: ReadonlySet<string> | undefined
  readonly except: ReadonlySet<string> | undefined
  readonly split: Split | undefined
}

const money = (usd: number): string => `${usd.toPrecision(3)} USD`

/** Why a limit of `cost` excludes it; an unknown figure excludes nothing. */
const beyondLimits = ({ options: { limits }, request, table }: Inquiry, index: number): string | undefined => {
  const quality = table.quality[index]!
  if (quality < limits.quality) return `its quality of ${quality} is below the limit of ${limits.quality}`
  const cost = Strategies.costOf(table, index, promptTokensOf(request), request.maxTokens ?? usualAnswer)
  return cost > limits.cost
    ? `the request would cost about ${money(cost)}, above the limit of ${money(limits.cost)}`
    : undefined
}

const missingOf = ({ request, table }: Inquiry, index: number): ReadonlyArray<RequiredCapability> =>
  request.capabilities.filter((capability) => (table.capabilities[index]! & bitsOf([capability])) === 0)

/** What a model is for; it has the other capabilities in addition. */
const tasks = ["generate", "embed", "rerank", "classify", "tokenize"] as const

const listOf = (words: ReadonlyArray<string>): string => words.join(", ").replace(/, ([^,]*)$/, " and $1")

/** What a deployment is for, where it does not do what a request asks of it: ", only embeddings and tokenization". */
const insteadOf = ({ table }: Inquiry, index: number, missing: ReadonlyArray<RequiredCapability>): string => {
  if (!tasks.some((task) => missing.includes(task))) return ""
  const found = tasks.filter((task) => (table.capabilities[index]! & bitsOf([task])) !== 0)
  return found.length === 0 ? "" : `, only ${listOf(found.map((task) => capabilityNames[task]))}`
}

const notSupported = (inquiry: Inquiry, index: number): string => {
  const missing = missingOf(inquiry, index)
  const inWords = [
    ...engineCapabilities.filter((capability) => missing.includes(capability)).map((capability) =>
      capabilityNames[capability]
    ),
    ...(missing.includes("count") ? ["token counting"] : [])
  ]
  const [need] = missing.includes("responses fields") ? inquiry.request.source?.responses?.needs ?? [] : []
  if (need !== undefined) return `it has no Responses API, which the request needs for ${need.path}`
  return inWords.length === 0
    ? "it does not accept unknown request fields"
    : `it does not support ${inWords.join(" or ")}${insteadOf(inquiry, index, missing)}`
}

const tooSmall = ({ request: { promptTokens }, table }: Inquiry, index: number): string | undefined => {
  const window = table.contextWindow[index]!
  return promptTokens !== undefined && promptTokens >= window
    ? `its context window of ${window} tokens is too small for a prompt of at least ${promptTokens} tokens`
    : undefined
}

/** A request that names a deployment reaches it in every state of a rollout. */
const isWithheld = ({ only, split, table }: Inquiry, index: number): boolean =>
  split !== undefined && only === undefined && split.withheld.has(table.ids[index]!)

const withheldReason = ({ split, table }: Inquiry, index: number): string =>
  split?.copied === table.ids[index] ? "it gets copies of requests only (shadow)" : "its rollout gives it no requests"

const notSelected = (inquiry: Inquiry, index: number): string | undefined => {
  const { except, only, options, table } = inquiry
  if (isWithheld(inquiry, index)) return withheldReason(inquiry, index)
  if (only !== undefined && !only.has(table.ids[index]!)) return "the request selects other deployments"
  if (except !== undefined && except.has(table.ids[index]!)) return "the request excludes it"
  if (options.strategy === "weighted" && table.weight[index] === 0) return "its weight is 0"
  return undefined
}

const reasonOf = (inquiry: Inquiry, index: number): string | undefined =>
  notSelected(inquiry, index) ??
    ((inquiry.table.capabilities[index]! & inquiry.required) === inquiry.required
      ? undefined
      : notSupported(inquiry, index)) ??
    tooSmall(inquiry, index) ??
    (inquiry.options.strategy === "cost" ? beyondLimits(inquiry, index) : undefined)

const missingEverywhere = (inquiry: Inquiry): ReadonlyArray<RequiredCapability> | undefined => {
  const all = new Set<RequiredCapability>()
  for (let index = 0; index < inquiry.table.ids.length; index++) {
    if (notSelected(inquiry, index) !== undefined) continue
    const missing = missingOf(inquiry, index)
    if (missing.length === 0) return undefined
    for (const capability of missing) all.add(capability)
  }
  return all.size === 0 ? undefined : [...all]
}

const setOf = (list: ReadonlyArray<string> | undefined) => list && new Set(list)

const inquire = (table: CandidateTable, request: RoutingRequest, options: Options, split?: Split): Inquiry => ({
  table,
  split,
  request,
  options,
  required: bitsOf(request.capabilities),
  only: setOf(request.route?.deployments),
  except: setOf(request.route?.except)
})

/** Whether the prompt's estimated length counts. */
const isEstimated = ({ capabilities, promptLength }: RoutingRequest): boolean =>
  promptLength !== undefined && capabilities.includes("generate")

/** A deployment that the request and the strategy select. */
export interface Selected {
  readonly index: number
  /** Whether it has the capability. */
  readonly has: boolean
  /** Whether it could take the request without the capability, as far as its condition does not matter. */
  readonly takesOthers: boolean
}

/** The deployments that the request and the strategy select, in view of one capability. */
export const selected = (
  table: CandidateTable,
  capability: RequiredCapability,
  request: RoutingRequest,
  options: Options
): ReadonlyArray<Selected> => {
  const inquiry = inquire(table, request, options)
  const bit = bitsOf([capability])
  const others = { ...inquiry, required: inquiry.required & ~bit }
  const promptTokens = isEstimated(request) ? promptTokensOf(request) : 0
  const fits = (index: number) => !(promptTokens >= table.contextWindow[index]!)
  const able = table.rows.filter((index) => reasonOf(others, index) === undefined)
  // As in `withRoom`: an estimate does not exclude all.
  const takes = (index: number) => able.includes(index) && (fits(index) || !able.some(fits))
  return table.ids.flatMap((_, index) =>
    notSelected(inquiry, index) === undefined
      ? [{ index, has: (table.capabilities[index]! & bit) !== 0, takesOthers: takes(index) }]
      : []
  )
}

/**
 * Excludes the deployments whose context window is smaller than the prompt's estimated length, if another one remains: an
 * estimate must not exclude them all.
 */
const withRoom = ({ request, table }: Inquiry, filtered: Filtered): Filtered => {
  const { eligible, excluded } = filtered
  if (!isEstimated(request)) return filtered
  const promptTokens = promptTokensOf(request)
  let tooSmall = 0
  for (const index of eligible) if (promptTokens >= table.contextWindow[index]!) tooSmall++
  if (tooSmall === 0 || tooSmall === eligible.length) return filtered
  const isTooSmall = (index: number) => promptTokens >= table.contextWindow[index]!
  const exclusionOf = (index: number): Exclusion => ({
    deployment: table.ids[index]!,
    reason: `its context window of ${table
      .contextWindow[index]!} tokens is too small for a prompt of about ${promptTokens} tokens`
  })
  return {
    ...filtered,
    eligible: eligible.filter((index) => !isTooSmall(index)),
    excluded: [...excluded, ...eligible.filter(isTooSmall).map(exclusionOf)]
  }
}

const drainedReason = "drained by an operator"

/** Why it is excluded; undefined: it is eligible. The wait helps only if nothing else excludes it. */
const exclusionOf = (inquiry: Inquiry, index: number, { closed, isDrained }: Condition): Exclusion | undefined => {
  const reason = reasonOf(inquiry, index) ?? (isDrained === true ? drainedReason : undefined)
  const deployment = inquiry.table.ids[index]!
  return reason === undefined ? closed && { deployment, ...closed } : { deployment, reason }
}

const firstFree = (excluded: ReadonlyArray<Exclusion>): number | undefined => {
  let first: number | undefined
  for (const { retryAfterMs } of excluded) {
    if (retryAfterMs !== undefined && (first === undefined || retryAfterMs < first)) first = retryAfterMs
  }
  return first
}

const noneExcluded: ReadonlyArray<Exclusion> = []

/** Decides about each deployment once. */
const divide = (inquiry: Inquiry, conditions: ReadonlyArray<Condition>): Pick<Filtered, "eligible" | "excluded"> => {
  const { rows } = inquiry.table
  /** Undefined while none is excluded. */
  let eligible: Array<number> | undefined
  let excluded: Array<Exclusion> | undefined
  for (const index of rows) {
    const exclusion = exclusionOf(inquiry, index, conditions[index]!)
    if (exclusion === undefined) {
      eligible?.push(index)
      continue
    }
    eligible ??= rows.slice(0, index)
    ;(excluded ??= []).push(exclusion)
  }
  return { eligible: eligible ?? rows, excluded: excluded ?? noneExcluded }
}

const filter = (inquiry: Inquiry, conditions: ReadonlyArray<Condition>): Filtered => {
  const { eligible, excluded } = divide(inquiry, conditions)
  return withRoom(inquiry, {
    eligible,
    excluded,
    retryAfterMs: firstFree(excluded),
    missing: eligible.length === 0 ? missingEverywhere(inquiry) : undefined
  })
}

const isSpilled = ({ queueFull, state }: Condition): boolean => queueFull || state === "loading"

/** The order of two: first the one that does not spill, then the higher score, then the first in the table. */
interface Ranking {
  readonly scores: ReadonlyArray<number>
  /** Those that come after the others, if any. */
  readonly behind: ReadonlySet<number> | undefined
}

const isBefore = ({ behind, scores }: Ranking, a: number, b: number): boolean => {
  if (behind !== undefined && behind.has(a) !== behind.has(b)) return behind.has(b)
  return scores[a] === scores[b] ? a < b : scores[a]! > scores[b]!
}

/** The best few, best first, without sorting the rest. */
const best = (eligible: ReadonlyArray<number>, keep: number, ranking: Ranking): ReadonlyArray<number> => {
  if (eligible.length === 1 && keep > 0) return eligible
  const top: Array<number> = []
  for (const index of eligible) {
    if (top.length === keep && !isBefore(ranking, index, top[keep - 1]!)) continue
    let place = top.length < keep ? top.length : keep - 1
    for (; place > 0 && isBefore(ranking, index, top[place - 1]!); place--) top[place] = top[place - 1]!
    top[place] = index
  }
  return top
}

/** An idle deployment that was never measured, if one is to be tried. */
const explored = (
  eligible: ReadonlyArray<number>,
  conditions: ReadonlyArray<Condition>,
  { exploration, strategy }: Options,
  seed: number
): number | undefined => {
  if (eligible.length < 2 || (strategy !== "balanced" && strategy !== "speed")) return undefined
  if (draw(seed, -1) >= exploration) return undefined
  const untried = eligible.filter((index) => {
    const { measured } = conditions[index]!
    return measured.samples === 0 && measured.inFlight === 0 && !isSpilled(conditions[index]!)
  })
  return untried[Math.floor(draw(seed, -2) * untried.length)]
}

const noneSpilled: ReadonlyArray<number> = []

/** The deployments that come after the others; none if that is all of them. */
const spilledOf = (
  eligible: ReadonlyArray<number>,
  conditions: ReadonlyArray<Condition>,
  { spill }: Options
): ReadonlyArray<number> => {
  if (!spill) return noneSpilled
  let count = 0
  for (const index of eligible) if (isSpilled(conditions[index]!)) count++
  return count === 0 || count === eligible.length
    ? noneSpilled
    : eligible.filter((index) => isSpilled(conditions[index]!))
}

/** The version of a rollout that takes the request before the others, or its new version after them. */
const rankSplit = (
  one: number,
  isFirst: boolean,
  eligible: ReadonlyArray<number>,
  spilled: ReadonlyArray<number>,
  scores: ReadonlyArray<number>,
  keep: number
): ReadonlyArray<number> => {
  const others = eligible.filter((index) => index !== one)
  const order = best(others, Math.max(1, keep - 1), { scores, behind: new Set(spilled) })
  return isFirst && !spilled.includes(one) ? [one, ...order] : [...order, one]
}

/** The order in which to try them: the best few, after the one that is explored. */
const rank = (
  table: CandidateTable,
  eligible: ReadonlyArray<number>,
  scores: ReadonlyArray<number>,
  conditions: ReadonlyArray<Condition>,
  options: Options,
  { seed, split }: Moment
) => {
  const spilled = spilledOf(eligible, conditions, options)
  const one = split && eligible.find((index) => table.ids[index] === (split.first ?? split.last))
  if (one !== undefined) {
    const order = rankSplit(one, split?.first !== undefined, eligible, spilled, scores, options.keep)
    return { order, isExplored: false, spilled }
  }
  const behind = spilled.length === 0 ? undefined : new Set(spilled)
  const top = best(eligible, options.keep, { scores, behind })
  const first = explored(eligible, conditions, options, seed)
  if (first === undefined || first === top[0]) return { order: top, isExplored: false, spilled }
  const order = [first, ...top.filter((index) => index !== first)].slice(0, options.keep)
  return { order, isExplored: true, spilled }
}

/** The names of its unknown figures. */
const unknownOf = ({ unknown }: CandidateTable, index: number, { samples }: Measurement): ReadonlyArray<string> =>
  samples === 0 ? [...unknown[index]!, "speed"] : unknown[index]!

/** The candidates in order, best first; none where all are excluded. */
export const decide = (
  table: CandidateTable,
  conditions: ReadonlyArray<Condition>,
  request: RoutingRequest,
  options: Options,
  moment: Moment
): Decision => {
  const { eligible, excluded, missing, retryAfterMs } = filter(
    inquire(table, request, options, moment.split),
    conditions
  )
  const { scores, terms } = Strategies.score({ table, conditions, request, options, moment, eligible })
  const { isExplored, order, spilled } = rank(table, eligible, scores, conditions, options, moment)
  const decision: Mutable<Decision> = {
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
    excluded
  }
  if (isExplored) decision.explored = true
  if (spilled.length > 0) decision.spilled = spilled.map((index) => table.ids[index]!)
  if (retryAfterMs !== undefined) decision.retryAfterMs = retryAfterMs
  if (missing !== undefined) decision.missing = missing
  return decision
}

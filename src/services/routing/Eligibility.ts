/** Who can take a request, and who cannot, with why in words. */
import { abilities, abilityInWords } from "../../domain/EngineProtocol.ts"
import type { Asked, Condition, Options, RequiredCapability } from "../../domain/SelectionInput.ts"
import { promptTokensOf, usualAnswer } from "../../domain/SelectionInput.ts"
import type { CandidateTable } from "./CandidateTable.ts"
import { bitsOf, costOf } from "./CandidateTable.ts"
import type { Excluded } from "./DecisionRecord.ts"

/** Who is left, by index, and who is not. */
export interface Filtered {
  readonly eligible: Int32Array
  readonly excluded: ReadonlyArray<Excluded>
  readonly retryAfterMs: number | undefined
  /** What every one that is wanted lacks something of, where that alone leaves nobody. */
  readonly missing: ReadonlyArray<RequiredCapability> | undefined
}

interface Inquiry {
  readonly table: CandidateTable
  readonly asked: Asked
  readonly options: Options
  /** The abilities that are needed, as bits. */
  readonly needs: number
  readonly only: ReadonlySet<string> | undefined
  readonly except: ReadonlySet<string> | undefined
}

const money = (usd: number): string => `${usd.toPrecision(3)} USD`

/** Why its limits keep it from `cost`; what is not known keeps nobody. */
const beyondLimits = ({ asked, options: { limits }, table }: Inquiry, index: number): string | undefined => {
  const quality = table.quality[index]!
  if (quality < limits.quality) return `its quality of ${quality} is below the limit of ${limits.quality}`
  const cost = costOf(table, index, promptTokensOf(asked), asked.maxTokens ?? usualAnswer)
  return cost > limits.cost
    ? `the request would cost about ${money(cost)} there, and the limit is ${money(limits.cost)}`
    : undefined
}

const missingOf = ({ asked, table }: Inquiry, index: number): ReadonlyArray<RequiredCapability> =>
  asked.capabilities.filter((need) => (table.capabilities[index]! & bitsOf([need])) === 0)

const whyMissing = (missing: ReadonlyArray<RequiredCapability>): string => {
  const lacked = [
    ...abilities.filter((ability) => missing.includes(ability)).map((ability) => abilityInWords[ability]),
    ...(missing.includes("count") ? ["token counting"] : [])
  ]
  return lacked.length === 0
    ? "it does not accept unknown request fields"
    : `it does not support ${lacked.join(" or ")}`
}

const tooSmall = ({ asked: { promptTokens }, table }: Inquiry, index: number): string | undefined => {
  const window = table.contextWindow[index]!
  return promptTokens !== undefined && promptTokens >= window
    ? `its context window of ${window} tokens is too small for a prompt of at least ${promptTokens}`
    : undefined
}

const notWanted = ({ except, only, options, table }: Inquiry, index: number): string | undefined => {
  if (only !== undefined && !only.has(table.ids[index]!)) return "the request names others"
  if (except !== undefined && except.has(table.ids[index]!)) return "the request excludes it"
  if (options.strategy === "weighted" && table.weight[index] === 0) return "its weight is 0"
  return undefined
}

const whyNot = (inquiry: Inquiry, index: number): string | undefined =>
  notWanted(inquiry, index) ??
    ((inquiry.table.capabilities[index]! & inquiry.needs) === inquiry.needs
      ? undefined
      : whyMissing(missingOf(inquiry, index))) ??
    tooSmall(inquiry, index) ??
    (inquiry.options.strategy === "cost" ? beyondLimits(inquiry, index) : undefined)

const missingOfAll = (inquiry: Inquiry): ReadonlyArray<RequiredCapability> | undefined => {
  const all = new Set<RequiredCapability>()
  for (let index = 0; index < inquiry.table.ids.length; index++) {
    if (notWanted(inquiry, index) !== undefined) continue
    const missing = missingOf(inquiry, index)
    if (missing.length === 0) return undefined
    for (const capability of missing) all.add(capability)
  }
  return all.size === 0 ? undefined : [...all]
}

const setOf = (list: ReadonlyArray<string> | undefined) => list && new Set(list)

const inquire = (table: CandidateTable, asked: Asked, options: Options): Inquiry => ({
  table,
  asked,
  options,
  needs: bitsOf(asked.capabilities),
  only: setOf(asked.only),
  except: setOf(asked.except)
})

/** Deployments that the request and the strategy admit, by index, and whether each has what is needed. */
export const wanted = (
  table: CandidateTable,
  need: RequiredCapability,
  asked: Asked,
  options: Options
): ReadonlyArray<{ readonly index: number; readonly has: boolean }> => {
  const inquiry = inquire(table, asked, options)
  const bit = bitsOf([need])
  return table.ids.flatMap((_, index) =>
    notWanted(inquiry, index) === undefined ? [{ index, has: (table.capabilities[index]! & bit) !== 0 }] : []
  )
}

/** Goes through all of them once. */
export const filter = (
  table: CandidateTable,
  conditions: ReadonlyArray<Condition>,
  asked: Asked,
  options: Options
): Filtered => {
  const inquiry = inquire(table, asked, options)
  const eligible = new Int32Array(table.ids.length)
  const excluded: Array<Excluded> = []
  let count = 0
  let retryAfterMs: number | undefined
  for (let index = 0; index < table.ids.length; index++) {
    const { closed } = conditions[index]!
    const reason = whyNot(inquiry, index) ?? closed?.reason
    if (reason === undefined) {
      eligible[count++] = index
      continue
    }
    excluded.push({ deployment: table.ids[index]!, reason })
    // Of use only where nothing else is in the way.
    if (closed !== undefined && reason === closed.reason) {
      retryAfterMs = Math.min(retryAfterMs ?? Number.POSITIVE_INFINITY, closed.retryAfterMs)
    }
  }
  const missing = count === 0 ? missingOfAll(inquiry) : undefined
  return { eligible: eligible.subarray(0, count), excluded, retryAfterMs, missing }
}

/** Which deployments can take a request, and the reason why each of the others cannot. Pure. */
import type { CandidateTable } from "../../domain/CandidateTable.ts"
import { bitsOf, costOf } from "../../domain/CandidateTable.ts"
import type { Condition } from "../../domain/DeploymentFacts.ts"
import { abilities, abilityInWords } from "../../domain/EngineProtocol.ts"
import type { RequiredCapability, RoutingRequest } from "../../domain/RoutingRequest.ts"
import { promptTokensOf, usualAnswer } from "../../domain/RoutingRequest.ts"
import type { Options } from "../../domain/SelectionOptions.ts"
import type { Excluded } from "./DecisionRecord.ts"

/** The eligible deployments, by index, and the excluded ones. */
export interface Filtered {
  readonly eligible: Int32Array
  readonly excluded: ReadonlyArray<Excluded>
  /** ms until the first deployment that is excluded for a time may be called. */
  readonly retryAfterMs: number | undefined
  /** The capabilities that exclude every selected deployment; undefined where another reason excludes one. */
  readonly missing: ReadonlyArray<RequiredCapability> | undefined
}

/** One request and what it is compared with. */
interface Inquiry {
  readonly table: CandidateTable
  readonly request: RoutingRequest
  readonly options: Options
  /** The required capabilities, as bits. */
  readonly required: number
  readonly only: ReadonlySet<string> | undefined
  readonly except: ReadonlySet<string> | undefined
}

const money = (usd: number): string => `${usd.toPrecision(3)} USD`

/** Why a limit of `cost` excludes it; an unknown figure excludes nothing. */
const beyondLimits = ({ options: { limits }, request, table }: Inquiry, index: number): string | undefined => {
  const quality = table.quality[index]!
  if (quality < limits.quality) return `its quality of ${quality} is below the limit of ${limits.quality}`
  const cost = costOf(table, index, promptTokensOf(request), request.maxTokens ?? usualAnswer)
  return cost > limits.cost
    ? `the request would cost about ${money(cost)}, above the limit of ${money(limits.cost)}`
    : undefined
}

const missingOf = ({ request, table }: Inquiry, index: number): ReadonlyArray<RequiredCapability> =>
  request.capabilities.filter((capability) => (table.capabilities[index]! & bitsOf([capability])) === 0)

const notSupported = (missing: ReadonlyArray<RequiredCapability>): string => {
  const inWords = [
    ...abilities.filter((ability) => missing.includes(ability)).map((ability) => abilityInWords[ability]),
    ...(missing.includes("count") ? ["token counting"] : [])
  ]
  return inWords.length === 0
    ? "it does not accept unknown request fields"
    : `it does not support ${inWords.join(" or ")}`
}

const tooSmall = ({ request: { promptTokens }, table }: Inquiry, index: number): string | undefined => {
  const window = table.contextWindow[index]!
  return promptTokens !== undefined && promptTokens >= window
    ? `its context window of ${window} tokens is too small for a prompt of at least ${promptTokens} tokens`
    : undefined
}

const notSelected = ({ except, only, options, table }: Inquiry, index: number): string | undefined => {
  if (only !== undefined && !only.has(table.ids[index]!)) return "the request selects other deployments"
  if (except !== undefined && except.has(table.ids[index]!)) return "the request excludes it"
  if (options.strategy === "weighted" && table.weight[index] === 0) return "its weight is 0"
  return undefined
}

const reasonOf = (inquiry: Inquiry, index: number): string | undefined =>
  notSelected(inquiry, index) ??
    ((inquiry.table.capabilities[index]! & inquiry.required) === inquiry.required
      ? undefined
      : notSupported(missingOf(inquiry, index))) ??
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

const inquire = (table: CandidateTable, request: RoutingRequest, options: Options): Inquiry => ({
  table,
  request,
  options,
  required: bitsOf(request.capabilities),
  only: setOf(request.route?.deployments),
  except: setOf(request.route?.except)
})

/** The deployments that the request and the strategy select, by index, and whether each has the capability. */
export const selected = (
  table: CandidateTable,
  capability: RequiredCapability,
  request: RoutingRequest,
  options: Options
): ReadonlyArray<{ readonly index: number; readonly has: boolean }> => {
  const inquiry = inquire(table, request, options)
  const bit = bitsOf([capability])
  return table.ids.flatMap((_, index) =>
    notSelected(inquiry, index) === undefined ? [{ index, has: (table.capabilities[index]! & bit) !== 0 }] : []
  )
}

/** Looks at each deployment once. */
export const filter = (
  table: CandidateTable,
  conditions: ReadonlyArray<Condition>,
  request: RoutingRequest,
  options: Options
): Filtered => {
  const inquiry = inquire(table, request, options)
  const eligible = new Int32Array(table.ids.length)
  const excluded: Array<Excluded> = []
  let count = 0
  let retryAfterMs: number | undefined
  for (let index = 0; index < table.ids.length; index++) {
    const { closed } = conditions[index]!
    const reason = reasonOf(inquiry, index) ?? closed?.reason
    if (reason === undefined) {
      eligible[count++] = index
      continue
    }
    excluded.push({ deployment: table.ids[index]!, reason })
    // The wait helps only where nothing else excludes the deployment.
    if (closed !== undefined && reason === closed.reason) {
      retryAfterMs = Math.min(retryAfterMs ?? Number.POSITIVE_INFINITY, closed.retryAfterMs)
    }
  }
  const missing = count === 0 ? missingEverywhere(inquiry) : undefined
  return { eligible: eligible.subarray(0, count), excluded, retryAfterMs, missing }
}

/** What is known of deployments for good, laid out in columns: made once for each change of the registry. */
import type { DeploymentFacts } from "./DeploymentFacts.ts"
import { hashText } from "./Hashing.ts"
import type { Measurement } from "./Measurement.ts"
import type { RequiredCapability } from "./RoutingRequest.ts"
import { requiredCapabilities } from "./RoutingRequest.ts"
import * as Source from "./Source.ts"

/** The same of many; a number that is not known is `NaN`. */
export interface CandidateTable {
  readonly facts: ReadonlyArray<DeploymentFacts>
  readonly ids: ReadonlyArray<string>
  readonly inputPrice: Float64Array
  readonly outputPrice: Float64Array
  readonly quality: Float64Array
  readonly contextWindow: Float64Array
  readonly weight: Float64Array
  readonly slots: Float64Array
  /** Of the id. */
  readonly hash: Uint32Array
  /** And words, as bits; all of them where it does not say. */
  readonly capabilities: Int32Array
  readonly tasks: ReadonlyArray<ReadonlySet<string> | undefined>
}

/** One bit each. */
export const bitsOf = (some: ReadonlyArray<RequiredCapability>): number =>
  some.reduce((bits, need) => bits | 1 << requiredCapabilities.indexOf(need), 0)

/** A list of abilities says nothing of what is no ability. */
const others: ReadonlyArray<RequiredCapability> = ["count", ...Source.needs]

const capabilityBits = ({ capabilities, missing = [] }: DeploymentFacts): number =>
  (capabilities === undefined ? -1 : bitsOf([...capabilities, ...others])) & ~bitsOf(missing)

export const prepare = (facts: ReadonlyArray<DeploymentFacts>): CandidateTable => {
  const column = (of: (one: DeploymentFacts) => number | undefined) =>
    Float64Array.from(facts, (one) => of(one) ?? Number.NaN)
  return {
    facts,
    ids: facts.map(({ deployment }) => deployment),
    inputPrice: column(({ price }) => price?.input),
    outputPrice: column(({ price }) => price?.output),
    quality: column(({ quality }) => quality),
    contextWindow: column(({ contextWindow }) => contextWindow),
    weight: column(({ weight = 1 }) => weight),
    slots: column(({ slots = 1 }) => slots),
    hash: Uint32Array.from(facts, ({ deployment }) => hashText(deployment)),
    capabilities: Int32Array.from(facts, capabilityBits),
    tasks: facts.map(({ tasks }) => tasks && new Set(tasks))
  }
}

/** What a request costs there, USD; `NaN` where the price is not known. */
export const costOf = (table: CandidateTable, index: number, promptTokens: number, answerTokens: number): number =>
  (table.inputPrice[index]! * promptTokens + table.outputPrice[index]! * answerTokens) / 1e6

/** What is not known of it, by name. */
export const unknownOf = (table: CandidateTable, index: number, measured: Measurement): ReadonlyArray<string> => {
  const unknown: Array<string> = []
  if (Number.isNaN(table.inputPrice[index]!)) unknown.push("price")
  if (Number.isNaN(table.quality[index]!)) unknown.push("quality")
  if (Number.isNaN(table.contextWindow[index]!)) unknown.push("contextWindow")
  if (measured.samples === 0) unknown.push("speed")
  return unknown
}

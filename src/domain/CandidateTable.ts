/** The facts of a model's deployments as columns, made once for each change of the registry. */
import type { DeploymentFacts } from "./DeploymentFacts.ts"
import { hashText } from "./Hashing.ts"
import type { Measurement } from "./Measurement.ts"
import type { RequiredCapability } from "./RoutingRequest.ts"
import { requiredCapabilities } from "./RoutingRequest.ts"
import * as Source from "./Source.ts"

/** A row for each deployment; an unknown number is `NaN`. */
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
  /** As bits; all of them where the facts do not list any. */
  readonly capabilities: Int32Array
  readonly tasks: ReadonlyArray<ReadonlySet<string> | undefined>
}

/** One bit each. */
export const bitsOf = (some: ReadonlyArray<RequiredCapability>): number =>
  some.reduce((bits, need) => bits | 1 << requiredCapabilities.indexOf(need), 0)

/** A list of abilities leaves these capabilities open. */
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

/** The cost of a request, USD; `NaN` where the price is not known. */
export const costOf = (table: CandidateTable, index: number, promptTokens: number, answerTokens: number): number =>
  (table.inputPrice[index]! * promptTokens + table.outputPrice[index]! * answerTokens) / 1e6

/** The names of its unknown figures. */
export const unknownOf = (table: CandidateTable, index: number, measured: Measurement): ReadonlyArray<string> => {
  const unknown: Array<string> = []
  if (Number.isNaN(table.inputPrice[index]!)) unknown.push("price")
  if (Number.isNaN(table.quality[index]!)) unknown.push("quality")
  if (Number.isNaN(table.contextWindow[index]!)) unknown.push("contextWindow")
  if (measured.samples === 0) unknown.push("speed")
  return unknown
}

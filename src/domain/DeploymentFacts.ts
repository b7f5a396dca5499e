/**
 * Data about deployments that the router decides by: facts, which are constant, also as the columns of a table; and the
 * condition of a deployment at the moment.
 */
import type { EngineCapability } from "./EngineProtocol.ts"
import { hashText } from "./Hashing.ts"
import type { Measurement } from "./Measurement.ts"
import { unmeasured } from "./Measurement.ts"
import type { RequiredCapability } from "./RoutingRequest.ts"
import { bitsOf } from "./RoutingRequest.ts"
import * as Source from "./Source.ts"

/** USD per million tokens. */
export interface Price {
  readonly input: number
  readonly output: number
  /** Prompt tokens that the provider has in its cache; default that of `input`. */
  readonly cachedInput?: number | undefined
  /** Prompt tokens that the provider writes to its cache; default that of `input`. */
  readonly cacheWrite?: number | undefined
  /** Of these, the tokens that its cache keeps for an hour; default that of `cacheWrite`. */
  readonly cacheWriteHour?: number | undefined
  /** Reasoning tokens; default that of `output`. */
  readonly reasoning?: number | undefined
}

/** A price with its source. */
export interface KnownPrice extends Price {
  /** The month or day on which its source had these figures, as `2026-06`. */
  readonly asOf?: string | undefined
  /** Where the figures come from: a URL, or a text. */
  readonly source?: string | undefined
}

/** Facts of one deployment that do not change between requests; left out: unknown. */
export interface DeploymentFacts {
  readonly deployment: string
  readonly price?: KnownPrice | undefined
  /** From 0 to 1. */
  readonly quality?: number | undefined
  /** Tokens that prompt and answer share. */
  readonly contextWindow?: number | undefined
  /** Its capabilities; left out: all. */
  readonly capabilities?: ReadonlyArray<EngineCapability> | undefined
  /** Capabilities that it does not have, even if `capabilities` lists them. */
  readonly missing?: ReadonlyArray<RequiredCapability> | undefined
  /** Its configured tasks. */
  readonly tasks?: ReadonlyArray<string> | undefined
  /** Its share of requests relative to the others, for `weighted` and `session`; default 1. */
  readonly weight?: number | undefined
  /** Requests that it processes at the same time; default 1. */
  readonly slots?: number | undefined
}

/** The condition of a deployment at the moment. */
export interface Condition {
  readonly measured: Measurement
  /** A deployment that is `loading` or has a full queue comes after the others, if the policy spills. */
  readonly state: "ready" | "cold" | "loading"
  /** Requests that wait for it. */
  readonly queued: number
  readonly queueFull: boolean
  /** Requests that it may process at the same time, where that changes; default as in its facts. */
  readonly slots?: number | undefined
  /** Why its circuit rejects calls, and ms until it admits one. */
  readonly closed?: { readonly reason: string; readonly retryAfterMs: number } | undefined
  /** Whether an operator has drained it; default not. */
  readonly isDrained?: boolean | undefined
}

/** Idle and never measured. */
export const ready: Condition = { measured: unmeasured, state: "ready", queued: 0, queueFull: false }

/** The facts of a model's deployments as columns, a row for each deployment; an unknown number is `NaN`. */
export interface CandidateTable {
  readonly facts: ReadonlyArray<DeploymentFacts>
  /** All rows. */
  readonly rows: ReadonlyArray<number>
  readonly ids: ReadonlyArray<string>
  readonly inputPrice: Float64Array
  readonly outputPrice: Float64Array
  readonly quality: Float64Array
  readonly contextWindow: Float64Array
  readonly weight: Float64Array
  readonly slots: Float64Array
  /** The hash of the id. */
  readonly hash: Uint32Array
  /** As bits; all if the facts do not list any. */
  readonly capabilities: Int32Array
  readonly tasks: ReadonlyArray<ReadonlySet<string> | undefined>
  /** The names of its unknown figures: `price`, `quality`, `contextWindow`. */
  readonly unknown: ReadonlyArray<ReadonlyArray<string>>
}

/** Capabilities that are not in `DeploymentFacts.capabilities`: only `missing` excludes them. */
const others: ReadonlyArray<RequiredCapability> = ["count", ...Source.capabilities]

const capabilityBits = ({ capabilities, missing = [] }: DeploymentFacts): number =>
  (capabilities === undefined ? -1 : bitsOf([...capabilities, ...others])) & ~bitsOf(missing)

const unknownOf = ({ contextWindow, price, quality }: DeploymentFacts): ReadonlyArray<string> => {
  const unknown: Array<string> = []
  if (price === undefined) unknown.push("price")
  if (quality === undefined) unknown.push("quality")
  if (contextWindow === undefined) unknown.push("contextWindow")
  return unknown
}

/** Makes the table: once for each change of the registry. */
export const prepare = (facts: ReadonlyArray<DeploymentFacts>): CandidateTable => {
  const column = (of: (one: DeploymentFacts) => number | undefined) =>
    Float64Array.from(facts, (one) => of(one) ?? Number.NaN)
  return {
    facts,
    rows: facts.map((_, index) => index),
    ids: facts.map(({ deployment }) => deployment),
    inputPrice: column(({ price }) => price?.input),
    outputPrice: column(({ price }) => price?.output),
    quality: column(({ quality }) => quality),
    contextWindow: column(({ contextWindow }) => contextWindow),
    weight: column(({ weight = 1 }) => weight),
    slots: column(({ slots = 1 }) => slots),
    hash: Uint32Array.from(facts, ({ deployment }) => hashText(deployment)),
    capabilities: Int32Array.from(facts, capabilityBits),
    tasks: facts.map(({ tasks }) => tasks && new Set(tasks)),
    unknown: facts.map(unknownOf)
  }
}

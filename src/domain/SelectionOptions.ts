/** How a policy chooses among the deployments of a model: the strategy and its options. */
import type { Condition, DeploymentFacts } from "./DeploymentFacts.ts"
import type { Moment, RoutingRequest } from "./RoutingRequest.ts"
import type { Name } from "./Strategies.ts"

/** The name of a strategy that an embedding program provides, as a policy writes it. */
export type CustomName = `custom/${string}`

export const customName = /^custom\/./u

/** A strategy that an embedding program provides. */
export interface Custom {
  readonly name: CustomName
  /** A finite score for each eligible deployment; the highest goes first. */
  readonly score: (
    facts: DeploymentFacts,
    condition: Condition,
    request: RoutingRequest,
    moment: Moment
  ) => number
}

/** A placeholder for the strategy of this name until the program's own replaces it. */
export const placeholder = (name: CustomName): Custom => ({ name, score: unprovided })

const unprovided = (): number => Number.NaN

export const isPlaceholder = (strategy: Name | Custom): strategy is Custom =>
  typeof strategy !== "string" && strategy.score === unprovided

/** The weights of the terms of `balanced`. */
export interface Weights {
  readonly speed: number
  readonly quality: number
  readonly cost: number
  readonly task: number
}

/** The options of a selection. */
export interface Options {
  readonly strategy: Name | Custom
  readonly weights: Weights
  /** Limits of `cost`: the least quality, and the highest cost of the request, USD. */
  readonly limits: { readonly quality: number; readonly cost: number }
  /** The share of requests, from 0 to 1, that try a deployment without measurements first, while there is one. */
  readonly exploration: number
  /** Candidates to list: the primary and its fallbacks. */
  readonly keep: number
  /** Whether deployments that load or have a full queue come after the others. */
  readonly spill: boolean
}

/** A primary and two fallbacks by speed, quality and cost. */
export const defaults: Options = {
  strategy: "balanced",
  weights: { speed: 0.3, quality: 0.4, cost: 0.3, task: 1 },
  limits: { quality: 0.8, cost: 0.01 },
  exploration: 0.05,
  keep: 3,
  spill: true
}

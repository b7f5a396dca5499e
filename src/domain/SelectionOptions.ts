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
  /** A finite number for each deployment that can take the request; the highest goes first. */
  readonly score: (
    facts: DeploymentFacts,
    condition: Condition,
    request: RoutingRequest,
    moment: Moment
  ) => number
}

/** Stands for the strategy of this name until the program's own is put in its place. */
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

/** How a policy chooses. */
export interface Options {
  readonly strategy: Name | Custom
  readonly weights: Weights
  /** Limits of `cost`: quality at least, and USD for the request at most. */
  readonly limits: { readonly quality: number; readonly cost: number }
  /** The share of requests, from 0 to 1, that go first to a deployment that was never measured, while there is one. */
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

/** What the router knows of a deployment: facts that stay, and its condition at the moment. */
import type { Ability } from "./EngineProtocol.ts"
import type { Measurement } from "./Measurement.ts"
import { unmeasured } from "./Measurement.ts"
import type { RequiredCapability } from "./RoutingRequest.ts"

/** USD per million tokens. */
export interface Price {
  readonly input: number
  readonly output: number
}

/** Facts of one deployment that do not change between requests; what is left out is not known. */
export interface DeploymentFacts {
  readonly deployment: string
  readonly price?: Price | undefined
  /** From 0 to 1. */
  readonly quality?: number | undefined
  /** Tokens that prompt and answer share. */
  readonly contextWindow?: number | undefined
  /** All of its capabilities; left out, every one. */
  readonly capabilities?: ReadonlyArray<Ability> | undefined
  /** Capabilities that it certainly lacks, over `capabilities`. */
  readonly missing?: ReadonlyArray<RequiredCapability> | undefined
  /** The tasks that it is good at. */
  readonly tasks?: ReadonlyArray<string> | undefined
  /** Its share of requests beside the others' shares, for `weighted` and `session`; default 1. */
  readonly weight?: number | undefined
  /** Requests that it processes side by side; default 1. */
  readonly slots?: number | undefined
}

/** The condition of a deployment at the moment. */
export interface Condition {
  readonly measured: Measurement
  /** A deployment that is `loading` or has a full queue comes after the others, if the policy spills. */
  readonly state: "ready" | "cold" | "loading"
  /** Callers that wait for it. */
  readonly queued: number
  readonly queueFull: boolean
  /** Why it must not be called, and ms until it may be. */
  readonly closed?: { readonly reason: string; readonly retryAfterMs: number } | undefined
}

/** Idle and never measured. */
export const ready: Condition = { measured: unmeasured, state: "ready", queued: 0, queueFull: false }

/** The part of a request that decides which deployments can answer it. */
import type { Ability } from "./EngineProtocol.ts"
import { abilities } from "./EngineProtocol.ts"
import type { RoutingOptions } from "./RoutingOptions.ts"
import * as Source from "./Source.ts"

/** A capability that a request can need of its deployment. */
export type RequiredCapability = Ability | "count" | Source.Need

export const requiredCapabilities: ReadonlyArray<RequiredCapability> = [...abilities, "count", ...Source.needs]

export interface RoutingRequest {
  readonly model: string
  /** All capabilities that the request needs of its deployment. */
  readonly capabilities: ReadonlyArray<RequiredCapability>
  /** The fields of the request that need a capability, for the error if no deployment has it. */
  readonly pathsOf?: ((capability: string) => ReadonlyArray<string>) | undefined
  /** The caller's own request, with the fields of it that Troupe does not know. */
  readonly source?: Source.Source | undefined
  /** The most tokens to generate. */
  readonly maxTokens?: number | undefined
  readonly tenant?: string | undefined
  /** Options of this request, over the configuration of its model. */
  readonly route?: RoutingOptions | undefined
  /** Tokens of the prompt at least; left out, no context window is too small. */
  readonly promptTokens?: number | undefined
  /** Characters of the prompt, for its cost. */
  readonly promptLength?: number | undefined
  /** The prompt as one text that begins as the engine's own prompt does; called only if the strategy needs it. */
  readonly promptText?: (() => string) | undefined
}

/** What a decision depends on beside the request and the deployments. */
export interface Moment {
  /** ms of `Monotonic` */
  readonly now: number
  /** A 32-bit random number: every random choice of the decision follows from it. */
  readonly seed: number
  /** Requests for the model that were routed before this one, for `round-robin`. */
  readonly turn: number
  /** The share of the prompt that each deployment has cached, by index, from 0 to 1; for `prefix`. */
  readonly prefixShares?: ArrayLike<number> | undefined
}

/** Tokens of an answer without a limit. */
export const usualAnswer = 256

/** Tokens of a text that has not been counted: four bytes each, which is usual of English. */
export const estimateTokens = (bytes: number): number => Math.ceil(bytes / 4)

/** Tokens of the prompt, counted or estimated; 0 where nothing is known of it. */
export const promptTokensOf = ({ promptLength, promptTokens }: RoutingRequest): number =>
  promptTokens ?? (promptLength === undefined ? 0 : estimateTokens(promptLength))

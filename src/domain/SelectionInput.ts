/** What a decision is made of: facts of deployments, their conditions, what is asked, and how to choose. */
import type { Ability } from "./EngineProtocol.ts"
import { abilities } from "./EngineProtocol.ts"
import type { Measurement } from "./Measurement.ts"
import { unmeasured } from "./Measurement.ts"
import * as Source from "./Source.ts"

export type { Ability } from "./EngineProtocol.ts"

/** What a deployment must be able to do, or have words for. */
export type RequiredCapability = Ability | "count" | Source.Need

export const requiredCapabilities: ReadonlyArray<RequiredCapability> = [...abilities, "count", ...Source.needs]

/** USD per million tokens. */
export interface Price {
  readonly input: number
  readonly output: number
}

/** What is known of one deployment for good; what is left out is not known. */
export interface DeploymentFacts {
  readonly deployment: string
  readonly price?: Price | undefined
  /** From 0 to 1. */
  readonly quality?: number | undefined
  /** Tokens that prompt and answer share. */
  readonly contextWindow?: number | undefined
  /** All that it can do; left out, everything. */
  readonly capabilities?: ReadonlyArray<Ability> | undefined
  /** What it certainly has not, whatever is believed otherwise. */
  readonly missing?: ReadonlyArray<RequiredCapability> | undefined
  /** What it is good at. */
  readonly tasks?: ReadonlyArray<string> | undefined
  /** Its share of requests beside the others', for `weighted` and `session`; default 1. */
  readonly weight?: number | undefined
  /** Requests that it works on side by side; default 1. */
  readonly slots?: number | undefined
}

/** Strategies by name. */
export const names = [
  "balanced",
  "speed",
  "quality",
  "cost",
  "weighted",
  "least-busy",
  "latency",
  "round-robin",
  "session",
  "prefix"
] as const
export type Name = typeof names[number]

/** The name of a strategy that an embedding program provides, as a policy writes it. */
export type CustomName = `custom/${string}`

export const customName = /^custom\/./u

/** A strategy that an embedding program provides. */
export interface Custom {
  readonly name: CustomName
  /** A finite number for each deployment that can take the request; the highest goes first. */
  readonly score: (facts: DeploymentFacts, condition: Condition, asked: Asked) => number
}

/** Stands for the strategy of this name until the program's own is put in its place. */
export const placeholder = (name: CustomName): Custom => ({ name, score: unprovided })

const unprovided = (): number => Number.NaN

export const isPlaceholder = (strategy: Name | Custom): strategy is Custom =>
  typeof strategy !== "string" && strategy.score === unprovided

/** How a deployment is at the moment. */
export interface Condition {
  readonly measured: Measurement
  /** `loading` and a full queue set it behind the others, where the policy spills. */
  readonly state: "ready" | "cold" | "loading"
  /** Callers that wait for it. */
  readonly queued: number
  readonly queueFull: boolean
  /** It must not be called, and why; `retryAfterMs` is when it may. */
  readonly closed?: { readonly reason: string; readonly retryAfterMs: number } | undefined
}

/** Nothing to do and nothing known. */
export const ready: Condition = { measured: unmeasured, state: "ready", queued: 0, queueFull: false }

/** What is asked, as far as it decides who answers. */
export interface Asked {
  readonly model: string
  /** What the deployment must be able to do. */
  readonly capabilities: ReadonlyArray<RequiredCapability>
  /** Tokens of the prompt at least; left out, they are not known and no window is too small. */
  readonly promptTokens?: number | undefined
  /** Tokens of the prompt, about: for what it costs. */
  readonly likelyPromptTokens?: number | undefined
  /** The most tokens to generate. */
  readonly maxTokens?: number | undefined
  /** What the request is about, as deployments name it in `tasks`. */
  readonly task?: string | undefined
  /** Requests of one session go to one deployment, by `session`. */
  readonly session?: string | undefined
  /** Share of the prompt that each deployment has cached, by index, from 0 to 1; for `prefix`. */
  readonly prefixShares?: ArrayLike<number> | undefined
  /** Only these deployments; left out, all. */
  readonly only?: ReadonlyArray<string> | undefined
  readonly except?: ReadonlyArray<string> | undefined
  /** Decisions made before this one, for `round-robin`. */
  readonly turn: number
  /** A 32-bit number from `Random`: whatever the decision leaves to chance follows from it. */
  readonly seed: number
  /** ms of `Monotonic` */
  readonly now: number
}

/** What counts how much in `balanced`. */
export interface Weights {
  readonly speed: number
  readonly quality: number
  readonly cost: number
  readonly task: number
}

/** How to choose. */
export interface Options {
  readonly strategy: Name | Custom
  readonly weights: Weights
  /** Limits of `cost`: quality at least, and USD for the request at most. */
  readonly limits: { readonly quality: number; readonly cost: number }
  /** Share of requests, from 0 to 1, that go to one who was never measured while there is such a one. */
  readonly exploration: number
  /** Candidates to name: the primary and its fallbacks. */
  readonly keep: number
  /** Set behind who loads or has a full queue. */
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

/** Tokens of an answer whose length nobody has said. */
export const usualAnswer = 256

/** Tokens of a text that nobody has counted: four bytes each, which is usual of English. */
export const estimateTokens = (bytes: number): number => Math.ceil(bytes / 4)

/** Tokens of the prompt, as far as they are known or guessed. */
export const promptTokensOf = ({ likelyPromptTokens, promptTokens }: Asked): number =>
  promptTokens ?? likelyPromptTokens ?? 0

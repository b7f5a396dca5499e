/** What limits and budgets tell the caller of an admitted request. */
import type { Nano } from "./Money.ts"

/** The state of a limit. */
export interface Standing {
  readonly limit: number
  readonly remaining: number
  /** ms until it begins again. */
  readonly resetMs: number
}

/** The states of the limits that are used up first. */
export interface Standings {
  readonly requests: Standing | undefined
  readonly tokens: Standing | undefined
}

export interface Admitted {
  /** Undefined without limits. */
  readonly standings: () => Standings | undefined
  /** What its attempts have cost until now, nano-dollars; undefined if a price is unknown, or nobody counts. */
  readonly cost: Nano | undefined
}

/** The policy of a model's requests: selection, retries, timeouts, hedging and fallbacks. Named, printable plain data. */
import { Duration, Result } from "effect"
import * as Defaults from "./Defaults.ts"
import type { List } from "./FailureClass.ts"
import type { Problem, RoutingOptions } from "./RoutingOptions.ts"
import type { Options as Selection } from "./SelectionOptions.ts"
import { defaults as selection } from "./SelectionOptions.ts"

export interface Policy {
  readonly name: string
  /** How a deployment is chosen. */
  readonly selection: Selection
  /** Retries at one deployment. */
  readonly retries: number
  /** All attempts of one request. */
  readonly maxAttempts: number
  /** The delay between two attempts at one deployment: `initialMs`, times `factor` for each retry, at most `capMs`; ±20 %. */
  readonly backoff: { readonly initialMs: number; readonly factor: number; readonly capMs: number }
  /** The longest wait for a deployment to be free again, if no other is, ms. */
  readonly maxWaitMs: number
  /** ms; left out: no limit. */
  readonly timeouts: {
    /**
     * Until a loaded engine has a slot for an attempt: the wait in the queue and for a load, which continues when the
     * attempt ends.
     */
    readonly queueMs?: number | undefined
    /** The limit of a load of one of the model's deployments: see `Deployment.loadTimeout`. */
    readonly loadMs?: number | undefined
    /** From the slot to the first content, for each attempt. */
    readonly firstTokenMs?: number | undefined
    /** Between two pieces of an answer. */
    readonly stallMs?: number | undefined
    /** The limit of the whole request. */
    readonly totalMs?: number | undefined
    /** The limits that the request itself set; all if it chose the policy. */
    readonly byCaller?: "total" | "all" | undefined
  }
  /**
   * A second attempt at another deployment if the first has no content after `afterMs` (left out: the 95th percentile of
   * its time to first token), for at most this share of requests.
   */
  readonly hedge?: { readonly afterMs?: number | undefined; readonly share: number } | undefined
  /** HTTP statuses that are retried once at the same deployment before the next, not `retries` times. */
  readonly retryOnce: ReadonlyArray<number>
  /** The factor of `maxTokens` in a retry if prompt and answer together exceed the context window. */
  readonly shorterBy: number
  /** Whether another deployment continues an answer that breaks off. */
  readonly continue: boolean
}

/** The routing of one model. */
export interface Routing {
  readonly policy: Policy
  /** Names of fallback models, in order. */
  readonly fallbacks: Readonly<Record<List, ReadonlyArray<string>>>
}

/** The policy without configuration. */
export const defaults: Policy = {
  name: "default",
  selection,
  retries: 2,
  maxAttempts: 6,
  backoff: { initialMs: 250, factor: 2, capMs: 10_000 },
  maxWaitMs: 10_000,
  timeouts: { loadMs: Duration.toMillis(Defaults.loadTimeout) },
  retryOnce: [500],
  shorterBy: 0.7,
  continue: false
}

const noFallbacks: Routing["fallbacks"] = { ordinary: [], context: [], content: [] }

/**
 * The routing of a model: its own, else the configured policy `default` without fallbacks.
 *
 * @param policies all configured policies
 */
export const routingOf = (
  { routing }: { readonly routing?: Routing },
  policies: ReadonlyArray<Policy>
): Routing =>
  routing ?? { policy: policies.find(({ name }) => name === defaults.name) ?? defaults, fallbacks: noFallbacks }

const shorter = (own: number | undefined, requested: number | undefined): number | undefined =>
  own === undefined ? requested : Math.min(own, requested ?? own)

/** The policy with the options of a request. */
export const policyFor = (
  own: Policy,
  policies: ReadonlyArray<Policy>,
  { continue: continued, policy: name, retries, strategy, timeoutMs }: RoutingOptions
): Result.Result<Policy, Problem> => {
  const named = name === undefined ? own : policies.find((one) => one.name === name)
  if (named === undefined) {
    const names = policies.map((one) => one.name).join(", ")
    return Result.fail({ path: "policy", detail: `Unknown policy. Available policies: ${names}` })
  }
  const totalMs = shorter(named.timeouts.totalMs, timeoutMs)
  const byCaller = named.name !== own.name ? "all" : totalMs === named.timeouts.totalMs ? undefined : "total"
  return Result.succeed({
    ...named,
    retries: retries ?? named.retries,
    continue: continued ?? named.continue,
    selection: strategy === undefined ? named.selection : { ...named.selection, strategy },
    timeouts: { ...named.timeouts, totalMs, ...(byCaller === undefined ? {} : { byCaller }) }
  })
}

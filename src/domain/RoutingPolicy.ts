/**
 * How a model's requests are routed and what happens when an attempt fails: plain data with a name, that can be printed.
 */
import { Duration, Result } from "effect"
import * as Policies from "./Defaults.ts"
import type { List } from "./FailureClass.ts"
import type { Problem, RoutingOptions } from "./RoutingOptions.ts"
import type { Options as Selection } from "./SelectionOptions.ts"
import { defaults as selection } from "./SelectionOptions.ts"

export interface Policy {
  readonly name: string
  /** Who is chosen. */
  readonly selection: Selection
  /** Attempts at one deployment after its first. */
  readonly retries: number
  /** Attempts of one request in all. */
  readonly maxAttempts: number
  /** Between two attempts at one deployment: doubling by `factor` from `initialMs` to `capMs`, less or more a fifth. */
  readonly backoff: { readonly initialMs: number; readonly factor: number; readonly capMs: number }
  /** The longest that a request waits for a deployment to take it again, where nobody else is free, ms. */
  readonly maxWaitMs: number
  /** ms; what is left out has no limit of the policy's. */
  readonly timeouts: {
    /**
     * Until a loaded engine has a slot for an attempt: its place in the queue and the load that it waits for, which goes
     * on when the attempt ends.
     */
    readonly queueMs?: number | undefined
    /** Of a load of one of the model's deployments, whoever waits for it: see `Deployment.loadTimeout`. */
    readonly loadMs?: number | undefined
    /** To the first content, of each attempt, from when it has its slot. */
    readonly firstTokenMs?: number | undefined
    /** Between two pieces of an answer. */
    readonly stallMs?: number | undefined
    /** Of the request as a whole. */
    readonly totalMs?: number | undefined
    /** Those that the request itself set, or all where it chose the policy. */
    readonly byCaller?: "total" | "all" | undefined
  }
  /**
   * A second attempt elsewhere, once the first has brought nothing for `afterMs` (left out: longer than 95 of 100 of its
   * first tokens take), for at most this share of requests.
   */
  readonly hedge?: { readonly afterMs?: number | undefined; readonly share: number } | undefined
  /** What is left of `maxTokens` where prompt and answer do not fit together. */
  readonly shorterBy: number
  /** When a deployment fails in the middle of an answer, another goes on from the text so far. */
  readonly continue: boolean
}

/** How the requests for one model go. */
export interface Routing {
  readonly policy: Policy
  /** Names of models that stand in for it, in order. */
  readonly fallbacks: Readonly<Record<List, ReadonlyArray<string>>>
}

/** What holds where nothing is configured. */
export const defaults: Policy = {
  name: "default",
  selection,
  retries: 2,
  maxAttempts: 6,
  backoff: { initialMs: 250, factor: 2, capMs: 10_000 },
  maxWaitMs: 10_000,
  timeouts: { loadMs: Duration.toMillis(Policies.loadTimeout) },
  shorterBy: 0.7,
  continue: false
}

const noFallbacks: Routing["fallbacks"] = { ordinary: [], context: [], content: [] }

/**
 * How a model's requests go: as its configuration says, else by the configured policy `default` without fallbacks.
 *
 * @param policies all that are configured
 */
export const routingOf = (
  { routing }: { readonly routing?: Routing },
  policies: ReadonlyArray<Policy>
): Routing =>
  routing ?? { policy: policies.find(({ name }) => name === defaults.name) ?? defaults, fallbacks: noFallbacks }

const shorter = (own: number | undefined, asked: number | undefined): number | undefined =>
  own === undefined ? asked : Math.min(own, asked ?? own)

/** The policy with the options of a request. */
export const policyFor = (
  own: Policy,
  policies: ReadonlyArray<Policy>,
  { continue: goesOn, policy: name, retries, strategy, timeoutMs }: RoutingOptions
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
    continue: goesOn ?? named.continue,
    selection: strategy === undefined ? named.selection : { ...named.selection, strategy },
    timeouts: { ...named.timeouts, totalMs, ...(byCaller === undefined ? {} : { byCaller }) }
  })
}

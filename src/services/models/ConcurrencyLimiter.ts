/**
 * The adaptive limit of one deployment in use: it observes the attempts and changes by `AdaptiveLimit`.
 *
 * **Details**
 *
 * It belongs to the deployment's actor, and starts again with a new actor: a measurement from before the deployment's
 * idle time may be wrong now. Where several processes call the deployment, the supervisor decides for all
 * of them (`SharedLimit`): a process that lowers its own limit still measures the queue that the others cause. There the limiter
 * passes on what it observes, and what it holds back is the lease.
 *
 * Only attempts at deployments with an adaptive limit are observed, so others cost nothing.
 */
import type { Bounds } from "../../domain/AdaptiveConcurrency.ts"
import { boundsOf } from "../../domain/AdaptiveConcurrency.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Ending } from "../health/Circuit.ts"
import * as AdaptiveLimit from "./AdaptiveLimit.ts"
import type { SlotLease } from "./SlotLeases.ts"

/** 529 is Anthropic's "overloaded". */
const overloadStatuses = new Set([429, 503, 529])

/** Whether a failure says that the deployment has too many requests. */
const isOverload = (reason: Reason | undefined): boolean => {
  switch (reason?._tag) {
    case "RateLimited":
      // While all keys are in cooldown nothing is sent: the rejection before has counted.
      return reason.cached !== true
    case "UpstreamFailed":
      return reason.status !== undefined && overloadStatuses.has(reason.status)
    case "UpstreamTimeout":
      // A provider that takes no connections shows nothing of its load.
      return (reason.phase === "first_byte" || reason.phase === "first_token") && reason.byCaller !== true
    default:
      return false
  }
}

/** How an observed attempt has ended. */
export interface AttemptEnd extends Ending {
  /** Tokens generated. */
  readonly tokens: number
}

/** One attempt that has its slot. Times are monotonic ms. */
export class ObservedAttempt {
  readonly #limiter: ConcurrencyLimiter
  readonly #begun: AdaptiveLimit.Begun
  #hasContent = false

  constructor(limiter: ConcurrencyLimiter, begun: AdaptiveLimit.Begun) {
    this.#limiter = limiter
    this.#begun = begun
  }

  /** The first content has arrived. */
  content(now: number): void {
    if (this.#hasContent) return
    this.#hasContent = true
    const ms = now - this.#begun.startedAt
    this.#limiter.observe({ ...this.#begun, type: "latency", measure: "firstToken", ms }, now)
  }

  end({ reason, tokens, verdict }: AttemptEnd, now: number): void {
    const begun = this.#begun
    if (verdict !== "success") {
      if (isOverload(reason)) this.#limiter.observe({ ...begun, type: "overload" }, now)
    } else if (!this.#hasContent) {
      const ms = now - begun.startedAt
      const measure = tokens > 0 ? "perToken" : "whole"
      this.#limiter.observe({ ...begun, type: "latency", measure, ms, tokens }, now)
    }
  }
}

export class ConcurrencyLimiter {
  readonly #onRaise: () => void
  readonly #lease: SlotLease | undefined
  #bounds: Bounds
  #state: AdaptiveLimit.State

  /**
   * @param onRaise called when more requests may be in flight
   * @param lease of a deployment that several processes call
   */
  constructor(bounds: Bounds, onRaise: () => void, lease?: SlotLease) {
    this.#bounds = bounds
    this.#onRaise = onRaise
    this.#lease = lease
    this.#state = AdaptiveLimit.make(bounds)
  }

  /** Requests that may be in flight, at least 1; in all processes. */
  get limit(): number {
    return this.#lease?.limit ?? AdaptiveLimit.limitOf(this.#state)
  }

  /** What was measured stays. */
  resize(bounds: Bounds): void {
    this.#bounds = bounds
    this.#state = AdaptiveLimit.within(this.#state, bounds)
  }

  observe(sample: AdaptiveLimit.Sample, now: number): void {
    if (this.#lease !== undefined) return this.#lease.observe(sample, now)
    const before = this.limit
    this.#state = AdaptiveLimit.update(this.#state, this.#bounds, sample, now)
    if (this.limit > before) this.#onRaise()
  }
}

const adaptiveBounds = ({ options }: Deployment): Bounds | undefined =>
  isRemote(options) ? boundsOf(options.maxConcurrent) : undefined

/** Whether both are the same model at the same host, so that what one has measured holds for the other. */
export const isSameServer = ({ options: a }: Deployment, { options: b }: Deployment): boolean =>
  isRemote(a) && isRemote(b) && a.provider === b.provider && a.baseUrl === b.baseUrl && a.model === b.model

/** The limiter of a deployment that replaces another; undefined where the limit is a number. */
export const follow = (
  limiter: ConcurrencyLimiter | undefined,
  before: Deployment,
  after: Deployment,
  onRaise: () => void,
  lease?: SlotLease
): ConcurrencyLimiter | undefined => {
  const bounds = adaptiveBounds(after)
  if (bounds === undefined) return undefined
  if (limiter === undefined || !isSameServer(before, after)) return new ConcurrencyLimiter(bounds, onRaise, lease)
  if (before !== after) limiter.resize(bounds)
  return limiter
}

/**
 * How the requests of models are divided between versions: the table that the router reads, and the result of each request
 * that is compared.
 *
 * **Details**
 *
 * `Rollouts` writes the table, one entry for each model with a rollout or with a deployment that waits for one; the router
 * reads it synchronously. A `Trial` observes the first attempt of a request.
 *
 * A version that rejects a request as invalid has failed only if another one accepts the request: else the request is
 * wrong. A new version whose circuit is open fails the requests that it would have taken. A version that is rate limited
 * has failed if another one answers: else the limit may be that of both.
 *
 * An attempt that a hedge has overtaken counts as if its first token, or its whole answer, had come when it was cancelled.
 * How long a first attempt has had no answer is known while it runs (`Waiting`).
 *
 * **Gotchas**
 *
 * `SplitTable.of` is undefined while there is no entry, so that requests cost nothing.
 */
import { Context } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import * as Hashing from "../../domain/Hashing.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Verdict } from "../../domain/Measurement.ts"
import type { RoutingRequest, Split } from "../../domain/RoutingRequest.ts"
import type { Version } from "../../domain/Version.ts"
import * as Assignment from "./Assignment.ts"
import type { ExperimentPlan } from "./RolloutSettings.ts"
import type { Observation } from "./Tally.ts"
import type { Wait, Waiting } from "./Waiting.ts"

/**
 * Called with the result of a request, the version that took it (a deployment, or undefined for all others) and the hash of
 * its session.
 */
export type Observe = (version: string | undefined, observation: Observation, session: number | undefined) => void

/** What follows the requests that are compared. */
export interface Observer {
  readonly observe: Observe
  /** Those that have no answer yet. */
  readonly waiting?: Waiting | undefined
}

/** What decides which version takes a request. */
type Divided = Pick<RoutingRequest, "route"> & Partial<Pick<RoutingRequest, "capabilities">>

/** How the requests of one model are divided. */
export interface Entry {
  /** The deployments that have a share of the requests. The others that are not withheld are equal. */
  readonly versions?: ReadonlyArray<string>
  /** For people: the deployments that have a share of their own, or none. */
  readonly shares?: ReadonlyArray<Version>
  /** @param seed a 32-bit random number, which counts where the request has no session */
  readonly split: (request: Divided, seed: number) => Split
  /** Undefined: no request is compared. */
  readonly observer?: Observer | undefined
}

/** The deployments of a model that take no requests. */
export interface Withheld {
  readonly withheld: ReadonlyArray<string>
  /** The one that gets copies of requests; left out, none. */
  readonly copied?: string | undefined
}

const copiedPart = ({ copied }: Withheld): Pick<Split, "copied"> => copied === undefined ? {} : { copied }

/** An entry of a model whose requests no new version takes. */
export const withholding = (out: Withheld): Entry => {
  const split: Split = { withheld: new Set(out.withheld), ...copiedPart(out) }
  return { split: () => split }
}

/** The hash of a request's session; undefined without one. */
export const sessionOf = ({ route }: Pick<RoutingRequest, "route">): number | undefined =>
  route?.session === undefined ? undefined : Hashing.hashText(route.session)

/** How a rollout divides its model's requests. */
export interface Weights extends Withheld {
  readonly rollout: string
  readonly candidate: string
  /** The share of requests that the candidate takes, above 0, to 1. */
  readonly weight: number
  /** Whether all requests of a session go to one version. */
  readonly sticky: boolean
  /** The candidate embeds texts in other vectors: it takes no embedding requests. */
  readonly hasOtherVectors?: boolean | undefined
  readonly observer?: Observer | undefined
}

/** An entry that divides requests by weight. */
export const weighted = (
  { candidate, hasOtherVectors = false, observer, rollout, sticky, weight, ...others }: Weights
): Entry => {
  const out = { withheld: new Set(others.withheld), ...copiedPart(others) }
  const toCandidate: Split = { ...out, first: candidate }
  // Where no other deployment is left, it is better than none.
  const toOthers: Split = { ...out, last: candidate }
  const onlyOthers: Split = { ...out, withheld: new Set([...out.withheld, candidate]) }
  const seed = Hashing.hashText(rollout)
  return {
    observer,
    versions: [candidate],
    split: (request, random) => {
      if (hasOtherVectors && request.capabilities?.includes("embed") === true) return onlyOthers
      const session = sessionOf(request)
      const key = sticky ? session : undefined
      const split = Assignment.toCandidate(seed, weight, key, Hashing.draw(random, -3)) ? toCandidate : toOthers
      return session === undefined ? split : { ...split, session }
    }
  }
}

/**
 * An entry of an A/B test, which divides requests by fixed weights. A variant that fails is followed by another deployment.
 *
 * @param model whose sessions stay at their variants
 * @param held variants whose requests the others take by their weights; at least one with a weight is left
 */
export const varied = (
  model: string,
  { sticky, variants }: Pick<ExperimentPlan, "sticky" | "variants">,
  others: Withheld,
  observer: Observer,
  held: ReadonlySet<string> = new Set()
): Entry => {
  const used = variants.filter(({ deployment, weight }) => weight > 0 && !held.has(deployment))
  const unused = variants.filter((one) => !used.includes(one)).map(({ deployment }) => deployment)
  const out = { withheld: new Set([...others.withheld, ...unused]), ...copiedPart(others) }
  const splits = variants.map(({ deployment }): Split => ({ ...out, first: deployment }))
  const weights = variants.map(({ weight }) => weight)
  const left = variants.map((one) => used.includes(one) ? one.weight : 0)
  const seed = Hashing.hashText(model)
  const seedOfHeld = Hashing.hashText(`${model}\nheld`)
  return {
    observer,
    versions: used.map(({ deployment }) => deployment),
    split: (request, random) => {
      const session = sticky ? sessionOf(request) : undefined
      const index = Assignment.variantOf(weights, seed, session, Hashing.draw(random, -3))
      // Only the sessions of a held variant get another one.
      return left[index] === 0
        ? splits[Assignment.variantOf(left, seedOfHeld, session, Hashing.draw(random, -4))]!
        : splits[index]!
    }
  }
}

/** The models whose requests are divided. */
export class SplitTable {
  #entries: ReadonlyMap<string, Entry> = new Map()
  /** The entry of a model; undefined while no model has one. */
  of: ((model: string) => Entry | undefined) | undefined

  /** Replaces all entries, by the names of their models. */
  replace(entries: ReadonlyMap<string, Entry>): void {
    this.#entries = entries
    this.of = entries.size === 0 ? undefined : (model) => this.#entries.get(model)
  }
}

/**
 * The deployments of a model that are loaded before its first request: the first that takes requests, and those with a share of
 * their own.
 */
export const takingRequests = (
  { deployments }: Model,
  entry: Entry | undefined
): readonly [Deployment, ...ReadonlyArray<Deployment>] => {
  const withheld = entry?.split({}, 0).withheld
  const first = deployments.find(({ id }) => withheld?.has(id) !== true) ?? deployments[0]
  return [first, ...deployments.filter((one) => one !== first && entry?.versions?.includes(one.id) === true)]
}

/** The table of this application; undefined where it has no rollouts. */
export const Splits = Context.Reference<SplitTable | undefined>("troupe/services/rollout/Split", {
  defaultValue: () => undefined
})

/** How an attempt ended. */
export interface AttemptEnd {
  readonly verdict: Verdict
  readonly reason?: Reason | undefined
  readonly tokens: number
  /** The reason of the answer's last event. */
  readonly finish: string | undefined
}

const rejections: ReadonlySet<Reason["_tag"]> = new Set([
  "InvalidRequest",
  "ContextLengthExceeded",
  "NotSupported",
  "ModelNotFound",
  "UpstreamFailed"
])

export const speedOf = (tokens: number, tookMs: number, firstTokenMs: number | undefined): number | undefined => {
  const [ms, written] = firstTokenMs === undefined ? [tookMs, tokens] : [tookMs - firstTokenMs, tokens - 1]
  return ms > 0 && written > 0 ? written * 1000 / ms : undefined
}

const failed: Observation = { failed: true, refused: false }
const limited: Observation = { failed: true, refused: false, isRateLimited: true }
const refused: Observation = { failed: false, refused: true }

/** One attempt of a request that is compared. Times are monotonic ms. */
export class TrialAttempt {
  readonly #trial: Trial
  readonly #isFirst: boolean
  #grantedAt: number | undefined
  #firstTokenMs: number | undefined
  #wait: Wait | undefined

  constructor(trial: Trial, isFirst: boolean, now: number) {
    this.#trial = trial
    this.#isFirst = isFirst
    if (isFirst) this.#wait = trial.wait(now)
  }

  granted(now: number): void {
    if (this.#grantedAt !== undefined) return
    this.#grantedAt = now
    this.#wait?.granted(now)
  }

  content(now: number): void {
    if (this.#grantedAt === undefined) return
    this.#firstTokenMs ??= now - this.#grantedAt
    this.#wait?.end(now, true)
  }

  end(end: AttemptEnd, now: number): void {
    const isAnswered = end.verdict === "success"
    this.#wait?.end(now, isAnswered)
    if (this.#isFirst) this.#observe(end, now)
    else if (isAnswered) this.#trial.accepted(end.tokens, this.#firstTokenMs !== undefined)
  }

  #observe(end: AttemptEnd, now: number): void {
    const { reason, verdict } = end
    if (verdict === "success") this.#trial.observe(this.#answered(end, now))
    else if (verdict === "failure") this.#trial.observe(failed)
    else if (reason?._tag === "ContentRefused") this.#trial.observe(refused)
    else if (reason === undefined) this.#left(now)
    else if (rejections.has(reason._tag)) this.#trial.rejected()
    else if (reason._tag === "RateLimited") this.#trial.limited()
  }

  /** The caller has left, or a later attempt was faster. */
  #left(now: number): void {
    if (this.#grantedAt !== undefined) this.#trial.left(this.#firstTokenMs ?? now - this.#grantedAt)
  }

  #answered({ finish, tokens }: AttemptEnd, now: number): Observation {
    const tookMs = now - (this.#grantedAt ?? now)
    return {
      failed: false,
      refused: finish === "content_filter",
      firstTokenMs: this.#firstTokenMs,
      tokensPerSecond: speedOf(tokens, tookMs, this.#firstTokenMs)
    }
  }
}

/** One request whose first attempt is compared. */
export class Trial {
  readonly #version: string | undefined
  readonly #observer: Observer
  readonly #session: number | undefined
  #hasBegun = false
  /** The version rejected the request, which another version may accept. */
  #isRejected = false
  /** The version's provider limits its rate; that of another version may not be. */
  #isLimited = false
  /** ms that the version had before it was left. */
  #leftAfterMs: number | undefined
  /** The tokens of a later attempt that has answered the request, and whether it was streamed. */
  #answer: { readonly tokens: number; readonly isStreamed: boolean } | undefined

  /**
   * @param version the deployment that takes the request; undefined: one of the others
   * @param session the hash of the request's session
   */
  constructor(version: string | undefined, observer: Observer, session: number | undefined) {
    this.#version = version
    this.#observer = observer
    this.#session = session
  }

  /** Begins an attempt. */
  attempt(now: number): TrialAttempt {
    const attempt = new TrialAttempt(this, !this.#hasBegun, now)
    this.#hasBegun = true
    return attempt
  }

  observe(observation: Observation): void {
    this.#observer.observe(this.#version, observation, this.#session)
  }

  /** Its first attempt waits for a slot. */
  wait(now: number): Wait | undefined {
    return this.#observer.waiting?.enqueue(this.#version, now)
  }

  rejected(): void {
    this.#isRejected = true
  }

  limited(): void {
    this.#isLimited = true
  }

  left(afterMs: number): void {
    this.#leftAfterMs = afterMs
    this.#compareOvertaken()
  }

  /** A later attempt has answered the request. */
  accepted(tokens: number, isStreamed: boolean): void {
    this.#answer ??= { tokens, isStreamed }
    if (this.#isRejected && this.#version !== undefined) this.observe(failed)
    if (this.#isLimited) this.observe(limited)
    this.#isRejected = false
    this.#isLimited = false
    this.#compareOvertaken()
  }

  /** Observes a version that was left because another one was faster. */
  #compareOvertaken(): void {
    const [answer, tookMs] = [this.#answer, this.#leftAfterMs]
    if (answer === undefined || tookMs === undefined) return
    this.#leftAfterMs = undefined
    this.observe({
      failed: false,
      refused: false,
      ...(answer.isStreamed
        ? { firstTokenMs: tookMs }
        : { tokensPerSecond: speedOf(answer.tokens, tookMs, undefined) })
    })
  }
}

/**
 * Begins to compare a request; undefined if its result says nothing: the drawn version cannot take it.
 *
 * @param tried the deployment that is tried first
 * @param isClosed whether the circuit of a deployment keeps requests from it
 */
export const begin = (
  { observer }: Entry,
  { first, last, session }: Split,
  tried: string | undefined,
  isClosed: (deployment: string) => boolean
): Trial | undefined => {
  if (observer === undefined || tried === undefined) return undefined
  if (first === undefined) {
    return last === undefined || tried === last ? undefined : new Trial(undefined, observer, session)
  }
  if (tried === first) return new Trial(first, observer, session)
  if (isClosed(first)) observer.observe(first, failed, session)
  return undefined
}

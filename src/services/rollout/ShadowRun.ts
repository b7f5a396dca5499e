/**
 * The copies of one model's requests in this process: what is counted of them, and those that run.
 *
 * **Gotchas**
 *
 * The counts are those of this process since its start, or since another plan: nothing is decided by them.
 */
import type { Fiber } from "effect"
import type { Identity } from "../../domain/Identity.ts"
import type { Nano } from "../../domain/Money.ts"
import { keyOfCopies } from "../admission/Subject.ts"
import * as Shadow from "./Shadow.ts"
import type { ShadowMetrics } from "./ShadowMetrics.ts"
import type { ShadowPlan } from "./ShadowSettings.ts"

/** The tenant and the user of copies, in the ledger, the mailbox and at providers. */
export const tenant = "shadow"

/** A pair whose answers differ, with the ends of its texts cut. */
export interface Differing {
  /** ms since 1970 */
  readonly at: number
  /** The last message of the request. */
  readonly prompt: string
  readonly primary: string
  readonly candidate: string
  readonly agreement: number | null
}

/** Characters of each text that are kept. */
const mostCharacters = 4_000

const cut = (text: string): string => text.length > mostCharacters ? `${text.slice(0, mostCharacters)}…` : text

/** The identity that copies have in the ledger: it has the budget of the plan, and no limits. */
const identityOf = (model: string, { budget }: ShadowPlan): Identity => ({
  keyId: keyOfCopies(model),
  tenant,
  user: tenant,
  isAdmin: false,
  setsTenant: false,
  ...(budget === undefined ? {} : { budgets: [budget] })
})

/** What the copies of a model have shown until now. */
export interface Report extends Shadow.Report {
  readonly model: string
  /** The deployment that gets the copies. */
  readonly to: string
  readonly share: number
  readonly compare: ShadowPlan["compare"]
  /** Copies that run now. */
  readonly running: number
  /** Failed copies, by the reason. */
  readonly failures: Readonly<Record<string, number>>
  /** The latest first; empty unless the plan keeps them. */
  readonly differing: ReadonlyArray<Differing>
  /** Why the last comparison that failed did. */
  readonly comparisonProblem?: string
}

export class ShadowRun {
  readonly model: string
  readonly plan: ShadowPlan
  readonly identity: Identity
  readonly #metrics: ShadowMetrics
  readonly #seed: number
  readonly #totals = Shadow.empty()
  readonly #failures: Record<string, number> = {}
  #requests = 0
  /** Not a set: those that requests enter and leave keep alive what has passed through. */
  #running: ReadonlyArray<Fiber.Fiber<void>> = []
  #differing: ReadonlyArray<Differing> = []
  #problem: string | undefined

  /** @param seed of a plan without one */
  constructor(model: string, plan: ShadowPlan, seed: number, metrics: ShadowMetrics) {
    this.model = model
    this.plan = plan
    this.identity = identityOf(model, plan)
    this.#seed = plan.seed ?? seed
    this.#metrics = metrics
  }

  /** Counts a request; whether it is sampled. @param session the hash of its session */
  samples(session: number | undefined): boolean {
    const isSampled = Shadow.isSampled(this.plan, this.#seed, this.#requests++, session)
    if (isSampled) this.#totals.sampled++
    return isSampled
  }

  /** Whether another copy may run. */
  get isFree(): boolean {
    return this.#running.length < this.plan.maxConcurrent
  }

  /** A copy that runs until its fiber ends. */
  begin(fiber: Fiber.Fiber<void>): void {
    this.#running = [...this.#running, fiber]
    fiber.addObserver(() => {
      this.#running = this.#running.filter((one) => one !== fiber)
    })
  }

  get running(): ReadonlyArray<Fiber.Fiber<void>> {
    return this.#running
  }

  /** Ends the copies that run. */
  interrupt(): void {
    for (const fiber of this.#running) fiber.interruptUnsafe()
  }

  /** @param problem why the comparison of a pair has failed */
  incomparable(problem: string): void {
    this.#problem = cut(problem)
  }

  /** The request failed, or its caller left. */
  unanswered(): void {
    this.#totals.unanswered++
    this.#metrics.ended("unanswered")
  }

  skipped(reason: Shadow.SkipReason): void {
    this.#totals.skipped[reason]++
    this.#metrics.ended(reason)
  }

  /** @param reason the tag of the error's reason */
  failed(reason: string): void {
    this.#totals.failed++
    this.#failures[reason] = (this.#failures[reason] ?? 0) + 1
    this.#metrics.ended("failed")
  }

  timedOut(): void {
    this.#totals.timedOut++
    this.#metrics.ended("timed_out")
  }

  cancelled(): void {
    this.#totals.cancelled++
    this.#metrics.ended("cancelled")
  }

  answered(pair: Shadow.Pair): void {
    Shadow.record(this.#totals, this.plan, pair)
    this.#metrics.ended(pair.isExact ? "exact" : "different")
    this.#metrics.took("primary", pair.primary)
    this.#metrics.took("candidate", pair.candidate)
    if (pair.agreement !== undefined) this.#metrics.agreed(pair.agreement)
  }

  /** @param cost of a copy; undefined if a price is unknown */
  spent(cost: Nano | undefined): void {
    if (cost === undefined) {
      this.#totals.unpriced++
      return
    }
    this.#totals.cost += cost
    this.#metrics.spent(cost)
  }

  /** Keeps a pair with different answers, if the plan says so. */
  keep(pair: Differing): void {
    const { keepDiffering } = this.plan
    if (keepDiffering === 0) return
    const { candidate, primary, prompt } = pair
    const kept = { ...pair, prompt: cut(prompt), primary: cut(primary), candidate: cut(candidate) }
    this.#differing = [kept, ...this.#differing].slice(0, keepDiffering)
  }

  get report(): Report {
    const { candidate, compare, share } = this.plan
    return {
      ...Shadow.report(this.#totals),
      model: this.model,
      to: candidate,
      share,
      compare,
      running: this.#running.length,
      failures: { ...this.#failures },
      differing: this.#differing,
      ...(this.#problem === undefined ? {} : { comparisonProblem: this.#problem })
    }
  }
}

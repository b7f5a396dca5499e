/**
 * Who of the waiting goes next: bounded, fair among tenants, by priority with ageing. Pure policy over plain data.
 *
 * **Details**
 *
 * The highest priority goes first, and every span of `ageing` that a caller has waited lifts him by one priority, so
 * that none waits for ever. Tenants of the same priority take turns, of whom one who begins to wait comes last; of one
 * tenant it is the turn of the caller who has waited longest.
 *
 * A full queue refuses newcomers, unless one tenant holds more than the newcomer's tenant would: then the newest caller
 * of the tenant who holds most makes room. So one tenant's flood shuts out only itself.
 *
 * **Gotchas**
 *
 * Time is an argument, in ms: the queue has no clock.
 */
import type { Priority } from "./Inference.ts"

/** One that waits. */
export interface Waiting<A> {
  readonly tenant: string
  readonly priority: Priority
  /** Since when, ms. */
  readonly since: number
  readonly value: A
}

/** What became of a newcomer. */
export type Offer<A> =
  | { readonly accepted: true; readonly displaced?: Waiting<A> }
  | { readonly accepted: false }

const ranks: Readonly<Record<Priority, number>> = { low: 0, normal: 1, high: 2 }

export interface Options {
  /** The most that may wait. */
  readonly limit: number
  /** ms of waiting that count as one priority more. */
  readonly ageing: number
}

/** A queue; see the module's head. */
export class FairQueue<A> {
  readonly #options: Options
  /** In the order of service: the tenant who was served last, or has begun to wait, is last. Each has his callers, oldest first. */
  readonly #tenants = new Map<string, Array<Waiting<A>>>()
  #size = 0

  constructor(options: Options) {
    this.#options = options
  }

  get size(): number {
    return this.#size
  }

  offer(waiting: Waiting<A>): Offer<A> {
    if (this.#size < this.#options.limit) {
      this.#add(waiting)
      return { accepted: true }
    }
    const displaced = this.#displace((this.#tenants.get(waiting.tenant)?.length ?? 0) + 1)
    if (displaced === undefined) return { accepted: false }
    this.#add(waiting)
    return { accepted: true, displaced }
  }

  /** Takes out the one whose turn it is. */
  next(now: number): Waiting<A> | undefined {
    let best: { readonly tenant: string; readonly index: number; readonly rank: number } | undefined
    for (const [tenant, callers] of this.#tenants) {
      for (const [index, waiting] of callers.entries()) {
        const rank = this.#rankOf(waiting, now)
        if (best === undefined || rank > best.rank) best = { tenant, index, rank }
      }
    }
    if (best === undefined) return undefined
    const waiting = this.#takeOut(best.tenant, best.index)
    const rest = this.#tenants.get(best.tenant)
    if (rest !== undefined) {
      this.#tenants.delete(best.tenant)
      this.#tenants.set(best.tenant, rest)
    }
    return waiting
  }

  /** Takes out one who leaves; false if he is not there. */
  remove(waiting: Waiting<A>): boolean {
    const index = this.#tenants.get(waiting.tenant)?.indexOf(waiting) ?? -1
    if (index >= 0) this.#takeOut(waiting.tenant, index)
    return index >= 0
  }

  /** Takes out all. */
  clear(): ReadonlyArray<Waiting<A>> {
    const all = [...this.#tenants.values()].flat()
    this.#tenants.clear()
    this.#size = 0
    return all
  }

  #rankOf({ priority, since }: Waiting<A>, now: number): number {
    return Math.min(ranks.high, ranks[priority] + Math.floor(Math.max(0, now - since) / this.#options.ageing))
  }

  #add(waiting: Waiting<A>) {
    const callers = this.#tenants.get(waiting.tenant)
    if (callers === undefined) this.#tenants.set(waiting.tenant, [waiting])
    else callers.push(waiting)
    this.#size++
  }

  #takeOut(tenant: string, index: number): Waiting<A> {
    const callers = this.#tenants.get(tenant)!
    const [waiting] = callers.splice(index, 1)
    if (callers.length === 0) this.#tenants.delete(tenant)
    this.#size--
    return waiting!
  }

  /** Takes out the newest caller of whoever holds the most places, if that is more than `than`. */
  #displace(than: number): Waiting<A> | undefined {
    let most = ""
    let held = than
    for (const [tenant, callers] of this.#tenants) {
      if (callers.length <= held) continue
      most = tenant
      held = callers.length
    }
    return held === than ? undefined : this.#takeOut(most, held - 1)
  }
}

/**
 * The queue of callers that wait for a slot: bounded, fair among tenants, ordered by priority with ageing. Plain data,
 * synchronous.
 *
 * **Details**
 *
 * The highest priority goes first. Each `ageing` span of waiting raises a caller by one priority, so that no caller
 * waits forever. At the same priority, network addresses take turns, and within an address its tenants; one that begins
 * to wait comes last. Within a tenant, the caller that has waited longest is next. A tenant is an API key, which need
 * not exist: any number of keys from one address share the turns of that address.
 *
 * A full mailbox refuses new callers, unless another address would hold more places than the new caller's address, or
 * another tenant of the same address more than its tenant: then the newest caller of the largest holder is displaced. A
 * flood therefore displaces only itself.
 *
 * **Gotchas**
 *
 * Time is an argument, in ms: the mailbox has no clock.
 */
import type { Priority } from "../../domain/Inference.ts"

/** A waiting caller. */
export interface Waiting<A> {
  readonly tenant: string
  /** See `CallerAddress`; default empty. */
  readonly address?: string
  readonly priority: Priority
  /** When it began to wait, ms. */
  readonly since: number
  readonly value: A
}

/** The outcome for a new caller. */
export type Offer<A> =
  | { readonly accepted: true; readonly displaced?: Waiting<A> }
  | { readonly accepted: false }

const ranks: Readonly<Record<Priority, number>> = { low: 0, normal: 1, high: 2 }

export interface Options {
  /** The most callers that may wait. */
  readonly limit: number
  /** Waiting time that raises the priority by one, ms. */
  readonly ageing: number
}

/** The callers of each tenant, oldest first. Tenants are in the order of their turns: the last one served is last. */
type Tenants<A> = Map<string, Array<Waiting<A>>>

const addressOf = ({ address = "" }: Waiting<unknown>): string => address

const sizeOf = (tenants: Tenants<unknown>): number => {
  let size = 0
  for (const callers of tenants.values()) size += callers.length
  return size
}

/** The largest value above `than`; the first of several. */
const largest = <V>(
  entries: Iterable<readonly [string, V]>,
  sizeOf: (value: V) => number,
  than: number
): V | undefined => {
  let found: V | undefined
  let most = than
  for (const [, value] of entries) {
    const size = sizeOf(value)
    if (size <= most) continue
    found = value
    most = size
  }
  return found
}

/** Moves an entry to the end. */
const moveToEnd = <V>(map: Map<string, V>, key: string): void => {
  const value = map.get(key)
  if (value === undefined) return
  map.delete(key)
  map.set(key, value)
}

const sum = (counts: ReadonlyArray<number>): number => counts.reduce((total, count) => total + count, 0)

/**
 * Callers of other lists that are taken before a caller, where lists take turns.
 *
 * @param counts callers of each list, in the order of the turns
 * @param own the caller's list
 * @param before callers of its list that are before it
 */
const takenBefore = (counts: ReadonlyArray<number>, own: number, before: number): number =>
  sum(counts.map((count, list) => list === own ? 0 : Math.min(count, list < own ? before + 1 : before)))

export class Mailbox<A> {
  readonly #options: Options
  /** In the order of their turns. */
  readonly #addresses = new Map<string, Tenants<A>>()
  /** Callers that wait. */
  size = 0

  constructor(options: Options) {
    this.#options = options
  }

  offer(waiting: Waiting<A>): Offer<A> {
    if (this.size < this.#options.limit) {
      this.#add(waiting)
      return { accepted: true }
    }
    const displaced = this.#displacedBy(waiting)
    if (displaced === undefined) return { accepted: false }
    this.#remove(displaced)
    this.#add(waiting)
    return { accepted: true, displaced }
  }

  /** Removes and returns the next caller. */
  next(now: number): Waiting<A> | undefined {
    let best: Waiting<A> | undefined
    let highest = -1
    for (const tenants of this.#addresses.values()) {
      for (const callers of tenants.values()) {
        for (const waiting of callers) {
          const rank = this.#rankOf(waiting, now)
          if (rank <= highest) continue
          best = waiting
          highest = rank
        }
      }
    }
    if (best === undefined) return undefined
    const address = addressOf(best)
    const tenants = this.#addresses.get(address)!
    this.#remove(best)
    moveToEnd(tenants, best.tenant)
    moveToEnd(this.#addresses, address)
    return best
  }

  /**
   * The number of callers before this one in the queue now, plus 1. Undefined if it does not wait.
   * Callers of a higher priority go first, and the turns of the others count as they are now.
   */
  positionOf(waiting: Waiting<A>, now: number): number | undefined {
    const address = addressOf(waiting)
    const tenants = this.#addresses.get(address)
    const callers = tenants?.get(waiting.tenant)
    const index = callers?.indexOf(waiting) ?? -1
    if (tenants === undefined || callers === undefined || index < 0) return undefined
    const rank = this.#rankOf(waiting, now)
    let higher = 0
    const equalIn = (some: ReadonlyArray<Waiting<A>>): number => {
      let equal = 0
      for (const other of some) {
        const its = this.#rankOf(other, now)
        if (its > rank) higher++
        else if (its === rank) equal++
      }
      return equal
    }
    const counts = [...this.#addresses.values()].map((all) => [...all.values()].map(equalIn))
    const ownAddress = [...this.#addresses.keys()].indexOf(address)
    const ownTenant = [...tenants.keys()].indexOf(waiting.tenant)
    const ofTenant = callers.slice(0, index).filter((other) => this.#rankOf(other, now) === rank).length
    const ofAddress = ofTenant + takenBefore(counts[ownAddress]!, ownTenant, ofTenant)
    return 1 + higher + ofAddress + takenBefore(counts.map((all) => sum(all)), ownAddress, ofAddress)
  }

  /** When the caller began to wait that waits longest, ms; undefined where none waits. */
  get oldestSince(): number | undefined {
    let oldest: number | undefined
    for (const tenants of this.#addresses.values()) {
      for (const [first] of tenants.values()) {
        if (first !== undefined && (oldest === undefined || first.since < oldest)) oldest = first.since
      }
    }
    return oldest
  }

  /** Removes a caller; false if it does not wait. */
  remove(waiting: Waiting<A>): boolean {
    return this.#remove(waiting)
  }

  /** Removes and returns all. */
  clear(): ReadonlyArray<Waiting<A>> {
    const all = [...this.#addresses.values()].flatMap((tenants) => [...tenants.values()].flat())
    this.#addresses.clear()
    this.size = 0
    return all
  }

  #rankOf({ priority, since }: Waiting<A>, now: number): number {
    return Math.min(ranks.high, ranks[priority] + Math.floor(Math.max(0, now - since) / this.#options.ageing))
  }

  #add(waiting: Waiting<A>) {
    const address = addressOf(waiting)
    let tenants = this.#addresses.get(address)
    if (tenants === undefined) this.#addresses.set(address, tenants = new Map())
    const callers = tenants.get(waiting.tenant)
    if (callers === undefined) tenants.set(waiting.tenant, [waiting])
    else callers.push(waiting)
    this.size++
  }

  #remove(waiting: Waiting<A>): boolean {
    const address = addressOf(waiting)
    const tenants = this.#addresses.get(address)
    const callers = tenants?.get(waiting.tenant)
    const index = callers?.indexOf(waiting) ?? -1
    if (tenants === undefined || callers === undefined || index < 0) return false
    callers.splice(index, 1)
    if (callers.length === 0) tenants.delete(waiting.tenant)
    if (tenants.size === 0) this.#addresses.delete(address)
    this.size--
    return true
  }

  /**
   * The caller to displace: the newest of an address that would hold more places than the new caller's address, or else
   * of such a tenant of the same address.
   */
  #displacedBy(newcomer: Waiting<A>): Waiting<A> | undefined {
    const own: Tenants<A> = this.#addresses.get(addressOf(newcomer)) ?? new Map()
    const flood = largest(this.#addresses, sizeOf, sizeOf(own) + 1)
    const lengthOf = (callers: ReadonlyArray<Waiting<A>>) => callers.length
    return flood === undefined
      ? largest(own, lengthOf, (own.get(newcomer.tenant)?.length ?? 0) + 1)?.at(-1)
      : largest(flood, lengthOf, 0)!.at(-1)
  }
}

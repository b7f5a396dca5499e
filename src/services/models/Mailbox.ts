/**
 * Who of the waiting goes next: bounded, fair among tenants, by priority with ageing. Pure policy over plain data.
 *
 * **Details**
 *
 * The highest priority goes first, and every span of `ageing` that a caller has waited lifts him by one priority, so
 * that none waits for ever. At the same priority, network addresses take turns, and within an address its tenants; one that
 * begins to wait comes last. Of one tenant, the caller that has waited longest is next. A tenant is a key that its caller may
 * have made up: any number of keys from one address get the turns of one address.
 *
 * A full queue refuses newcomers, unless another address holds more places than the newcomer's would, or another tenant of
 * the same address more than the newcomer's would: then the newest caller of the one that holds most makes room. So a flood
 * shuts out only itself.
 *
 * **Gotchas**
 *
 * Time is an argument, in ms: the queue has no clock.
 */
import type { Priority } from "../../domain/Inference.ts"

/** One that waits. */
export interface Waiting<A> {
  readonly tenant: string
  /** See `CallerAddress`; default empty, which is one for all. */
  readonly address?: string
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

/** The callers of each tenant, oldest first, in the order of service: the last that was served, or has begun to wait, is last. */
type Tenants<A> = Map<string, Array<Waiting<A>>>

const addressOf = ({ address = "" }: Waiting<unknown>): string => address

const sizeOf = (tenants: Tenants<unknown>): number => {
  let size = 0
  for (const callers of tenants.values()) size += callers.length
  return size
}

/** The key whose value is the largest of those larger than `than`; the first of several. */
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

/** Makes an entry the last. */
const moveToEnd = <V>(map: Map<string, V>, key: string): void => {
  const value = map.get(key)
  if (value === undefined) return
  map.delete(key)
  map.set(key, value)
}

/** A queue; see the module's head. */
export class FairQueue<A> {
  readonly #options: Options
  /** In the order of service, as their tenants are. */
  readonly #addresses = new Map<string, Tenants<A>>()
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
    const displaced = this.#displaceFor(waiting)
    if (displaced === undefined) return { accepted: false }
    this.#takeOut(displaced)
    this.#add(waiting)
    return { accepted: true, displaced }
  }

  /** Takes out the one whose turn it is. */
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
    this.#takeOut(best)
    moveToEnd(tenants, best.tenant)
    moveToEnd(this.#addresses, address)
    return best
  }

  /** Takes out one who leaves; false if he is not there. */
  remove(waiting: Waiting<A>): boolean {
    return this.#takeOut(waiting)
  }

  /** Takes out all. */
  clear(): ReadonlyArray<Waiting<A>> {
    const all = [...this.#addresses.values()].flatMap((tenants) => [...tenants.values()].flat())
    this.#addresses.clear()
    this.#size = 0
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
    this.#size++
  }

  #takeOut(waiting: Waiting<A>): boolean {
    const address = addressOf(waiting)
    const tenants = this.#addresses.get(address)
    const callers = tenants?.get(waiting.tenant)
    const index = callers?.indexOf(waiting) ?? -1
    if (tenants === undefined || callers === undefined || index < 0) return false
    callers.splice(index, 1)
    if (callers.length === 0) tenants.delete(waiting.tenant)
    if (tenants.size === 0) this.#addresses.delete(address)
    this.#size--
    return true
  }

  /** The newest caller of the address, or else of the tenant of the same address, that holds more than the newcomer's would. */
  #displaceFor(newcomer: Waiting<A>): Waiting<A> | undefined {
    const own: Tenants<A> = this.#addresses.get(addressOf(newcomer)) ?? new Map()
    const flood = largest(this.#addresses, sizeOf, sizeOf(own) + 1)
    const lengthOf = (callers: ReadonlyArray<Waiting<A>>) => callers.length
    return flood === undefined
      ? largest(own, lengthOf, (own.get(newcomer.tenant)?.length ?? 0) + 1)?.at(-1)
      : largest(flood, lengthOf, 0)!.at(-1)
  }
}

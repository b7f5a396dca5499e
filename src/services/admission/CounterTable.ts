/**
 * Shared counters in memory: those that the supervisor of several processes keeps for them. Pure.
 *
 * **Gotchas**
 *
 * An owner that has left reserves nothing more: a message of a process can arrive after its end. What it has spent counts
 * all the same.
 */
import type { CounterState, Hold, Outcome, Spend } from "./Counters.ts"
import { fits } from "./Counters.ts"

interface Counter {
  spent: number
  reserved: number
  endsAt: number
}

interface Reservation {
  readonly owner: number
  readonly amounts: Map<string, number>
}

/** Counters that are kept without a sweep. */
const fewCounters = 10_000

/** How long counters are kept after their period: a request may run longer than it, ms. */
const keptMs = 3_600_000

export class CounterTable {
  readonly #counters = new Map<string, Counter>()
  readonly #reservations = new Map<string, Reservation>()
  readonly #owners = new Set<number>()
  readonly #now: () => number
  #sweptAbove = fewCounters

  /** @param now ms since 1970 */
  constructor(now: () => number) {
    this.#now = now
  }

  join(owner: number): void {
    this.#owners.add(owner)
  }

  /** The owner has ended: its reservations are released. */
  leave(owner: number): void {
    this.#owners.delete(owner)
    for (const [id, reservation] of this.#reservations) if (reservation.owner === owner) this.#release(id)
  }

  reserve(owner: number, id: string, holds: ReadonlyArray<Hold>): Outcome {
    const counters = holds.map(({ counter, endsAt, floor }) => this.#counterOf(counter, floor, endsAt))
    const states = counters.map(({ reserved, spent }): CounterState => ({ spent, reserved }))
    const isReserved = this.#owners.has(owner) && holds.every((hold, index) => fits(hold, states[index]!))
    if (!isReserved) return { isReserved, states }
    const reservation = this.#reservations.get(id) ?? { owner, amounts: new Map<string, number>() }
    this.#reservations.set(id, reservation)
    holds.forEach(({ amount, counter }, index) => {
      counters[index]!.reserved += amount
      reservation.amounts.set(counter, (reservation.amounts.get(counter) ?? 0) + amount)
    })
    return { isReserved, states }
  }

  settle(id: string, spends: ReadonlyArray<Spend>): ReadonlyArray<number> {
    const spent = spends.map(({ amount, counter, endsAt }) => {
      const known = this.#counterOf(counter, 0, endsAt)
      known.spent += amount
      return known.spent
    })
    this.#release(id)
    return spent
  }

  #counterOf(name: string, floor: number, endsAt: number): Counter {
    const known = this.#counters.get(name)
    if (known !== undefined) {
      known.spent = Math.max(known.spent, floor)
      return known
    }
    const created: Counter = { spent: floor, reserved: 0, endsAt }
    this.#counters.set(name, created)
    if (this.#counters.size > this.#sweptAbove) this.#sweep()
    return created
  }

  #release(id: string): void {
    const amounts = this.#reservations.get(id)?.amounts
    if (amounts === undefined) return
    this.#reservations.delete(id)
    for (const [name, amount] of amounts) {
      const counter = this.#counters.get(name)
      if (counter !== undefined) counter.reserved -= amount
    }
  }

  /** Removes the counters of periods that have ended. */
  #sweep(): void {
    const before = this.#now() - keptMs
    for (const [name, { endsAt, reserved }] of this.#counters) {
      if (endsAt < before && reserved === 0) this.#counters.delete(name)
    }
    this.#sweptAbove = Math.max(fewCounters, 2 * this.#counters.size)
  }
}

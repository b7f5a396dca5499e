/**
 * The adaptive limit of one deployment that several processes call: the supervisor decides it, from what all of them observe.
 *
 * **Details**
 *
 * The processes share one limit, as they share a fixed one: the permits are leased (`Leases`), and `AdaptiveLimit` changes their
 * number. Limits of their own would not find where a provider begins to queue: a process that lowers its limit, to
 * measure the latency without a queue, still measures the queue that the others cause.
 *
 * A process reports how many of its jobs run. Those of the others are added to a sample, at most as many as the permits that
 * they hold: a report may be old.
 */
import type { Bounds } from "../../domain/AdaptiveConcurrency.ts"
import * as AdaptiveLimit from "../models/AdaptiveLimit.ts"
import type { Instruction, Leases } from "./Leases.ts"
import type { ToSupervisor } from "./ProcessGroup.ts"

type Report = Pick<Extract<ToSupervisor, { readonly type: "samples" }>, "running" | "samples">

export class SharedLimit {
  readonly #leases: Leases
  readonly #running = new Map<number, number>()
  #bounds: Bounds
  #state: AdaptiveLimit.State

  constructor(bounds: Bounds, leases: Leases) {
    this.#bounds = bounds
    this.#leases = leases
    this.#state = AdaptiveLimit.make(bounds)
  }

  /** Requests of all processes that may be in flight, at least 1. */
  get limit(): number {
    return AdaptiveLimit.limitOf(this.#state)
  }

  /** What was measured stays. */
  resize(bounds: Bounds): void {
    this.#bounds = bounds
    this.#state = AdaptiveLimit.within(this.#state, bounds)
  }

  /**
   * A process has reported.
   *
   * @param now monotonic ms
   */
  observe(process: number, { running, samples }: Report, now: number): ReadonlyArray<Instruction> {
    const before = this.limit
    this.#running.set(process, running)
    const others = this.#runningBeside(process)
    for (const sample of samples) {
      const seen = { ...sample, startedAt: now + sample.startedAt, inFlight: sample.inFlight + others }
      this.#state = AdaptiveLimit.update(this.#state, this.#bounds, seen, now)
    }
    return this.limit === before ? [] : this.#leases.resize(this.limit)
  }

  #runningBeside(process: number): number {
    let sum = 0
    for (const [other, running] of this.#running) {
      if (other !== process) sum += Math.min(running, this.#leases.held(other))
    }
    return sum
  }

  /** A process has ended. */
  leave(process: number): void {
    this.#running.delete(process)
  }
}

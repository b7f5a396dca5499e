/**
 * The slots that this process may use of a deployment which other processes call, too.
 *
 * **Details**
 *
 * `maxConcurrent` of a remote deployment is a limit of the service. Where the service has several processes, each holds a
 * part of it, which changes: see `services/processes/Leases`. Elsewhere nothing is leased, and the engine's slots are the
 * limit.
 *
 * An adaptive limit is decided by the supervisor, from what all processes observe (`SharedLimit`).
 */
import { Context } from "effect"
import type { ToProcess, ToSupervisor } from "../processes/ProcessGroup.ts"
import type { Sample } from "./AdaptiveLimit.ts"

/** What a lease must know of the actor that uses its slots. */
export interface SlotUser {
  /** Jobs that hold a slot. */
  readonly running: () => number
  /** Gives free slots to waiting callers. */
  readonly dispatch: () => void
}

/** Samples are sent together, at most this many, and no more often than this, ms; a rejection at once. */
const batch = { most: 32, everyMs: 100 } as const

/** The leased slots of one deployment. */
export class SlotLease {
  readonly #deployment: string
  readonly #send: (message: ToSupervisor) => void
  #user: SlotUser = { running: () => 0, dispatch: () => {} }
  #slots = 0
  /** Slots to give back as jobs end. */
  #owed = 0
  #asking = false
  #limit: number | undefined
  #samples: Array<Sample> = []
  #reportedAt = Number.NEGATIVE_INFINITY
  /** Jobs that held a slot at the last report. */
  #reported = 0

  constructor(deployment: string, send: (message: ToSupervisor) => void) {
    this.#deployment = deployment
    this.#send = send
  }

  /** The number that this process holds. */
  get slots(): number {
    return this.#slots
  }

  /** The adaptive limit of all processes together; undefined before the supervisor has said it. */
  get limit(): number | undefined {
    return this.#limit
  }

  useFor(user: SlotUser): void {
    this.#user = user
  }

  /** This many callers wait for a slot. */
  wait(callers: number): void {
    if (this.#asking) return
    this.#asking = true
    this.#send({ type: "want", deployment: this.#deployment, count: callers })
  }

  /** A job has released its slot, which is not used again before this. @param now monotonic ms */
  released(now: number): void {
    if (this.#owed > 0) this.#owed -= this.#give(this.#owed, true)
    // Without new samples, the supervisor would take the slots for used.
    if (this.#reported > 0 && this.#user.running() <= this.#reported / 2) this.#report(now)
  }

  /** An attempt has shown this. @param now monotonic ms */
  observe(sample: Sample, now: number): void {
    this.#samples.push(sample)
    const isDue = sample.type === "overload" || this.#samples.length >= batch.most
    if (!isDue && now - this.#reportedAt < batch.everyMs) return
    this.#report(now)
  }

  #report(now: number): void {
    const samples = this.#samples.map((sample) => ({ ...sample, startedAt: sample.startedAt - now }))
    this.#samples = []
    this.#reportedAt = now
    this.#reported = this.#user.running()
    this.#send({ type: "samples", deployment: this.#deployment, samples, running: this.#reported })
  }

  receive(message: Extract<ToProcess, { readonly type: "grant" | "limit" | "recall" }>): void {
    if (message.type === "limit") {
      this.#limit = message.limit
      this.#user.dispatch()
    } else if (message.type === "grant") {
      this.#asking = false
      this.#slots += message.count
      // Without a new slot, callers ask again when a job has ended.
      if (message.count > 0) this.#user.dispatch()
    } else if (message.must) this.#owed += message.count - this.#give(message.count, true)
    else this.#give(message.count, false)
  }

  /** Gives back at most this many unused slots; returns their number. */
  #give(most: number, must: boolean): number {
    const count = Math.min(most, Math.max(0, this.#slots - this.#user.running()))
    this.#slots -= count
    if (count > 0 || !must) this.#send({ type: "give", deployment: this.#deployment, count, must })
    return count
  }
}

/** The leases by the ids of their deployments. */
export const SlotLeases = Context.Reference<ReadonlyMap<string, SlotLease>>("troupe/services/models/SlotLeases", {
  defaultValue: () => new Map<string, SlotLease>()
})

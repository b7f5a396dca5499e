/**
 * What the processes of a service share, in the supervisor: permits of concurrency (`Leases`), probes of circuits, and the counters
 * of rates and budgets (`CounterTable`).
 *
 * **Details**
 *
 * Two generations share permits and counters while one replaces the other. Circuits and their probes are those of one generation:
 * a new one that fails must not open the circuits of the old one.
 *
 * A process has a seat, a number that no other process of the service has; another one that starts in its place has the same.
 */
import { isDeepStrictEqual } from "node:util"
import { CounterTable } from "../../services/admission/CounterTable.ts"
import type { Instruction } from "../../services/processes/Leases.ts"
import { Leases } from "../../services/processes/Leases.ts"
import { Probes } from "../../services/processes/Probes.ts"
import type { News, ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"
import { SharedLimit } from "../../services/processes/SharedLimit.ts"
import type { LeasedLimit } from "../../services/processes/Shares.ts"
import { firstOf } from "../../services/processes/Shares.ts"
import type { ServiceProcess } from "./Spawn.ts"

type Counting = Extract<ToSupervisor, { readonly type: "reserve" | "settle" }>

/** The messages that concern what is shared. */
export type Sharing = Extract<
  ToSupervisor,
  { readonly type: "give" | "news" | "probe" | "probed" | "reserve" | "samples" | "settle" | "want" }
>

/** The permits of a generation, by the ids of its deployments: an object of its own for each generation. */
export type LeaseTable = Map<string, Leases>

interface Seated {
  readonly process: ServiceProcess
  readonly leases: LeaseTable
  /** Whose reservations are those of the process: it is another owner when it starts again. */
  readonly owner: number
}

export class SharedState {
  readonly #counters: CounterTable
  /** By generation and deployment. */
  readonly #probes = new WeakMap<LeaseTable, Map<string, Probes>>()
  readonly #seats = new Map<number, Seated>()
  #leases: LeaseTable = new Map()
  readonly #limits = new Map<Leases, LeasedLimit>()
  readonly #adaptive = new WeakMap<Leases, SharedLimit>()
  readonly #monotonic: () => number
  #owners = 0

  /**
   * @param now ms since 1970
   * @param monotonic ms
   */
  constructor(now: () => number, monotonic: () => number = now) {
    this.#counters = new CounterTable(now)
    this.#monotonic = monotonic
  }

  /**
   * The permits of a generation. It shares those of the generation before it, unless a limit has changed.
   *
   * @param limits concurrency of the deployments that several processes call
   * @param count of processes
   */
  leasesOf(limits: ReadonlyMap<string, LeasedLimit>, count: number): LeaseTable {
    this.#leases = new Map(Array.from(limits, ([id, limit]) => {
      const known = this.#leases.get(id)
      if (known !== undefined && isDeepStrictEqual(this.#limits.get(known), limit)) return [id, known]
      const made = new Leases(firstOf(limit), count)
      this.#follow(made, limit)
      return [id, made]
    }))
    for (const leases of this.#limits.keys()) {
      const isUsed = [
        ...this.#leases.values(),
        ...[...this.#seats.values()].flatMap((seat) => [...seat.leases.values()])
      ]
      if (!isUsed.includes(leases)) this.#limits.delete(leases)
    }
    return this.#leases
  }

  /**
   * Other limits of a generation, from now on. Permits above a smaller one are recalled.
   *
   * @param count of processes
   */
  resize(leases: LeaseTable, limits: ReadonlyMap<string, LeasedLimit>, count: number): void {
    for (const [id, limit] of limits) {
      const known = leases.get(id)
      const table = known ?? new Leases(firstOf(limit), count)
      const now = this.#follow(table, limit)
      if (known !== undefined) this.#instruct(id, known.resize(now))
      else {
        leases.set(id, table)
        for (const [seat, seated] of this.#seats) if (seated.leases === leases) this.#instruct(id, table.join(seat))
      }
      this.#announce(id, table)
    }
  }

  /** Permits follow this limit from now on; returns it as a number. What was measured at the same server stays. */
  #follow(table: Leases, limit: LeasedLimit): number {
    const before = this.#limits.get(table)
    const known = this.#adaptive.get(table)
    this.#limits.set(table, limit)
    if (typeof limit === "number") {
      this.#adaptive.delete(table)
      return limit
    }
    if (known !== undefined && typeof before === "object" && isDeepStrictEqual(before.server, limit.server)) {
      known.resize(limit)
      return known.limit
    }
    const made = new SharedLimit(limit, table)
    this.#adaptive.set(table, made)
    return made.limit
  }

  /** Tells an adaptive limit to the processes that share it. */
  #announce(deployment: string, table: Leases): void {
    const limit = this.#adaptive.get(table)?.limit
    if (limit === undefined) return
    for (const { leases, process } of this.#seats.values()) {
      if (leases.get(deployment) === table) process.send({ type: "limit", deployment, limit })
    }
  }

  #observe(seat: number, table: Leases, report: Extract<Sharing, { readonly type: "samples" }>): void {
    const shared = this.#adaptive.get(table)
    const before = shared?.limit
    if (shared === undefined) return
    this.#instruct(report.deployment, shared.observe(seat, report, this.#monotonic()))
    if (shared.limit !== before) this.#announce(report.deployment, table)
  }

  /** A process has started. */
  join(seat: number, process: ServiceProcess, leases: LeaseTable): void {
    const owner = ++this.#owners
    this.#seats.set(seat, { process, leases, owner })
    this.#counters.join(owner)
    for (const [id, table] of leases) {
      this.#instruct(id, table.join(seat))
      const limit = this.#adaptive.get(table)?.limit
      if (limit !== undefined) process.send({ type: "limit", deployment: id, limit })
    }
  }

  /** A process has ended. */
  leave(seat: number): void {
    const seated = this.#seats.get(seat)
    if (seated === undefined) return
    this.#seats.delete(seat)
    this.#counters.leave(seated.owner)
    for (const [id, leases] of seated.leases) {
      this.#adaptive.get(leases)?.leave(seat)
      this.#instruct(id, leases.leave(seat))
    }
    for (const probes of this.#probes.get(seated.leases)?.values() ?? []) probes.leave(seat)
  }

  /** A message of the process at a seat; one of a process that has ended is dropped. */
  receive(seat: number, message: Sharing): void {
    const seated = this.#seats.get(seat)
    if (seated === undefined) return
    if (message.type === "news") return this.#tell(seated, message)
    if (message.type === "reserve" || message.type === "settle") {
      return seated.process.send(this.#count(seated.owner, message))
    }
    switch (message.type) {
      case "want":
        return this.#instruct(message.deployment, seated.leases.get(message.deployment)!.want(seat, message.count))
      case "give": {
        const { count, deployment, must } = message
        return this.#instruct(deployment, seated.leases.get(deployment)!.give(seat, count, must))
      }
      case "samples":
        return this.#observe(seat, seated.leases.get(message.deployment)!, message)
      case "probe": {
        const isGranted = this.#probesOf(seated, message.deployment).take(seat, message.most)
        return seated.process.send({ type: "probe", isGranted })
      }
      case "probed":
        return this.#probesOf(seated, message.deployment).release(seat)
    }
  }

  /** Passes news of the supervisor to a process. */
  inform(seat: number, news: News): void {
    this.#seats.get(seat)?.process.send({ type: "news", news })
  }

  /** Passes news of a process to the others of its generation. */
  #tell(seated: Seated, news: Extract<Sharing, { readonly type: "news" }>): void {
    for (const other of this.#seats.values()) {
      if (other !== seated && other.leases === seated.leases) other.process.send(news)
    }
  }

  #count(owner: number, message: Counting): ToProcess {
    return message.type === "reserve"
      ? { type: "reserved", outcome: this.#counters.reserve(owner, message.id, message.holds) }
      : { type: "settled", spent: this.#counters.settle(message.id, message.spends) }
  }

  #probesOf({ leases }: Seated, deployment: string): Probes {
    const ofGeneration = this.#probes.get(leases) ?? new Map<string, Probes>()
    this.#probes.set(leases, ofGeneration)
    const known = ofGeneration.get(deployment)
    if (known !== undefined) return known
    const made = new Probes()
    ofGeneration.set(deployment, made)
    return made
  }

  #instruct(deployment: string, instructions: ReadonlyArray<Instruction>): void {
    for (const { process, ...instruction } of instructions) {
      this.#seats.get(process)?.process.send({ ...instruction, deployment })
    }
  }
}

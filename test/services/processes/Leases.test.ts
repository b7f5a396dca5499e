/** Processes share a limit: messages between them and the supervisor arrive in order, but as late as they like. */
import { assert } from "@effect/vitest"
import fc from "fast-check"
import { describe, it } from "vitest"
import { SlotLease } from "../../../src/services/models/SlotLeases.ts"
import { Leases } from "../../../src/services/processes/Leases.ts"
import type { Instruction } from "../../../src/services/processes/Leases.ts"
import type { ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"

/** One process with callers of one deployment. */
class Caller {
  readonly toSupervisor: Array<ToSupervisor> = []
  readonly toProcess: Array<ToProcess> = []
  readonly lease: SlotLease
  running = 0
  waiting = 0

  constructor() {
    this.lease = new SlotLease("d", (message) => void this.toSupervisor.push(message))
    this.lease.useFor({ running: () => this.running, dispatch: () => this.dispatch() })
  }

  /** As `Actor.dispatch`. */
  dispatch(): void {
    while (this.waiting > 0) {
      if (this.running >= this.lease.slots) return this.lease.wait(this.waiting)
      this.waiting--
      this.running++
    }
  }

  arrive(): void {
    this.waiting++
    this.dispatch()
  }

  end(): void {
    if (this.running === 0) return
    this.running--
    this.lease.released(0)
    this.dispatch()
  }

  receive(): boolean {
    const message = this.toProcess.shift()
    if (message?.type === "grant" || message?.type === "recall") this.lease.receive(message)
    return message !== undefined
  }
}

/** The supervisor and its processes. */
class Service {
  readonly leases: Leases
  readonly callers = new Map<number, Caller>()
  readonly limit: number

  constructor(limit: number, count: number) {
    this.limit = limit
    this.leases = new Leases(limit, count)
    for (let index = 1; index <= count; index++) this.start(index)
  }

  get running(): number {
    return Array.from(this.callers.values()).reduce((sum, { running }) => sum + running, 0)
  }

  get waiting(): number {
    return Array.from(this.callers.values()).reduce((sum, { waiting }) => sum + waiting, 0)
  }

  start(index: number): void {
    this.callers.set(index, new Caller())
    this.instruct(this.leases.join(index))
  }

  /** Its connections end with it, and its messages with them. */
  crash(index: number): void {
    this.callers.delete(index)
    this.instruct(this.leases.leave(index))
    this.start(index)
  }

  instruct(instructions: ReadonlyArray<Instruction>): void {
    for (const { process, ...instruction } of instructions) {
      this.callers.get(process)!.toProcess.push({ ...instruction, deployment: "d" })
    }
  }

  /** The supervisor receives the oldest message of a process. */
  receive(index: number): boolean {
    const message = this.callers.get(index)!.toSupervisor.shift()
    if (message?.type === "want") this.instruct(this.leases.want(index, message.count))
    if (message?.type === "give") this.instruct(this.leases.give(index, message.count, message.must))
    return message !== undefined
  }

  /** Delivers every message. */
  settle(): void {
    for (let step = 0;; step++) {
      assert.isBelow(step, 10_000, "messages without an end")
      const delivered = Array.from(this.callers).map(([index, caller]) => {
        const received = this.receive(index)
        return caller.receive() || received
      })
      if (!delivered.includes(true)) return
    }
  }

  check(): void {
    const slots = Array.from(this.callers.values()).reduce((sum, { lease }) => sum + lease.slots, 0)
    assert.isAtMost(slots, this.limit)
    assert.isAtMost(this.running, this.limit)
    for (const { lease, running } of this.callers.values()) assert.isAtMost(running, lease.slots)
  }
}

const setup = fc.record({ limit: fc.integer({ min: 1, max: 9 }), count: fc.integer({ min: 1, max: 4 }) })

const step = fc.record({
  kind: fc.constantFrom("arrive", "arrive", "end", "end", "receive", "supervise", "receive", "supervise", "crash"),
  index: fc.nat(3)
})

type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

const play = (service: Service, { index, kind }: Step): void => {
  const one = index % service.callers.size + 1
  const caller = service.callers.get(one)!
  if (kind === "arrive") caller.arrive()
  if (kind === "end") caller.end()
  if (kind === "receive") caller.receive()
  if (kind === "supervise") service.receive(one)
  if (kind === "crash") service.crash(one)
}

describe("Leases", () => {
  it("never lets more run than the limit, and lets all that wait run", () => {
    fc.assert(
      fc.property(setup, fc.array(step, { maxLength: 200 }), ({ count, limit }, steps) => {
        const service = new Service(limit, count)
        for (const one of steps) {
          play(service, one)
          service.check()
        }
        for (let round = 0; service.waiting > 0; round++) {
          assert.isBelow(round, 1_000, "callers that never run")
          service.settle()
          service.check()
          assert.isAbove(service.running, 0)
          const busy = Array.from(service.callers.values()).find(({ running }) => running > 0)!
          busy.end()
        }
      }),
      { numRuns: 1_000 }
    )
  })

  it("uses the whole limit in one process while the others have no callers", () => {
    const service = new Service(8, 4)
    service.settle()
    for (let caller = 0; caller < 8; caller++) service.callers.get(3)!.arrive()
    service.settle()
    assert.strictEqual(service.callers.get(3)!.running, 8)
  })

  it("returns an equal share to a process whose callers wait, as the requests of the others end", () => {
    const service = new Service(8, 2)
    service.settle()
    for (let caller = 0; caller < 20; caller++) service.callers.get(1)!.arrive()
    service.settle()
    for (let caller = 0; caller < 20; caller++) service.callers.get(2)!.arrive()
    service.settle()
    for (let ended = 0; ended < 8; ended++) {
      service.callers.get(1)!.end()
      service.settle()
    }
    assert.strictEqual(service.callers.get(1)!.running, 4)
    assert.strictEqual(service.callers.get(2)!.running, 4)
  })

  it("gives the permits of a process that has ended to the others", () => {
    const service = new Service(4, 2)
    service.settle()
    for (let caller = 0; caller < 4; caller++) service.callers.get(1)!.arrive()
    service.settle()
    for (let caller = 0; caller < 2; caller++) service.callers.get(2)!.arrive()
    service.settle()
    assert.strictEqual(service.callers.get(2)!.running, 0)
    service.crash(1)
    service.settle()
    assert.strictEqual(service.callers.get(2)!.running, 2)
  })

  it("passes one permit around among more processes", () => {
    const service = new Service(1, 3)
    for (const caller of service.callers.values()) {
      caller.arrive()
      caller.arrive()
    }
    const served: Array<number> = []
    for (let turn = 0; turn < 6; turn++) {
      service.settle()
      const [index, caller] = Array.from(service.callers).find(([, { running }]) => running > 0)!
      served.push(index)
      caller.end()
    }
    assert.deepStrictEqual(served.toSorted((one, other) => one - other), [1, 1, 2, 2, 3, 3])
  })
})

describe("another limit", () => {
  it("recalls what is above it from those that keep most, and shares what is added", () => {
    const leases = new Leases(10, 2)
    leases.join(1)
    leases.join(2)
    assert.deepStrictEqual(leases.resize(4), [
      { type: "recall", process: 1, count: 5, must: true },
      { type: "recall", process: 2, count: 1, must: true }
    ])
    assert.strictEqual(leases.free, -6)
    leases.want(1, 3)
    leases.give(1, 5, true)
    assert.strictEqual(leases.free, -1)
    leases.give(2, 1, true)
    assert.deepStrictEqual([leases.held(1), leases.held(2)], [0, 4])
    assert.deepStrictEqual(leases.resize(6), [{ type: "grant", process: 1, count: 2 }])
  })
})

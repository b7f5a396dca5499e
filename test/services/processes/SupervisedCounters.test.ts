/** Processes count in one table: messages between them and the supervisor arrive in order, but as late as they like. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import fc from "fast-check"
import { never } from "../../../src/services/admission/Counters.ts"
import { CounterTable } from "../../../src/services/admission/CounterTable.ts"
import type { ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"
import { SupervisedCounters } from "../../../src/services/processes/SupervisedCounters.ts"

const names = ["a", "b"]
const spendsOf = (amount: number) => names.map((counter) => ({ counter, amount, endsAt: never }))

/** One process, with requests that were admitted. */
class Process {
  readonly owner: number
  readonly toSupervisor: Array<ToSupervisor> = []
  readonly toProcess: Array<ToProcess> = []
  readonly counters = new SupervisedCounters((message) => void this.toSupervisor.push(message))
  /** What each request that runs may spend. */
  readonly running = new Map<string, number>()
  #count = 0

  constructor(owner: number) {
    this.owner = owner
  }

  begin(amount: number, most: number): void {
    const id = `${this.owner}-${this.#count++}`
    const holds = names.map((counter, index) => ({
      counter,
      amount,
      most: most * (index + 1),
      floor: 0,
      endsAt: never
    }))
    void Effect.runFork(Effect.map(this.counters.reserve(id, holds), ({ isReserved }) => {
      if (isReserved) this.running.set(id, amount)
    }))
  }

  /** Ends the oldest request; returns what it has spent. */
  end(part: number): number {
    const [oldest] = this.running
    if (oldest === undefined) return 0
    const [id, most] = oldest
    this.running.delete(id)
    const spent = Math.min(part, most)
    void Effect.runFork(this.counters.settle(id, spendsOf(spent)))
    return spent
  }
}

/** The supervisor and its processes. */
class Service {
  readonly table = new CounterTable(() => 0)
  readonly processes: Array<Process> = []
  /** Ended processes, of which messages still arrive. */
  readonly ended: Array<Process> = []
  readonly most: number
  spent = 0
  #started = 0

  constructor(most: number, count: number) {
    this.most = most
    for (let index = 0; index < count; index++) this.restart(index)
  }

  restart(index: number): void {
    const crashed = this.processes[index]
    if (crashed !== undefined) {
      this.table.leave(crashed.owner)
      // What its requests have spent without an end is lost with them; what arrived is not.
      this.ended.push(crashed)
    }
    const started = new Process(this.#started++)
    this.table.join(started.owner)
    this.processes[index] = started
  }

  /** The supervisor handles one message of a process. */
  receive({ counters: _, owner, toProcess, toSupervisor }: Process): void {
    const message = toSupervisor.shift()
    if (message?.type === "reserve") {
      toProcess.push({ type: "reserved", outcome: this.table.reserve(owner, message.id, message.holds) })
    } else if (message?.type === "settle") {
      toProcess.push({ type: "settled", spent: this.table.settle(message.id, message.spends) })
    }
  }

  deliver({ counters, toProcess }: Process): void {
    const message = toProcess.shift()
    if (message !== undefined) counters.receive(message)
  }

  /** What is spent, by ends on their way too, and what requests that run may still spend. */
  get committed(): number {
    const running = this.processes.flatMap(({ running }) => [...running.values()])
    return this.spent + running.reduce((sum, amount) => sum + amount, 0)
  }
}

type Act = "begin" | "end" | "receive" | "deliver" | "crash" | "late"

const act = (service: Service, { index, kind, part }: { index: number; kind: Act; part: number }): void => {
  const at = index % service.processes.length
  const process = service.processes[at]!
  switch (kind) {
    case "begin":
      return process.begin(part, service.most)
    case "end":
      service.spent += process.end(part)
      return
    case "receive":
      return service.receive(process)
    case "deliver":
      return service.deliver(process)
    case "crash":
      return service.restart(at)
    case "late": {
      const ended = service.ended[index % Math.max(1, service.ended.length)]
      if (ended !== undefined) service.receive(ended)
    }
  }
}

describe("processes that count in one table", () => {
  it("never spend and reserve more than the limit, however late messages arrive, and whichever process crashes", () => {
    const step = fc.record({
      index: fc.nat(100),
      kind: fc.constantFrom<Act>("begin", "begin", "end", "receive", "receive", "deliver", "deliver", "late"),
      part: fc.integer({ min: 1, max: 40 })
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), fc.integer({ min: 1, max: 300 }), (steps, most) => {
        const service = new Service(most, 3)
        for (const one of steps) {
          act(service, one)
          assert.isAtMost(service.committed, most)
        }
      }),
      { numRuns: 300 }
    )
  })

  it("count the same after crashes: what was settled is spent, what a crashed process held is released", () => {
    const step = fc.record({
      index: fc.nat(100),
      kind: fc.constantFrom<Act>("begin", "end", "receive", "receive", "deliver", "crash", "late"),
      part: fc.integer({ min: 1, max: 40 })
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), fc.integer({ min: 1, max: 300 }), (steps, most) => {
        const service = new Service(most, 3)
        const look = () =>
          service.table.reserve(-1, "look", [{ counter: "a", amount: 0, most, floor: 0, endsAt: never }]).states[0]!
        for (const one of steps) {
          act(service, one)
          const { reserved, spent } = look()
          assert.isAtLeast(reserved, 0)
          // Late ends of a crashed process are spent, though its reservations were released.
          if (service.ended.length === 0) assert.isAtMost(spent + reserved, most)
        }
        for (const process of [...service.processes, ...service.ended]) {
          while (process.toSupervisor.length > 0) service.receive(process)
        }
        for (let index = 0; index < 3; index++) service.restart(index)
        assert.deepStrictEqual(look(), { spent: service.spent, reserved: 0 })
      }),
      { numRuns: 300 }
    )
  })

  it("gives an answer to its question, also where a caller has left", async () => {
    const process = new Process(1)
    const left = Effect.runFork(process.counters.settle("left", []))
    const waiting = Effect.runPromise(process.counters.settle("waiting", spendsOf(1)))
    left.interruptUnsafe()
    process.counters.receive({ type: "settled", spent: [1] })
    process.counters.receive({ type: "settled", spent: [2] })
    assert.deepStrictEqual(await waiting, [2])
  })
})

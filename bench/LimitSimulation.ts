/**
 * A simulated provider that is full at a known concurrency, its knee, and the scenarios of `docs/scaling.md`.
 *
 * **Details**
 *
 * Only the provider is simulated: the limit is `AdaptiveLimit`, driven as the service drives it. Callers always wait, so the
 * limit decides how many requests are in flight. An hour of simulated time takes about 100 ms. Several processes send each
 * other the messages of the service, which take `messageMs`.
 */
import type { Bounds } from "../src/domain/AdaptiveConcurrency.ts"
import * as AdaptiveLimit from "../src/services/models/AdaptiveLimit.ts"
import { SlotLease } from "../src/services/models/SlotLeases.ts"
import type { Instruction } from "../src/services/processes/Leases.ts"
import { Leases } from "../src/services/processes/Leases.ts"
import type { ToSupervisor } from "../src/services/processes/ProcessGroup.ts"
import { SharedLimit } from "../src/services/processes/SharedLimit.ts"
import { Draws } from "./RolloutSimulation.ts"

/** How a provider behaves above its knee. */
export type Overload =
  /** Requests wait for a place: the first token is later, the rest as fast as before. */
  | "queue"
  /** All requests share what there is: every token is slower. */
  | "shared"
  /** It rejects requests. */
  | "reject"

export interface Scenario {
  readonly name: string
  /** That call the provider; callers are divided equally. Default 1. */
  readonly processes?: number
  readonly overload: Overload
  /** Whether answers are streamed, so that the first token shows. Default true. */
  readonly streamed?: boolean
  /** @param at ms from the start */
  readonly knee: (at: number) => number
  /** A factor of all times. Default 1. */
  readonly slower?: (at: number) => number
  /** Standard deviation of the logarithm of the time to first token: prompts differ in length. Default 0.5. */
  readonly noise?: number
  /** ms */
  readonly lasts: number
  /** What is measured, ms from the start. */
  readonly measured: readonly [from: number, to: number]
}

const minute = 60_000
const hour = 60 * minute

const steady = { lasts: 40 * minute, measured: [10 * minute, 40 * minute] } as const
const isSlowHour = (at: number): boolean => at >= hour && at < 2 * hour

export const scenarios = {
  queue: { name: "queues above 40", overload: "queue", knee: () => 40, ...steady },
  small: { name: "queues above 6", overload: "queue", knee: () => 6, ...steady },
  shared: { name: "slower above 40", overload: "shared", knee: () => 40, ...steady },
  buffered: {
    name: "slower above 40, buffered answers",
    overload: "shared",
    streamed: false,
    knee: () => 40,
    ...steady
  },
  bufferedQueue: {
    name: "queues above 40, buffered answers",
    overload: "queue",
    streamed: false,
    knee: () => 40,
    ...steady
  },
  noisy: {
    name: "slower above 40, prompts of very different lengths",
    overload: "shared",
    noise: 1,
    knee: () => 40,
    ...steady
  },
  reject: { name: "rejects above 40", overload: "reject", knee: () => 40, ...steady },
  slowHour: {
    name: "slower above 40, and twice as slow for an hour: in that hour",
    overload: "shared",
    knee: () => 40,
    slower: (at) => isSlowHour(at) ? 2 : 1,
    lasts: 3 * hour,
    measured: [hour, 2 * hour]
  },
  afterSlowHour: {
    name: "the same, in the hour after",
    overload: "shared",
    knee: () => 40,
    slower: (at) => isSlowHour(at) ? 2 : 1,
    lasts: 3 * hour,
    measured: [2 * hour, 3 * hour]
  },
  smaller: {
    name: "queues above 60, above 15 after an hour: in the hour after",
    overload: "queue",
    knee: (at) => at < hour ? 60 : 15,
    lasts: 2 * hour,
    measured: [hour, 2 * hour]
  },
  larger: {
    name: "queues above 15, above 60 after an hour: in the hour after",
    overload: "queue",
    knee: (at) => at < hour ? 15 : 60,
    lasts: 2 * hour,
    measured: [hour, 2 * hour]
  },
  queue12In2: { name: "queues above 12, 2 processes", processes: 2, overload: "queue", knee: () => 12, ...steady },
  queueIn2: { name: "queues above 40, 2 processes", processes: 2, overload: "queue", knee: () => 40, ...steady },
  queueIn4: { name: "queues above 40, 4 processes", processes: 4, overload: "queue", knee: () => 40, ...steady },
  bufferedIn2: {
    name: "queues above 40, buffered answers, 2 processes",
    processes: 2,
    overload: "queue",
    streamed: false,
    knee: () => 40,
    ...steady
  },
  sharedIn4: { name: "slower above 40, 4 processes", processes: 4, overload: "shared", knee: () => 40, ...steady },
  rejectIn4: { name: "rejects above 40, 4 processes", processes: 4, overload: "reject", knee: () => 40, ...steady },
  smallerIn4: {
    name: "queues above 60, above 15 after an hour: in the hour after, 4 processes",
    processes: 4,
    overload: "queue",
    knee: (at) => at < hour ? 60 : 15,
    lasts: 2 * hour,
    measured: [hour, 2 * hour]
  }
} satisfies Record<string, Scenario>

/** ms to the first token of an answer without a queue. */
const firstTokenMs = 400
/** ms of each further token. */
const tokenMs = 15
/** Of the lengths of answers: from about 15 to 1,500 tokens. */
const medianTokens = 150
const lengthNoise = 1.15
/** A rejected caller waits this long, ms. */
const backoff = 1_000
const callers = 200

interface Pending {
  readonly at: number
  readonly run: () => void
}

/** Events by their time: a binary heap. */
class Agenda {
  readonly #heap: Array<Pending> = []

  add(at: number, run: () => void): void {
    const heap = this.#heap
    let place = heap.push({ at, run }) - 1
    while (place > 0) {
      const above = (place - 1) >> 1
      if (heap[above]!.at <= heap[place]!.at) return
      ;[heap[above], heap[place]] = [heap[place]!, heap[above]!]
      place = above
    }
  }

  next(): Pending | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (heap.length === 0 || last === undefined) return first
    heap[0] = last
    for (let place = 0;;) {
      let least = place
      for (const child of [2 * place + 1, 2 * place + 2]) {
        if (child < heap.length && heap[child]!.at < heap[least]!.at) least = child
      }
      if (least === place) return first
      ;[heap[place], heap[least]] = [heap[least]!, heap[place]!]
      place = least
    }
  }
}

/** What a limit has reached. */
export interface Reached {
  /** Answers per second. */
  readonly throughput: number
  /** Mean limit over the time. */
  readonly limit: number
  /** Mean time to first token over that without a queue. */
  readonly slowdown: number
  /** Share of requests. */
  readonly rejected: number
}

/** A process as a limit sees it. */
interface Caller {
  readonly inFlight: number
  readonly waiting: number
}

/** A limit as the simulation uses it. */
interface Limit {
  /** Of all processes. */
  readonly now: () => number
  /** Whether a process may start a request; one that may not waits. */
  readonly mayStart: (process: number, all: number) => boolean
  /** A request of a process has ended. */
  readonly ended: (process: number) => void
  readonly observe: (process: number, sample: AdaptiveLimit.Sample, at: number) => void
}

const fixed = (limit: number): Limit => ({
  now: () => limit,
  mayStart: (_, all) => all < limit,
  ended: () => {},
  observe: () => {}
})

/** The limits that deployments have unless configured. */
export const defaults: Bounds = { min: 1, max: 256, initial: 20 }

const adaptive = (bounds: Bounds): Limit => {
  let state = AdaptiveLimit.make(bounds)
  return {
    now: () => AdaptiveLimit.limitOf(state),
    mayStart: (_, all) => all < AdaptiveLimit.limitOf(state),
    ended: () => {},
    observe: (_, sample, at) => {
      state = AdaptiveLimit.update(state, bounds, sample, at)
    }
  }
}

/** Time of a message between a process and the supervisor, ms. */
const messageMs = 2

/** The supervisor's limit of several processes, and the messages. */
const shared = (
  bounds: Bounds,
  processes: ReadonlyArray<Caller>,
  { later, now }: { readonly later: (run: () => void) => void; readonly now: () => number }
): Limit => {
  const leases = new Leases(bounds.initial, processes.length)
  const limit = new SharedLimit(bounds, leases)
  const instruct = (instructions: ReadonlyArray<Instruction>) => {
    for (const { process, ...instruction } of instructions) {
      later(() => own[process]!.receive({ ...instruction, deployment: "d" }))
    }
  }
  const receive = (process: number, message: ToSupervisor) => {
    if (message.type === "want") instruct(leases.want(process, message.count))
    if (message.type === "give") instruct(leases.give(process, message.count, message.must))
    if (message.type === "samples") instruct(limit.observe(process, message, now()))
  }
  /** Whether a process asks for slots when it has none: after a change, not at each event. */
  const asks = processes.map(() => true)
  const own = processes.map((_, process) => new SlotLease("d", (message) => later(() => receive(process, message))))
  for (const [process, caller] of processes.entries()) {
    own[process]!.useFor({ running: () => caller.inFlight, dispatch: () => void (asks[process] = true) })
    instruct(leases.join(process))
  }
  return {
    now: () => limit.limit,
    mayStart(process) {
      const { inFlight, waiting } = processes[process]!
      if (inFlight < own[process]!.slots) return true
      if (asks[process]!) own[process]!.wait(waiting)
      asks[process] = false
      return false
    },
    ended(process) {
      asks[process] = true
      own[process]!.released(now())
    },
    observe: (process, sample, at) => own[process]!.observe(sample, at)
  }
}

class Simulation {
  readonly #scenario: Scenario
  readonly #draws: Draws
  readonly #limit: Limit
  readonly #agenda = new Agenda()
  /** When each place of a provider that queues is free. */
  readonly #places = new Float64Array(256)
  #now = 0
  #inFlight = 0
  readonly #processes: ReadonlyArray<{ inFlight: number; waiting: number }>
  #lastAt = 0
  #answers = 0
  #limitTime = 0
  #slowdowns = 0
  #rejections = 0
  #begun = 0

  /** @param limit a fixed one, or the bounds of one that is adaptive */
  constructor(scenario: Scenario, seed: number, limit: Bounds | number) {
    const { processes = 1 } = scenario
    this.#scenario = scenario
    this.#draws = new Draws(seed)
    this.#processes = Array.from({ length: processes }, () => ({ inFlight: 0, waiting: callers / processes }))
    this.#limit = this.#limitOf(limit)
  }

  #limitOf(limit: Bounds | number): Limit {
    if (typeof limit === "number") return fixed(limit)
    if (this.#processes.length === 1) return adaptive(limit)
    const later = (run: () => void) => this.#agenda.add(this.#now + messageMs, run)
    return shared(limit, this.#processes, { later, now: () => this.#now })
  }

  run(): Reached {
    this.#startAll()
    const { lasts, measured: [from, to] } = this.#scenario
    for (let next = this.#agenda.next(); next !== undefined && next.at < lasts; next = this.#agenda.next()) {
      this.#advance(next.at)
      next.run()
      this.#startAll()
    }
    this.#advance(lasts)
    return {
      throughput: this.#answers / ((to - from) / 1000),
      limit: this.#limitTime / (to - from),
      slowdown: this.#slowdowns / Math.max(1, this.#begun - this.#rejections),
      rejected: this.#rejections / Math.max(1, this.#begun)
    }
  }

  get #isMeasured(): boolean {
    const { measured: [from, to] } = this.#scenario
    return this.#now >= from && this.#now < to
  }

  #advance(at: number): void {
    const { measured: [from, to] } = this.#scenario
    this.#limitTime += Math.max(0, Math.min(at, to) - Math.max(this.#lastAt, from)) * this.#limit.now()
    this.#lastAt = at
    this.#now = at
  }

  #startAll(): void {
    for (const [process, caller] of this.#processes.entries()) {
      while (caller.waiting > 0 && this.#limit.mayStart(process, this.#inFlight)) this.#start(process)
    }
  }

  #end(process: number): void {
    this.#inFlight--
    this.#processes[process]!.inFlight--
    this.#limit.ended(process)
  }

  #start(process: number): void {
    const { knee, overload } = this.#scenario
    const full = knee(this.#now)
    const caller = this.#processes[process]!
    const all = ++this.#inFlight
    const begun: AdaptiveLimit.Begun = { startedAt: this.#now, inFlight: ++caller.inFlight }
    caller.waiting--
    if (this.#isMeasured) this.#begun++
    if (overload === "reject" && all > full) this.#reject(process, begun)
    else this.#answer(process, begun, full)
  }

  #answer(process: number, begun: AdaptiveLimit.Begun, full: number): void {
    const { noise = 0.5, overload, slower = () => 1, streamed = true } = this.#scenario
    const factor = slower(this.#now) * (overload === "shared" ? Math.max(1, this.#inFlight / full) : 1)
    const usual = firstTokenMs * Math.exp(noise * this.#draws.normal())
    const tokens = Math.ceil(medianTokens * Math.exp(lengthNoise * this.#draws.normal()))
    const rest = tokens * tokenMs * factor * Math.exp(0.1 * this.#draws.normal())
    const waited = overload === "queue" ? this.#queue(full, usual * factor + rest) : 0
    const toFirst = waited + usual * factor
    if (this.#isMeasured) this.#slowdowns += toFirst / usual
    const ms = streamed ? toFirst : toFirst + rest
    const sample: AdaptiveLimit.Sample = streamed
      ? { ...begun, type: "latency", measure: "firstToken", ms }
      : { ...begun, type: "latency", measure: "perToken", ms, tokens }
    this.#agenda.add(this.#now + ms, () => this.#limit.observe(process, sample, this.#now))
    this.#agenda.add(this.#now + toFirst + rest, () => {
      this.#end(process)
      this.#processes[process]!.waiting++
      if (this.#isMeasured) this.#answers++
    })
  }

  #reject(process: number, begun: AdaptiveLimit.Begun): void {
    if (this.#isMeasured) this.#rejections++
    this.#agenda.add(this.#now + 20, () => {
      this.#end(process)
      this.#limit.observe(process, { ...begun, type: "overload" }, this.#now)
      this.#agenda.add(this.#now + backoff, () => void this.#processes[process]!.waiting++)
    })
  }

  /** Takes the place that is free first; returns the wait for it. */
  #queue(full: number, took: number): number {
    const places = this.#places
    let first = 0
    for (let index = 1; index < full; index++) if (places[index]! < places[first]!) first = index
    const begins = Math.max(this.#now, places[first]!)
    places[first] = begins + took
    return begins - this.#now
  }
}

export const simulate = (scenario: Scenario, seed: number, bounds: Bounds = defaults): Reached =>
  new Simulation(scenario, seed, bounds).run()

export const simulateFixed = (scenario: Scenario, seed: number, limit: number): Reached =>
  new Simulation(scenario, seed, limit).run()

/**
 * Simulated days of a local deployment whose replicas follow its load.
 *
 * **Details**
 *
 * Requests arrive at random by a rate that has a daily curve and bursts, wait in order for a slot, and hold it for a time
 * that is exponentially distributed. An added replica loads first; a removed one ends its jobs. A step of the simulation is
 * one second.
 */
import type { Bounds, Direction, Rules } from "../src/services/scaling/ScalingPolicy.ts"
import * as ScalingPolicy from "../src/services/scaling/ScalingPolicy.ts"
import { randomOf } from "../test/support/Seeded.ts"

/** One kind of day. */
export interface Scenario {
  readonly name: string
  /** Jobs that would run at once with any number of slots, by the second of the day. */
  readonly load: (second: number, bursts: ReadonlyArray<Burst>) => number
  /** Share of the machine's processor that one busy replica uses. */
  readonly cpuOfReplica: number
}

interface Burst {
  readonly from: number
  readonly until: number
  readonly factor: number
}

/** What one day was like. */
export interface Day {
  /** Number of changes of the replicas. */
  readonly changes: number
  readonly fewest: number
  readonly mostReplicas: number
  /** Shortest time between two changes in opposite directions, seconds; infinite without one. */
  readonly shortestReversal: number
  /**
   * Share of the seconds in which the mean demand of five minutes was at most 10 % beyond a threshold, or there were as many
   * or as few replicas as there may be or have room.
   */
  readonly inBand: number
  /** Share of the requests that waited for more than 10 s. */
  readonly late: number
  /** Mean number of replicas. */
  readonly meanReplicas: number
}

const daySeconds = 86_400
const slotsPerReplica = 4
const jobSeconds = 8
const loadSeconds = 20
const stepSeconds = 5
const windowSeconds = 300
const tolerance = 1.1

/** From 0 at 4 in the morning to 1 at 16 o'clock. */
const daily = (second: number): number => (1 - Math.cos(2 * Math.PI * (second / daySeconds - 4 / 24))) / 2

const burstsAt = (second: number, bursts: ReadonlyArray<Burst>): number =>
  bursts.reduce((factor, burst) => second >= burst.from && second < burst.until ? factor * burst.factor : factor, 1)

export const scenarios: ReadonlyArray<Scenario> = [
  {
    name: "daily curve with bursts",
    load: (second, bursts) => (0.4 + 6 * daily(second)) * burstsAt(second, bursts),
    cpuOfReplica: 0.15
  },
  { name: "demand at the upper threshold", load: () => 0.84 * slotsPerReplica, cpuOfReplica: 0.15 },
  { name: "demand at the lower threshold of two", load: () => 0.35 * 2 * slotsPerReplica, cpuOfReplica: 0.15 },
  { name: "4 minutes full, 4 minutes empty", load: (second) => second % 480 < 240 ? 7 : 0.1, cpuOfReplica: 0.15 },
  { name: "6 minutes full, 6 minutes empty", load: (second) => second % 720 < 360 ? 7 : 0.1, cpuOfReplica: 0.15 },
  {
    name: "daily curve, processor full with two",
    load: (second, bursts) => (0.4 + 6 * daily(second)) * burstsAt(second, bursts),
    cpuOfReplica: 0.4
  }
]

const randomBursts = ({ upTo }: ReturnType<typeof randomOf>): ReadonlyArray<Burst> =>
  Array.from({ length: 12 }, () => {
    const from = upTo(daySeconds)
    return { from, until: from + 60 + upTo(600), factor: 1.3 + upTo(50) / 100 }
  })

/** A number of events of the Poisson distribution (Knuth's algorithm). */
const poisson = (mean: number, uniform: () => number): number => {
  const least = Math.exp(-mean)
  let count = 0
  for (let product = uniform(); product > least; product *= uniform()) count++
  return count
}

/** The queue and the replicas of the deployment. */
class Service {
  readonly #waiting: Array<number> = []
  #running = 0
  replicas = 1
  /** Seconds at which added replicas are loaded. */
  #loading: Array<number> = []
  requests = 0
  late = 0

  get slots(): number {
    return this.replicas * slotsPerReplica
  }

  get demand(): number {
    return this.#running + this.#waiting.length
  }

  get busyReplicas(): number {
    return Math.min(this.replicas, Math.ceil(this.#running / slotsPerReplica))
  }

  get isLoading(): boolean {
    return this.#loading.length > 0
  }

  scale(direction: Direction, second: number): void {
    if (direction === "up") this.#loading.push(second + loadSeconds)
    else this.replicas--
  }

  second(now: number, arrivals: number, uniform: () => number): void {
    while (this.#loading[0] !== undefined && this.#loading[0] <= now) {
      this.#loading.shift()
      this.replicas++
    }
    for (let job = this.#running; job > 0; job--) if (uniform() < 1 / jobSeconds) this.#running--
    for (let index = 0; index < arrivals; index++) this.#waiting.push(now)
    while (this.#running < this.slots && this.#waiting.length > 0) {
      this.requests++
      if (now - this.#waiting.shift()! > 10) this.late++
      this.#running++
    }
  }
}

/** The mean of the last values. */
class Window {
  readonly #values: Array<number> = Array.from({ length: windowSeconds }, () => 0)
  #sum = 0
  #next = 0

  add(value: number): number {
    this.#sum += value - this.#values[this.#next]!
    this.#values[this.#next] = value
    this.#next = (this.#next + 1) % windowSeconds
    return this.#sum / windowSeconds
  }
}

/** Follows the deployment through the day; counts what the table has. */
class Observer {
  readonly #rules: Rules
  readonly #bounds: Bounds
  readonly #window = new Window()
  #changes: Array<{ readonly direction: Direction; readonly at: number }> = []
  #inBand = 0
  #replicas = 0
  #fewest = Number.POSITIVE_INFINITY
  #most = 0

  constructor(rules: Rules, bounds: Bounds) {
    this.#rules = rules
    this.#bounds = bounds
  }

  changed(direction: Direction, at: number): void {
    this.#changes.push({ direction, at })
  }

  second({ demand, replicas, slots }: Service, hasRoom: boolean): void {
    const used = this.#window.add(demand) / slots
    const { down, targets, up } = this.#rules
    const isLow = used < down * targets.slots / tolerance && replicas > this.#bounds.least
    const isHigh = used > up * targets.slots * tolerance && replicas < this.#bounds.most && hasRoom
    if (!isLow && !isHigh) this.#inBand++
    this.#replicas += replicas
    this.#fewest = Math.min(this.#fewest, replicas)
    this.#most = Math.max(this.#most, replicas)
  }

  day({ late, requests }: Service): Day {
    const reversals = this.#changes.flatMap(({ at, direction }, index) => {
      const before = this.#changes[index - 1]
      return before === undefined || before.direction === direction ? [] : [at - before.at]
    })
    return {
      changes: this.#changes.length,
      fewest: this.#fewest,
      mostReplicas: this.#most,
      shortestReversal: Math.min(Number.POSITIVE_INFINITY, ...reversals),
      inBand: this.#inBand / daySeconds,
      late: late / Math.max(1, requests),
      meanReplicas: this.#replicas / daySeconds
    }
  }
}

/** One day by the rules, from a seed. */
export const dayOf = (rules: Rules, bounds: Bounds, { cpuOfReplica, load }: Scenario, seed: number): Day => {
  const random = randomOf(seed)
  const uniform = () => (random.upTo(2 ** 31) + 0.5) / 2 ** 31
  const bursts = randomBursts(random)
  const service = new Service()
  const observer = new Observer(rules, bounds)
  let state = ScalingPolicy.initial
  service.replicas = bounds.least
  for (let second = 0; second < daySeconds; second++) {
    service.second(second, poisson(load(second, bursts) / jobSeconds, uniform), uniform)
    const cpu = 0.05 + cpuOfReplica * service.busyReplicas
    observer.second(service, cpu < rules.targets.cpu)
    // As the running service does, no decision while a replica loads.
    if (second % stepSeconds !== 0 || service.isLoading) continue
    const { demand, replicas, slots } = service
    const readings = { replicas, slots, demand, machine: { cpu, memory: 0.5 } }
    const next = ScalingPolicy.step(rules, bounds, state, readings, second * 1_000)
    state = next.state
    if (next.decision.action === "stay") continue
    service.scale(next.decision.action, second)
    observer.changed(next.decision.action, second)
  }
  return observer.day(service)
}

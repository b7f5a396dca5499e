/**
 * A simulated service of two versions whose requests are drawn by a seed, and the scenarios of `docs/rollouts.md`.
 *
 * **Details**
 *
 * Only the requests are simulated: the rollout is `RolloutMachine`, driven as the service drives it. A million requests
 * take seconds, since nothing waits.
 */
import { draw } from "../src/domain/Hashing.ts"
import { toCandidate } from "../src/services/rollout/Assignment.ts"
import { RepeatedFailures } from "../src/services/rollout/RepeatedFailures.ts"
import type { Command, Outcome, Rollout } from "../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../src/services/rollout/RolloutMachine.ts"
import type { RolloutPlan } from "../src/services/rollout/RolloutSettings.ts"
import { resolve } from "../src/services/rollout/RolloutSettings.ts"
import type { Observation } from "../src/services/rollout/Tally.ts"
import * as Tally from "../src/services/rollout/Tally.ts"
import { Waiting } from "../src/services/rollout/Waiting.ts"

/** Pseudo-random numbers of a seed. */
export class Draws {
  readonly #seed: number
  #index = 0

  constructor(seed: number) {
    this.#seed = seed
  }

  /** Above 0 and below 1. */
  next(): number {
    return draw(this.#seed, this.#index++)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** Of the standard normal distribution (Box and Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(this.next())) * Math.cos(2 * Math.PI * this.next())
  }
}

/** How a version answers. Shares are of its requests. */
export interface Behaviour {
  /** Default 0.01. */
  readonly failures?: number
  /** Default 0.01. */
  readonly refusals?: number
  /** Time to first token, of a median of 200 ms. Default 1. */
  readonly slower?: number
  /** A share of requests has its first token after this time, ms. */
  readonly late?: { readonly share: number; readonly ms: number }
  /** Share of requests with a long prompt, and the share of those that fail. */
  readonly long?: { readonly share: number; readonly failures: number }
  /** While this lasts, ms from the start, a share of requests fails. */
  readonly outage?: { readonly from: number; readonly to: number; readonly failures: number }
  /** While this lasts, ms from the start, no request has a token: all that have none yet go on after it. */
  readonly stall?: { readonly from: number; readonly to: number }
  /** ms after which a request without a token fails. Default 60,000. */
  readonly timeoutMs?: number
  /** So many consecutive requests fail or succeed together, as those of one session may. Default 1. */
  readonly run?: number
  /** Whether these requests have a session. Default false. */
  readonly hasSessions?: boolean
}

/** A request that has no first token yet, and the time at which it has, ms. */
interface Running {
  readonly wait: ReturnType<Waiting["begin"]>
  readonly observation: Observation
  readonly until: number
}

/** A failure takes this time, ms. */
const failureMs = 50

/** Draws the requests of one version. Times are lognormal: the 90th percentile is 1.9 times the median. */
class Version {
  readonly #behaviour: Behaviour
  readonly #failures = new RepeatedFailures()
  readonly #waiting = new Waiting(() => this.tally)
  #running: ReadonlyArray<Running> = []
  /** What was measured since the last evaluation. */
  tally = Tally.empty()
  #run = 0
  #left = 0
  #failed = false

  constructor(behaviour: Behaviour) {
    this.#behaviour = behaviour
  }

  #failureShare(draws: Draws, at: number): number {
    const { failures = 0.01, long, outage } = this.#behaviour
    if (outage !== undefined && at >= outage.from && at < outage.to) return outage.failures
    return long !== undefined && draws.chance(long.share) ? long.failures : failures
  }

  #firstTokenMs(draws: Draws): number {
    const { late, slower = 1 } = this.#behaviour
    return late !== undefined && draws.chance(late.share) ? late.ms : 200 * slower * Math.exp(0.5 * draws.normal())
  }

  pass(ms: number): void {
    this.#failures.pass(ms)
  }

  /** Begins a request; returns when it has its first token, or fails. */
  request(draws: Draws, at: number): number {
    const { timeoutMs = 60_000 } = this.#behaviour
    const drawn = this.#draw(draws, at)
    if (drawn === undefined) return at + failureMs
    const observation = this.#stalled(drawn, at)
    const { failed, firstTokenMs = failureMs } = observation
    const isLate = !failed && firstTokenMs > timeoutMs
    const until = at + Math.min(firstTokenMs, timeoutMs)
    this.#running = [...this.#running, {
      wait: this.#waiting.begin(undefined, at),
      observation: isLate ? { failed: true, refused: false } : observation,
      until
    }]
    return until
  }

  #stalled(drawn: Observation, at: number): Observation {
    const { stall } = this.#behaviour
    const { firstTokenMs } = drawn
    if (stall === undefined || firstTokenMs === undefined || at >= stall.to || at + firstTokenMs <= stall.from) {
      return drawn
    }
    return { ...drawn, firstTokenMs: firstTokenMs + stall.to - at }
  }

  /** Measures what has happened until now. */
  measure(now: number): Tally.Tally {
    for (const { observation, until, wait } of this.#running) {
      if (until > now) continue
      wait.end(until, !observation.failed)
      Tally.record(this.tally, observation)
    }
    this.#running = this.#running.filter(({ until }) => until > now)
    this.#waiting.report(now)
    const measured = this.tally
    this.tally = Tally.empty()
    return measured
  }

  /** undefined: a repetition, which does not count. */
  #draw(draws: Draws, at: number): Observation | undefined {
    const { hasSessions = false, refusals = 0.01, run = 1 } = this.#behaviour
    if (this.#left === 0) {
      this.#failed = draws.chance(this.#failureShare(draws, at))
      this.#left = run
      this.#run++
    }
    this.#left--
    if (this.#failed) {
      const isRepeated = this.#failures.isRepeated(0, hasSessions ? this.#run : undefined)
      return isRepeated ? undefined : { failed: true, refused: false }
    }
    return {
      failed: false,
      refused: draws.chance(refusals),
      firstTokenMs: this.#firstTokenMs(draws),
      tokensPerSecond: 40 * Math.exp(0.3 * draws.normal())
    }
  }
}

/** ms from the first token to the next request. */
export interface Callers {
  readonly count: number
  readonly pauseMs: number
}

export interface Simulation {
  readonly plan: RolloutPlan
  readonly seed: number
  readonly stable: Behaviour
  readonly candidate: Behaviour
  /** Of both versions. */
  readonly requestsPerSecond: number
  /** In place of the rate: callers that each send a request when they have waited for the one before and a pause. */
  readonly callers?: Callers
  /** The simulation ends after this time, ms. */
  readonly forMs: number
}

export interface Simulated {
  readonly state: Rollout
  readonly commands: ReadonlyArray<Command>
  /** undefined where the time was over first. */
  readonly outcome: Outcome | undefined
  /** When the outcome was decided, ms from the start. */
  readonly tookMs: number
  /** Requests that the candidate was given until then. */
  readonly candidateRequests: number
}

/** A rollout whose candidate is being checked, at the time 0. */
export const begin = (plan: RolloutPlan): RolloutMachine.Advanced =>
  RolloutMachine.start({ id: "r", model: "chat", stable: "chat#0", candidate: "chat#1", plan }, 0)

/** The times in a period at which requests begin. `send` returns when a request has its first token. */
const play = (from: number, to: number, next: Array<number>, pauseMs: number, send: (at: number) => number): void => {
  for (;;) {
    const at = Math.min(...next)
    if (at >= to) return
    next[next.indexOf(at)] = send(Math.max(at, from)) + pauseMs
  }
}

/** A rollout until its outcome is decided, or until the time is over. */
export const simulate = (
  { callers, candidate, forMs, plan, requestsPerSecond, seed, stable }: Simulation
): Simulated => {
  const draws = new Draws(seed)
  const [older, newer] = [new Version(stable), new Version(candidate)]
  const requests = Math.round(requestsPerSecond * plan.evaluateMs / 1000)
  let { commands, state } = RolloutMachine.advance(begin(plan).state, { _tag: "Healthy" }, 0)
  let candidateRequests = 0
  let now = 0
  const next = Array.from({ length: callers?.count ?? 0 }, () => 0)
  while (now < forMs && !("outcome" in state.phase)) {
    const weight = RolloutMachine.weightsOf(state).candidate
    const send = (at: number): number => {
      const isNew = toCandidate(0, weight, undefined, draws.next())
      if (isNew) candidateRequests++
      return (isNew ? newer : older).request(draws, at)
    }
    if (callers !== undefined) play(now, now + plan.evaluateMs, next, callers.pauseMs, send)
    else for (let request = 0; request < requests; request++) send(now + plan.evaluateMs * request / requests)
    older.pass(plan.evaluateMs)
    newer.pass(plan.evaluateMs)
    now += plan.evaluateMs
    const tallies = { stable: older.measure(now), candidate: newer.measure(now) }
    const observed = RolloutMachine.advance(state, { _tag: "Observed", ...tallies }, now)
    const ticked = RolloutMachine.advance(observed.state, { _tag: "Tick" }, now)
    state = ticked.state
    commands = [...commands, ...ticked.commands]
  }
  const outcome = "outcome" in state.phase ? state.phase.outcome : undefined
  return { state, commands, outcome, tookMs: now, candidateRequests }
}

export interface Scenario {
  readonly name: string
  readonly stable: Behaviour
  readonly candidate: Behaviour
  /** Whether the candidate has to be rolled back. */
  readonly isWorse: boolean
  readonly plan: RolloutPlan
  /** Default: requests at a rate. */
  readonly callers?: Callers
}

const plan = resolve()
const minute = 60_000

const equal = (name: string, both: Behaviour): Scenario => ({
  name,
  stable: both,
  candidate: both,
  isWorse: false,
  plan
})

const worse = (name: string, candidate: Behaviour, settings: Partial<RolloutPlan> = {}): Scenario => ({
  name,
  stable: {},
  candidate,
  isWorse: true,
  plan: { ...plan, ...settings }
})

const long = (failures: number) => ({ long: { share: 0.05, failures } })

const forever = { share: 1, ms: Infinity }
const hangs: Behaviour = { late: forever, timeoutMs: 10 * minute }
const quick = { steps: [0.3, 1], evaluateMs: 300 }
const stall = { from: 7 * minute, to: 9 * minute }

export const scenarios = {
  equal: equal("equal", {}),
  equalFailing: equal("equal, 3 % of requests fail", { failures: 0.03 }),
  outage: equal("equal, 60 % of requests fail for 2 minutes", {
    outage: { from: 7 * minute, to: 9 * minute, failures: 0.6 }
  }),
  sessions: equal("equal, sessions of 10 requests fail together", { run: 10, hasSessions: true }),
  runs: equal("the same without `route.session`", { run: 10 }),
  late: equal("equal, the first token of 2 % comes after 40 s", { late: { share: 0.02, ms: 40_000 } }),
  slightlySlower: { ...worse("first token 1.1 times as long: within the tolerance", { slower: 1.1 }), isWorse: false },
  failing: worse("4 % of requests fail, against 1 %", { failures: 0.04 }),
  failingPatient: worse("the same with `minRequests: 500`", { failures: 0.04 }, { minRequests: 500 }),
  longPrompts: { ...worse("fails on long prompts, 5 % of requests", long(1)), stable: long(0.01) },
  slow: worse("first token 1.5 times as long", { slower: 1.5 }),
  twiceAsSlow: worse("first token 2 times as long", { slower: 2 }),
  refusing: worse("5 % refusals, against 1 %", { refusals: 0.05 }),
  broken: worse("every request fails", { failures: 1 }),
  hanging: worse("no request has a token", { late: forever }),
  hangingCallers: { ...worse("no request has a token, 12 callers", hangs, quick), callers: { count: 12, pauseMs: 10 } },
  hangingFewCallers: {
    ...worse("no request has a token, 6 callers", hangs, quick),
    callers: { count: 6, pauseMs: 10 }
  },
  equalSlow: {
    ...equal("equal, 12 callers, first token after 20 s", { slower: 100, timeoutMs: 10 * minute }),
    callers: { count: 12, pauseMs: 1000 }
  },
  equalVaried: {
    ...equal("equal, 12 callers, the first token of 10 % after 100 s", {
      late: { share: 0.1, ms: 100_000 },
      timeoutMs: 10 * minute
    }),
    callers: { count: 12, pauseMs: 1000 }
  },
  stalled: {
    ...equal("equal, 12 callers, no request has a token for 2 minutes", { stall, timeoutMs: 10 * minute }),
    callers: { count: 12, pauseMs: 1000 }
  },
  hangingRarely: worse("5 % of requests have no token", { late: { share: 0.05, ms: Infinity } })
} as const satisfies Record<string, Scenario>

/** Results of a scenario, over seeds. */
export interface Summary {
  readonly rolledBack: number
  readonly promoted: number
  /** Of the rollbacks: by the sequential test, not by the limit of failures. */
  readonly byTest: number
  /** Medians of the rollbacks; undefined without any. */
  readonly medianMs: number | undefined
  readonly medianRequests: number | undefined
}

const median = (values: ReadonlyArray<number>): number | undefined =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

/** The seeds 1 to `seeds`, each for up to 8 hours. */
export const summarize = (scenario: Scenario, requestsPerSecond: number, seeds: number): Summary => {
  const runs = Array.from(
    { length: seeds },
    (_, index) => simulate({ ...scenario, requestsPerSecond, seed: index + 1, forMs: 8 * 60 * minute })
  )
  const rolledBack = runs.filter(({ outcome }) => outcome?.result === "rolledBack")
  return {
    rolledBack: rolledBack.length,
    promoted: runs.filter(({ outcome }) => outcome?.result === "promoted").length,
    byTest: rolledBack.filter(({ outcome }) => outcome?.cause === "test").length,
    medianMs: median(rolledBack.map(({ tookMs }) => tookMs)),
    medianRequests: median(rolledBack.map(({ candidateRequests }) => candidateRequests))
  }
}

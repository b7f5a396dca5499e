/** Rollouts whose requests are drawn: a simulated service of two versions, by a seed. */
import { draw } from "../../src/domain/Hashing.ts"
import { toCandidate } from "../../src/services/rollout/Assignment.ts"
import type { Command, Event, Rollout } from "../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../src/services/rollout/RolloutMachine.ts"
import type { RolloutPlan } from "../../src/services/rollout/RolloutSettings.ts"
import type { Observation } from "../../src/services/rollout/Tally.ts"
import * as Tally from "../../src/services/rollout/Tally.ts"

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

/** One request of a version. `at` is in ms from the start. */
export type Version = (draws: Draws, at: number) => Observation

/** How a version answers; shares are of its requests. */
export interface Behaviour {
  readonly failures?: number
  readonly refusals?: number
  /** Of the median time to first token, 200 ms. */
  readonly slower?: number
  /** Share of requests with a long prompt, and the share of those that fail. */
  readonly long?: { readonly share: number; readonly failures: number }
}

/** Times are lognormal: the 90th percentile is 1.9 times the median. */
export const version = ({ failures = 0.01, long, refusals = 0.01, slower = 1 }: Behaviour): Version => (draws) => {
  const isLong = long !== undefined && draws.chance(long.share)
  const failed = draws.chance(isLong ? long.failures : failures)
  const firstTokenMs = 200 * slower * Math.exp(0.5 * draws.normal())
  const tokensPerSecond = 40 * Math.exp(0.3 * draws.normal())
  return failed
    ? { failed, refused: false }
    : { failed, refused: draws.chance(refusals), firstTokenMs, tokensPerSecond }
}

export interface Simulation {
  readonly plan: RolloutPlan
  readonly seed: number
  readonly stable: Version
  readonly candidate: Version
  /** Requests of both versions in an evaluation period. */
  readonly requestsPerPeriod: number
  /** The simulation ends after this time, ms. */
  readonly forMs: number
}

export interface Simulated {
  readonly state: Rollout
  readonly commands: ReadonlyArray<Command>
  /** When the weights were last decided, ms from the start. */
  readonly decidedAt: number
  /** Requests of the candidate until then. */
  readonly candidateRequests: number
}

export const begin = (plan: RolloutPlan): RolloutMachine.Advanced =>
  RolloutMachine.start({ id: "r", model: "chat", stable: "chat#0", candidate: "chat#1", plan }, 0)

/** One evaluation period of requests, by the weights of the state. */
const periodOf = (state: Rollout, draws: Draws, simulation: Simulation, at: number): Event => {
  const [stable, candidate] = [Tally.empty(), Tally.empty()]
  const weight = RolloutMachine.weightsOf(state).candidate
  for (let request = 0; request < simulation.requestsPerPeriod; request++) {
    const isNew = toCandidate(0, weight, undefined, draws.next())
    Tally.record(isNew ? candidate : stable, (isNew ? simulation.candidate : simulation.stable)(draws, at))
  }
  return { _tag: "Observed", stable, candidate }
}

/** A rollout until its outcome is decided, or until the time is over. */
export const simulate = (simulation: Simulation): Simulated => {
  const { forMs, plan, seed } = simulation
  const draws = new Draws(seed)
  let { commands, state } = RolloutMachine.advance(begin(plan).state, { _tag: "Healthy" }, 0)
  let candidateRequests = 0
  let now = 0
  while (now < forMs && !("outcome" in state.phase)) {
    const period = periodOf(state, draws, simulation, now)
    now += plan.evaluateMs
    if (period._tag === "Observed") candidateRequests += period.candidate.requests
    state = RolloutMachine.advance(state, period, now).state
    const ticked = RolloutMachine.advance(state, { _tag: "Tick" }, now)
    state = ticked.state
    commands = [...commands, ...ticked.commands]
  }
  return { state, commands, decidedAt: now, candidateRequests }
}

/**
 * The transitions of a gradual rollout: a pure function of the state, an event and the time.
 *
 * ```
 * Checking --Healthy--> Stepping (0.1, 0.3, 0.7, 1) --last step--> Draining (stable) --> Ended (promoted)
 *    |                   |   ^                         Promote ---------^
 *    |             Pause v   | Resume
 *    |                  Paused
 *    '--not healthy, worse, Abort--> Draining (candidate) --> Ended (rolled back, aborted)
 * ```
 *
 * **Details**
 *
 * A step ends when it has lasted `plan.stepMs` and the candidate has had `plan.minRequests` requests: without requests a
 * step waits, and asks for probes where the plan has some. The candidate is rolled back at the first `Tick` at which the
 * sequential test (`Comparison`), the limit of failures or the time without an answer (`Silence`) says so, also while the rollout is paused. One of the two
 * versions has all requests before the other drains, and it is unloaded after that.
 *
 * The limit of failures rolls the candidate back where it is also three standard errors above the stable version in the
 * same step. Else what fails may be something that both share, or it is chance: the step begins again at its end.
 *
 * **Gotchas**
 *
 * Keep the state before carrying out the commands: `recover` has those that may be lost.
 */
import * as Comparison from "./Comparison.ts"
import type { Command, Event, Evidence, Outcome, Phase, Rollout, Transition, Weights } from "./Rollout.ts"
import type { RolloutPlan } from "./RolloutSettings.ts"
import type { Pair } from "./SequentialTest.ts"
import * as Silence from "./Silence.ts"
import type { Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

export interface Start {
  readonly id: string
  readonly model: string
  readonly stable: string
  readonly candidate: string
  readonly plan: RolloutPlan
}

export interface Advanced {
  readonly state: Rollout
  readonly commands: ReadonlyArray<Command>
}

/** Transitions that a rollout keeps. */
const mostHistory = 50

const bothEmpty = (): Pair<Tally> => ({ stable: Tallies.empty(), candidate: Tallies.empty() })

const addBoth = (a: Pair<Tally>, b: Pair<Tally>): Pair<Tally> => ({
  stable: Tallies.add(a.stable, b.stable),
  candidate: Tallies.add(a.candidate, b.candidate)
})

const outcomeOf = ({ phase }: Rollout): Outcome | undefined =>
  phase._tag === "Draining" || phase._tag === "Ended" ? phase.outcome : undefined

/** The candidate's share of requests. */
const weightOf = (state: Rollout): number => {
  if (state.phase._tag === "Checking") return 0
  const outcome = outcomeOf(state)
  if (outcome === undefined) return state.plan.steps[state.step]!
  return outcome.result === "promoted" ? 1 : 0
}

/** The shares of requests that the versions have now. */
export const weightsOf = (state: Rollout): Weights => {
  const candidate = weightOf(state)
  return { stable: 1 - candidate, candidate }
}

const setWeights = (state: Rollout): Command => ({ _tag: "SetWeights", weights: weightsOf(state) })

const unchanged = (state: Rollout): Advanced => ({ state, commands: [] })

/** Whether both versions get requests that are compared. */
const observes = ({ phase }: Rollout): boolean => phase._tag === "Stepping" || phase._tag === "Paused"

/** The state in another phase or step, with a line in its history: a repetition replaces the last one. */
const changed = (state: Rollout, change: Partial<Rollout>, what: string, at: number): Rollout => {
  const next = { ...state, ...change }
  const line: Transition = {
    at,
    what,
    phase: next.phase._tag,
    weight: weightOf(next),
    evidence: observes(state) ? next.evidence : null
  }
  const earlier = state.history.at(-1)?.what === what ? state.history.slice(0, -1) : state.history
  return { ...next, history: [...earlier, line].slice(-mostHistory) }
}

/** Begins a rollout with the health check of the candidate. */
export const start = (input: Start, now: number): Advanced => {
  const state: Rollout = {
    ...input,
    startedAt: now,
    phase: { _tag: "Checking", attempts: 0, nextAt: null, lastProblem: null },
    step: 0,
    tallies: bothEmpty(),
    ...Comparison.fresh(),
    evaluatedAt: now,
    silence: null,
    evidence: null,
    history: []
  }
  return {
    state: changed(state, {}, `Started: ${input.candidate} is checked before it gets requests.`, now),
    commands: [setWeights(state), { _tag: "CheckHealth", deployment: input.candidate }]
  }
}

const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`

/** Gives all requests to one version and lets the other end those it has. */
const drain = (state: Rollout, outcome: Outcome, now: number): Advanced => {
  const deployment = outcome.result === "promoted" ? state.stable : state.candidate
  const phase: Phase = { _tag: "Draining", deployment, drained: false, outcome }
  const next = changed(state, { phase }, `${outcome.reason} ${deployment} drains.`, now)
  return { state: next, commands: [setWeights(next), { _tag: "Drain", deployment }] }
}

const rollBack = (
  state: Rollout,
  cause: Outcome["cause"],
  metric: Outcome["metric"],
  reason: string,
  now: number
): Advanced => drain(state, { result: "rolledBack", cause, metric, reason: `Rolled back: ${reason}` }, now)

const enterStep = (state: Rollout, step: number, what: string, now: number): Advanced => {
  const phase: Phase = { _tag: "Stepping", since: now }
  const next = changed(state, { phase, step, tallies: bothEmpty(), silence: null }, what, now)
  return { state: next, commands: [setWeights(next)] }
}

const stepText = ({ plan }: Rollout, step: number): string =>
  `Step ${step + 1} of ${plan.steps.length}: ${percent(plan.steps[step]!)} of requests.`

const onHealthy = (state: Rollout, now: number): Advanced =>
  state.phase._tag === "Checking" ? enterStep(state, 0, stepText(state, 0), now) : unchanged(state)

const onUnhealthy = (state: Rollout, problem: string, now: number): Advanced => {
  const { phase, plan } = state
  if (phase._tag === "Draining" || phase._tag === "Ended") return unchanged(state)
  if (phase._tag !== "Checking") return rollBack(state, "health", null, `the candidate cannot run: ${problem}`, now)
  const attempts = phase.attempts + 1
  if (attempts >= plan.health.attempts) {
    return rollBack(state, "health", null, `${attempts} health checks failed: ${problem}`, now)
  }
  return unchanged({
    ...state,
    phase: { ...phase, attempts, nextAt: now + plan.health.everyMs, lastProblem: problem }
  })
}

const onObserved = (state: Rollout, batch: Pair<Tally>, now: number): Advanced =>
  observes(state)
    ? unchanged({
      ...state,
      ...Comparison.observed(state, batch),
      silence: Silence.observed(state.silence, batch, state.plan, state.evaluatedAt, now),
      tallies: addBoth(state.tallies, batch)
    })
    : unchanged(state)

const requestsOf = (state: Rollout, version: keyof Pair<Tally>): number =>
  state.totals[version].requests + state.pending[version].requests

/** Compares what has been measured since the last evaluation. */
const evaluated = (state: Rollout, now: number): Rollout => {
  const next = { ...state, ...Comparison.evaluated(state, state.plan) }
  const evidence: Evidence = {
    at: now,
    step: state.step,
    requests: { stable: requestsOf(state, "stable"), candidate: requestsOf(state, "candidate") },
    metrics: Comparison.metricsOf(next, state.plan)
  }
  return { ...next, evaluatedAt: now, evidence }
}

const failureShare = ({ failures, requests }: Tally): number => requests === 0 ? 0 : failures / requests

/** Standard errors that separate the candidate from the stable version where the limit rolls it back. */
const clearly = 4

/** Whether a share of failures is above another by more than chance explains. */
const isAbove = (candidate: Tally, stable: Tally): boolean => {
  const common = failureShare(Tallies.add(candidate, stable))
  const error = Math.sqrt(common * (1 - common) * (1 / candidate.requests + 1 / stable.requests))
  return failureShare(candidate) - failureShare(stable) > clearly * error
}

/** What the limit of failures says about the step. In the last step, earlier requests of the stable version count. */
const limitOf = ({ plan, tallies: { candidate, stable }, totals }: Rollout): "met" | "exceeded" | "unclear" => {
  const share = failureShare(candidate)
  if (plan.errorRate === null || candidate.requests < plan.minRequests || share <= plan.errorRate) return "met"
  const reference = stable.requests > 0 ? stable : totals.stable
  return reference.requests === 0 || isAbove(candidate, reference) ? "exceeded" : "unclear"
}

/** What is worse, with the level that the share is beyond: ms, tokens per second or a score. */
const worse: Readonly<Record<Evidence["metrics"][number]["metric"], (level: string) => string>> = {
  errors: () => "failures",
  refusals: () => "refusals",
  firstToken: (level) => `time to first token above ${level} ms`,
  speed: (level) => `below ${level} tokens per second`,
  score: (level) => `score below ${level}`,
  hanging: (level) => `no token or answer after ${level} ms and the tolerance`
}

/** An e-value as a person reads it: times less likely if the new version were not worse. */
export const evidenceText = (logE: number): string => {
  const value = Math.exp(Math.min(logE, 700))
  return value >= 10_000 ? value.toExponential(1) : String(Number(value.toPrecision(3)))
}

/** Which of the failures are rate limits; empty without one. */
const limitedText = ({ rateLimited }: Tally, before: string, after: string): string =>
  rateLimited === 0 ? "" : `${before}${rateLimited} rate limited${after}`

const testReason = ({ metrics }: Evidence, all: Tally, found: Evidence["metrics"][number]): string => {
  const { candidate, level, logE, metric, needed, stable } = found
  const share = ({ count, of }: typeof stable): string => percent(of === 0 ? 0 : count / of)
  const what = worse[metric](String(Number((level ?? 0).toPrecision(3))))
  const limited = metric === "errors" ? limitedText(all, " (", ")") : ""
  return `${what}: ${share(candidate)} of ${candidate.of}${limited} against ${share(stable)} of ${stable.of} ` +
    `(evidence ${evidenceText(logE)}, limit ${evidenceText(needed)}, ${metrics.length} metrics).`
}

const allOf = ({ pending, totals }: Rollout, version: keyof Pair<Tally>): Tally =>
  Tallies.add(totals[version], pending[version])

const secondsText = (ms: number): string => `${Number((ms / 1000).toPrecision(2))} s`

const hangingReason = ({ candidate, forMs, stable, usualMs }: Silence.Hanging): string =>
  `no request had a token or an answer for ${Math.floor(forMs / 1000)} s while ${candidate} waited on average, ` +
  `against ${stable} of the stable version, which answers 99 % of its requests within ${secondsText(usualMs)}.`

/** The rollback that the measurements demand. */
const verdict = (state: Rollout, evidence: Evidence, now: number): Advanced | undefined => {
  const worst = Comparison.worst(evidence.metrics)
  if (worst !== undefined) {
    return rollBack(state, "test", worst.metric, testReason(evidence, allOf(state, "candidate"), worst), now)
  }
  const hanging = Silence.hangingOf(state.silence, allOf(state, "stable"), state.plan, weightOf(state), now)
  if (hanging !== undefined) return rollBack(state, "silence", "hanging", hangingReason(hanging), now)
  if (limitOf(state) !== "exceeded") return undefined
  const { candidate } = state.tallies
  const reason = `${percent(failureShare(candidate))} of ${candidate.requests} requests of this step failed` +
    `${limitedText(candidate, " (", ")")}; ` +
    `the limit is ${percent(state.plan.errorRate ?? 1)}.`
  return rollBack(state, "errorRate", "errors", reason, now)
}

const promote = (state: Rollout, cause: "steps" | "operator", reason: string, now: number): Advanced =>
  drain(state, { result: "promoted", cause, metric: null, reason }, now)

const again =
  "The limit of failures is exceeded, but not clearly more than by the stable version: the step begins again."

/** The end of a step, where it has come. */
const atStepEnd = (state: Rollout, since: number, now: number): Advanced => {
  const { candidate, plan, stable, step, tallies } = state
  if (now - since < plan.stepMs) return unchanged(state)
  if (tallies.candidate.requests < plan.minRequests) {
    return plan.probes.length === 0
      ? unchanged(state)
      : { state, commands: [{ _tag: "Probe", deployments: [stable, candidate], prompts: plan.probes }] }
  }
  if (limitOf(state) === "unclear") return enterStep(state, step, again, now)
  if (step + 1 < plan.steps.length) return enterStep(state, step + 1, stepText(state, step + 1), now)
  return promote(state, "steps", "Promoted: every step was passed.", now)
}

const onTick = (state: Rollout, now: number): Advanced => {
  const { phase } = state
  if (phase._tag === "Checking" && phase.nextAt !== null && now >= phase.nextAt) {
    return {
      state: { ...state, phase: { ...phase, nextAt: null } },
      commands: [{ _tag: "CheckHealth", deployment: state.candidate }]
    }
  }
  if (!observes(state)) return unchanged(state)
  const next = evaluated(state, now)
  const rolledBack = next.evidence === null ? undefined : verdict(next, next.evidence, now)
  if (rolledBack !== undefined) return rolledBack
  return phase._tag === "Stepping" ? atStepEnd(next, phase.since, now) : unchanged(next)
}

const onDrained = (state: Rollout, deployment: string): Advanced => {
  const { phase } = state
  return phase._tag === "Draining" && phase.deployment === deployment
    ? { state: { ...state, phase: { ...phase, drained: true } }, commands: [{ _tag: "Unload", deployment }] }
    : unchanged(state)
}

const onUnloaded = (state: Rollout, deployment: string, now: number): Advanced => {
  const { phase } = state
  return phase._tag === "Draining" && phase.drained && phase.deployment === deployment
    ? unchanged(
      changed(state, { phase: { _tag: "Ended", at: now, outcome: phase.outcome } }, `${deployment} is unloaded.`, now)
    )
    : unchanged(state)
}

const doing = { Checking: "checking the candidate", Stepping: "running", Paused: "paused already" } as const

/** The phases in which an operator's event has an effect. */
const permitted: Readonly<Record<string, ReadonlyArray<Phase["_tag"]>>> = {
  Pause: ["Stepping"],
  Resume: ["Paused"],
  Promote: ["Stepping", "Paused"],
  Abort: ["Checking", "Stepping", "Paused"]
}

/** Why an event of an operator has no effect in this state; undefined where it has one. */
export const refusal = ({ phase }: Rollout, { _tag }: Event): string | undefined => {
  if (permitted[_tag]?.includes(phase._tag) ?? true) return undefined
  if (phase._tag === "Draining" || phase._tag === "Ended") return `The rollout is over: ${phase.outcome.reason}`
  return _tag === "Promote" ? "The candidate has not passed its health check." : `The rollout is ${doing[phase._tag]}.`
}

/** An event of an operator that is not refused. */
const onOperator = (state: Rollout, event: Event, now: number): Advanced => {
  const { phase } = state
  if (event._tag === "Pause" && phase._tag === "Stepping") {
    const paused: Phase = { _tag: "Paused", elapsedMs: Math.max(0, now - phase.since) }
    return unchanged(changed(state, { phase: paused }, "Paused: the share of requests stays.", now))
  }
  if (event._tag === "Resume" && phase._tag === "Paused") {
    return unchanged(changed(state, { phase: { _tag: "Stepping", since: now - phase.elapsedMs } }, "Resumed.", now))
  }
  if (event._tag === "Promote") return promote(state, "operator", "Promoted by an operator.", now)
  if (event._tag !== "Abort") return unchanged(state)
  const reason = event.reason === "" ? "Aborted by an operator." : `Aborted by an operator: ${event.reason}`
  return drain(state, { result: "aborted", cause: "operator", metric: null, reason }, now)
}

/**
 * The state after an event, and what has to be done. An event that does not fit the state changes nothing.
 *
 * @param now epoch ms
 */
export const advance = (state: Rollout, event: Event, now: number): Advanced => {
  switch (event._tag) {
    case "Healthy":
      return onHealthy(state, now)
    case "Unhealthy":
      return onUnhealthy(state, event.problem, now)
    case "Observed":
      return onObserved(state, event, now)
    case "Tick":
      return onTick(state, now)
    case "Drained":
      return onDrained(state, event.deployment)
    case "Unloaded":
      return onUnloaded(state, event.deployment, now)
    default:
      return refusal(state, event) === undefined ? onOperator(state, event, now) : unchanged(state)
  }
}

/** What has to be done again by a process that takes the rollout over: its commands may be lost. */
export const recover = (state: Rollout): ReadonlyArray<Command> => {
  const { candidate, phase } = state
  if (phase._tag === "Ended") return []
  const weights = setWeights(state)
  if (phase._tag === "Draining") {
    const { deployment, drained } = phase
    return [weights, { _tag: drained ? "Unload" : "Drain", deployment }]
  }
  // A check that was running has no answer any more.
  if (phase._tag === "Checking") {
    return phase.nextAt === null
      ? [weights, { _tag: "CheckHealth", deployment: candidate }]
      : [weights]
  }
  return [weights]
}

const waitingInStep = ({ candidate, plan, tallies }: Rollout, since: number, now: number, running: number): string => {
  const leftMs = Math.max(0, since + plan.stepMs - now)
  const has = tallies.candidate.requests
  const lacking = has < plan.minRequests
    ? `${has} of ${plan.minRequests} requests${limitedText(tallies.candidate, ", ", "")}${
      running === 0 ? "" : `, ${running} running`
    }`
    : undefined
  if (leftMs === 0) return lacking === undefined ? "The next evaluation." : `Requests of ${candidate}: ${lacking}.`
  return `The end of the step in ${Math.ceil(leftMs / 1000)} s${lacking === undefined ? "" : ` (${lacking})`}.`
}

/** What a rollout waits for whose candidate no running process has, in a sentence. */
export const waitingForService = ({ candidate, phase }: Rollout): string =>
  phase._tag === "Draining"
    ? `No running service has ${candidate}. The rollout ends by itself.`
    : `No running service has ${candidate}. Start one that has it, or abort the rollout.`

/**
 * What the rollout waits for, in a sentence.
 *
 * @param running requests that the candidate has not answered yet
 */
export const waitingFor = (state: Rollout, now: number, running = 0): string => {
  const { candidate, phase } = state
  switch (phase._tag) {
    case "Checking":
      return phase.lastProblem === null
        ? `The health check of ${candidate}.`
        : `The next health check of ${candidate}; the last one failed: ${phase.lastProblem}`
    case "Stepping":
      return waitingInStep(state, phase.since, now, running)
    case "Paused":
      return "An operator, to resume, promote or abort."
    case "Draining":
      return phase.drained ? `The unload of ${phase.deployment}.` : `Requests that ${phase.deployment} still has.`
    case "Ended":
      return "Nothing."
  }
}

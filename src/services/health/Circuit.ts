/**
 * One deployment's circuit and the calls through it: the state, what the end of a call means for it, and when a call
 * may begin. Everything here is synchronous; `Breaker` keeps the circuits and calls the store.
 */
import { Cause, Duration, Exit, Result } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { classify, eventKey, isCancellation, isSlow } from "../../domain/FailureClass.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { Verdict } from "../../domain/Measurement.ts"

/** When circuits open and close. */
export interface Options {
  /** Consecutive failures. */
  readonly opensAfter: number
  readonly openFor: Duration.Duration
  /** Consecutive successes of a half-open circuit. */
  readonly closesAfter: number
  /** Calls at once through a half-open circuit, where no other deployment can take the request. */
  readonly probes: number
}

/** `half-open`: one call at a time is let through, and its outcome decides. */
export type Phase = "closed" | "open" | "half-open"

/** A deployment's circuit as it is now. */
export interface State {
  readonly deployment: string
  readonly phase: Phase
  /** ms until a call is let through; 0 if it is let through now. */
  readonly retryAfterMs: number
  /** Successful calls since it is half open; it closes after `Options.closesAfter` of them. */
  readonly successes: number
}

/** A change of a circuit's phase, published after it has happened. */
export interface Transition {
  readonly deployment: string
  readonly from: Phase
  readonly to: Phase
  /** ms since 1970 */
  readonly at: number
}

/** How a call ended. */
export interface Ending {
  readonly verdict: Verdict
  /** Why it failed; left out after a success and after a defect. */
  readonly reason?: Reason | undefined
}

/** What a call's exit means for its deployment. A defect counts as a failure. */
export const endingOf = (exit: Exit.Exit<unknown, InferenceError>): Ending => {
  if (Exit.isSuccess(exit)) return { verdict: "success" }
  if (isCancellation(exit.cause)) return { verdict: "left" }
  const error = Cause.findError(exit.cause)
  if (Result.isFailure(error)) return { verdict: "failure" }
  const { reason } = error.success
  return { verdict: classify(reason).countsAgainstCircuit ? "failure" : "left", reason }
}

/** The state of one circuit; `Breaker` changes it. */
export interface Circuit {
  readonly deployment: string
  phase: Phase
  /** monotonic ms */
  openUntil: number
  /** The store's generation of its probe, while the probe runs. */
  probe: number | undefined
  /** The store's probe has content: the next call may begin. */
  probeAnswered: boolean
  /** Calls that have been let through since it is half open and have neither content nor an end, the probe included. */
  probes: number
  successes: number
  /** Consecutive failures. */
  failures: number
  /** How often it has opened. */
  openings: number
  resets: number
  /** The number of counted failures, by which calls are ordered. */
  counted: number
  /** The last counted failure of each kind. */
  readonly events: Map<string, { readonly counted: number; readonly at: number }>
  /** Consecutive openings because the host could not be reached. */
  unreachable: number
}

/** A closed circuit. */
export const make = (deployment: string): Circuit => ({
  deployment,
  phase: "closed",
  openUntil: 0,
  probe: undefined,
  probeAnswered: false,
  probes: 0,
  successes: 0,
  failures: 0,
  openings: 0,
  resets: 0,
  counted: 0,
  events: new Map(),
  unreachable: 0
})

/** Changes the phase. */
export const enterPhase = (circuit: Circuit, to: Phase, openUntil: number): void => {
  circuit.phase = to
  circuit.probe = undefined
  circuit.probeAnswered = false
  circuit.probes = 0
  circuit.successes = 0
  if (to === "open") circuit.openings++
  if (to === "closed") {
    circuit.unreachable = 0
    circuit.failures = 0
  }
  circuit.openUntil = to === "open" ? openUntil : 0
}

/** A call that was let through. */
export interface Call {
  readonly circuit: Circuit
  /** The store's generation; undefined for a call beside the store's probe. */
  readonly generation: number | undefined
  /** A half-open circuit has let it through. */
  readonly isTrial: boolean
  /** The circuit's figures when the call began. */
  readonly openings: number
  readonly resets: number
  readonly counted: number
  /** A half-open circuit has let it through, and its content has counted as its success. */
  answered: boolean
  /** Returns its permit to probe, where the processes of a service share them; called once. */
  release: (() => void) | undefined
}

/** Begins a call. */
export const begin = (circuit: Circuit, generation: number | undefined, isTrial: boolean): Call => {
  if (isTrial) circuit.probes++
  const { counted, openings, resets } = circuit
  return { circuit, generation, isTrial, openings, resets, counted, answered: false, release: undefined }
}

/** ms after which a rejected call may try again while another call probes the deployment. */
export const whileProbing = 1_000

/** Whether one more call may be let through beside the probe. */
export const takesMore = ({ probes }: Circuit, options: Options, alone: boolean): boolean =>
  alone && probes < options.probes

/** Whether a call that begins now probes the deployment. */
export const wouldProbe = ({ openUntil, phase }: Circuit, now: number): boolean =>
  phase === "half-open" || phase === "open" && openUntil <= now

/** ms until a call is let through; 0 if it is let through now. */
export const closedFor = (circuit: Circuit, options: Options, now: number, alone: boolean): number => {
  if (circuit.phase === "open") return Math.max(0, circuit.openUntil - now)
  const isTaken = circuit.phase === "half-open" && circuit.probe !== undefined && !circuit.probeAnswered
  return isTaken && !takesMore(circuit, options, alone) ? whileProbing : 0
}

/** The state of a circuit, for status displays. */
export const stateOf = (circuit: Circuit, options: Options, now: number): State => ({
  deployment: circuit.deployment,
  phase: circuit.phase === "open" && circuit.openUntil <= now ? "half-open" : circuit.phase,
  retryAfterMs: closedFor(circuit, options, now, false),
  successes: circuit.successes
})

/** What the store records of a call. */
export type Outcome = "Success" | "Failure" | "Ignored"

const outcomes = { success: "Success", failure: "Failure", left: "Ignored" } as const

/** Whether the host could not be reached. */
export const isUnreachable = ({ reason }: Ending): boolean =>
  reason?._tag === "UpstreamFailed" && reason.kind === "network"

/**
 * How long the circuit stays open if this failure opens it. An unreachable host may be restarting, and a probe of it
 * costs nothing: the first wait is short, and each further one twice as long.
 */
export const openForOf = ({ unreachable }: Circuit, { openFor }: Options, ending: Ending): Duration.Duration =>
  isUnreachable(ending) ? Duration.min(openFor, Duration.times(Defaults.unreachableFor, 2 ** unreachable)) : openFor

/** Whether the event that failed the call has counted already, as the failure of another call. */
const hasCounted = ({ circuit: { events }, counted }: Call, key: string, slow: boolean, now: number): boolean => {
  const event = events.get(key)
  return event !== undefined && counted < event.counted &&
    (!slow || now - event.at < Duration.toMillis(Defaults.slowEventFor))
}

/** The outcome of a call that a closed circuit let through. */
export const outcomeOf = (call: Call, { reason, verdict }: Ending, now: number): Outcome => {
  const { circuit } = call
  if (verdict !== "failure") return outcomes[verdict]
  const key = eventKey(reason)
  if (hasCounted(call, key, isSlow(reason), now)) return "Ignored"
  circuit.events.set(key, { counted: ++circuit.counted, at: now })
  return "Failure"
}

/** The outcome of a call that a half-open circuit let through: the last of several successes closes the circuit. */
export const trialOutcomeOf = ({ circuit }: Call, { closesAfter }: Options, { verdict }: Ending): Outcome => {
  if (verdict !== "success") return outcomes[verdict]
  noteSuccess(circuit)
  return circuit.successes < closesAfter ? "Ignored" : "Success"
}

const noteSuccess = (circuit: Circuit): void => {
  circuit.successes++
  circuit.failures = 0
}

/** Whether the circuit has neither opened nor been reset since the call began: otherwise its end does not count. */
export const isCurrent = ({ circuit, openings, resets }: Call): boolean =>
  resets === circuit.resets && openings === circuit.openings

/** The call no longer probes the deployment. */
export const releasePermit = (call: Call): void => {
  call.release?.()
  call.release = undefined
}

/** First content of a call through a half-open circuit: the call is a success, and the next one may begin. */
export const noteContent = (call: Call): void => {
  const { circuit, generation, isTrial } = call
  if (!isTrial || call.answered || circuit.phase !== "half-open" || !isCurrent(call)) return
  call.answered = true
  releasePermit(call)
  circuit.probes--
  noteSuccess(circuit)
  if (generation !== undefined && generation === circuit.probe) circuit.probeAnswered = true
}

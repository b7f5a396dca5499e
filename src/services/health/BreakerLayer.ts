/**
 * The breaker over the store of `effect`'s `CircuitBreaker`, which keeps the streak of failures and the state.
 *
 * **Details**
 *
 * `CircuitBreaker` guards an effect; a call here lasts as long as a scope, so the store is asked when the call begins and
 * told when it ends. The store closes a half-open circuit at its first success and lets one probe through: here a success
 * is recorded as `Ignored` until there have been enough, and where a deployment stands alone, calls beside the probe are
 * let through without the store. What decides is recorded under the generation of the store's probe. First content, which
 * comes outside of any effect, is written down in the circuit and recorded in the store by the next call (`settle`).
 *
 * The store cannot reset a circuit: each reset gives the circuit another key there, and the store drops unused keys.
 *
 * The same place sees every change, and keeps what `states` and `closedFor` answer.
 */
import { Clock, Duration, Effect, Layer, PubSub, Scope, Stream } from "effect"
import { CircuitBreaker } from "effect/persistence"
import * as Policies from "../../domain/Defaults.ts"
import { eventKey, isSlow } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { CircuitOpen, make as failure } from "../../domain/InferenceError.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import { Settings } from "../settings/Settings.ts"
import type { Ending, Options, Phase, State, Transition } from "./Breaker.ts"
import { Breaker } from "./Breaker.ts"

type Store = Pick<CircuitBreaker.CircuitBreakerStore["Service"], "admit" | "record">

/** What is known of one circuit. */
interface Circuit {
  readonly deployment: string
  phase: Phase
  /** ms of `Monotonic` */
  openUntil: number
  /** The store's generation of its probe, while that runs. */
  probe: number | undefined
  /** The store's probe has brought content: the next call may take its place. */
  probeAnswered: boolean
  /** Calls let through since it is half open that have neither brought content nor ended, the probe included. */
  probes: number
  successes: number
  /** How often it has opened. */
  openings: number
  resets: number
  /** Failures that have counted, to order calls by. */
  counted: number
  /** The last failure of each kind that has counted. */
  readonly events: Map<string, { readonly counted: number; readonly at: number }>
  /** How often in a row it has opened because the host could not be reached. */
  unreachable: number
}

/** A call that was let through. */
interface Call {
  readonly circuit: Circuit
  readonly generation: number | undefined
  /** It was let through by a half-open circuit. */
  readonly isTrial: boolean
  /** As the circuit's were when it began. */
  readonly openings: number
  readonly resets: number
  readonly counted: number
  /** It was let through by a half-open circuit, and its content has counted as its success. */
  answered: boolean
}

/** A call is told to come back after this while another one tries the deployment, ms. */
const whileProbing = 1_000

/** The store measures how long a circuit has been open by the clock's date. */
const withMonotonicClock = ({ admit, record }: Store, clock: Clock.Clock): Store => {
  const monotonic = Monotonic.clockOf(clock)
  return {
    admit: (key) => Effect.provideService(admit(key), Clock.Clock, monotonic),
    record: (options) => Effect.provideService(record(options), Clock.Clock, monotonic)
  }
}

const phases = { Closed: "closed", Open: "open", HalfOpen: "half-open" } as const

/** Circuits as they change, and who subscribes to changes. */
interface Board {
  readonly circuits: Map<string, Circuit>
  readonly changes: PubSub.PubSub<Transition>
  readonly clock: Clock.Clock
  readonly store: Store
  readonly options: Options
}

const circuitOf = ({ circuits }: Board, deployment: string): Circuit => {
  const known = circuits.get(deployment)
  if (known !== undefined) return known
  const made: Circuit = {
    deployment,
    phase: "closed",
    openUntil: 0,
    probe: undefined,
    probeAnswered: false,
    probes: 0,
    successes: 0,
    openings: 0,
    resets: 0,
    counted: 0,
    events: new Map(),
    unreachable: 0
  }
  circuits.set(deployment, made)
  return made
}

const storeKey = ({ deployment, resets }: Circuit): string => resets === 0 ? deployment : `${deployment}\n${resets}`

/** Changes a circuit, and publishes the change. */
const publish = ({ changes, clock }: Board, circuit: Circuit, to: Phase, openForMs = 0) => {
  const { deployment, phase: from } = circuit
  circuit.phase = to
  circuit.probe = undefined
  circuit.probeAnswered = false
  circuit.probes = 0
  circuit.successes = 0
  if (to === "open") circuit.openings++
  if (to === "closed") circuit.unreachable = 0
  circuit.openUntil = to === "open" ? Monotonic.nowOf(clock) + openForMs : 0
  return PubSub.publish(changes, { deployment, from, to, at: clock.currentTimeMillisUnsafe() })
}

const noteChange = (board: Board, circuit: Circuit, change: CircuitBreaker.Transition | undefined) =>
  change === undefined ? Effect.void : publish(
    board,
    circuit,
    phases[change.to],
    change.to === "Open" ? Duration.toMillis(change.retryAfter) : 0
  )

const refusal = (deployment: string, { reason }: CircuitBreaker.CircuitBreakerError): InferenceError =>
  failure(
    new CircuitOpen({
      deployment,
      retryAfterMs: reason._tag === "CircuitOpen" ? Duration.toMillis(reason.retryAfter) : whileProbing
    })
  )

/** Whether one more call may be let through beside the probe. */
const hasRoom = ({ probes }: Circuit, options: Options, alone: boolean): boolean => alone && probes < options.probes

const closedFor = (circuit: Circuit, options: Options, now: number, alone: boolean): number => {
  if (circuit.phase === "open") return Math.max(0, circuit.openUntil - now)
  const isTaken = circuit.phase === "half-open" && circuit.probe !== undefined && !circuit.probeAnswered
  return isTaken && !hasRoom(circuit, options, alone) ? whileProbing : 0
}

const stateOf = (circuit: Circuit, options: Options, now: number): State => ({
  deployment: circuit.deployment,
  phase: circuit.phase === "open" && circuit.openUntil <= now ? "half-open" : circuit.phase,
  retryAfterMs: closedFor(circuit, options, now, false),
  successes: circuit.successes
})

const outcomes = { success: "Success", failure: "Failure", left: "Ignored" } as const

type Outcome = "Success" | "Failure" | "Ignored"

const isUnreachable = ({ reason }: Ending): boolean => reason?._tag === "UpstreamFailed" && reason.kind === "network"

/**
 * How long the circuit stays open if this failure opens it. A host that cannot be reached may only restart, and a probe of
 * it costs nothing: the first wait is short, and each further one twice as long.
 */
const openForOf = ({ unreachable }: Circuit, { openFor }: Options, ending: Ending): Duration.Duration =>
  isUnreachable(ending) ? Duration.min(openFor, Duration.times(Policies.unreachableFor, 2 ** unreachable)) : openFor

/** Records what decides under this generation of the store's. */
const record = (board: Board, circuit: Circuit, generation: number, outcome: Outcome, ending: Ending) => {
  const { options, store } = board
  const tripPolicy = CircuitBreaker.consecutive(options.opensAfter)
  const openFor = openForOf(circuit, options, ending)
  return Effect.flatMap(
    Effect.orDie(store.record({ key: storeKey(circuit), generation, outcome, tripPolicy, openFor })),
    (change) => {
      if (change?.to === "Open" && isUnreachable(ending)) circuit.unreachable++
      return noteChange(board, circuit, change)
    }
  )
}

/** Whether what failed the call has counted already, as the failure of another call. */
const hasCounted = ({ circuit: { events }, counted }: Call, key: string, slow: boolean, now: number): boolean => {
  const event = events.get(key)
  return event !== undefined && counted < event.counted &&
    (!slow || now - event.at < Duration.toMillis(Policies.slowEventFor))
}

/** Of a call that a closed circuit let through. */
const outcomeOf = ({ clock }: Board, call: Call, { reason, verdict }: Ending): Outcome => {
  const { circuit } = call
  if (verdict !== "failure") return outcomes[verdict]
  const key = eventKey(reason)
  const now = Monotonic.nowOf(clock)
  if (hasCounted(call, key, isSlow(reason), now)) return "Ignored"
  circuit.events.set(key, { counted: ++circuit.counted, at: now })
  return "Failure"
}

/** Of a call that a half-open circuit let through: whether it decides already. */
const trialOutcomeOf = ({ circuit }: Call, { closesAfter }: Options, { verdict }: Ending): Outcome => {
  if (verdict !== "success") return outcomes[verdict]
  circuit.successes++
  return circuit.successes < closesAfter ? "Ignored" : "Success"
}

/** Decides for a circuit by a call beside the store's probe, in the probe's place. */
const decide = (board: Board, circuit: Circuit, outcome: Outcome, ending: Ending): Effect.Effect<unknown> => {
  const { probe } = circuit
  if (outcome === "Ignored") return Effect.void
  if (probe !== undefined) return record(board, circuit, probe, outcome, ending)
  return Effect.matchEffect(Effect.scoped(board.store.admit(storeKey(circuit))), {
    onFailure: () => Effect.void,
    onSuccess: ({ generation }) => record(board, circuit, generation, outcome, ending)
  })
}

const success: Ending = { verdict: "success" }

/** Records in the store what first content has shown. */
const settle = (board: Board, circuit: Circuit): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    const { phase, probe, probeAnswered, successes } = circuit
    if (phase !== "half-open") return Effect.void
    if (successes >= board.options.closesAfter) return decide(board, circuit, "Success", success)
    if (probe === undefined || !probeAnswered) return Effect.void
    circuit.probe = undefined
    circuit.probeAnswered = false
    return record(board, circuit, probe, "Ignored", success)
  })

/** Whether nothing has happened to its circuit that makes its end meaningless. */
const isCurrent = ({ circuit, openings, resets }: Call): boolean =>
  resets === circuit.resets && openings === circuit.openings

/** First content: the call has gone well, and its place is free. */
const noteContent = (call: Call): void => {
  const { circuit, generation, isTrial } = call
  if (!isTrial || call.answered || circuit.phase !== "half-open" || !isCurrent(call)) return
  call.answered = true
  circuit.probes--
  circuit.successes++
  if (generation !== undefined && generation === circuit.probe) circuit.probeAnswered = true
}

/** The end of a call whose content has counted: only a failure says something new. */
const leaveAnswered = (board: Board, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit } = call
  if (ending.verdict !== "failure") return settle(board, circuit)
  const outcome = circuit.phase === "half-open" ? "Failure" : outcomeOf(board, call, ending)
  return decide(board, circuit, outcome, ending)
}

/** The end of a call that a half-open circuit let through, without content. */
const leaveTrial = (board: Board, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit, generation } = call
  if (circuit.phase !== "half-open") return Effect.void
  const outcome = trialOutcomeOf(call, board.options, ending)
  circuit.probes--
  if (generation === undefined || generation !== circuit.probe) return decide(board, circuit, outcome, ending)
  circuit.probe = undefined
  return record(board, circuit, generation, outcome, ending)
}

/** What becomes of a call that was let through. One from before the circuit's last opening or reset decides nothing. */
const leave = (board: Board, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit, generation, isTrial } = call
  if (!isCurrent(call)) return Effect.void
  if (!isTrial) return record(board, circuit, generation!, outcomeOf(board, call, ending), ending)
  return call.answered ? leaveAnswered(board, call, ending) : leaveTrial(board, call, ending)
}

/** Lets a call through, or fails with `CircuitOpen`. */
const admit = (board: Board, circuit: Circuit, alone: boolean): Effect.Effect<Call, InferenceError, Scope.Scope> => {
  const call = (generation: number | undefined, isTrial: boolean): Call => {
    if (isTrial) circuit.probes++
    const { counted, openings, resets } = circuit
    return { circuit, generation, isTrial, openings, resets, counted, answered: false }
  }
  const isBesideProbe = circuit.phase === "half-open" && circuit.probe !== undefined
  if (isBesideProbe && hasRoom(circuit, board.options, alone)) return Effect.sync(() => call(undefined, true))
  return Effect.matchEffect(board.store.admit(storeKey(circuit)), {
    onFailure: (error) => Effect.fail(refusal(circuit.deployment, error)),
    onSuccess: ({ generation, probe, transition }) => {
      // The store forgets a circuit that has not been used for long, without a transition.
      const noted = !probe && circuit.phase !== "closed"
        ? publish(board, circuit, "closed")
        : noteChange(board, circuit, transition)
      return Effect.map(noted, () => {
        if (probe) circuit.probe = generation
        return call(generation, probe)
      })
    }
  })
}

const makeEnter = (board: Board): Breaker["Service"]["enter"] => (deployment, ending, alone = false) =>
  Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) =>
    Effect.flatMap(
      Effect.suspend(() => {
        const circuit = circuitOf(board, deployment)
        const admitted = Effect.suspend(() => admit(board, circuit, alone))
        return circuit.phase === "half-open" ? Effect.andThen(settle(board, circuit), admitted) : admitted
      }),
      (call) =>
        Effect.as(
          Scope.addFinalizer(scope, Effect.suspend(() => leave(board, call, ending()))),
          () => noteContent(call)
        )
    )))

const reset = (board: Board, circuit: Circuit): Effect.Effect<unknown> => {
  circuit.resets++
  return circuit.phase === "closed" ? Effect.void : publish(board, circuit, "closed")
}

const make = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const board: Board = {
    circuits: new Map(),
    changes: yield* PubSub.sliding<Transition>(1_024),
    clock,
    store: withMonotonicClock(yield* CircuitBreaker.CircuitBreakerStore, clock),
    options
  }
  const { circuits } = board
  return Breaker.of({
    enter: makeEnter(board),
    closedFor: (deployment, now, alone = false) => {
      const circuit = circuits.get(deployment)
      return circuit === undefined ? 0 : closedFor(circuit, options, now, alone)
    },
    openings: (deployment) => circuits.get(deployment)?.openings ?? 0,
    reset: (deployment) =>
      Effect.suspend(() => {
        const circuit = circuits.get(deployment)
        return circuit === undefined ? Effect.void : Effect.asVoid(reset(board, circuit))
      }),
    states: Effect.map(Monotonic.now, (now) => Array.from(circuits.values(), (one) => stateOf(one, options, now))),
    transitions: Stream.fromPubSub(board.changes)
  })
})

/** Circuits in this process's memory; what is left out is as in `Policies.breaker`. */
export const layerWith = (options: Partial<Options>): Layer.Layer<Breaker> =>
  Layer.effect(Breaker, make({ ...Policies.breaker, ...options })).pipe(
    Layer.provide(CircuitBreaker.layerStoreMemory())
  )

/** By `Policies.breaker`. */
export const layer = layerWith({})

/** By the settings. */
export const layerSettings: Layer.Layer<Breaker, never, Settings> = Layer.unwrap(
  Settings.useSync(({ circuits }) => layerWith(circuits))
)

/**
 * The breaker over the store of `effect`'s `CircuitBreaker`, which says who may call when.
 *
 * **Details**
 *
 * `CircuitBreaker` guards an effect; a call here lasts as long as a scope, so it asks the store itself when it begins and
 * tells it when it ends. The store closes a half-open circuit at its first success: here a success is told as nothing
 * until there have been enough, so that the circuit stays half open and the next call is the next probe.
 *
 * The same place sees every change, and keeps what `states` and `closedFor` tell.
 */
import { Clock, Duration, Effect, Layer, PubSub, Scope, Stream } from "effect"
import { CircuitBreaker } from "effect/persistence"
import type { Phase, State, Transition, Verdict } from "../services/Breaker.ts"
import { Breaker } from "../services/Breaker.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import { CircuitOpen, make as failure } from "../services/InferenceError.ts"
import * as Monotonic from "../services/Monotonic.ts"
import * as Policies from "../services/Policies.ts"

/** When circuits open and close. */
export interface Options {
  /** Failures in a row. */
  readonly opensAfter: number
  readonly openFor: Duration.Duration
  /** Successes in a row once it is half open. */
  readonly closesAfter: number
}

type Store = Pick<CircuitBreaker.CircuitBreakerStore["Service"], "admit" | "record">

/** What is known of one circuit. */
interface Circuit {
  phase: Phase
  /** ms of `Monotonic` */
  openUntil: number
  /** The generation of the call that is on its way and decides, where there is one. */
  probe: number | undefined
  successes: number
  /** How often it has opened. */
  openings: number
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

/** Circuits as they change, and who wants to know. */
interface Board {
  readonly circuits: Map<string, Circuit>
  readonly changes: PubSub.PubSub<Transition>
  readonly clock: Clock.Clock
}

const circuitOf = ({ circuits }: Board, key: string): Circuit => {
  const known = circuits.get(key)
  if (known !== undefined) return known
  const made: Circuit = { phase: "closed", openUntil: 0, probe: undefined, successes: 0, openings: 0 }
  circuits.set(key, made)
  return made
}

/** Changes a circuit, and tells of it. */
const publish = ({ changes, clock }: Board, deployment: string, circuit: Circuit, to: Phase, openForMs = 0) => {
  const from = circuit.phase
  circuit.phase = to
  circuit.successes = 0
  if (to === "open") circuit.openings++
  circuit.openUntil = to === "open" ? Monotonic.nowOf(clock) + openForMs : 0
  return PubSub.publish(changes, { deployment, from, to, at: clock.currentTimeMillisUnsafe() })
}

const noteChange = (board: Board, change: CircuitBreaker.Transition | undefined) =>
  change === undefined ? Effect.void : publish(
    board,
    change.key,
    circuitOf(board, change.key),
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

const closedFor = ({ openUntil, phase, probe }: Circuit, now: number): number => {
  if (phase === "open") return Math.max(0, openUntil - now)
  return phase === "half-open" && probe !== undefined ? whileProbing : 0
}

const stateOf = (deployment: string, circuit: Circuit, now: number): State => ({
  deployment,
  phase: circuit.phase === "open" && circuit.openUntil <= now ? "half-open" : circuit.phase,
  retryAfterMs: closedFor(circuit, now),
  successes: circuit.successes
})

const outcomes = { success: "Success", failure: "Failure", left: "Ignored" } as const

/** What becomes of a call that was let through. */
const makeRecord = (store: Store, board: Board, { closesAfter, openFor, opensAfter }: Options) => {
  const tripPolicy = CircuitBreaker.consecutive(opensAfter)
  return (key: string, { generation }: CircuitBreaker.Admission, verdict: Verdict) => {
    const circuit = circuitOf(board, key)
    const isProbe = circuit.probe === generation
    if (isProbe) circuit.probe = undefined
    const isOneOfMany = isProbe && verdict === "success" && ++circuit.successes < closesAfter
    const outcome = outcomes[isOneOfMany ? "left" : verdict]
    return Effect.flatMap(
      Effect.orDie(store.record({ key, generation, outcome, tripPolicy, openFor })),
      (change) => noteChange(board, change)
    )
  }
}

const makeEnter = (store: Store, board: Board, options: Options): Breaker["Service"]["enter"] => {
  const record = makeRecord(store, board, options)
  const note = (key: string, { generation, probe, transition }: CircuitBreaker.Admission) => {
    const circuit = circuitOf(board, key)
    circuit.probe = probe ? generation : undefined
    // The store forgets a circuit that nobody has used for long, and says nothing of it.
    if (!probe && circuit.phase !== "closed") return publish(board, key, circuit, "closed")
    return noteChange(board, transition)
  }
  return (key, verdict) =>
    Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) =>
      Effect.matchEffect(store.admit(key), {
        onFailure: (error) => Effect.fail(refusal(key, error)),
        onSuccess: (admission) =>
          Effect.andThen(
            note(key, admission),
            Scope.addFinalizerExit(scope, (exit) => record(key, admission, verdict(exit)))
          )
      })))
}

const make = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const board: Board = { circuits: new Map(), changes: yield* PubSub.sliding<Transition>(1_024), clock }
  const store = withMonotonicClock(yield* CircuitBreaker.CircuitBreakerStore, clock)
  return Breaker.of({
    enter: makeEnter(store, board, options),
    closedFor: (deployment, now) => {
      const circuit = board.circuits.get(deployment)
      return circuit === undefined ? 0 : closedFor(circuit, now)
    },
    openings: (deployment) => board.circuits.get(deployment)?.openings ?? 0,
    states: Effect.map(
      Monotonic.now,
      (now) => Array.from(board.circuits, ([deployment, circuit]) => stateOf(deployment, circuit, now))
    ),
    transitions: Stream.fromPubSub(board.changes)
  })
})

/** Circuits in this process's memory. */
export const layerWith = (options: Options): Layer.Layer<Breaker> =>
  Layer.effect(Breaker, make(options)).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))

/** By `Policies.breaker`. */
export const layer = layerWith(Policies.breaker)

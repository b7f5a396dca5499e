/**
 * The breaker over `effect`'s `CircuitBreaker`.
 *
 * **Details**
 *
 * `CircuitBreaker` closes a half-open circuit at its first success. `patient` stands between it and its store and hands on
 * a success as nothing until there have been enough: the circuit stays half open, and the next call is the next probe.
 * Everything else, and above all who may call when, is the store's own.
 *
 * The same place sees every change, and keeps what `states` and `closedFor` tell.
 */
import { Cause, Clock, Deferred, Duration, Effect, Exit, Fiber, Layer, PubSub, Result, Stream } from "effect"
import { CircuitBreaker } from "effect/persistence"
import type { Phase, State, Transition } from "../services/Breaker.ts"
import { Breaker } from "../services/Breaker.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import { CircuitOpen, make as failure } from "../services/InferenceError.ts"
import * as Policies from "../services/Policies.ts"
import { classify } from "../services/Retry.ts"

/** When circuits open and close. */
export interface Options {
  /** Failures in a row. */
  readonly opensAfter: number
  readonly openFor: Duration.Duration
  /** Successes in a row once it is half open. */
  readonly closesAfter: number
}

type Store = CircuitBreaker.CircuitBreakerStore["Service"]

/** What is known of one circuit. */
interface Circuit {
  phase: Phase
  /** ms since 1970 */
  openUntil: number
  /** The generation of the call that is on its way and decides, where there is one. */
  probe: number | undefined
  successes: number
}

/** A call is told to come back after this while another one tries the deployment, ms. */
const whileProbing = 1_000

const phases = { Closed: "closed", Open: "open", HalfOpen: "half-open" } as const

/** Circuits as they change, and who wants to know. */
interface Board {
  readonly circuits: Map<string, Circuit>
  readonly changes: PubSub.PubSub<Transition>
}

const circuitOf = ({ circuits }: Board, key: string): Circuit => {
  const known = circuits.get(key)
  if (known !== undefined) return known
  const made: Circuit = { phase: "closed", openUntil: 0, probe: undefined, successes: 0 }
  circuits.set(key, made)
  return made
}

const noteChange = (board: Board, change: CircuitBreaker.Transition | undefined) =>
  change === undefined ? Effect.void : Effect.flatMap(Clock.currentTimeMillis, (at) => {
    const circuit = circuitOf(board, change.key)
    circuit.phase = phases[change.to]
    circuit.successes = 0
    circuit.openUntil = change.to === "Open" ? at + Duration.toMillis(change.retryAfter) : 0
    return PubSub.publish(board.changes, {
      deployment: change.key,
      from: phases[change.from],
      to: phases[change.to],
      at
    })
  })

/** The store, which lets a half-open circuit close only after so many successes. */
const patient = (store: Store, closesAfter: number, board: Board): Store => {
  /** Whether this success of a probe is not the last one needed. */
  const isOneOfMany = (circuit: Circuit, outcome: string): boolean =>
    outcome === "Success" && ++circuit.successes < closesAfter
  return {
    state: store.state,
    admit: (key) =>
      Effect.tap(store.admit(key), ({ generation, probe, transition }) => {
        const circuit = circuitOf(board, key)
        circuit.probe = probe ? generation : undefined
        // The store forgets a circuit that nobody has used for long.
        if (!probe) circuit.phase = "closed"
        return noteChange(board, transition)
      }),
    record: (call) =>
      Effect.suspend(() => {
        const circuit = circuitOf(board, call.key)
        const isProbe = circuit.probe === call.generation
        if (isProbe) circuit.probe = undefined
        const outcome = isProbe && isOneOfMany(circuit, call.outcome) ? "Ignored" : call.outcome
        return Effect.tap(store.record({ ...call, outcome }), (change) => noteChange(board, change))
      })
  }
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): CircuitBreaker.Outcome => {
  if (Exit.isSuccess(exit)) return CircuitBreaker.success
  const error = Cause.findError(exit.cause)
  // A defect is the deployment's, as far as anyone can tell.
  if (Result.isFailure(error)) return CircuitBreaker.failure()
  return classify((error.success as InferenceError).reason).counts ? CircuitBreaker.failure() : CircuitBreaker.ignored
}

const refusal = (deployment: string, { reason }: CircuitBreaker.CircuitBreakerError): InferenceError =>
  failure(
    new CircuitOpen({
      deployment,
      retryAfterMs: reason._tag === "CircuitOpen" ? Duration.toMillis(reason.retryAfter) : whileProbing
    })
  )

const isRefusal = (error: unknown): error is CircuitBreaker.CircuitBreakerError =>
  error instanceof CircuitBreaker.CircuitBreakerError

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

const makeGuard = ({ execute }: CircuitBreaker.CircuitBreaker): Breaker["Service"]["guard"] => (deployment) => (call) =>
  Effect.mapError(
    execute(call, { key: deployment, classify: outcomeOf }),
    (error) => isRefusal(error) ? refusal(deployment, error) : error
  )

/** A fiber stands for the call until its end is told, or the scope closes and interrupts it. */
const makeEnter = (guard: Breaker["Service"]["guard"]): Breaker["Service"]["enter"] =>
  Effect.fnUntraced(function*(deployment: string) {
    const admitted = yield* Deferred.make<void, InferenceError>()
    const ended = yield* Deferred.make<unknown, InferenceError>()
    const call = yield* Deferred.succeed(admitted, undefined).pipe(
      Effect.andThen(Deferred.await(ended)),
      guard(deployment),
      Effect.onError((cause) => Deferred.failCause(admitted, cause)),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* Deferred.await(admitted)
    return (exit: Exit.Exit<unknown, InferenceError>) =>
      Effect.andThen(Deferred.done(ended, exit), Effect.asVoid(Fiber.await(call)))
  })

const make = Effect.fnUntraced(function*({ closesAfter, openFor, opensAfter }: Options) {
  const board: Board = { circuits: new Map(), changes: yield* PubSub.sliding<Transition>(1_024) }
  const store = yield* CircuitBreaker.CircuitBreakerStore
  const circuits = yield* CircuitBreaker.make({
    tripPolicy: CircuitBreaker.consecutive(opensAfter),
    openDuration: openFor
  }).pipe(Effect.provideService(CircuitBreaker.CircuitBreakerStore, patient(store, closesAfter, board)))
  const guard = makeGuard(circuits)
  return Breaker.of({
    guard,
    enter: makeEnter(guard),
    closedFor: (deployment, now) => {
      const circuit = board.circuits.get(deployment)
      return circuit === undefined ? 0 : closedFor(circuit, now)
    },
    states: Effect.map(
      Clock.currentTimeMillis,
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

/**
 * A circuit breaker for each deployment: consecutive failures open its circuit for a while; then one call at a time probes
 * the deployment, and several successes close the circuit.
 *
 * **Details**
 *
 * `FailureClass.classify` says what counts as a failure: a caller's mistake, a rate limit, a full queue and an interrupted
 * call do not. One outcome is counted for each call, so time-outs belong inside it; each attempt is a call.
 *
 * One event is one failure: calls that were in flight together count once when they fail in the same way
 * (`FailureClass.eventKey`), as by a crash, a lost connection, one instant of HTTP 503 or a key that the provider
 * rejects. Failures of calls that began one after another count each. Failures that take long (`isSlow`) are one event
 * only within `Defaults.slowEventFor`: calls that time out at a hung provider do not end together.
 *
 * A circuit that opens because its host cannot be reached is probed again after a second, then after two, four and so on,
 * up to `Options.openFor`: a host that restarts is back as soon as it answers.
 *
 * While a circuit is half open, one call at a time is let through; where no other deployment can take the request,
 * several at a time (`Options.probes`). The first content of a call is its success, and the next call may begin: an
 * answer may stream for minutes. A later failure of the call still counts.
 *
 * **Gotchas**
 *
 * A call is let through or refused when it begins. A refusal is `CircuitOpen`, which names the deployment and the wait.
 *
 * `CircuitBreaker` of `effect` guards an effect; a call here lasts as long as a scope, so the store admits the call
 * when it begins and records it when it ends. The store closes a half-open circuit at its first success and lets one
 * probe through. Here a success is recorded as `Ignored` until there are enough, and if no other deployment can take
 * the request, further calls pass without the store. First content arrives outside of any effect: the circuit notes it,
 * and the next call records it in the store (`settle`). The store cannot reset a circuit: each reset gives the circuit
 * another key, and the store drops unused keys.
 */
import { Clock, Context, Duration, Effect, Layer, PubSub, Scope, Stream } from "effect"
import { CircuitBreaker } from "effect/persistence"
import * as Defaults from "../../domain/Defaults.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { CircuitOpen, make as failure } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as Time from "../../domain/Time.ts"
import type { CircuitNews } from "../processes/ProcessGroup.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Call, Ending, Options, Outcome, Phase, State, Transition } from "./Circuit.ts"
import * as Circuit from "./Circuit.ts"
import type { SharedCircuits } from "./SharedCircuits.ts"
import { CircuitsOfOthers } from "./SharedCircuits.ts"

export type { Ending, Options, Phase, State, Transition } from "./Circuit.ts"

/** A call that a closed circuit without failures has let through. */
export interface ClosedCall {
  /** Ends the call; the effect, if there is one, records what opens circuits. */
  readonly leave: (ending: Ending) => Effect.Effect<unknown> | undefined
}

/** One circuit for each deployment. */
export class Breaker extends Context.Service<Breaker, {
  /**
   * Begins a call that lasts as long as a scope, as a stream does, unless the circuit is open.
   *
   * @param ending called when the scope is closed
   * @param alone no other deployment can take the request
   * @returns to be called when the first content of the answer has come
   */
  readonly enter: (
    deployment: string,
    ending: () => Ending,
    alone?: boolean
  ) => Effect.Effect<() => void, InferenceError, Scope.Scope>
  /**
   * Begins a call at a closed circuit without counted failures; undefined at any other, where `enter` decides. The caller
   * ends the call once.
   */
  readonly enterClosed: (deployment: string) => ClosedCall | undefined
  /**
   * ms until a call is let through; 0 if it is let through now. Cheap enough for every deployment of a decision.
   *
   * @param now monotonic ms
   * @param alone no other deployment can take the request
   */
  readonly closedFor: (deployment: string, now: number, alone?: boolean) => number
  /** The consecutive failures that keep its circuit open, for messages; undefined where it is closed or half-open. */
  readonly failures: (deployment: string) => number | undefined
  /**
   * How often its circuit has opened. A call that waited after its admission enters again if the number has changed.
   */
  readonly openings: (deployment: string) => number
  /** Closes its circuit; calls that began before no longer count. */
  readonly reset: (deployment: string) => Effect.Effect<void>
  /** Of every deployment that has been called, also of those that a reload has removed since: see `Registry.ofExisting`. */
  readonly states: Effect.Effect<ReadonlyArray<State>>
  /** Changes from now on. */
  readonly transitions: Stream.Stream<Transition>
}>()("troupe/services/health/Breaker") {}

type Store = Pick<CircuitBreaker.CircuitBreakerStore["Service"], "admit" | "record">

/** The store measures how long a circuit has been open by the date of the clock. */
const withMonotonicClock = ({ admit, record }: Store, clock: Clock.Clock): Store => {
  const monotonic = Time.monotonicClock(clock)
  return {
    admit: (key) => Effect.provideService(admit(key), Clock.Clock, monotonic),
    record: (options) => Effect.provideService(record(options), Clock.Clock, monotonic)
  }
}

const phases = { Closed: "closed", Open: "open", HalfOpen: "half-open" } as const

/** All circuits, and the subscribers to their transitions. */
interface Circuits {
  readonly byDeployment: Map<string, Circuit.Circuit>
  readonly changes: PubSub.PubSub<Transition>
  readonly clock: Clock.Clock
  readonly store: Store
  readonly options: Options
  readonly others: SharedCircuits | undefined
}

const circuitOf = ({ byDeployment }: Circuits, deployment: string): Circuit.Circuit => {
  const known = byDeployment.get(deployment)
  if (known !== undefined) return known
  const made = Circuit.make(deployment)
  byDeployment.set(deployment, made)
  return made
}

const storeKey = ({ deployment, resets }: Circuit.Circuit): string =>
  resets === 0 ? deployment : `${deployment}\n${resets}`

/** Why a circuit opens, and for how long. */
interface Opening {
  readonly openForMs: number
  readonly ending: Ending | undefined
}

/** A circuit that a failed probe opens again is logged at level DEBUG: a provider may be down for hours. */
const logChange = ({ deployment, failures }: Circuit.Circuit, from: Phase, to: Phase, opening?: Opening) => {
  if (to === "half-open") return Effect.void
  const labels = { event: `circuit_${to}`, deployment }
  if (to === "closed") return Effect.annotateLogs(Effect.logInfo(`The circuit of "${deployment}" closed.`), labels)
  const text = [
    `The circuit of "${deployment}" opened after ${failures} consecutive ${failures === 1 ? "failure" : "failures"}`,
    ...(opening === undefined ? [] : [`; next try in ${Math.ceil(opening.openForMs / 1000)} s`]),
    ...(opening?.ending?.reason === undefined
      ? ["."]
      : [`. Last failure: ${ReasonMessage.recorded(opening.ending.reason)}`])
  ].join("")
  return Effect.annotateLogs(from === "closed" ? Effect.logWarning(text) : Effect.logDebug(text), labels)
}

/** Changes a circuit, publishes and logs the change. */
const publish = ({ changes, clock, others }: Circuits, circuit: Circuit.Circuit, to: Phase, opening?: Opening) => {
  const { deployment, failures, phase: from } = circuit
  const { openForMs = 0 } = opening ?? {}
  const logged = logChange(circuit, from, to, opening)
  Circuit.enterPhase(circuit, to, Time.nowOf(clock) + openForMs)
  const transition = { deployment, from, to, at: clock.currentTimeMillisUnsafe() }
  others?.publish({ type: "circuit", transition, openForMs, failures })
  return Effect.andThen(PubSub.publish(changes, transition), logged)
}

const noteChange = (
  circuits: Circuits,
  circuit: Circuit.Circuit,
  change: CircuitBreaker.Transition | undefined,
  ending?: Ending
) =>
  change === undefined ? Effect.void : publish(
    circuits,
    circuit,
    phases[change.to],
    change.to === "Open" ? { openForMs: Duration.toMillis(change.retryAfter), ending } : undefined
  )

const refusal = (
  { deployment, failures }: Circuit.Circuit,
  { reason }: CircuitBreaker.CircuitBreakerError
): InferenceError =>
  failure(
    reason._tag === "CircuitOpen"
      ? new CircuitOpen({ deployment, failures, retryAfterMs: Duration.toMillis(reason.retryAfter) })
      : new CircuitOpen({ deployment, retryAfterMs: Circuit.whileProbing })
  )

/** Records the deciding outcome in the store, under this generation. */
const record = (
  circuits: Circuits,
  circuit: Circuit.Circuit,
  generation: number,
  outcome: Outcome,
  ending: Ending
) => {
  const { options, store } = circuits
  const tripPolicy = CircuitBreaker.consecutive(options.opensAfter)
  const openFor = Circuit.openForOf(circuit, options, ending)
  if (outcome === "Failure") circuit.failures++
  else if (outcome === "Success") circuit.failures = 0
  return Effect.flatMap(
    Effect.orDie(store.record({ key: storeKey(circuit), generation, outcome, tripPolicy, openFor })),
    (change) => {
      if (change?.to === "Open" && Circuit.isUnreachable(ending)) circuit.unreachable++
      return noteChange(circuits, circuit, change, ending)
    }
  )
}

/** Decides about a circuit by a call that ran beside the store's probe, in place of the probe. */
const decide = (
  circuits: Circuits,
  circuit: Circuit.Circuit,
  outcome: Outcome,
  ending: Ending
): Effect.Effect<unknown> => {
  const { probe } = circuit
  if (outcome === "Ignored") return Effect.void
  if (probe !== undefined) return record(circuits, circuit, probe, outcome, ending)
  return Effect.matchEffect(Effect.scoped(circuits.store.admit(storeKey(circuit))), {
    onFailure: () => Effect.void,
    onSuccess: ({ generation }) => record(circuits, circuit, generation, outcome, ending)
  })
}

const success: Ending = { verdict: "success" }

/** Records the success of a call with first content in the store. */
const settle = (circuits: Circuits, circuit: Circuit.Circuit): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    const { phase, probe, probeAnswered, successes } = circuit
    if (phase !== "half-open") return Effect.void
    if (successes >= circuits.options.closesAfter) return decide(circuits, circuit, "Success", success)
    if (probe === undefined || !probeAnswered) return Effect.void
    circuit.probe = undefined
    circuit.probeAnswered = false
    return record(circuits, circuit, probe, "Ignored", success)
  })

/** The end of a call whose first content has counted as its success: only a failure counts in addition. */
const leaveAnswered = (circuits: Circuits, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit } = call
  if (ending.verdict !== "failure") return settle(circuits, circuit)
  const outcome = circuit.phase === "half-open"
    ? "Failure"
    : Circuit.outcomeOf(call, ending, Time.nowOf(circuits.clock))
  return decide(circuits, circuit, outcome, ending)
}

/** The end of a call that a half-open circuit let through, without content. */
const leaveTrial = (circuits: Circuits, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit, generation } = call
  if (circuit.phase !== "half-open") return Effect.void
  const outcome = Circuit.trialOutcomeOf(call, circuits.options, ending)
  circuit.probes--
  if (generation === undefined || generation !== circuit.probe) return decide(circuits, circuit, outcome, ending)
  circuit.probe = undefined
  return record(circuits, circuit, generation, outcome, ending)
}

/** The end of a call. A call that began before the circuit's last opening or reset decides nothing. */
const leave = (circuits: Circuits, call: Call, ending: Ending): Effect.Effect<unknown> => {
  const { circuit, generation, isTrial } = call
  Circuit.releasePermit(call)
  if (!Circuit.isCurrent(call)) return Effect.void
  if (isTrial) return call.answered ? leaveAnswered(circuits, call, ending) : leaveTrial(circuits, call, ending)
  const outcome = Circuit.outcomeOf(call, ending, Time.nowOf(circuits.clock))
  return record(circuits, circuit, generation!, outcome, ending)
}

/** Lets a call through, or fails with `CircuitOpen`. */
const admit = (
  circuits: Circuits,
  circuit: Circuit.Circuit,
  alone: boolean
): Effect.Effect<Call, InferenceError, Scope.Scope> => {
  const isBesideProbe = circuit.phase === "half-open" && circuit.probe !== undefined
  if (isBesideProbe && Circuit.takesMore(circuit, circuits.options, alone)) {
    return Effect.sync(() => Circuit.begin(circuit, undefined, true))
  }
  return Effect.matchEffect(circuits.store.admit(storeKey(circuit)), {
    onFailure: (error) => Effect.fail(refusal(circuit, error)),
    onSuccess: ({ generation, probe, transition }) => {
      // The store forgets a circuit that has not been used for long, without a transition.
      const noted = !probe && circuit.phase !== "closed"
        ? publish(circuits, circuit, "closed")
        : noteChange(circuits, circuit, transition)
      return Effect.map(noted, () => {
        if (probe) circuit.probe = generation
        return Circuit.begin(circuit, generation, probe)
      })
    }
  })
}

/**
 * Lets a call through with a permit to probe, if it needs one; the other processes may have changed the circuit before the
 * permit is here.
 */
const admitShared = (
  circuits: Circuits,
  circuit: Circuit.Circuit,
  alone: boolean,
  others: SharedCircuits
): Effect.Effect<Call, InferenceError, Scope.Scope> => {
  const { deployment } = circuit
  const { clock, options } = circuits
  if (!Circuit.wouldProbe(circuit, Time.nowOf(clock))) return admit(circuits, circuit, alone)
  const release = () => others.release(deployment)
  const withPermit = Effect.matchEffect(Effect.suspend(() => admit(circuits, circuit, alone)), {
    onFailure: (error) => Effect.andThen(Effect.sync(release), Effect.fail(error)),
    onSuccess: (call) =>
      Effect.sync(() => {
        if (call.isTrial) call.release = release
        else release()
        return call
      })
  })
  return Effect.flatMap(
    others.take(deployment, alone ? options.probes : 1),
    (isGranted) =>
      isGranted
        ? withPermit
        : Effect.fail(failure(new CircuitOpen({ deployment, retryAfterMs: Circuit.whileProbing })))
  )
}

const makeEnter = (circuits: Circuits): Breaker["Service"]["enter"] => (deployment, ending, alone = false) =>
  Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) =>
    Effect.flatMap(
      Effect.suspend(() => {
        const circuit = circuitOf(circuits, deployment)
        const { others } = circuits
        const admitted = Effect.suspend(() =>
          others === undefined ? admit(circuits, circuit, alone) : admitShared(circuits, circuit, alone, others)
        )
        return circuit.phase === "half-open" ? Effect.andThen(settle(circuits, circuit), admitted) : admitted
      }),
      (call) =>
        Effect.as(
          Scope.addFinalizer(scope, Effect.suspend(() => leave(circuits, call, ending()))),
          () => Circuit.noteContent(call)
        )
    )))

/** The end of a call that the store does not know. A success changes a circuit with failures only. */
const leaveClosed = (circuits: Circuits, call: Call, ending: Ending): Effect.Effect<unknown> | undefined => {
  const { circuit } = call
  if (ending.verdict === "left" || !Circuit.isCurrent(call)) return undefined
  if (ending.verdict === "success") {
    return circuit.failures === 0
      ? undefined
      : decide(circuits, circuit, "Success", ending)
  }
  return decide(circuits, circuit, Circuit.outcomeOf(call, ending, Time.nowOf(circuits.clock)), ending)
}

const makeEnterClosed = (circuits: Circuits): Breaker["Service"]["enterClosed"] => (deployment) => {
  const circuit = circuitOf(circuits, deployment)
  if (circuit.phase !== "closed" || circuit.failures > 0) return undefined
  const call = Circuit.begin(circuit, undefined, false)
  return { leave: (ending) => leaveClosed(circuits, call, ending) }
}

const reset = (circuits: Circuits, circuit: Circuit.Circuit): Effect.Effect<unknown> => {
  circuit.resets++
  circuit.failures = 0
  return circuit.phase === "closed" ? Effect.void : publish(circuits, circuit, "closed")
}

/** Another process has opened or closed a deployment's circuit; calls that began before no longer count. */
const follow = (circuits: Circuits, { failures, openForMs, transition }: CircuitNews): Effect.Effect<unknown> => {
  const { changes, clock, store } = circuits
  const { deployment, to } = transition
  const circuit = circuitOf(circuits, deployment)
  const published = PubSub.publish(changes, transition)
  if (to === "half-open" || circuit.phase === to) return published
  circuit.resets++
  circuit.failures = to === "open" ? failures : 0
  Circuit.enterPhase(circuit, to, Time.nowOf(clock) + openForMs)
  if (to === "closed") return published
  const key = storeKey(circuit)
  const opened = Effect.flatMap(Effect.scoped(store.admit(key)), ({ generation }) =>
    store.record({
      key,
      generation,
      outcome: "Failure",
      tripPolicy: CircuitBreaker.consecutive(1),
      openFor: Duration.millis(openForMs)
    }))
  return Effect.andThen(Effect.orDie(opened), published)
}

const make = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const byDeployment = new Map<string, Circuit.Circuit>()
  const circuits: Circuits = {
    byDeployment,
    changes: yield* PubSub.sliding<Transition>(1_024),
    clock,
    store: withMonotonicClock(yield* CircuitBreaker.CircuitBreakerStore, clock),
    options,
    others: yield* CircuitsOfOthers
  }
  const services = yield* Effect.context()
  circuits.others?.listen((news) => Effect.runForkWith(services)(follow(circuits, news)))
  return Breaker.of({
    enter: makeEnter(circuits),
    enterClosed: makeEnterClosed(circuits),
    closedFor: (deployment, now, alone = false) => {
      const circuit = byDeployment.get(deployment)
      return circuit === undefined ? 0 : Circuit.closedFor(circuit, options, now, alone)
    },
    failures: (deployment) => {
      const circuit = byDeployment.get(deployment)
      return circuit?.phase === "open" ? circuit.failures : undefined
    },
    openings: (deployment) => byDeployment.get(deployment)?.openings ?? 0,
    reset: (deployment) =>
      Effect.suspend(() => {
        const circuit = byDeployment.get(deployment)
        return circuit === undefined ? Effect.void : Effect.asVoid(reset(circuits, circuit))
      }),
    states: Effect.map(
      Time.now,
      (now) => Array.from(byDeployment.values(), (circuit) => Circuit.stateOf(circuit, options, now))
    ),
    transitions: Stream.fromPubSub(circuits.changes)
  })
})

const layerOf = (options: Options): Layer.Layer<Breaker> =>
  Layer.effect(Breaker, make(options)).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))

/** Circuits in this process's memory; an option that is left out is as in `Defaults.breaker`. */
export const layerWith = (options: Partial<Options>): Layer.Layer<Breaker> =>
  layerOf({ ...Defaults.breaker, ...options })

/** With the options of `Defaults.breaker`. */
export const layer = layerWith({})

/** With the options of the settings. */
export const layerSettings: Layer.Layer<Breaker, never, Settings> = Layer.unwrap(
  Effect.gen(function*() {
    // The circuits read it at each call.
    const options = { ...(yield* Settings).circuits }
    const changes = yield* SettingsChanges
    changes.follow(({ circuits }) => Object.assign(options, circuits))
    return layerOf(options)
  })
)

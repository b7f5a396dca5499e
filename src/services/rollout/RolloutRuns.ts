/**
 * The rollouts of a service as one process has them: the states, and what was measured since the last evaluation.
 *
 * **Details**
 *
 * `RolloutMachine` decides. Each state is stored before its commands are carried out, and every command may be carried out
 * twice: a process that ends at any point is followed by one that reads the state and goes on (`RolloutMachine.recover`).
 *
 * Every process divides requests by the weights in the store. One of them leads a rollout: it evaluates and carries out
 * commands. The others pass on what they have measured. An operator's command may come to any of them.
 *
 * Services with different configurations may share a store: a process leads only rollouts whose candidate it has, or has had
 * since its start. A rollout that is over and that no such process leads for `abandonedMs` is ended by any.
 *
 * **Gotchas**
 *
 * A lease of the leader lasts `leaseMs` after its last renewal: so long does a rollout stand still where the leader was killed.
 */
import { Clock, Effect, Random, Semaphore } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Model } from "../../domain/Deployment.ts"
import * as Hashing from "../../domain/Hashing.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import type { ModelFiles } from "../engines/ModelFiles.ts"
import type { Deployments } from "../models/Deployments.ts"
import type { Registry } from "../models/Registry.ts"
import type { Events } from "../observability/OperatorEvents.ts"
import * as AddedDeployment from "./AddedDeployment.ts"
import type { Experiments } from "./Experiments.ts"
import * as KnownDeployment from "./KnownDeployment.ts"
import { RepeatedFailures } from "./RepeatedFailures.ts"
import type { Command, Event, Rollout } from "./Rollout.ts"
import type { RolloutCommands } from "./RolloutCommands.ts"
import type { RolloutError } from "./RolloutError.ts"
import { alreadyRunning, inUse, otherVectors, storageFailed } from "./RolloutError.ts"
import * as RolloutMachine from "./RolloutMachine.ts"
import type { RolloutSettings } from "./RolloutSettings.ts"
import { resolve } from "./RolloutSettings.ts"
import type { RolloutStore, Stored, Tallies, Versioned } from "./RolloutStore.ts"
import { joined, noTallies } from "./RolloutStore.ts"
import type { Found } from "./RolloutViews.ts"
import * as RolloutViews from "./RolloutViews.ts"
import type { ShadowTable } from "./Shadows.ts"
import type { Observe, Observer, SplitTable } from "./Split.ts"
import * as Standing from "./Standing.ts"
import * as Tally from "./Tally.ts"
import * as VariantHold from "./VariantHold.ts"
import { Waiting } from "./Waiting.ts"

/** A rollout to start. */
export interface Start {
  /** Name or alias of a model. */
  readonly model: string
  /** Id of one of its deployments, as `chat#1`; or another model of their provider, or another file. */
  readonly to: string
  /** Over those of the model. */
  readonly settings?: RolloutSettings | undefined
}

export interface Parts {
  readonly registry: Registry["Service"]
  readonly store: RolloutStore["Service"]
  readonly deployments: Deployments["Service"]
  readonly files: Pick<ModelFiles["Service"], "describe">
  readonly experiments: Experiments
  readonly shadows: ShadowTable | undefined
  readonly splits: SplitTable
  readonly commands: RolloutCommands
  /** This process for the lease. */
  readonly owner: string
  /** Whether this process may lead. */
  readonly mayLead: boolean
  /** Whether other processes have the store. */
  readonly isShared: boolean
  /** How the rollouts of a model go, by the configuration. */
  readonly settings: (model: string) => RolloutSettings | undefined
  readonly fork: (effect: Effect.Effect<void>) => void
  readonly publish: Events["publish"]
}

/** Logs and publishes what is new in the history of a rollout; a rollback is a warning. */
const logged = (
  before: Rollout,
  { history, id, model, phase }: Rollout,
  publish: Events["publish"]
): Effect.Effect<void> => {
  const last = history.at(-1)
  if (last === undefined || last === before.history.at(-1)) return Effect.void
  const isRollback = phase._tag === "Draining" && phase.outcome.result === "rolledBack"
  const message = `Rollout ${id} of ${model}: ${last.what}`
  publish({ kind: "rollout", severity: isRollback ? "warning" : "info", message, model, details: { rollout: id } })
  return Effect.annotateLogs(isRollback ? Effect.logWarning(message) : Effect.logInfo(message), {
    event: "rollout",
    rollout: id
  })
}

/** The event that ends a command which has nothing to do. Undefined for a command that has no such event. */
const endOf = (command: Command): Event | undefined =>
  command._tag === "Drain"
    ? { _tag: "Drained", deployment: command.deployment }
    : command._tag === "Unload"
    ? { _tag: "Unloaded", deployment: command.deployment }
    : undefined

const noLongerConfigured = "the configuration no longer has it."

/** ms for which a leader leads without renewal. */
const leaseMs = 3_000

/** ms after which any process ends a rollout that is over, if none that has its candidate leads it. */
const abandonedMs = 5 * leaseMs

/** How often the store is read, ms: at most, and where no rollout runs. */
const readEveryMs = 1_000

/** The rollouts as this process has read them, and what it has measured since. */
export class RolloutRuns {
  readonly #parts: Parts
  readonly #mutex = Semaphore.makeUnsafe(1)
  #rows: ReadonlyArray<Versioned> = []
  #models: ReadonlyArray<Model> = []
  #tallies = new Map<string, Tallies>()
  /** The requests that have no answer yet, by rollout. */
  #waiting: ReadonlyMap<string, Waiting> = new Map()
  readonly #repeated = new RepeatedFailures()
  /** Those that this process leads. */
  #led: ReadonlySet<string> = new Set()
  /** Those whose candidate this process has, or has had. */
  #known: ReadonlySet<string> = new Set()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** The oldest first. */
  get stored(): ReadonlyArray<Stored> {
    return this.#rows.map(({ stored }) => stored)
  }

  get #running(): ReadonlyArray<Versioned> {
    return this.#rows.filter(({ stored: { rollout } }) => Standing.isRunning(rollout))
  }

  /** ms until the next period. */
  get everyMs(): number {
    return Math.min(readEveryMs, ...this.#running.map(({ stored: { rollout: { plan } } }) => plan.evaluateMs))
  }

  readonly #observe = (rollout: string): Observe => (version, observation, session) => {
    const { failed, isRateLimited } = observation
    if (failed && isRateLimited !== true && this.#isRepeated(rollout, version, session)) return
    Tally.record(this.#tallyOf(rollout, version), observation)
  }

  #tallyOf(rollout: string, version: string | undefined): Tally.Tally {
    const known = this.#tallies.get(rollout) ?? noTallies()
    this.#tallies.set(rollout, known)
    return version === undefined ? known.stable : known.candidate
  }

  readonly #observer = (rollout: string): Observer => ({
    observe: this.#observe(rollout),
    waiting: this.#waiting.get(rollout)
  })

  #isRepeated(rollout: string, version: string | undefined, session: number | undefined): boolean {
    return this.#repeated.isRepeated(Hashing.hashText(`${rollout}\n${version ?? ""}`), session)
  }

  /** Whether the model has the candidate now. */
  #has({ candidate, rollout }: Stored): boolean {
    const model = this.#models.find(({ name }) => name === rollout.model)
    return model !== undefined && KnownDeployment.findKnown(model, candidate) !== undefined
  }

  /** Divides the requests of the models by the rows. */
  #divide(models: ReadonlyArray<Model>): void {
    const { experiments, shadows, splits } = this.#parts
    splits.replace(Standing.entriesOf(models, this.stored, this.#observer, experiments, shadows))
  }

  /** Divides requests by A/B tests that have changed. */
  divide(): void {
    this.#divide(this.#parts.registry.models())
  }

  #apply(rows: ReadonlyArray<Versioned>): void {
    this.#rows = rows
    this.#models = this.#parts.registry.models()
    this.#known = new Set(
      rows.flatMap(({ stored }) => this.#known.has(stored.rollout.id) || this.#has(stored) ? stored.rollout.id : [])
    )
    this.#waiting = new Map(
      this.#running.map(({ stored: { rollout: { id } } }) => [
        id,
        this.#waiting.get(id) ?? new Waiting((version) => this.#tallyOf(id, version))
      ])
    )
    this.#divide(this.#models)
  }

  /** As `#apply`, with the deployments that rollouts have added. */
  readonly #adopt = Effect.fnUntraced({ self: this }, function*(this: RolloutRuns, rows: ReadonlyArray<Versioned>) {
    this.#apply(rows)
    const { deployments, fork } = this.#parts
    const inBackground = (effect: Effect.Effect<void, InferenceError>) => fork(Effect.ignore(effect))
    for (const { stored } of rows) {
      const model = this.#models.find(({ name }) => name === stored.rollout.model)
      if (model === undefined || stored.added === undefined) continue
      yield* Effect.ignore(AddedDeployment.settle(deployments, model, stored, inBackground))
      this.#apply(rows)
    }
  })

  /** Reads the store; what another process has changed is done again here, where this process leads. */
  readonly #read = Effect.gen({ self: this }, function*() {
    const known = new Map(this.#rows.map(({ stored, version }) => [stored.rollout.id, version]))
    const rows = yield* this.#parts.store.current
    const changed = rows.filter(({ stored, version }) => known.get(stored.rollout.id) !== version)
    const isSame = changed.length === 0 && rows.length === this.#rows.length
    if (!isSame || this.#parts.registry.models() !== this.#models) yield* this.#adopt(rows)
    for (const { stored } of changed) {
      if (this.#led.has(stored.rollout.id)) this.#recover(stored)
    }
  })

  /** Whether this process may lead the rollout. */
  #mayLead({ history, id, phase }: Rollout, now: number): boolean {
    if (!this.#parts.mayLead) return false
    return this.#known.has(id) || (phase._tag === "Draining" && now - (history.at(-1)?.at ?? now) >= abandonedMs)
  }

  /** Leads from now on what it may. */
  #renewLeases = Effect.fnUntraced({ self: this }, function*(this: RolloutRuns) {
    const { owner, store } = this.#parts
    const before = this.#led
    const now = yield* Clock.currentTimeMillis
    const mine = this.#running.filter(({ stored }) => this.#mayLead(stored.rollout, now))
    const led = yield* Effect.filter(mine, ({ stored }) => store.lead(stored.rollout.id, owner, now, now + leaseMs))
    this.#led = new Set(led.map(({ stored }) => stored.rollout.id))
    for (const { stored } of led) {
      if (!before.has(stored.rollout.id)) this.#recover(stored)
    }
  })

  #recover(stored: Stored): void {
    if (Standing.isRunning(stored.rollout)) this.#carryOut(stored, RolloutMachine.recover(stored.rollout))
  }

  #carryOut(stored: Stored, commands: ReadonlyArray<Command>): void {
    const model = this.#models.find(({ name }) => name === stored.rollout.model)
    const { id } = stored.rollout
    if (!this.#known.has(id)) return
    const report = (event: Event) => Effect.asVoid(Effect.ignore(this.advance(id, event)))
    for (const command of commands) {
      // The configuration no longer has the model, nor any request of it that is waited for here.
      if (model === undefined) {
        const done = endOf(command)
        if (done !== undefined) this.#parts.fork(report(done))
        continue
      }
      const work = this.#parts.commands.workOf({ command, model, stored, report, observe: this.#observe(id) })
      if (work !== undefined) this.#parts.fork(work)
    }
  }

  /** Moves a rollout on; undefined if it does not exist. */
  readonly advance = (id: string, event: Event): Effect.Effect<Stored | undefined, SqlError> =>
    this.#mutex.withPermit(this.#advance(id, event))

  #advance(id: string, event: Event) {
    return this.#replace(id, (before) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const { commands, state } = RolloutMachine.advance(before.rollout, event, now)
        if (state === before.rollout) return { stored: before, commands }
        const model = this.#modelOf(before)
        const plan = model && this.#parts.experiments.planOf(model)
        return { stored: VariantHold.decided(before, state, model, plan), commands }
      }))
  }

  /** Writes the next state of a rollout, and carries out its commands; undefined if it does not exist. */
  readonly #replace = Effect.fnUntraced({ self: this }, function*(
    this: RolloutRuns,
    id: string,
    next: (stored: Stored) => Effect.Effect<{ readonly stored: Stored; readonly commands: ReadonlyArray<Command> }>
  ) {
    const { store } = this.#parts
    for (;;) {
      const row = this.#rows.find(({ stored }) => stored.rollout.id === id)
      if (row === undefined) return undefined
      const { commands, stored } = yield* next(row.stored)
      if (stored === row.stored && commands.length === 0) return stored
      if (yield* store.update({ stored, version: row.version })) {
        yield* this.#adopt(this.#rows.map((one) => one === row ? { stored, version: row.version + 1 } : one))
        yield* logged(row.stored.rollout, stored.rollout, this.#parts.publish)
        // Where another process leads, it reads the new state.
        if (this.#led.has(id)) this.#carryOut(stored, commands)
        return stored
      }
      yield* this.#adopt(yield* store.load)
    }
  })

  /** Passes on what this process has measured, and moves the rollouts on where it leads. */
  readonly #evaluate = Effect.fnUntraced({ self: this }, function*(this: RolloutRuns, { stored }: Versioned) {
    const { isShared, store } = this.#parts
    const { id } = stored.rollout
    this.#waiting.get(id)?.report(yield* Time.now)
    const own = this.#tallies.get(id)
    this.#tallies.delete(id)
    if (!this.#led.has(id)) {
      if (own !== undefined) yield* store.add(id, own)
      return
    }
    const others = isShared ? yield* store.take(id) : []
    const measured = own === undefined ? others : [...others, own]
    if (measured.length > 0) yield* this.advance(id, { _tag: "Observed", ...joined(measured) })
    if (this.#has(stored)) yield* this.advance(id, { _tag: "Tick" })
    else if (this.#known.has(id)) yield* this.advance(id, { _tag: "Unhealthy", problem: noLongerConfigured })
    else yield* this.#end(stored)
  })

  /** Ends a rollout that is over without its last steps: no process has anything to drain. */
  readonly #end = Effect.fnUntraced({ self: this }, function*(this: RolloutRuns, { rollout: { id, phase } }: Stored) {
    if (phase._tag !== "Draining") return
    const { deployment } = phase
    yield* this.advance(id, { _tag: "Drained", deployment })
    yield* this.advance(id, { _tag: "Unloaded", deployment })
  })

  /** One period. */
  readonly once: Effect.Effect<void, SqlError> = Effect.gen({ self: this }, function*() {
    yield* this.#mutex.withPermit(this.#read)
    yield* this.#parts.experiments.once
    yield* this.#renewLeases()
    yield* Effect.forEach(this.#running, (row) => this.#evaluate(row), { discard: true })
    this.#repeated.pass(this.everyMs)
  })

  /** Reads at the start, so that the first request is divided, and follows the configuration from then on. */
  readonly begin: Effect.Effect<void, SqlError> = Effect.suspend(() => {
    this.#parts.registry.onReplace?.((models) => this.#divide(models))
    return Effect.flatMap(this.#parts.store.load, this.#adopt)
  })

  find(idOrModel: string): Effect.Effect<Stored, RolloutError> {
    return Effect.suspend(() => RolloutViews.find(this.stored, this.#parts.registry.models(), idOrModel))
  }

  /** With the candidate's share now, and what the A/B test does. */
  readonly withTest = (stored: Stored): Found => {
    const newest = this.#of(stored.rollout.model).at(-1)?.rollout.id
    return RolloutViews.withTest(this.#parts, this.#modelOf(stored), stored, newest === stored.rollout.id)
  }

  /** With what their processes have. */
  readonly seen = (stored: ReadonlyArray<Stored>): Effect.Effect<ReadonlyArray<Found>, RolloutError> =>
    RolloutViews.seen(this.#parts.store, (id) => this.#known.has(id), stored.map(this.withTest))

  readonly findSeen = (idOrModel: string): Effect.Effect<Found, RolloutError> =>
    Effect.flatMap(this.find(idOrModel), (found) =>
      Effect.zipWith(
        this.seen([found]),
        this.#parts.commands.runningAt(found.rollout.candidate),
        ([first = found], running) => running === 0 ? first : { ...first, running }
      ))

  readonly refresh = Effect.mapError(Effect.suspend(() => this.#mutex.withPermit(this.#read)), storageFailed)

  /** Of one model, the oldest first. */
  #of(name: string): ReadonlyArray<Stored> {
    return this.stored.filter(({ rollout: { model } }) => model === name)
  }

  #modelOf({ rollout }: Stored): Model | undefined {
    return this.#models.find(({ name }) => name === rollout.model)
  }

  /** Lets the A/B test of its model go on with all variants; undefined where no result withholds one. */
  readonly resumeTest = (found: Stored): Effect.Effect<Stored | undefined, SqlError> =>
    this.#mutex.withPermit(this.#resumeTest(found))

  readonly #resumeTest = Effect.fnUntraced({ self: this }, function*(this: RolloutRuns, found: Stored) {
    const model = this.#modelOf(found)
    const plan = model && this.#parts.experiments.planOf(model)
    const all = this.#of(found.rollout.model)
    if (model === undefined || plan === undefined || VariantHold.heldIn(model, plan, all).size === 0) return undefined
    if (all.some(({ rollout }) => Standing.isRunning(rollout))) return undefined
    const now = yield* Clock.currentTimeMillis
    for (const { rollout: { id } } of all) {
      yield* this.#replace(id, (stored) =>
        Effect.succeed({
          stored: id === found.rollout.id
            ? VariantHold.resumed(stored, plan, now)
            : stored.test === undefined
            ? stored
            : VariantHold.released(stored),
          commands: []
        }))
    }
    return this.stored.find(({ rollout: { id } }) => id === found.rollout.id)
  })

  #alreadyRunning(stored: Stored): RolloutError {
    return alreadyRunning(stored.rollout, !this.#known.has(stored.rollout.id))
  }

  readonly start = Effect.fnUntraced(
    { self: this },
    function*(this: RolloutRuns, { model: name, settings, to }: Start) {
      const { experiments, files, registry, shadows, store } = this.#parts
      const model = yield* Effect.fromResult(registry.find(name))
      const running = this.#running.find(({ stored }) => stored.rollout.model === model.name)
      if (running !== undefined) return yield* this.#alreadyRunning(running.stored)
      const plan = resolve({ ...this.#parts.settings(model.name), ...settings })
      const id = `rollout-${(yield* Random.nextIntBetween(36 ** 7, 36 ** 8)).toString(36)}`
      const stableWithout = (one: string) => Standing.stableOf(model, this.#of(model.name), one, shadows, experiments)
      const { added, candidate } = yield* AddedDeployment.choose(files, model, stableWithout(to), to, id)
      const stable = stableWithout(candidate.id)
      if (stable.length === 0) return yield* inUse(candidate)
      const other = Standing.otherVectorsThan(candidate, stable)
      if (other !== undefined) return yield* otherVectors(candidate, other)
      const { commands, state } = RolloutMachine.start(
        { id, model: model.name, stable: stable[0]!.id, candidate: candidate.id, plan },
        yield* Clock.currentTimeMillis
      )
      const stored: Stored = {
        rollout: state,
        candidate: KnownDeployment.knownOf(candidate),
        stable: stable.map(KnownDeployment.knownOf),
        ...(added === undefined ? {} : { added })
      }
      if (!(yield* Effect.mapError(store.insert(stored), storageFailed))) {
        this.#apply(yield* Effect.mapError(store.load, storageFailed))
        const first = this.#running.find((one) => one.stored.rollout.model === model.name)
        return yield* this.#alreadyRunning(first?.stored ?? stored)
      }
      yield* this.#adopt([...this.#rows, { stored, version: 1 }])
      if (this.#led.has(id)) this.#carryOut(stored, commands)
      return stored
    }
  )

  readonly resign = Effect.suspend(() => Effect.ignore(this.#parts.store.resign(this.#parts.owner)))
}

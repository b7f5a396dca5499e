/**
 * The rollouts of a service: starts them, moves them on in a fiber of the service, and divides requests by them.
 *
 * **When to use**
 *
 * `start` gives a deployment of a model a growing share of its requests; `act` is what an operator does meanwhile. See
 * `RolloutRuns` for how several processes share this.
 */
import { Cause, Context, Duration, Effect, Fiber, Layer, Random } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import { Inference } from "../inference/Inference.ts"
import { Deployments } from "../models/Deployments.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import { OperatorEvents } from "../observability/OperatorEvents.ts"
import { summaryOf } from "../persistence/StorageError.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"
import { first } from "../processes/Shares.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Configured, Report } from "./Experiments.ts"
import { Experiments } from "./Experiments.ts"
import { ExperimentStore } from "./ExperimentStore.ts"
import type { Event } from "./Rollout.ts"
import { RolloutCommands } from "./RolloutCommands.ts"
import type { RolloutError } from "./RolloutError.ts"
import { refused, storageFailed } from "./RolloutError.ts"
import * as RolloutMachine from "./RolloutMachine.ts"
import type { Start } from "./RolloutRuns.ts"
import { RolloutRuns } from "./RolloutRuns.ts"
import { RolloutStore } from "./RolloutStore.ts"
import type { Found } from "./RolloutViews.ts"
import type { Report as ShadowReport } from "./ShadowRun.ts"
import { Shadows } from "./Shadows.ts"
import { Splits, SplitTable } from "./Split.ts"

/** A command of an operator. */
export type Action = "pause" | "resume" | "promote" | "abort"

/** Starts rollouts, and shows and changes those of the store. */
export class Rollouts extends Context.Service<Rollouts, {
  /** The newest first. */
  readonly list: Effect.Effect<ReadonlyArray<Found>, RolloutError>
  /** By id, or the newest of a model. */
  readonly find: (idOrModel: string) => Effect.Effect<Found, RolloutError>
  /** The A/B tests, with the requests of all processes up to the last comparison. */
  readonly experiments: Effect.Effect<ReadonlyArray<Report>, RolloutError>
  /** The copies of requests of this process. */
  readonly shadows: Effect.Effect<ReadonlyArray<ShadowReport>>
  readonly start: (given: Start) => Effect.Effect<Found, InferenceError | RolloutError>
  /**
   * Fails with `rollout_refused` where the action has no effect. `resume` of a rollout that is over lets the A/B test of its model
   * go on with all variants.
   */
  readonly act: (idOrModel: string, action: Action) => Effect.Effect<Found, RolloutError>
}>()("troupe/services/rollout/Rollouts") {}

const events: Readonly<Record<Action, Event>> = {
  pause: { _tag: "Pause" },
  resume: { _tag: "Resume" },
  promote: { _tag: "Promote" },
  abort: { _tag: "Abort", reason: "" }
}

/** A defect is logged whole, a failure of the store in words. */
const logFailure = (cause: Cause.Cause<SqlError>): Effect.Effect<void> => {
  const failed = cause.reasons.find((reason) => reason._tag === "Fail")
  return failed === undefined
    ? Effect.logWarning("Rollouts stand still:", cause)
    : Effect.logWarning(`Rollouts stand still: ${summaryOf(failed.error)}.`)
}

/** Logs a failure of the store once until it succeeds again. */
export const loggedOnce = (what: Effect.Effect<void, SqlError>): Effect.Effect<void> => {
  let isFailing = false
  return Effect.matchCauseEffect(what, {
    onSuccess: () =>
      Effect.sync(() => {
        isFailing = false
      }),
    onFailure: (cause) =>
      Effect.suspend(() => {
        if (Cause.hasInterrupts(cause)) return Effect.interrupt
        const log = isFailing ? Effect.void : logFailure(cause)
        isFailing = true
        return log
      })
  })
}

const act = (runs: RolloutRuns): Rollouts["Service"]["act"] =>
  Effect.fnUntraced(function*(idOrModel, action) {
    const event = events[action]
    yield* runs.refresh
    const found = yield* runs.find(idOrModel)
    const resumed = action === "resume" ? yield* Effect.mapError(runs.resumeTest(found), storageFailed) : undefined
    if (resumed !== undefined) return runs.withTest(resumed)
    const reason = RolloutMachine.refusal(found.rollout, event)
    if (reason !== undefined) return yield* refused(reason)
    const changed = yield* Effect.mapError(runs.advance(found.rollout.id, event), storageFailed)
    return runs.withTest(changed ?? found)
  })

type Tested = Pick<Settings["Service"], "experiments" | "models">

const plansOf = ({ experiments = new Map(), models }: Tested): Configured => ({ plans: experiments, models })

/** @param owner this process for leases */
const testsOf = (owner: string, settings: Tested) =>
  Effect.zipWith(
    ExperimentStore,
    RolloutStore,
    (store, leases) => new Experiments({ store, leases, owner }, plansOf(settings))
  )

/** With the shares of the variants now. */
const withShares = ({ model, variants }: Report, splits: SplitTable): Report => {
  const shares = splits.of?.(model)?.shares ?? []
  return {
    model,
    variants: variants.map((one) => {
      const found = shares.find(({ deployment }) => deployment === one.deployment)
      if (found === undefined) return one
      const { deployment: _, ...version } = found
      return { ...one, version }
    })
  }
}

const reportsOf = ({ reports }: Experiments, splits: SplitTable) =>
  Effect.map(Effect.mapError(reports, storageFailed), (all) => all.map((report) => withShares(report, splits)))

const make = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const services = yield* Effect.context()
  const member = yield* ProcessGroup
  const { storage, ...configured } = yield* Settings
  const shadows = yield* Shadows
  const owner = (yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)).toString(36)
  const tests = yield* testsOf(owner, configured)
  let { rollouts } = configured
  const changes = yield* SettingsChanges
  const splits = (yield* Splits) ?? new SplitTable()
  const runs = new RolloutRuns({
    registry: yield* Registry,
    store: yield* RolloutStore,
    deployments: yield* Deployments,
    files: yield* ModelFiles,
    experiments: tests,
    shadows,
    splits,
    commands: new RolloutCommands(yield* Inference, yield* Models),
    owner,
    // Local models are in the first process.
    mayLead: member === undefined || member.index === first,
    settings: (model) => rollouts?.get(model),
    isShared: storage.type !== "memory",
    publish: (yield* OperatorEvents).publish,
    fork: (effect) => void Fiber.runIn(Effect.runForkWith(services)(effect), scope)
  })
  changes.follow((next) => {
    rollouts = next.rollouts
    tests.replace(plansOf(next))
    runs.divide()
  })
  const once = loggedOnce(runs.once)
  yield* runs.begin
  yield* Effect.addFinalizer(() => Effect.andThen(Effect.ignore(tests.leave), runs.resign))
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(once, Effect.suspend(() => Effect.sleep(Duration.millis(runs.everyMs))))
    )
  )
  return Rollouts.of({
    list: Effect.flatMap(runs.refresh, () => runs.seen(runs.stored.toReversed())),
    find: (idOrModel) => Effect.andThen(runs.refresh, runs.findSeen(idOrModel)),
    experiments: reportsOf(tests, splits),
    shadows: Effect.sync(() => shadows?.reports ?? []),
    start: (given) => Effect.map(Effect.tap(runs.start(given), () => once), runs.withTest),
    act: act(runs)
  })
})

/** Reads the rollouts of the store and goes on with them. */
export const layer = Layer.effect(Rollouts, make)

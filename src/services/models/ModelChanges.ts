/**
 * Changes the models of a running application to those of another configuration.
 *
 * **Details**
 *
 * Models and deployments that are equal stay as they are: loaded, with their requests, circuits and measurements. A changed
 * deployment that is loaded gets another engine beside the one in use, which takes over in the step in which the whole
 * configuration changes; the one before ends after its last request. Where the memory is not enough for both, the new one is
 * loaded after the other has ended. Removed deployments end after their last request, those that wait included.
 *
 * A deployment whose limits, idle time or price change keeps its engine. Only one that gets another engine has its circuit
 * closed.
 */
import { Effect, Layer } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { Breaker } from "../health/Breaker.ts"
import type { SplitTable } from "../rollout/Split.ts"
import { Splits } from "../rollout/Split.ts"
import type { Resolved } from "../settings/Settings.ts"
import type { Prepared } from "../settings/SettingsChanges.ts"
import { prepareAll, SettingsChanges } from "../settings/SettingsChanges.ts"
import { Deployments } from "./Deployments.ts"
import { Models } from "./Models.ts"
import type { Changed } from "./Reconcile.ts"
import { reconcileNumbered } from "./Reconcile.ts"
import { Registry } from "./Registry.ts"

interface Parts {
  readonly breaker: Breaker["Service"]
  readonly deployments: Deployments["Service"]
  /** Runs until the application ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
  readonly models: Models["Service"]
  readonly registry: Registry["Service"]
  readonly splits: SplitTable | undefined
}

const isLoaded = ({ models }: Parts, { id }: Deployment): boolean =>
  ["loading", "ready"].includes(models.snapshot(id).state)

/** A changed deployment without an engine that is loaded beside the present one. */
const changedLater = ({ fork, models }: Parts, { after, before, needsEngine }: Changed): Prepared => ({
  commit: () => {
    models.renew(after)
    if (needsEngine) fork(models.unload(before))
  },
  cancel: Effect.void
})

const prepareChanged = (parts: Parts, change: Changed): Effect.Effect<Prepared, InferenceError> => {
  const { after, before, needsEngine } = change
  const later = changedLater(parts, change)
  if (!needsEngine || !isLoaded(parts, before)) return Effect.succeed(later)
  return Effect.map(parts.models.prepare(after), ({ cancel, commit }): Prepared => ({ cancel, commit })).pipe(
    Effect.catchIf(({ reason }) => reason._tag === "InsufficientMemory", () => Effect.succeed(later))
  )
}

/** As at the start, the first deployment of a model that takes requests is loaded before it gets any. */
const prepareAdded = ({ models }: Parts, deployment: Deployment): Effect.Effect<Prepared, InferenceError> => {
  models.renew(deployment)
  return Effect.as(models.load(deployment), { commit: () => {}, cancel: models.unload(deployment) })
}

/** The first that takes requests: one that waits for a rollout, or that a rollout has replaced, takes none. */
const firstOf = ({ splits }: Parts, model: Model): Deployment => {
  const withheld = splits?.of?.(model.name)?.split({}, 0).withheld
  const takes = ({ id, options }: Deployment) => options.rollout !== "candidate" && withheld?.has(id) !== true
  return model.deployments.find(takes) ?? model.deployments[0]
}

const prepare = (parts: Parts, configured: ReadonlyArray<Model>, before: Resolved) => {
  const { breaker, deployments, fork, models, registry } = parts
  const { added, changed, removed } = reconcileNumbered(before.models, configured)
  const firsts = new Set(configured.map((model) => firstOf(parts, model).id))
  const loads = added.filter(({ id, preload }) => preload && firsts.has(id))
  return Effect.map(
    prepareAll([
      ...changed.map((change) => prepareChanged(parts, change)),
      ...loads.map((deployment) => prepareAdded(parts, deployment))
    ]),
    (ready): Prepared => ({
      cancel: ready.cancel,
      commit: () => {
        for (const deployment of added) models.renew(deployment)
        ready.commit()
        registry.replace?.(deployments.withAdded(configured))
        for (const { after, needsEngine } of changed) if (needsEngine) fork(breaker.reset(after.id))
        for (const deployment of removed) fork(models.retire(deployment))
      }
    })
  )
}

/** Follows changes of the configuration until the application ends. */
export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const scope = yield* Effect.scope
  const services = yield* Effect.context()
  const parts: Parts = {
    breaker: yield* Breaker,
    deployments: yield* Deployments,
    fork: (effect) => void Effect.runForkWith(services)(Effect.forkIn(effect, scope)),
    models: yield* Models,
    registry: yield* Registry,
    splits: yield* Splits
  }
  const changes = yield* SettingsChanges
  changes.join((next, before) => prepare(parts, next.models, before))
}))

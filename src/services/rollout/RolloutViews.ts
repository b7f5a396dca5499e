/** Rollouts as an operator sees them: which are meant, and what their processes and the A/B test of the model do. */
import { Clock, Effect } from "effect"
import type { Model } from "../../domain/Deployment.ts"
import type { Experiments } from "./Experiments.ts"
import type { RolloutError } from "./RolloutError.ts"
import { notFound, storageFailed } from "./RolloutError.ts"
import type { RolloutStore, Stored } from "./RolloutStore.ts"
import type { SplitTable } from "./Split.ts"
import * as Standing from "./Standing.ts"
import * as VariantHold from "./VariantHold.ts"

/** A rollout as an operator sees it. */
export interface Found extends Stored {
  /** Whether no running process has the candidate. */
  readonly isAbandoned?: boolean
  /** Requests that the candidate has not answered yet. */
  readonly running?: number
  /** Of one that is over: the candidate's share of the requests now, from 0 to 1; left out, as it has ended. */
  readonly share?: number
  /** What the A/B test of the model does. */
  readonly experiment?: VariantHold.TestState
}

/** By id, or the newest of a model. */
export const find = (
  stored: ReadonlyArray<Stored>,
  models: ReadonlyArray<Model>,
  idOrModel: string
): Effect.Effect<Stored, RolloutError> => {
  const found = stored.find(({ rollout: { id } }) => id === idOrModel) ??
    stored.findLast(({ rollout: { model } }) => model === idOrModel)
  return found === undefined
    ? Effect.fail(notFound(idOrModel, stored.map(({ rollout }) => rollout), models))
    : Effect.succeed(found)
}

/**
 * With the candidate's share now, and what the A/B test of its model does.
 *
 * @param isNewest whether it is the newest of its model: others say nothing of the test
 */
export const withTest = (
  { experiments, splits }: { readonly experiments: Pick<Experiments, "planOf">; readonly splits: SplitTable },
  model: Model | undefined,
  stored: Stored,
  isNewest: boolean
): Found => {
  const { candidate, rollout } = stored
  const entry = splits.of?.(rollout.model)
  const isOver = VariantHold.outcomeOf(rollout) !== undefined
  const share = isOver ? Standing.shareNow(model, candidate, entry) : undefined
  const plan = model && isNewest ? experiments.planOf(model) : undefined
  return {
    ...stored,
    ...(share === undefined ? {} : { share }),
    ...(plan === undefined ? {} : { experiment: VariantHold.testState(rollout, plan, entry?.shares) })
  }
}

/**
 * With what is known of their processes.
 *
 * @param isKnown whether this process has the candidate of a rollout, or has had it
 */
export const seen = (
  { led }: Pick<RolloutStore["Service"], "led">,
  isKnown: (id: string) => boolean,
  all: ReadonlyArray<Found>
): Effect.Effect<ReadonlyArray<Found>, RolloutError> => {
  const isForeign = ({ rollout }: Stored) => Standing.isRunning(rollout) && !isKnown(rollout.id)
  if (!all.some(isForeign)) return Effect.succeed(all)
  return Effect.mapBoth(Effect.flatMap(Clock.currentTimeMillis, led), {
    onFailure: storageFailed,
    onSuccess: (ids) => all.map((one) => ({ ...one, isAbandoned: isForeign(one) && !ids.has(one.rollout.id) }))
  })
}

/** What an operator sees of rollouts, and how one is started: the shapes of `/admin/rollouts`. */
import { Schema } from "effect"
import { versionRoles, withheldReasons } from "../../domain/Version.ts"
import type { Rollout } from "../../services/rollout/Rollout.ts"
import { Evidence, MetricEvidence, Outcome, Transition } from "../../services/rollout/Rollout.ts"
import * as RolloutMachine from "../../services/rollout/RolloutMachine.ts"
import { metrics, RolloutPlan, RolloutSettings } from "../../services/rollout/RolloutSettings.ts"
import type { Found } from "../../services/rollout/RolloutViews.ts"
import { skipReasons } from "../../services/rollout/Shadow.ts"
import { comparisons } from "../../services/rollout/ShadowSettings.ts"

/** The share of the requests that a deployment has now, and why it has none. */
export const VersionView = Schema.Struct({
  role: Schema.Literals(versionRoles),
  weight: Schema.Finite,
  /** Of a withheld deployment: the result of the rollout that withholds it. */
  reason: Schema.optionalKey(Schema.Literals(withheldReasons))
})

/** What the A/B test of a model does because of a rollout. */
const TestStateView = Schema.Struct({
  /** `paused`: a rollout divides the requests. `stopped`: fewer than two variants are left. */
  state: Schema.Literals(["running", "paused", "stopped"]),
  /** The variants that get no requests because of a result. */
  withheld: Schema.Array(Schema.String),
  /** A sentence. */
  message: Schema.String
})

/** A rollout as it is now. */
export const RolloutView = Schema.Struct({
  id: Schema.String,
  model: Schema.String,
  /** The deployments that the candidate is to replace. */
  stable: Schema.Array(Schema.String),
  /** The deployment that gets a growing share of the requests. */
  candidate: Schema.String,
  phase: Transition.fields.phase,
  /** The candidate's share of the requests now, from 0 to 1. */
  weight: Schema.Finite,
  /** Index in `plan.steps`. */
  step: Schema.Int,
  plan: RolloutPlan,
  /** ms since 1970 */
  startedAt: Schema.Finite,
  /** What the rollout waits for, as a sentence. */
  waitingFor: Schema.String,
  /** How it ended or is about to end. */
  outcome: Schema.optionalKey(Outcome),
  /** What the A/B test of the model does, if it has one. */
  experiment: Schema.optionalKey(TestStateView),
  /** Why the last check of the candidate failed. */
  problem: Schema.optionalKey(Schema.String),
  /** The comparison of the versions; after a rollback, the one that caused it. */
  evidence: Schema.NullOr(Evidence),
  /** The newest last. */
  history: Schema.Array(Transition)
}).annotate({ identifier: "Rollout" })
export type RolloutView = typeof RolloutView.Type

/** A variant of an A/B test. */
const VariantView = Schema.Struct({
  deployment: Schema.String,
  weight: Schema.Finite,
  /** Requests, and their share of those of all variants. */
  requests: Schema.Int,
  share: Schema.Finite,
  /** The share of failures or refusals, or the median; null without observations. */
  typical: Schema.Record(Schema.Literals(metrics), Schema.NullOr(Schema.Finite)),
  /** The evidence against the first variant; empty for the first. In `better`, `candidate` is the first variant. */
  worse: Schema.Array(MetricEvidence),
  better: Schema.Array(MetricEvidence),
  verdict: Schema.Literals(["control", "worse", "better", "mixed", "undecided"]),
  /** What it gets now. Left out while a rollout gives it no share of its own. */
  version: Schema.optionalKey(VersionView)
})

/** An A/B test, with the requests of all processes up to the last comparison. */
export const ExperimentView = Schema.Struct({ model: Schema.String, variants: Schema.Array(VariantView) }).annotate({
  identifier: "Experiment"
})
export type ExperimentView = typeof ExperimentView.Type

const Count = Schema.Int

/** With the ends of its 95 % confidence interval. */
const Estimate = Schema.Struct({ value: Schema.Finite, low: Schema.Finite, high: Schema.Finite })

/** What the answers of one side have taken: medians, ms; null without observations. */
const SideView = Schema.Struct({
  medianMs: Schema.NullOr(Schema.Finite),
  medianFirstTokenMs: Schema.NullOr(Schema.Finite),
  promptTokens: Count,
  completionTokens: Count
})

/** Copies of a model's requests, as far as the process that answers has sent them since its start. */
export const ShadowView = Schema.Struct({
  model: Schema.String,
  /** The deployment that gets the copies. */
  to: Schema.String,
  /** The share of requests that are copied, from 0 to 1. */
  share: Schema.Finite,
  compare: Schema.Literals(comparisons),
  sampled: Count,
  /** Requests that failed or whose callers left. */
  unanswered: Count,
  /** By the reason. */
  skipped: Schema.Record(Schema.Literals(skipReasons), Count),
  running: Count,
  /** Copies that have ended: answered, failed, timed out or cancelled. */
  sent: Count,
  answered: Count,
  failed: Count,
  /** By the reason. */
  failures: Schema.Record(Schema.String, Count),
  timedOut: Count,
  cancelled: Count,
  /** Pairs whose answers were compared, those that agreed, and those whose comparison failed. */
  compared: Count,
  agreed: Count,
  incomparable: Count,
  /** Why the last comparison that failed did. */
  comparisonProblem: Schema.optionalKey(Schema.String),
  /** The share of equal answers. */
  exact: Schema.NullOr(Estimate),
  /** The mean similarity or score; null with fewer than two. */
  agreement: Schema.NullOr(Estimate),
  primary: SideView,
  candidate: SideView,
  costUsd: Schema.Finite,
  /** Calls whose price is unknown: they are not in `costUsd`. */
  unpriced: Count,
  /** The latest pairs with different answers, if the settings keep them. */
  differing: Schema.Array(Schema.Struct({
    /** ms since 1970 */
    at: Schema.Finite,
    prompt: Schema.String,
    primary: Schema.String,
    candidate: Schema.String,
    agreement: Schema.NullOr(Schema.Finite)
  }))
}).annotate({ identifier: "Shadow" })
export type ShadowView = typeof ShadowView.Type

/** Rollouts, the newest first, the A/B tests and the copies of requests. */
export const RolloutList = Schema.Struct({
  rollouts: Schema.Array(RolloutView),
  experiments: Schema.Array(ExperimentView),
  shadows: Schema.Array(ShadowView)
})

/** A rollout to start. */
export const NewRollout = Schema.Struct({
  /** Name or alias of the model. */
  model: Schema.NonEmptyString,
  /** Id of the deployment that is to take its requests, as `chat#1`; or another model of their provider, or another file. */
  to: Schema.NonEmptyString,
  /** As `rollout` of the model in `troupe.yaml`, over which it goes. */
  settings: Schema.optionalKey(RolloutSettings)
}).annotate({ identifier: "NewRollout" })
export type NewRollout = typeof NewRollout.Type

/** What can be done to a rollout. */
export const rolloutActions = ["pause", "resume", "promote", "abort"] as const
export type RolloutAction = typeof rolloutActions[number]

export const isRolloutAction = (text: string): text is RolloutAction =>
  (rolloutActions as ReadonlyArray<string>).includes(text)

/** An action in a path. Any text, so that one that there is not is answered as a path that there is not. */
export const RolloutActionName = Schema.String.annotate({
  description: `One of ${rolloutActions.join(", ")}`,
  examples: rolloutActions
})

const outcomeOf = ({ phase }: Rollout) => "outcome" in phase ? { outcome: phase.outcome } : {}

const problemOf = ({ phase }: Rollout) =>
  phase._tag === "Checking" && phase.lastProblem !== null ? { problem: phase.lastProblem } : {}

/** @param now ms since 1970 */
export const viewOf = (found: Found, now: number): RolloutView => {
  const { experiment, isAbandoned = false, rollout, running, share, stable } = found
  const { candidate, evidence, history, id, model, phase, plan, startedAt, step } = rollout
  return {
    id,
    model,
    stable: stable.map((one) => one.id),
    candidate,
    phase: phase._tag,
    weight: share ?? RolloutMachine.weightsOf(rollout).candidate,
    step,
    plan,
    startedAt,
    waitingFor: isAbandoned
      ? RolloutMachine.waitingForService(rollout)
      : RolloutMachine.waitingFor(rollout, now, running),
    ...outcomeOf(rollout),
    ...(experiment === undefined ? {} : { experiment }),
    ...problemOf(rollout),
    evidence,
    history
  }
}

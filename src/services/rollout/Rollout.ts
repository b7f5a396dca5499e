/**
 * A gradual rollout as data: its state, the events that change it and the commands that follow. `RolloutMachine` has the
 * transitions.
 *
 * **Details**
 *
 * The state is JSON and complete: a process that reads it goes on where another ended. Times are epoch milliseconds and
 * arguments of every function; nothing here reads a clock or draws a random number.
 */
import { Effect, Schema } from "effect"
import { metrics, RolloutPlan } from "./RolloutSettings.ts"
import { Silence } from "./Silence.ts"
import { Tally } from "./Tally.ts"

const Metric = Schema.Literals(metrics)
const Versions = <S extends Schema.Top>(each: S) => Schema.Struct({ stable: each, candidate: each })

/** How often something happened. */
export const Proportion = Schema.Struct({ count: Schema.Int, of: Schema.Int })
export type Proportion = typeof Proportion.Type

/** The comparison of one metric. */
export const MetricEvidence = Schema.Struct({
  metric: Metric,
  /** Answers that are worse than `level`; failures and refusals where there is no level. */
  ...Versions(Proportion).fields,
  /** The level with the largest difference: ms, tokens/s or score. */
  level: Schema.NullOr(Schema.Finite),
  /** The natural logarithm of the evidence (e-value) that the candidate is worse. */
  logE: Schema.Finite,
  /** The candidate is rolled back where `logE` reaches this. */
  needed: Schema.Finite,
  /** The share of failures or refusals, or the median; null without observations. */
  typical: Versions(Schema.NullOr(Schema.Finite))
})
export type MetricEvidence = typeof MetricEvidence.Type

/** The logarithms of the evidence of a metric, one of each way to bet (`SequentialTest`). */
export const Capital = Schema.Struct({ learned: Schema.Finite, severe: Schema.Finite })
export type Capital = typeof Capital.Type

const comparedFields = {
  /** Up to the last evaluation. */
  totals: Versions(Tally),
  /** Since the last evaluation. */
  pending: Versions(Tally),
  /** The evidence so far, by metric. */
  capital: Schema.Struct({
    errors: Capital,
    refusals: Capital,
    firstToken: Capital,
    speed: Capital,
    score: Capital,
    // States of earlier versions do not have it.
    hanging: Capital.pipe(Schema.withDecodingDefaultKey(Effect.succeed({ learned: 0, severe: 0 })))
  })
}

/** A comparison of two versions that goes on (`Comparison`). */
export const Compared = Schema.Struct(comparedFields)
export type Compared = typeof Compared.Type

/** What one evaluation saw. */
export const Evidence = Schema.Struct({
  at: Schema.Finite,
  /** Index in `plan.steps`. */
  step: Schema.Int,
  /** Since the start of the rollout, as are the metrics. */
  requests: Versions(Schema.Int),
  metrics: Schema.Array(MetricEvidence)
})
export type Evidence = typeof Evidence.Type

/** Why a rollout ended, or is about to. */
export const Outcome = Schema.Struct({
  result: Schema.Literals(["promoted", "rolledBack", "aborted"]),
  /** `steps`: every step was passed; `errorRate`: the limit of failures; `silence`: no request has an answer; `test`: the sequential test. */
  cause: Schema.Literals(["steps", "operator", "health", "errorRate", "silence", "test"]),
  /** That decided, for `test`, `errorRate` and `silence`. */
  metric: Schema.NullOr(Metric),
  /** A sentence for people. */
  reason: Schema.String
})
export type Outcome = typeof Outcome.Type

export const Phase = Schema.Union([
  /** The candidate is loaded and checked; it gets no requests. */
  Schema.TaggedStruct("Checking", {
    /** Checks that failed. */
    attempts: Schema.Int,
    /** The time of the next check; null while one is running. */
    nextAt: Schema.NullOr(Schema.Finite),
    lastProblem: Schema.NullOr(Schema.String)
  }),
  /** The candidate gets the share of the step. */
  Schema.TaggedStruct("Stepping", { since: Schema.Finite }),
  /** The same share, without an end of the step. The candidate can still be rolled back. */
  Schema.TaggedStruct("Paused", { elapsedMs: Schema.Finite }),
  /** Every request goes to one version; the other ends those it has. */
  Schema.TaggedStruct("Draining", { deployment: Schema.String, drained: Schema.Boolean, outcome: Outcome }),
  Schema.TaggedStruct("Ended", { at: Schema.Finite, outcome: Outcome })
])
export type Phase = typeof Phase.Type

/** A change of phase or step. */
export const Transition = Schema.Struct({
  at: Schema.Finite,
  /** A sentence for people. */
  what: Schema.String,
  phase: Schema.Literals(["Checking", "Stepping", "Paused", "Draining", "Ended"]),
  /** The candidate's share of requests from then on. */
  weight: Schema.Finite,
  evidence: Schema.NullOr(Evidence)
})
export type Transition = typeof Transition.Type

export const Rollout = Schema.Struct({
  id: Schema.String,
  model: Schema.String,
  /** The deployments. */
  stable: Schema.String,
  candidate: Schema.String,
  plan: RolloutPlan,
  startedAt: Schema.Finite,
  phase: Phase,
  /** Index in `plan.steps`. */
  step: Schema.Int,
  /** Of this step. */
  tallies: Versions(Tally),
  ...comparedFields,
  evaluatedAt: Schema.Finite,
  /** Since the candidate's last answer; null while no request waits. States of earlier versions do not have it. */
  silence: Schema.NullOr(Silence).pipe(Schema.withDecodingDefaultKey(Effect.succeed(null))),
  /** Of the last evaluation; after a rollback, that which caused it. */
  evidence: Schema.NullOr(Evidence),
  /** The newest last. */
  history: Schema.Array(Transition)
})
export type Rollout = typeof Rollout.Type

export type Event =
  /** The answer to `CheckHealth`. `Unhealthy` at a later time means that the candidate cannot run: it is rolled back. */
  | { readonly _tag: "Healthy" }
  | { readonly _tag: "Unhealthy"; readonly problem: string }
  /** What was measured since the last such event. */
  | { readonly _tag: "Observed"; readonly stable: Tally; readonly candidate: Tally }
  /** Time passes: at least once in `plan.evaluateMs`. */
  | { readonly _tag: "Tick" }
  | { readonly _tag: "Drained"; readonly deployment: string }
  | { readonly _tag: "Unloaded"; readonly deployment: string }
  | { readonly _tag: "Pause" }
  | { readonly _tag: "Resume" }
  /** Ends the rollout with the candidate, whatever its step. */
  | { readonly _tag: "Promote" }
  | { readonly _tag: "Abort"; readonly reason: string }

/** What has to be done. Each may be done twice: after a restart it is not known whether it was. */
export type Command =
  /** Load the deployment beside the other and send it a small request; answer with `Healthy` or `Unhealthy`. */
  | { readonly _tag: "CheckHealth"; readonly deployment: string }
  | { readonly _tag: "SetWeights"; readonly weights: Weights }
  /** Send the prompts to both versions; the results are observations. */
  | { readonly _tag: "Probe"; readonly deployments: readonly [string, string]; readonly prompts: ReadonlyArray<string> }
  /** Send no new requests; answer with `Drained` when the last one has ended. */
  | { readonly _tag: "Drain"; readonly deployment: string }
  /** Only after its `Drained`; answer with `Unloaded`. */
  | { readonly _tag: "Unload"; readonly deployment: string }

/** Shares of requests; their sum is 1. */
export interface Weights {
  readonly stable: number
  readonly candidate: number
}

/**
 * How a deployment was chosen and what came of it, as plain data that can be printed or served: the candidates in order
 * with what made their score, everyone who was ruled out, with why, and every attempt with its time and error.
 *
 * **Details**
 *
 * A record has nothing of what was asked or answered.
 */
import { Schema } from "effect"

/** One who may take the request. */
export const Candidate = Schema.Struct({
  deployment: Schema.String,
  /** Higher is better, among the candidates of one decision only. */
  score: Schema.Finite,
  /** What the score is made of, by name. */
  terms: Schema.Record(Schema.String, Schema.Finite),
  /** What is not known of it and was taken as neutral: `price`, `quality`, `contextWindow`, `speed`. */
  unknown: Schema.Array(Schema.String)
})
export type Candidate = typeof Candidate.Type

/** One who may not. */
export const Excluded = Schema.Struct({ deployment: Schema.String, reason: Schema.String })
export type Excluded = typeof Excluded.Type

export const Decision = Schema.Struct({
  /** The name that was asked for. */
  model: Schema.String,
  strategy: Schema.String,
  /** The primary first, then its fallbacks. */
  candidates: Schema.Array(Candidate),
  /** How many could take the request, listed or not. */
  eligible: Schema.Int,
  excluded: Schema.Array(Excluded),
  /** How many may not, where a record lists the first of them only. */
  excludedCount: Schema.optionalKey(Schema.Int),
  /** The primary goes first because nothing is known of it yet. */
  explored: Schema.optionalKey(Schema.Boolean),
  /** Those who stand behind for now, since they load or their queue is full. */
  spilled: Schema.optionalKey(Schema.Array(Schema.String)),
  /** When the first of those who are ruled out for a time may be asked again, ms. */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** What the request needs and none of them has, where that alone leaves nobody: the request is at fault. */
  missing: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Decision = typeof Decision.Type

/** One try at one deployment. */
export const Attempt = Schema.Struct({
  deployment: Schema.String,
  /** After the request had come, ms. */
  startedMs: Schema.Finite,
  /** To its first content, ms. */
  firstTokenMs: Schema.optionalKey(Schema.Finite),
  /** To its end, ms; left out, it runs. */
  tookMs: Schema.optionalKey(Schema.Finite),
  /** Beside the one before it, which was slow. */
  hedge: Schema.optionalKey(Schema.Boolean),
  /** `left`: the caller went, or another attempt was faster. */
  outcome: Schema.Literals(["running", "answered", "failed", "left"]),
  error: Schema.optionalKey(Schema.Struct({ reason: Schema.String, message: Schema.String }))
})
export type Attempt = typeof Attempt.Type

const Names = Schema.Array(Schema.String)

/** One request: how it was routed, and what came of it. */
export const Record = Schema.Struct({
  id: Schema.String,
  operation: Schema.String,
  model: Schema.String,
  policy: Schema.String,
  /** ms since 1970 */
  at: Schema.Finite,
  decision: Decision,
  /** Deployments of the models that stand in for it, by what may go wrong. */
  fallbacks: Schema.Struct({ ordinary: Names, context: Names, content: Names }),
  attempts: Schema.Array(Attempt),
  /** The deployment whose answer it is. */
  answeredBy: Schema.optionalKey(Schema.String),
  /** ms; left out, it runs. */
  tookMs: Schema.optionalKey(Schema.Finite),
  end: Schema.optionalKey(Schema.Literals(["success", "failure", "interruption"]))
}).annotate({ identifier: "DecisionRecord" })
export type Record = typeof Record.Type

/**
 * How a deployment was chosen, as plain data that can be printed or served: the candidates in order with what made their
 * score, and everyone who was ruled out, with why.
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
export const RuledOut = Schema.Struct({ deployment: Schema.String, why: Schema.String })
export type RuledOut = typeof RuledOut.Type

export const Decision = Schema.Struct({
  /** The name that was asked for. */
  model: Schema.String,
  strategy: Schema.String,
  /** The primary first, then its fallbacks. */
  candidates: Schema.Array(Candidate),
  /** How many could take the request, listed or not. */
  viable: Schema.Int,
  ruledOut: Schema.Array(RuledOut),
  /** The primary goes first because nothing is known of it yet. */
  explored: Schema.optionalKey(Schema.Boolean),
  /** Those who stand behind for now, since they load or their queue is full. */
  spilled: Schema.optionalKey(Schema.Array(Schema.String)),
  /** When the first of those who are ruled out for a time may be asked again, ms. */
  retryAfterMs: Schema.optionalKey(Schema.Finite)
})
export type Decision = typeof Decision.Type

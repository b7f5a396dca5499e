/**
 * How a deployment was chosen and how its attempts went, as plain data that can be printed or served: the candidates in
 * order with the terms of their scores, the excluded deployments with the reason, and every attempt with its time and error.
 *
 * **Details**
 *
 * A record contains no text of prompts and answers.
 */
import { Schema } from "effect"
import { tiers } from "../../domain/CacheControl.ts"
import { checks } from "../../domain/Caller.ts"
import { Exclusion } from "../../domain/InferenceError.ts"

/** The name of cached responses in a model's `fallbacks`, and the deployment that a cached answer names. */
export const cachedResponses = "cached-responses"

/** An eligible deployment. */
export const Candidate = Schema.Struct({
  deployment: Schema.String,
  /** Higher is better, among the candidates of one decision only. */
  score: Schema.Finite,
  /** The terms of the score, by name. */
  terms: Schema.Record(Schema.String, Schema.Finite),
  /** Its unknown figures, which are neutral: `price`, `quality`, `contextWindow`, `speed`. */
  unknown: Schema.Array(Schema.String)
})
export type Candidate = typeof Candidate.Type

export const Decision = Schema.Struct({
  /** The requested model. */
  model: Schema.String,
  strategy: Schema.String,
  /** The primary first, then its fallbacks. */
  candidates: Schema.Array(Candidate),
  /** The number of deployments that can take the request, listed or not. */
  eligible: Schema.Int,
  excluded: Schema.Array(Exclusion),
  /** The number of excluded deployments, if a record lists only the first of them. */
  excludedCount: Schema.optionalKey(Schema.Int),
  /** The primary goes first because it has no measurements yet. */
  explored: Schema.optionalKey(Schema.Boolean),
  /** Deployments that come after the others, since they load or their queue is full. */
  spilled: Schema.optionalKey(Schema.Array(Schema.String)),
  /** ms until the first deployment that is excluded for a time may be called. */
  retryAfterMs: Schema.optionalKey(Schema.Finite),
  /** Why configured fallback models, or some that the request names, are not used. */
  fallbacksUnused: Schema.optionalKey(Schema.String),
  /** Required capabilities that exclude every deployment, where nothing else does: the request is invalid. */
  missing: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Decision = typeof Decision.Type

/** Why an attempt failed. */
const RecordedError = Schema.Struct({ reason: Schema.String, message: Schema.String })

/** Why a request failed, with the HTTP status that it has in OpenAI's dialect. */
export const RequestError = Schema.Struct({ ...RecordedError.fields, status: Schema.optionalKey(Schema.Int) })

/** One try at one deployment. */
export const Attempt = Schema.Struct({
  deployment: Schema.String,
  /** Its start, ms after the request arrived. */
  startedMs: Schema.Finite,
  /** Time until it had its slot, ms: it has waited for the model's load, or for other requests. */
  grantedMs: Schema.optionalKey(Schema.Finite),
  /** Time to its first content, ms. */
  firstTokenMs: Schema.optionalKey(Schema.Finite),
  /** Time to its end, ms; left out while it runs. */
  tookMs: Schema.optionalKey(Schema.Finite),
  /** It ran beside the attempt before it, which was slow. */
  hedge: Schema.optionalKey(Schema.Boolean),
  /** Events of its stream that were not readable and were left out. */
  skippedEvents: Schema.optionalKey(Schema.Int),
  /** `left`: the caller disconnected, or another attempt was faster. */
  outcome: Schema.Literals(["running", "answered", "failed", "left"]),
  error: Schema.optionalKey(RecordedError),
  /** What it cost, USD; left out where it used nothing, or that is unknown. */
  usd: Schema.optionalKey(Schema.Finite),
  /** It used tokens, and has no known price, or its provider has not counted them. */
  isUnpriced: Schema.optionalKey(Schema.Boolean),
  /** The deployment did not get signed or encrypted reasoning of earlier answers, which another provider made. */
  reasoningDropped: Schema.optionalKey(Schema.Boolean)
})
export type Attempt = typeof Attempt.Type

/** The fields that are not undefined: JSON has no `undefined`. */
export const present = <A extends object>(some: A): { [K in keyof A]: Exclude<A[K], undefined> } =>
  Object.fromEntries(Object.entries(some).filter(([, value]) => value !== undefined)) as never

const Names = Schema.Array(Schema.String)

/** One request: how it was routed, and its outcome. */
export const Record = Schema.Struct({
  id: Schema.String,
  operation: Schema.String,
  model: Schema.String,
  policy: Schema.String,
  /** The id of its response; left out for a request of a program that embeds Troupe. */
  requestId: Schema.optionalKey(Schema.String),
  /** The dialect of its body. */
  dialect: Schema.optionalKey(Schema.String),
  /** Left out, the default one. */
  tenant: Schema.optionalKey(Schema.String),
  /** Name of its virtual key, or the id of a key without one. */
  key: Schema.optionalKey(Schema.String),
  /** The record of the request that an administrator has sent again with this one. */
  replayOf: Schema.optionalKey(Schema.String),
  /** ms since 1970 */
  at: Schema.Finite,
  decision: Decision,
  /** Deployments of the fallback models, by kind of failure. */
  fallbacks: Schema.Struct({ ordinary: Names, context: Names, content: Names }),
  /** Time it has waited for its limits and budgets, ms; left out, none. */
  admissionMs: Schema.optionalKey(Schema.Finite),
  attempts: Schema.Array(Attempt),
  /** The deployment that answered. */
  answeredBy: Schema.optionalKey(Schema.String),
  /** The tier of the cache that had the answer: no deployment was called. */
  cache: Schema.optionalKey(Schema.Literals(tiers)),
  /** The store of the makers of signed reasoning did not answer: that of some reasoning in the request is not known. */
  makersUnavailable: Schema.optionalKey(Schema.Boolean),
  /** From its arrival to its end, ms; left out while it runs. */
  tookMs: Schema.optionalKey(Schema.Finite),
  /** Tokens of its prompt; left out, unknown. */
  inputTokens: Schema.optionalKey(Schema.Finite),
  /** Tokens that were generated for it. */
  outputTokens: Schema.optionalKey(Schema.Finite),
  /** What it cost, USD; left out, unknown. With `unpriced`, the known part. */
  usd: Schema.optionalKey(Schema.Finite),
  /** Attempts that used tokens and whose cost is unknown; left out, none. */
  unpriced: Schema.optionalKey(Schema.Int),
  /** Why it failed. */
  error: Schema.optionalKey(RequestError),
  /** Troupe itself has sent it, as a health check or a probe of a rollout: it is in no figure of callers. */
  check: Schema.optionalKey(Schema.Literals(checks)),
  /** It was refused before it was routed: no deployment was considered. */
  refused: Schema.optionalKey(Schema.Boolean),
  end: Schema.optionalKey(Schema.Literals(["success", "failure", "interruption"]))
}).annotate({ identifier: "DecisionRecord" })
export type Record = typeof Record.Type

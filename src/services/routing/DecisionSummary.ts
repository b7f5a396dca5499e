/** A decision record in one line: when, what, where, how it ended, how long it took and what it cost. Pure. */
import { Schema } from "effect"
import { tiers } from "../../domain/CacheControl.ts"
import { checks } from "../../domain/Caller.ts"
import type { Draft } from "./DecisionLog.ts"
import type { Record } from "./DecisionRecord.ts"
import { present, RequestError } from "./DecisionRecord.ts"

/** How a request ended; `running` until then. */
export const statuses = ["running", "success", "failure", "interruption"] as const

export const DecisionSummary = Schema.Struct({
  /** Of the decision record. */
  id: Schema.String,
  requestId: Schema.optionalKey(Schema.String),
  /** The record of the request that it repeats. */
  replayOf: Schema.optionalKey(Schema.String),
  /** When it arrived, ms since 1970. */
  at: Schema.Finite,
  operation: Schema.String,
  model: Schema.String,
  /** The deployment that answered, or the last one that was tried. */
  deployment: Schema.optionalKey(Schema.String),
  dialect: Schema.optionalKey(Schema.String),
  status: Schema.Literals(statuses),
  tookMs: Schema.optionalKey(Schema.Finite),
  /** From its arrival to the first content of its answer, ms. */
  firstTokenMs: Schema.optionalKey(Schema.Finite),
  /** The time of its attempts until they had a slot, ms. */
  waitedMs: Schema.optionalKey(Schema.Finite),
  inputTokens: Schema.optionalKey(Schema.Finite),
  outputTokens: Schema.optionalKey(Schema.Finite),
  usd: Schema.optionalKey(Schema.Finite),
  unpriced: Schema.optionalKey(Schema.Int),
  tenant: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  attempts: Schema.Int,
  /** Deployments whose attempts failed, in their order. */
  failed: Schema.Array(Schema.String),
  cache: Schema.optionalKey(Schema.Literals(tiers)),
  error: Schema.optionalKey(RequestError),
  /** It was refused before it was routed: by a limit, a budget, its key's rights, an unknown model or a lost store. */
  refused: Schema.optionalKey(Schema.Boolean),
  /** Troupe itself has sent it, as a health check or a probe of a rollout. */
  check: Schema.optionalKey(Schema.Literals(checks))
}).annotate({ identifier: "DecisionSummary" })
export type DecisionSummary = typeof DecisionSummary.Type

const sum = (values: ReadonlyArray<number>): number | undefined =>
  values.length === 0 ? undefined : values.reduce((total, value) => total + value, 0)

/** Why the request failed; of one that was answered, nothing: `failed` names the deployments. */
const errorOf = ({ end, error }: Draft | Record) => end === "failure" ? error : undefined

export const of = (record: Draft | Record): DecisionSummary => {
  const { answeredBy, attempts, end } = record
  const answering = attempts.findLast(({ deployment, firstTokenMs }) =>
    firstTokenMs !== undefined && deployment === answeredBy
  )
  return present({
    id: record.id,
    requestId: record.requestId,
    replayOf: record.replayOf,
    at: record.at,
    operation: record.operation,
    model: record.model,
    deployment: answeredBy ?? attempts.at(-1)?.deployment,
    dialect: record.dialect,
    status: end ?? "running",
    tookMs: record.tookMs,
    firstTokenMs: answering?.firstTokenMs === undefined ? undefined : answering.startedMs + answering.firstTokenMs,
    waitedMs: sum(attempts.flatMap(({ grantedMs }) => grantedMs ?? [])),
    inputTokens: record.inputTokens,
    outputTokens: record.outputTokens,
    usd: record.usd,
    unpriced: record.unpriced,
    tenant: record.tenant,
    key: record.key,
    attempts: attempts.length,
    failed: attempts.flatMap(({ deployment, outcome }) => outcome === "failed" ? [deployment] : []),
    cache: record.cache,
    error: errorOf(record),
    refused: record.refused,
    check: record.check
  })
}

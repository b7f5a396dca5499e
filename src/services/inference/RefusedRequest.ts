/**
 * A request that is refused before it is routed: by a limit or a budget, the rights of its key, the name of its model, its body, a
 * lost store, overload, or a process that has ended. It has a log entry, a decision record, a span and a count, as a request that
 * fails later has.
 *
 * **Details**
 *
 * Records of refused requests are kept apart, so that a flood of them takes the place of no other record: see `DecisionLog.refuse`.
 * One about whose caller nothing is known, as it has no valid key, has neither a record nor a span.
 */
import type { Context, Tracer } from "effect"
import { Clock, Effect, Option, Result } from "effect"
import type { Check, LogIds } from "../../domain/Caller.ts"
import { isOfCaller } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import { Registry } from "../models/Registry.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Operation } from "../observability/Metrics.ts"
import { Metrics } from "../observability/Metrics.ts"
import type { Entry } from "../observability/RequestLog.ts"
import { failureOf, RequestLog } from "../observability/RequestLog.ts"
import { bounded } from "../observability/RequestMetrics.ts"
import { ServiceTracing } from "../observability/RequestSpans.ts"
import * as RequestTrace from "../observability/RequestTrace.ts"
import type { RecordedCaller } from "../routing/DecisionLog.ts"
import { DecisionLog } from "../routing/DecisionLog.ts"
import * as RecordedFailure from "./RecordedFailure.ts"

/** The id of a refusal that has no record. */
export const unrecorded = "unrecorded"

export interface Parts {
  readonly callbacks: GuardedCallbacks.GuardedCallbacks
  readonly clock: Clock.Clock
  readonly decisions: Pick<DecisionLog["Service"], "refuse">
  readonly metrics: Pick<Metrics["Service"], "refused">
  /** Writes a line for the request; undefined: none is written. */
  readonly log?: typeof RequestLog.Service
}

/** What is known of the request. */
export interface Refusal {
  readonly operation: Operation
  /** The requested model, as its caller names it; empty: it is unknown. */
  readonly model: string
  /** The model of the configuration; undefined, there is none with this name. */
  readonly configured: string | undefined
  readonly caller: RecordedCaller
  readonly error: InferenceError
  /** Of a request that Troupe itself sends. */
  readonly check?: Check | undefined
  /** How long it has waited for its limits and budgets; default 0. */
  readonly admissionMs?: number
  /** Undefined where nothing records spans. */
  readonly arrival: RequestTrace.Arrival | undefined
  /** The context of the fiber of the request; without a fiber, one that has the ids for its log entry. */
  readonly context: Context.Context<never>
  readonly ids?: LogIds
  /** The response, where it is not that of the error. */
  readonly answer?: { readonly status: number; readonly code: string; readonly detail?: string }
  /** Whether nothing is known of the caller; default false. */
  readonly isStranger?: boolean
  /** Attributes of its span. */
  readonly attributes: () => Record<string, unknown>
}

const entryOf = (
  { admissionMs = 0, answer, caller, check, error: { reason }, model, operation }: Refusal,
  decision: string | undefined
): Entry => ({
  operation,
  model: Text.cutName(model),
  end: "failure",
  decision,
  deployment: undefined,
  attempts: 0,
  cache: undefined,
  ms: admissionMs,
  firstTokenMs: undefined,
  inputTokens: undefined,
  outputTokens: 0,
  usd: undefined,
  unpriced: undefined,
  ...failureOf(reason, caller.dialect),
  ...answer,
  key: caller.key,
  check,
  refusedFor: isOfCaller(reason._tag) ? "caller" : "service"
})

/** What of a response that is not that of the error the record has, with the status of OpenAI's dialect. */
const recordedAnswer = (answer: Refusal["answer"]) =>
  answer?.detail === undefined
    ? {}
    : { message: answer.detail, status: answer.status === 529 ? 503 : answer.status }

/**
 * Records that a request is refused.
 *
 * @returns the id of its record; undefined: it has none
 */
export const record = ({ callbacks, clock, decisions, log, metrics }: Parts, refusal: Refusal): string | undefined => {
  const { admissionMs = 0, arrival, attributes, caller, check, configured, context, error: failed } = refusal
  const { answer, ids, isStranger = false, model, operation } = refusal
  const { _tag } = failed.reason
  const ofCaller = isOfCaller(_tag)
  const draft = isStranger ? undefined : callbacks.call("decision log", () =>
    decisions.refuse?.({
      operation,
      model: Text.cutName(model),
      at: clock.currentTimeMillisUnsafe() - admissionMs,
      admissionMs,
      caller,
      error: { ...RecordedFailure.ofReason(failed.reason), ...recordedAnswer(answer) },
      isOfCaller: ofCaller,
      check
    }), undefined)
  if (check === undefined) {
    callbacks.call("metrics", () => metrics.refused?.(configured ?? "", operation, ofCaller), undefined)
  }
  if (log !== undefined) {
    callbacks.notify("request log", () => log(entryOf(refusal, draft?.id), context, ids), context)
  }
  arrival?.refused({
    operation,
    model: configured,
    attributes: () => ({
      ...attributes(),
      "troupe.decision": draft?.id,
      "troupe.request_id": caller.requestId
    })
  }, failed)
  return draft?.id
}

/** A request that an endpoint refuses before the pipeline has it. */
export interface EarlyRefusal
  extends Pick<Refusal, "answer" | "caller" | "error" | "isStranger" | "model" | "operation">
{
  readonly ids: LogIds
  /** The span of its caller. */
  readonly span: Tracer.AnySpan | undefined
  readonly keyId: string | undefined
}

/** Makes the function that records them; it does nothing where requests are not recorded. */
export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const decisions = yield* Effect.serviceOption(DecisionLog)
  const metrics = yield* Effect.serviceOption(Metrics)
  const registry = yield* Registry
  const tracing = yield* ServiceTracing
  const context = yield* Effect.context()
  const parts: Parts = {
    callbacks: yield* GuardedCallbacks.make,
    clock,
    decisions: Option.getOrElse(decisions, () => ({})),
    metrics: Option.match(metrics, { onNone: () => ({}), onSome: (all) => bounded(all, registry) }),
    log: yield* RequestLog
  }
  return ({ keyId, model, span, ...refusal }: EarlyRefusal): string | undefined => {
    const configured = registry.find(model)
    return record(parts, {
      ...refusal,
      model,
      context,
      configured: Result.isSuccess(configured) ? configured.success.name : undefined,
      arrival: tracing && refusal.isStranger !== true ? new RequestTrace.Arrival(clock, span, tracing) : undefined,
      attributes: () => keyId === undefined ? {} : { "user.id": keyId }
    })
  }
})

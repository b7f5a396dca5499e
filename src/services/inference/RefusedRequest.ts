/**
 * A request that is refused before it is routed: by a limit or a budget, the rights of its key, the name of its model, a lost store
 * or overload. It has a decision record, a span and a count, as a request that fails later has.
 *
 * **Details**
 *
 * Records of refused requests are kept apart, so that a flood of them takes the place of no other record: see `DecisionLog.refuse`.
 */
import type { Context, Tracer } from "effect"
import { Clock, Effect, Option, Result } from "effect"
import type { Check } from "../../domain/Caller.ts"
import { isOfCaller } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import { Registry } from "../models/Registry.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import type { Operation } from "../observability/Metrics.ts"
import { Metrics } from "../observability/Metrics.ts"
import type { RequestLog } from "../observability/RequestLog.ts"
import { bounded } from "../observability/RequestMetrics.ts"
import { ServiceTracing } from "../observability/RequestSpans.ts"
import * as RequestTrace from "../observability/RequestTrace.ts"
import type { RecordedCaller } from "../routing/DecisionLog.ts"
import { DecisionLog } from "../routing/DecisionLog.ts"
import * as RecordedFailure from "./RecordedFailure.ts"

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
  /** The requested model, as its caller names it. */
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
  /** Of its fiber, which has its ids; without it, no line is written. */
  readonly context?: Context.Context<never>
  /** Attributes of its span. */
  readonly attributes: () => Record<string, unknown>
}

/** Records that a request is refused. */
export const record = ({ callbacks, clock, decisions, log, metrics }: Parts, refusal: Refusal): void => {
  const { admissionMs = 0, arrival, attributes, caller, check, configured, context, error: failed, model, operation } =
    refusal
  const { reason } = failed
  const ofCaller = isOfCaller(reason._tag)
  const draft = callbacks.call("decision log", () =>
    decisions.refuse?.({
      operation,
      model: Text.cutName(model),
      at: clock.currentTimeMillisUnsafe() - admissionMs,
      admissionMs,
      caller,
      error: RecordedFailure.ofReason(reason),
      isOfCaller: ofCaller,
      check
    }), undefined)
  if (check === undefined) {
    callbacks.call("metrics", () => metrics.refused?.(configured ?? "", operation, ofCaller), undefined)
  }
  if (log !== undefined && context !== undefined) {
    callbacks.notify("request log", () =>
      log({
        operation,
        model: Text.cutName(model),
        end: "failure",
        decision: draft?.id ?? "unrecorded",
        deployment: undefined,
        attempts: 0,
        cache: undefined,
        ms: admissionMs,
        firstTokenMs: undefined,
        inputTokens: undefined,
        outputTokens: 0,
        usd: undefined,
        unpriced: undefined,
        error: reason._tag,
        check,
        refusedFor: ofCaller ? "caller" : "service"
      }, context), context)
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
}

/** A request that an endpoint refuses before the pipeline has it. */
export interface EarlyRefusal extends Pick<Refusal, "caller" | "error" | "model" | "operation"> {
  /** The span of its caller. */
  readonly span: Tracer.AnySpan | undefined
  readonly keyId: string
}

/** Makes the function that records them; it does nothing where requests are not recorded. */
export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const decisions = yield* Effect.serviceOption(DecisionLog)
  const metrics = yield* Effect.serviceOption(Metrics)
  const registry = yield* Registry
  const tracing = yield* ServiceTracing
  const parts: Parts = {
    callbacks: yield* GuardedCallbacks.make,
    clock,
    decisions: Option.getOrElse(decisions, () => ({})),
    metrics: Option.match(metrics, { onNone: () => ({}), onSome: (all) => bounded(all, registry) })
  }
  return ({ keyId, model, span, ...refusal }: EarlyRefusal): void => {
    const configured = registry.find(model)
    record(parts, {
      ...refusal,
      model,
      configured: Result.isSuccess(configured) ? configured.success.name : undefined,
      arrival: tracing && new RequestTrace.Arrival(clock, span, tracing),
      attributes: () => ({ "user.id": keyId })
    })
  }
})

/**
 * The telemetry of a request: its span, its metrics and its decision record.
 *
 * **Details**
 *
 * A request has one span, by the OpenTelemetry GenAI conventions, from the request to its last token. One finalizer of the
 * request's scope completes the span, the metrics and the record, however the request ends.
 */
import type { Fiber } from "effect"
import { Cause, Clock, Effect, Exit, Scope, Tracer } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { providerNameOf } from "../../domain/ProviderKind.ts"
import * as Time from "../../domain/Time.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { Metrics, Operation, Outcome } from "../observability/Metrics.ts"
import type { DecisionLog, Draft } from "../routing/DecisionLog.ts"
import { makeDraft } from "../routing/DecisionLog.ts"
import type { Route } from "../routing/Route.ts"

type FinishEvent = Extract<Event, { type: "finish" }>

/** The deployment that answers. */
export interface Server {
  readonly id: string
  /** The provider's name by OpenTelemetry. */
  readonly provider: string
}

export const serverOf = (deployment: Deployment): Server => ({
  id: deployment.id,
  provider: providerNameOf(deployment)
})

/** The progress of an attempt. */
export interface AttemptStats {
  /** Undefined if no deployment was called. */
  readonly server: Server | undefined
  /** Tokens generated. */
  tokens: number
  promptTokens: number | undefined
  /** The last event of the answer. */
  finish: FinishEvent | undefined
  /** Why it failed. A later failure of the caller that reads the answer does not count. */
  failure: Cause.Cause<InferenceError> | undefined
  /** A loaded engine has granted it a slot. */
  granted: boolean
  /** The answer is complete. */
  done: boolean
}

export const makeStats = (server: Server | undefined): AttemptStats => ({
  server,
  tokens: 0,
  promptTokens: undefined,
  finish: undefined,
  failure: undefined,
  granted: false,
  done: false
})

/** The state of a request while it runs. */
export interface RequestState {
  readonly record: Draft
  /** When the request was routed, monotonic ms. */
  readonly startedAt: number
  /** Of the winning attempt, or of the latest one until an attempt wins. */
  stats: AttemptStats
  /** Tokens of earlier deployments whose answer that attempt continues. */
  earlierTokens: number
  /** Why the request failed. An attempt's failure is not the request's while another attempt may follow. */
  failure: Cause.Cause<InferenceError> | undefined
}

/** A request with its route. */
export interface RoutedRequest<R = Caller> {
  readonly request: R
  readonly route: Route
  readonly state: RequestState
}

/**
 * How an attempt or a request ended by itself: neither the exit of its scope nor the caller that reads the answer counts.
 * One that is neither failed nor complete was cancelled, or its caller stopped reading.
 */
export const exitOf = ({ done, failure }: Pick<AttemptStats, "done" | "failure">): Exit.Exit<void, InferenceError> => {
  if (failure !== undefined && !isCancellation(failure)) return Exit.failCause(failure)
  return done && failure === undefined ? Exit.void : Exit.interrupt()
}

/** Keeps the cause of a failure, for `exitOf`. */
export const recordFailure =
  (kept: Pick<AttemptStats, "failure">) => <A, R>(effect: Effect.Effect<A, InferenceError, R>) =>
    Effect.tapCause(effect, (cause) =>
      Effect.sync(() => {
        kept.failure = cause
      }))

type Span = Tracer.Span | undefined

const tracerName = "tracer"
const metricsName = "metrics"

/** Undefined with the native tracer, which has no backend: a span costs BigInts and random ids. */
const spanOf = ({ run }: GuardedCallbacks, name: string): Effect.Effect<Span> =>
  Effect.flatMap(
    Tracer.Tracer,
    (tracer) =>
      tracer === Tracer.nativeTracer
        ? Effect.undefined
        : run<Span, never>(tracerName, Effect.makeSpan(name, { kind: "internal" }), undefined)
  )

const annotate = ({ call }: GuardedCallbacks, span: Tracer.Span, attributes: Record<string, unknown>) =>
  call(tracerName, () => {
    for (const [name, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(name, value)
  }, undefined)

const endOf = (exit: Exit.Exit<unknown, unknown>): Outcome["end"] => {
  if (Exit.isSuccess(exit)) return "success"
  return isCancellation(exit.cause) ? "interruption" : "failure"
}

/** Span attributes at the end of the request. */
const endAttributes = (
  exit: Exit.Exit<unknown, InferenceError>,
  { earlierTokens, record, stats: { server, finish, promptTokens, tokens } }: RequestState
): Record<string, unknown> => {
  const failure = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  const error = failure?._tag === "Some" ? failure.value : undefined
  return {
    "gen_ai.provider.name": server?.provider,
    "gen_ai.response.model": server?.id,
    "gen_ai.usage.output_tokens": earlierTokens + tokens,
    "gen_ai.usage.input_tokens": promptTokens,
    "gen_ai.usage.cache_read.input_tokens": finish?.usage.cachedTokens,
    "gen_ai.response.finish_reasons": finish === undefined ? undefined : [finish.reason],
    "troupe.decision": record.id,
    "troupe.strategy": record.decision.strategy,
    "troupe.attempts": record.attempts.length,
    "error.type": error?.reason._tag,
    "error.message": error?.message
  }
}

const complete = (
  { callbacks, metrics }: Parts,
  operation: Operation,
  span: Span,
  state: RequestState,
  begun: Fiber.Fiber<void> | undefined
) =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const { earlierTokens, failure, record, startedAt, stats } = state
    const exit = exitOf({ done: stats.done, failure })
    const end = endOf(exit)
    record.tookMs = Time.nowOf(clock) - startedAt
    record.end = end
    if (span !== undefined) {
      annotate(callbacks, span, endAttributes(exit, state))
      callbacks.call(tracerName, () => span.end(clock.currentTimeNanosUnsafe(), exit), undefined)
    }
    const tokens = earlierTokens + stats.tokens
    const outcome: Outcome = { model: record.model, operation, seconds: record.tookMs / 1000, tokens, end }
    return callbacks.notify(metricsName, () => metrics.end(outcome), begun)
  })

/** The services that a request reports to. */
interface Parts {
  readonly metrics: Metrics["Service"]
  readonly decisions: DecisionLog["Service"]
  readonly callbacks: GuardedCallbacks
}

/**
 * Begins a request, which the end of the scope completes. It is uninterruptible, so that every request that begins ends.
 *
 * @param attributes of the span, in addition to those of every operation
 */
export const begin = Effect.fnUntraced(function*(
  parts: Parts,
  operation: Operation,
  route: Route,
  attributes: Record<string, unknown>
) {
  const { decisions, callbacks, metrics } = parts
  const { deployments: [deployment], model } = route
  const span = yield* spanOf(callbacks, `${operation} ${model}`)
  if (span !== undefined) {
    annotate(callbacks, span, { "gen_ai.operation.name": operation, "gen_ai.request.model": model, ...attributes })
  }
  const at = yield* Clock.currentTimeMillis
  const record = callbacks.call("decision log", () => decisions.begin(operation, route, at), undefined) ??
    makeDraft("unrecorded", operation, route, at)
  const state: RequestState = {
    record,
    startedAt: yield* Time.now,
    stats: makeStats(deployment && serverOf(deployment)),
    earlierTokens: 0,
    failure: undefined
  }
  const begun = yield* callbacks.notify(metricsName, () => metrics.begin(model, operation))
  // Not `Effect.addFinalizer`, which copies the whole context.
  yield* Scope.addFinalizer(yield* Effect.scope, complete(parts, operation, span, state, begun))
  return state
}, Effect.uninterruptible)

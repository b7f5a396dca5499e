/**
 * One request as a whole, whatever it asks for: its span, its metrics and its end, in one place.
 *
 * **Details**
 *
 * One span a request, by the OpenTelemetry GenAI conventions, from the request to its last token. All bookkeeping is in
 * one finalizer of the request's scope, so it is done however the request ends.
 */
import { Cause, Clock, Effect, Exit, Scope, Tracer } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { providerNameOf } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { Metrics, Operation, Outcome } from "../observability/Metrics.ts"
import type { DecisionLog, Draft } from "../routing/DecisionLog.ts"
import type { Route } from "../routing/Route.ts"

type FinishEvent = Extract<Event, { type: "finish" }>

/** Who is asked. */
export interface Server {
  /** Of the deployment. */
  readonly id: string
  /** As OpenTelemetry names it. */
  readonly provider: string
}

export const serverOf = (deployment: Deployment): Server => ({
  id: deployment.id,
  provider: providerNameOf(deployment)
})

/** What an attempt has brought. */
export interface Tally {
  /** Undefined where nobody was asked. */
  readonly server: Server | undefined
  /** Tokens generated. */
  tokens: number
  promptTokens: number | undefined
  /** The last event of an answer. */
  finish: FinishEvent | undefined
  /** Why it failed. What its reader fails of afterwards is the reader's. */
  failure: Cause.Cause<InferenceError> | undefined
  /** A loaded engine has given it a slot. */
  granted: boolean
  /** It came to its end. */
  done: boolean
}

export const tally = (server: Server | undefined): Tally => ({
  server,
  tokens: 0,
  promptTokens: undefined,
  finish: undefined,
  failure: undefined,
  granted: false,
  done: false
})

/** What is known of a request while it runs. */
export interface Progress {
  readonly record: Draft
  /** When the request was routed, ms of `Monotonic`. */
  readonly began: number
  /** Of the attempt whose answer it is, or until there is one, of the last. */
  tally: Tally
  /** Tokens that others have generated, whose answer that attempt goes on with. */
  before: number
  /** Why the request failed: an attempt's failure is not the request's while another may follow. */
  failure: Cause.Cause<InferenceError> | undefined
}

/**
 * How an attempt or a request ended, by what it did itself: neither how its scope is closed nor what its reader does with
 * the answer counts. What has neither failed nor come to its end was cancelled, or its reader stopped.
 */
export const exitOf = ({ done, failure }: Pick<Tally, "done" | "failure">): Exit.Exit<void, InferenceError> => {
  if (failure !== undefined && !isCancellation(failure)) return Exit.failCause(failure)
  return done && failure === undefined ? Exit.void : Exit.interrupt()
}

/** Keeps why it fails, for `exitOf`. */
export const noting = (kept: Pick<Tally, "failure">) => <A, R>(effect: Effect.Effect<A, InferenceError, R>) =>
  Effect.tapCause(effect, (cause) =>
    Effect.sync(() => {
      kept.failure = cause
    }))

type Span = Tracer.Span | undefined

const tracerName = "tracer"
const metricsName = "metrics"

/** None with the native tracer, which has no backend: making one takes BigInts and random ids. */
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

/** What the span says at the end. */
const endAttributes = (
  exit: Exit.Exit<unknown, InferenceError>,
  { before, record, tally: { server, finish, promptTokens, tokens } }: Progress
): Record<string, unknown> => {
  const failure = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  const error = failure?._tag === "Some" ? failure.value : undefined
  return {
    "gen_ai.provider.name": server?.provider,
    "gen_ai.response.model": server?.id,
    "gen_ai.usage.output_tokens": before + tokens,
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

const settle = ({ callbacks, metrics }: Parts, operation: Operation, span: Span, progress: Progress) =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const { before, began, failure, record, tally } = progress
    const exit = exitOf({ done: tally.done, failure })
    const end = endOf(exit)
    record.tookMs = Monotonic.nowOf(clock) - began
    record.end = end
    if (span !== undefined) {
      annotate(callbacks, span, endAttributes(exit, progress))
      callbacks.call(tracerName, () => span.end(clock.currentTimeNanosUnsafe(), exit), undefined)
    }
    const tokens = before + tally.tokens
    const outcome: Outcome = { model: record.model, operation, seconds: record.tookMs / 1000, tokens, end }
    return callbacks.run(metricsName, Effect.suspend(() => metrics.end(outcome)), undefined)
  })

/** What keeps a request's accounts. */
interface Parts {
  readonly metrics: Metrics["Service"]
  readonly decisions: DecisionLog["Service"]
  readonly callbacks: GuardedCallbacks
}

/**
 * Begins a request; the scope's end settles it. Nobody leaves in between.
 *
 * @param attributes of the span, beside those that every operation has
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
  const record = decisions.begin(operation, route, yield* Clock.currentTimeMillis)
  const progress: Progress = {
    record,
    began: yield* Monotonic.now,
    tally: tally(deployment && serverOf(deployment)),
    before: 0,
    failure: undefined
  }
  yield* callbacks.run(metricsName, Effect.suspend(() => metrics.begin(model, operation)), undefined)
  // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
  yield* Scope.addFinalizer(yield* Effect.scope, settle(parts, operation, span, progress))
  return progress
}, Effect.uninterruptible)

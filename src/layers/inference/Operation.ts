/**
 * One request as a whole, whatever it asks for: its span, its metrics and its end, in one place.
 *
 * **Details**
 *
 * One span a request, by the OpenTelemetry GenAI conventions, from the request to its last token. All bookkeeping is in
 * one finalizer of the request's scope, so it is done however the request ends.
 */
import { Cause, Clock, Effect, Exit, Scope } from "effect"
import type { Span } from "effect/Tracer"
import type { Event } from "../../services/Inference.ts"
import type { InferenceError } from "../../services/InferenceError.ts"
import type { Metrics, Operation, Outcome } from "../../services/Metrics.ts"
import type { Route } from "../../services/Selector.ts"

type FinishEvent = Extract<Event, { type: "finish" }>

/** What is known of a request while it runs. */
export interface Progress {
  /** Tokens generated. */
  tokens: number
  promptTokens: number | undefined
  /** The last event of an answer. */
  finish: FinishEvent | undefined
  /** Why it failed, where whoever reads its stream may take the failure for an answer of his own. */
  failure: Cause.Cause<InferenceError> | undefined
  /** It came to its end. */
  done: boolean
}

const annotate = (span: Span, attributes: Record<string, unknown>) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(name, value)
}

const endOf = (exit: Exit.Exit<unknown, unknown>, { done }: Progress): Outcome["end"] => {
  if (Exit.isFailure(exit)) return Cause.hasInterruptsOnly(exit.cause) ? "interruption" : "failure"
  // A consumer that stops reading ends its stream in success.
  return done ? "success" : "interruption"
}

/** What the span says at the end. */
const endAttributes = (
  exit: Exit.Exit<unknown, unknown>,
  { finish, promptTokens, tokens }: Progress
): Record<string, unknown> => {
  const failure = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  const error = failure?._tag === "Some" ? failure.value as InferenceError : undefined
  return {
    "gen_ai.usage.output_tokens": tokens,
    "gen_ai.usage.input_tokens": promptTokens,
    "gen_ai.usage.cache_read.input_tokens": finish?.usage.cachedTokens,
    "gen_ai.response.finish_reasons": finish === undefined ? undefined : [finish.reason],
    "error.type": error?.reason._tag,
    "error.message": error?.message
  }
}

const settle =
  (metrics: Metrics["Service"], operation: Operation, model: string, span: Span, progress: Progress, started: number) =>
  (closed: Exit.Exit<unknown, unknown>) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const exit = progress.failure === undefined ? closed : Exit.failCause(progress.failure)
      annotate(span, endAttributes(exit, progress))
      return metrics.end({
        model,
        operation,
        seconds: (now - started) / 1000,
        tokens: progress.tokens,
        end: endOf(exit, progress)
      })
    })

/**
 * Begins a request; the scope's end settles it.
 *
 * @param attributes of the span, beside those that every operation has
 */
export const begin = Effect.fnUntraced(function*(
  metrics: Metrics["Service"],
  operation: Operation,
  { deployments: [deployment], model }: Route,
  attributes: Record<string, unknown>
) {
  const span = yield* Effect.makeSpanScoped(`${operation} ${model}`, { kind: "internal" })
  annotate(span, {
    "gen_ai.operation.name": operation,
    "gen_ai.provider.name": `troupe.${deployment.options.engine}`,
    "gen_ai.request.model": model,
    "gen_ai.response.model": deployment.id,
    ...attributes
  })
  const progress: Progress = {
    tokens: 0,
    promptTokens: undefined,
    finish: undefined,
    failure: undefined,
    done: false
  }
  const started = yield* Clock.currentTimeMillis
  yield* metrics.begin(model, operation)
  // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
  yield* Scope.addFinalizerExit(yield* Effect.scope, settle(metrics, operation, model, span, progress, started))
  return progress
})

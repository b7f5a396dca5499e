/**
 * Calls of a model for responses: with the oldest turns left out where the request allows it, and with what is done between the
 * last event of an answer and its end.
 */
import { Effect, Stream } from "effect"
import type { Answer, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Inference } from "../inference/Inference.ts"
import { shortened } from "./Truncation.ts"

type Operations = Inference["Service"]

/** Prompts that are tried at most. */
const mostPrompts = 8

/** A provider's Responses API leaves out turns itself, of a request that has no translation. */
const isTranslatable = ({ source }: Request): boolean => source?.responses?.needs === undefined

/** The request as a chat, for every deployment. */
const translated = (request: Request): Request => {
  if (request.source?.responses === undefined) return request
  const { responses: _, ...source } = request.source
  return { ...request, source }
}

/**
 * Runs a request again with fewer messages while its prompt does not fit.
 *
 * @param isBegun whether the caller has a part of the answer
 */
const fitting = <A, R>(
  request: Request,
  run: (request: Request) => Effect.Effect<A, InferenceError, R>,
  isBegun: () => boolean = () => false,
  left = mostPrompts - 1
): Effect.Effect<A, InferenceError, R> =>
  run(request).pipe(
    Effect.catch((error) => {
      const { reason } = error
      const messages = reason._tag === "ContextLengthExceeded" && left > 0 && !isBegun() && isTranslatable(request)
        ? shortened(request.messages, reason)
        : undefined
      return messages === undefined
        ? Effect.fail(error)
        : fitting({ ...translated(request), messages }, run, isBegun, left - 1)
    })
  )

/** What is done with an answer before the caller gets its end. */
export interface Hooks {
  /** Whether the caller has a part of the answer. */
  readonly isBegun: () => boolean
  /** After the last event. */
  readonly completed: Effect.Effect<void>
  /** After a failure, which may have been after the first event. */
  readonly failed: (error: InferenceError) => Effect.Effect<void>
}

const withHooks = <A, R>(effect: Effect.Effect<A, InferenceError, R>, { failed }: Hooks) =>
  Effect.tapError(effect, failed)

/** The operations of one streamed response. */
export const streaming = (inference: Operations, truncates: boolean, hooks: Hooks): Operations => {
  const fit = <A, R>(request: Request, run: (request: Request) => Effect.Effect<A, InferenceError, R>) =>
    truncates ? fitting(request, run, hooks.isBegun) : run(request)
  const hooked = (opened: OpenedAnswer): OpenedAnswer => ({
    ...opened,
    events: Stream.concat(
      Stream.tapError(opened.events, hooks.failed),
      Stream.drain(Stream.fromEffect(hooks.completed))
    )
  })
  return {
    ...inference,
    deliver: (request, sink) =>
      withHooks(fit(request, (shorter) => inference.deliver(shorter, sink)), hooks).pipe(
        Effect.andThen(hooks.completed)
      ),
    open: (request) => withHooks(Effect.map(fit(request, inference.open), hooked), hooks)
  }
}

/** An answer whose events are read in the scope. */
export const opened = (inference: Operations, truncates: boolean, request: Request, isBegun: () => boolean) =>
  truncates ? fitting(request, inference.open, isBegun) : inference.open(request)

/** A complete answer. */
export const generate = (
  inference: Operations,
  truncates: boolean,
  request: Request
): Effect.Effect<Answer, InferenceError> =>
  truncates ? fitting(request, inference.generate) : inference.generate(request)

/**
 * The telemetry of a request: its span, its metrics and its decision record.
 *
 * **Details**
 *
 * A request has one span, by the OpenTelemetry GenAI conventions, from the request to its last token. `complete` ends the
 * span, the metrics and the record, however the request ends.
 */
import type { Clock, Context, Fiber } from "effect"
import { Cause, Effect, Exit, Tracer } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { ReportedUsage } from "../../domain/Job.ts"
import { providerNameOf } from "../../domain/ProviderKind.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as Time from "../../domain/Time.ts"
import type { Ticket, UsedTokens } from "../admission/Admission.ts"
import { free } from "../admission/Admission.ts"
import type { Meter } from "../engines/Engine.ts"
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

const servers = new WeakMap<Deployment, Server>()

export const serverOf = (deployment: Deployment): Server => {
  const known = servers.get(deployment)
  if (known !== undefined) return known
  const server: Server = { id: deployment.id, provider: providerNameOf(deployment) }
  servers.set(deployment, server)
  return server
}

/** The progress of an attempt. */
export interface AttemptStats extends Meter {
  /** Undefined if no deployment was called. */
  readonly server: Server | undefined
  /** Tokens generated. */
  tokens: number
  promptTokens: number | undefined
  /** `promptTokens` is an estimate. */
  isEstimated: boolean
  /** The last event of the answer. */
  finish: FinishEvent | undefined
  /** Why it failed. A later failure of the caller that reads the answer does not count. */
  failure: Cause.Cause<InferenceError> | undefined
  /** A loaded engine has granted it a slot. */
  granted: boolean
  /** The answer is complete. */
  done: boolean
}

export const makeStats = (server: Server | undefined, makers?: Meter["makers"]): AttemptStats => ({
  server,
  tokens: 0,
  promptTokens: undefined,
  isEstimated: false,
  finish: undefined,
  failure: undefined,
  granted: false,
  done: false,
  isSent: false,
  reporter: undefined,
  skippedEvents: undefined,
  makers
})

/** What a provider has reported of an attempt without an answer; tokens that have arrived count, too. */
const reportedBy = (reported: ReportedUsage, tokens: number): UsedTokens => {
  const { cacheWriteHourTokens, cacheWriteTokens, cachedTokens = 0, completionTokens = -1 } = reported
  const { promptTokens, reasoningTokens } = reported
  const usage = { promptTokens, completionTokens: Math.max(0, completionTokens, tokens), cachedTokens }
  return {
    usage: {
      ...usage,
      ...(cacheWriteTokens === undefined ? {} : { cacheWriteTokens }),
      ...(cacheWriteHourTokens === undefined ? {} : { cacheWriteHourTokens }),
      ...(reasoningTokens === undefined ? {} : { reasoningTokens })
    },
    isEstimated: promptTokens === undefined || completionTokens < tokens
  }
}

/** What an attempt has used that has not ended in an answer. */
const partlyUsed = ({ isSent, reporter, tokens }: AttemptStats, hasContent: boolean): UsedTokens | undefined => {
  const reported = reporter?.usage?.()
  if (reported?.promptTokens !== undefined || reported?.completionTokens !== undefined) {
    return reportedBy(reported, tokens)
  }
  return isSent || hasContent || tokens > 0 ? reportedBy({}, tokens) : undefined
}

/**
 * What an attempt has used; undefined: nothing.
 *
 * @param hasContent whether content has arrived, which may be shorter than a token
 */
export const usedBy = (stats: AttemptStats, hasContent: boolean): UsedTokens | undefined => {
  const { finish, isEstimated, promptTokens, tokens } = stats
  if (finish !== undefined) return { usage: finish.usage, isEstimated: finish.usage.isEstimated === true }
  return promptTokens === undefined
    ? partlyUsed(stats, hasContent)
    : { usage: { promptTokens, completionTokens: tokens, cachedTokens: 0 }, isEstimated }
}

/** Counts the tokens of events in the attempt's statistics. */
export const count = <Events extends ReadonlyArray<Event>>(stats: AttemptStats, events: Events): Events => {
  for (const event of events) {
    if (event.type === "finish") {
      stats.finish = event
      stats.done = true
      stats.tokens = event.usage.completionTokens
      stats.promptTokens = event.usage.promptTokens
    } else if (event.type !== "handoff") {
      stats.tokens += event.tokens
    }
  }
  return events
}

type Span = Tracer.Span | undefined

/** The state of a request while it runs. */
export interface RequestState {
  /** Of the caller. */
  readonly context: Context.Context<never>
  /** Runs what the metrics have begun; undefined if nothing is left to run. */
  readonly metricsBegun: Fiber.Fiber<void> | undefined
  readonly record: Draft
  readonly span: Span
  /** When the request was routed, monotonic ms. */
  readonly startedAt: number
  /** Of the winning attempt, or of the latest one until an attempt wins. */
  stats: AttemptStats
  /** Tokens of earlier deployments whose answer that attempt continues. */
  earlierTokens: number
  /** What the request was admitted with. */
  readonly ticket: Ticket
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

const tracerName = "tracer"
const metricsName = "metrics"

/** Undefined with the native tracer, which has no backend: a span costs BigInts and random ids. */
const spanOf = ({ call }: GuardedCallbacks, { cache, context }: Fiber.Fiber<unknown, unknown>, name: string): Span => {
  const { tracer = Tracer.nativeTracer } = cache
  return tracer === Tracer.nativeTracer
    ? undefined
    : call<Span>(tracerName, () => Effect.runSyncWith(context)(Effect.makeSpan(name, { kind: "internal" })), undefined)
}

const annotate = ({ call }: GuardedCallbacks, span: Tracer.Span, attributes: Record<string, unknown>) =>
  call(tracerName, () => {
    for (const [name, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(name, value)
  }, undefined)

const endOf = (exit: Exit.Exit<unknown, unknown>): Outcome["end"] => {
  if (Exit.isSuccess(exit)) return "success"
  return isCancellation(exit.cause) ? "interruption" : "failure"
}

/** The end of a request for its span, whose exception has no text of a provider or a caller. */
const recordedExit = (exit: Exit.Exit<unknown, InferenceError>): Exit.Exit<unknown, unknown> =>
  Exit.isSuccess(exit) || isCancellation(exit.cause)
    ? exit
    : Exit.mapError(
      exit,
      ({ reason }) => Object.assign(new Error(ReasonMessage.recorded(reason)), { name: reason._tag })
    )

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
    "error.message": error && ReasonMessage.recorded(error.reason)
  }
}

/** Records an answer that was generated before: the request has generated nothing. */
export const recordReplay = (state: RequestState, deployment: string, last: Event): void => {
  const stats = makeStats({ id: deployment, provider: "troupe.cache" })
  if (last.type === "finish") {
    stats.promptTokens = last.usage.promptTokens
    stats.finish = last
  }
  stats.done = true
  state.stats = stats
  state.failure = undefined
  state.record.answeredBy = deployment
}

/** The services that a request reports to. */
interface Parts {
  readonly metrics: Metrics["Service"]
  readonly decisions: DecisionLog["Service"]
  readonly callbacks: GuardedCallbacks
  readonly clock: Clock.Clock
}

/** Ends the telemetry of a request. */
export const complete = ({ callbacks, clock, metrics }: Parts, operation: Operation, state: RequestState): void => {
  const { context, earlierTokens, failure, metricsBegun, record, span, startedAt, stats, ticket } = state
  const exit = exitOf({ done: stats.done, failure })
  const end = endOf(exit)
  record.tookMs = Time.nowOf(clock) - startedAt
  record.end = end
  if (span !== undefined) {
    annotate(callbacks, span, endAttributes(exit, state))
    callbacks.call(tracerName, () => span.end(clock.currentTimeNanosUnsafe(), recordedExit(exit)), undefined)
  }
  const tokens = earlierTokens + stats.tokens
  if (ticket !== free) ticket.end()
  const outcome: Outcome = { model: record.model, operation, seconds: record.tookMs / 1000, tokens, end }
  callbacks.notify(metricsName, () => metrics.end(outcome), context, metricsBegun)
  for (const { skippedEvents } of record.attempts) {
    if (skippedEvents !== undefined) {
      callbacks.call(metricsName, () => metrics.skipped?.(record.model, skippedEvents), undefined)
    }
  }
}

/**
 * Begins a request, which `complete` ends.
 *
 * @param attributes of the span, in addition to those of every operation
 */
export const begin = (
  { callbacks, clock, decisions, metrics }: Parts,
  fiber: Fiber.Fiber<unknown, unknown>,
  operation: Operation,
  route: Route,
  attributes: () => Record<string, unknown>,
  ticket: Ticket
): RequestState => {
  const { deployments: [deployment], model } = route
  const span = spanOf(callbacks, fiber, `${operation} ${model}`)
  if (span !== undefined) {
    annotate(callbacks, span, { "gen_ai.operation.name": operation, "gen_ai.request.model": model, ...attributes() })
  }
  const at = clock.currentTimeMillisUnsafe()
  const record = callbacks.call("decision log", () => decisions.begin(operation, route, at), undefined) ??
    makeDraft("unrecorded", operation, route, at)
  const { context } = fiber
  return {
    context,
    metricsBegun: callbacks.notify(metricsName, () => metrics.begin(model, operation), context),
    record,
    span,
    startedAt: Time.nowOf(clock),
    stats: makeStats(deployment && serverOf(deployment)),
    earlierTokens: 0,
    ticket,
    failure: undefined
  }
}

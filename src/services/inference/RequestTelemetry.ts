/**
 * The telemetry of a request: its spans, its metrics and its decision record.
 *
 * **Details**
 *
 * `complete` ends the request's span, the metrics and the record, however the request ends. See `RequestTrace` for the spans.
 */
import type { Cause, Clock, Context, Fiber } from "effect"
import { Effect, Exit } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import { CheckOf } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Price } from "../../domain/DeploymentFacts.ts"
import { isCancellation, isOfCaller } from "../../domain/FailureClass.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { ReportedUsage } from "../../domain/Job.ts"
import * as Money from "../../domain/Money.ts"
import { providerKindOf, providerNameOf } from "../../domain/ProviderKind.ts"
import type { Source } from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { Ticket, UsedTokens } from "../admission/Admission.ts"
import { free } from "../admission/Admission.ts"
import type { Meter } from "../engines/Engine.ts"
import type { GuardedCallbacks } from "../observability/GuardedCallbacks.ts"
import type { AttemptLabels, Metrics, Operation, Outcome } from "../observability/Metrics.ts"
import type { RequestLog } from "../observability/RequestLog.ts"
import type { AttributeWriter } from "../observability/RequestSpans.ts"
import type { AttemptTrace, RequestTrace } from "../observability/RequestTrace.ts"
import { putEnd } from "../observability/RequestTrace.ts"
import type { AttemptDraft, DecisionLog, Draft } from "../routing/DecisionLog.ts"
import { callerOf, makeDraft } from "../routing/DecisionLog.ts"
import { priceOf } from "../routing/DeploymentFacts.ts"
import type { Route } from "../routing/Route.ts"
import * as RecordedFailure from "./RecordedFailure.ts"
import { entryOf } from "./RequestEntry.ts"

type FinishEvent = Extract<Event, { type: "finish" }>

/** The deployment that answers. */
export interface Server {
  readonly id: string
  /** The provider's name by OpenTelemetry. */
  readonly provider: string
  /** The model that it serves, by its provider's name. */
  readonly model: string
  /** Another instance of this service; default false. */
  readonly isTroupe?: boolean
  /** Left out: unknown. */
  readonly price?: Price | undefined
}

const servers = new WeakMap<Deployment, Server>()

export const serverOf = (deployment: Deployment): Server => {
  const known = servers.get(deployment)
  if (known !== undefined) return known
  const { id, model, options } = deployment
  const server: Server = {
    id,
    provider: providerNameOf(deployment),
    model: isRemote(options) ? options.model : model,
    isTroupe: isRemote(options) && providerKindOf(options.provider).isTroupe === true,
    price: priceOf(deployment)
  }
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
  /** When that was, ms after its start. */
  grantedMs: number | undefined
  /** The answer is complete. */
  done: boolean
  /** Undefined without tracing. */
  trace: AttemptTrace | undefined
}

export const makeStats = (server: Server | undefined, makers?: Meter["makers"]): AttemptStats => ({
  server,
  tokens: 0,
  promptTokens: undefined,
  isEstimated: false,
  finish: undefined,
  failure: undefined,
  granted: false,
  grantedMs: undefined,
  done: false,
  isSent: false,
  reporter: undefined,
  skippedEvents: undefined,
  makers,
  trace: undefined
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
  stats.trace?.events(events)
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

/** The state of a request while it runs. */
export interface RequestState {
  /** Of the caller. */
  readonly context: Context.Context<never>
  /** Runs what the metrics have begun; undefined if nothing is left to run. */
  readonly metricsBegun: Fiber.Fiber<void> | undefined
  readonly record: Draft
  /** Undefined without tracing. */
  readonly trace: RequestTrace | undefined
  /** When it arrived, its first attempt began and its latest one ended, monotonic ms with fractions. */
  readonly arrivedAt: number
  attemptedAt: number | undefined
  leftAt: number | undefined
  /** Of the winning attempt, or of the latest one until an attempt wins. */
  stats: AttemptStats
  /** Tokens of earlier deployments whose answer that attempt continues. */
  earlierTokens: number
  /** What the request was admitted with. */
  readonly ticket: Ticket
  /** The known part of what its attempts have cost, and how many have an unknown cost. */
  cost: Money.Nano
  unpriced: number
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

const metricsName = "metrics"
const logName = "decision log"

const endOf = (exit: Exit.Exit<unknown, unknown>): Outcome["end"] => {
  if (Exit.isSuccess(exit)) return "success"
  return isCancellation(exit.cause) ? "interruption" : "failure"
}

/** Writes the attributes of what a deployment has reported. */
const putUsage = (
  { finish, promptTokens, server, tokens }: AttemptStats,
  to: AttributeWriter,
  earlierTokens = 0
): void => {
  to.put("gen_ai.provider.name", server?.provider)
  to.put("gen_ai.response.model", server?.model)
  to.put("gen_ai.usage.output_tokens", earlierTokens + tokens)
  to.put("gen_ai.usage.input_tokens", promptTokens)
  if (finish === undefined) return
  const { cacheWriteTokens, cachedTokens, reasoningTokens } = finish.usage
  to.put("gen_ai.usage.cache_read.input_tokens", cachedTokens)
  to.put("gen_ai.usage.cache_write.input_tokens", cacheWriteTokens)
  to.put("gen_ai.usage.reasoning.output_tokens", reasoningTokens)
  to.put("gen_ai.response.finish_reasons", [finish.reason])
}

const secondsOf = (ms: number | undefined): number | undefined => ms === undefined ? undefined : ms / 1000

/** Where an attempt runs, for the metrics. */
const labelsOf = ({ model, operation }: Draft, server: Server): AttemptLabels => ({
  operation: operation as Operation,
  model,
  deployment: server.id,
  provider: server.provider,
  served: server.model
})

const noChunks = () => {}

/** Gets the time between two chunks of an attempt's stream, seconds. */
export const chunksOf = (
  { callbacks, metrics }: Pick<Parts, "callbacks" | "metrics">,
  record: Draft,
  { server }: AttemptStats
): (seconds: number) => void => {
  if (metrics.chunks === undefined || server === undefined || record.check !== undefined) return noChunks
  return callbacks.call(metricsName, () => metrics.chunks!(labelsOf(record, server)), noChunks)
}

/** Records the end of an attempt in the metrics. */
export const recordAttempt = (
  { callbacks, metrics }: Pick<Parts, "callbacks" | "metrics">,
  record: Draft,
  { finish, grantedMs, promptTokens, server, tokens }: AttemptStats,
  { error, firstTokenMs, outcome, tookMs }: AttemptDraft
): void => {
  if (metrics.attempted === undefined || server === undefined || outcome === "running") return
  if (record.check !== undefined) return
  const { attempted } = metrics
  callbacks.call(metricsName, () =>
    attempted({
      // Not those of `labelsOf`: an object that is spread and added to takes twice the memory.
      operation: record.operation as Operation,
      model: record.model,
      deployment: server.id,
      provider: server.provider,
      served: server.model,
      outcome,
      error: error?.reason,
      grantedSeconds: secondsOf(grantedMs),
      firstTokenSeconds: secondsOf(firstTokenMs),
      seconds: (tookMs ?? 0) / 1000,
      inputTokens: promptTokens,
      outputTokens: tokens,
      cachedTokens: finish?.usage.cachedTokens,
      cacheWriteTokens: finish?.usage.cacheWriteTokens,
      reasoningTokens: finish?.usage.reasoningTokens
    }), undefined)
}

/** Ends the spans of an attempt. */
export const endAttempt = (
  trace: AttemptTrace,
  stats: AttemptStats,
  { firstTokenMs, hedge, outcome }: AttemptDraft,
  exit: Exit.Exit<unknown, InferenceError>
): void =>
  trace.end(exit, {
    attempt(to) {
      putEnd(exit, to)
      to.put("troupe.outcome", outcome)
      to.put("troupe.hedge", hedge)
    },
    inference(to) {
      putUsage(stats, to)
      to.put("gen_ai.response.time_to_first_chunk", secondsOf(firstTokenMs))
      putEnd(exit, to)
    }
  })

/** Writes the attributes of a request's span at its end. */
const putRequest = (
  exit: Exit.Exit<unknown, InferenceError>,
  state: RequestState,
  usd: number | undefined,
  to: AttributeWriter
): void => {
  const { earlierTokens, record, stats } = state
  putUsage(stats, to, earlierTokens)
  to.put("troupe.deployment", stats.server?.id)
  to.put("troupe.decision", record.id)
  to.put("troupe.request_id", record.requestId)
  to.put("troupe.strategy", record.decision.strategy)
  to.put("troupe.attempts", record.attempts.length)
  to.put("troupe.cache", record.cache)
  to.put("troupe.check", record.check)
  to.put("troupe.cost_usd", usd)
  to.put("troupe.unpriced_attempts", unpricedOf(state))
  putEnd(exit, to)
}

/** Records an answer that was generated before: the request has generated nothing. */
export const recordReplay = (state: RequestState, deployment: string, last: Event): void => {
  const stats = makeStats({ id: deployment, provider: "troupe.cache", model: state.record.model })
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
export interface Parts {
  /** Writes a line for a request; undefined: none is written. */
  readonly log?: typeof RequestLog.Service
  readonly metrics: Metrics["Service"]
  readonly decisions: DecisionLog["Service"]
  readonly callbacks: GuardedCallbacks
  readonly clock: Clock.Clock
}

/** The time of a request before its first attempt and after its latest one. */
const overheadMs = ({ arrivedAt, attemptedAt, leftAt }: RequestState, now: number): number =>
  attemptedAt === undefined ? now - arrivedAt : attemptedAt - arrivedAt + now - (leftAt ?? now)

/** The time from its beginning to the first content of its answer, if that was streamed. */
const firstTokenMs = ({ answeredBy, attempts }: Draft): number | undefined => {
  for (const { deployment, firstTokenMs, startedMs } of attempts) {
    if (firstTokenMs !== undefined && deployment === answeredBy) return startedMs + firstTokenMs
  }
  return undefined
}

/** The known part of what its attempts have cost; undefined: none is known. Most cost nothing, or have no price. */
const usdOf = ({ cost, unpriced }: RequestState): number | undefined => {
  if (cost === 0) return unpriced > 0 ? undefined : 0
  return Money.usdOf(cost)
}

const unpricedOf = ({ unpriced }: RequestState): number | undefined => unpriced === 0 ? undefined : unpriced

const countSkipped = (parts: Pick<Parts, "callbacks" | "metrics">, { attempts, model }: Draft): void => {
  for (const { skippedEvents } of attempts) {
    if (skippedEvents !== undefined) {
      parts.callbacks.call(metricsName, () => parts.metrics.skipped?.(model, skippedEvents), undefined)
    }
  }
}

/** Ends the telemetry of a request. */
export const complete = (
  parts: Parts,
  operation: Operation,
  state: RequestState
): void => {
  const { callbacks, clock, decisions, log, metrics } = parts
  const { arrivedAt, context, earlierTokens, failure, metricsBegun, record, stats, ticket, trace } = state
  const exit = exitOf({ done: stats.done, failure })
  const end = endOf(exit)
  const now = Time.preciseOf(clock)
  record.tookMs = Math.floor(now) - Math.floor(arrivedAt)
  record.end = end
  const tokens = earlierTokens + stats.tokens
  if (ticket !== free) ticket.end()
  if (end === "failure") record.error = RecordedFailure.ofRequest(exit)
  const outcome: Outcome = {
    model: record.model,
    operation,
    seconds: record.tookMs / 1000,
    tokens,
    isFallback: end === "success" && record.attempts.length > 1,
    usd: usdOf(state),
    payer: ticket.payer,
    firstTokenSeconds: secondsOf(firstTokenMs(record)),
    overheadSeconds: overheadMs(state, now) / 1000,
    end,
    isOfCaller: record.error !== undefined && isOfCaller(record.error.reason)
  }
  trace?.end(exit, (to) => putRequest(exit, state, outcome.usd, to))
  record.inputTokens = stats.promptTokens
  record.outputTokens = tokens
  record.usd = outcome.usd
  record.unpriced = unpricedOf(state)
  callbacks.call(logName, () => decisions.ended?.(record), undefined)
  if (record.check === undefined) {
    callbacks.notify(metricsName, () => metrics.end(outcome), context, metricsBegun)
    countSkipped(parts, record)
  }
  if (log !== undefined) callbacks.notify("request log", () => log(entryOf(outcome, state, exit), context), context)
}

/**
 * Begins a request, which `complete` ends.
 *
 * @param admissionMs how long it has waited for its limits and budgets
 */
export const begin = (
  { callbacks, clock, decisions, metrics }: Parts,
  fiber: Fiber.Fiber<unknown, unknown>,
  operation: Operation,
  route: Route,
  trace: RequestTrace | undefined,
  ticket: Ticket,
  arrivedAt: number,
  request: Caller & { readonly source?: Source | undefined },
  admissionMs = 0
): RequestState => {
  const { deployments: [deployment], model } = route
  const at = clock.currentTimeMillisUnsafe() - admissionMs
  const caller = callerOf(fiber, request)
  const record = callbacks.call(logName, () => decisions.begin(operation, route, at, caller), undefined) ??
    makeDraft("unrecorded", operation, route, at, caller)
  const check = fiber.getRef(CheckOf)
  if (admissionMs > 0) record.admissionMs = admissionMs
  if (check !== undefined) record.check = check
  const { context } = fiber
  return {
    context,
    metricsBegun: check === undefined
      ? callbacks.notify(metricsName, () => metrics.begin(model, operation), context)
      : undefined,
    record,
    trace,
    arrivedAt,
    attemptedAt: undefined,
    leftAt: undefined,
    stats: makeStats(deployment && serverOf(deployment)),
    earlierTokens: 0,
    cost: 0,
    unpriced: 0,
    ticket,
    failure: undefined
  }
}

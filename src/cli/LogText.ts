/**
 * Requests and events of a service as lines of a log, and which of them are wanted. Pure.
 *
 * **Gotchas**
 *
 * Callers choose names of models and deployments where a wildcard serves them: line breaks in them do not begin a line.
 */
import { plainLine } from "../domain/Text.ts"
import * as Time from "../domain/Time.ts"
import type { OperatorEvent } from "../services/observability/OperatorEvents.ts"
import type { DecisionSummary } from "../services/routing/DecisionSummary.ts"
import { matcher } from "../services/routing/RequestStatus.ts"
import { moneyText, spanText } from "./Output.ts"

export interface Filter {
  readonly model?: string | undefined
  readonly deployment?: string | undefined
  /** See `RequestStatus`. */
  readonly status?: string | undefined
}

/** Whether a request is wanted. */
export const isWanted = ({ deployment, model, status }: Filter) => (request: DecisionSummary): boolean =>
  (model === undefined || request.model === model) &&
  (status === undefined || matcher(status)?.(request) === true) &&
  (deployment === undefined || request.deployment === deployment || request.failed.includes(deployment))

/** Whether an event is wanted: none where requests of one status are. */
export const isWantedEvent = ({ deployment, model, status }: Filter) => (event: OperatorEvent): boolean =>
  status === undefined && (model === undefined || event.model === model) &&
  (deployment === undefined || event.deployment === deployment)

const timeText = (at: number): string => new Date(at).toISOString().slice(11, 23)

const words = { running: "running", success: "answered", failure: "FAILED", interruption: "canceled" } as const

/** Requests of Troupe itself. */
const checkWords = { health: "health check", probe: "probe" } as const

const named = (name: string, value: string | number | undefined): string =>
  value === undefined || value === "" ? "" : `${name}=${value}`

const spanOf = (ms: number | undefined): string => ms === undefined ? "" : spanText(ms)

/** As "12+34", input and output; empty where nothing is known to have been generated. */
const tokensOf = ({ inputTokens, outputTokens }: DecisionSummary): string =>
  outputTokens === undefined ? "" : `${inputTokens ?? "?"}+${outputTokens}`

/** The deployment that answered; empty where the cache did. */
const answeredBy = ({ cache, deployment }: DecisionSummary): string =>
  deployment === undefined || cache !== undefined ? "" : `-> ${deployment}`

/** One line: time, id, model, deployment, end, then what is known. */
export const requestLine = (request: DecisionSummary): string => {
  const { attempts, cache, error, failed, firstTokenMs, tookMs, unpriced = 0, usd, waitedMs = 0 } = request
  const parts = [
    timeText(request.at),
    request.id,
    request.refused === true ? "REFUSED" : words[request.status],
    request.check === undefined ? "" : `[${checkWords[request.check]}]`,
    request.model,
    answeredBy(request),
    spanOf(tookMs),
    named("first_token", spanOf(firstTokenMs)),
    named("waited", waitedMs < 1 ? undefined : spanText(waitedMs)),
    named("tokens", tokensOf(request)),
    named(unpriced === 0 ? "cost" : "cost_at_least", usd === undefined ? undefined : moneyText(usd)),
    named("cache", cache),
    named("key", request.key),
    named("attempts", attempts > 1 ? attempts : undefined),
    named("failed", failed.join(",")),
    error === undefined ? "" : `${named("http", error.status)} ${error.reason}: ${error.message}`.trimStart()
  ]
  return plainLine(parts.filter((part) => part !== "").join(" "))
}

export const eventLine = ({ at, kind, message, severity }: OperatorEvent): string =>
  plainLine(`${timeText(at)} [${severity === "info" ? kind : `${kind} ${severity}`}] ${message}`)

/**
 * The time that `--since` names: a date, or a duration before now such as 10m.
 *
 * @param now ms since 1970
 * @returns ms since 1970; undefined for another text
 */
export const sinceOf = (text: string, now: number): number | undefined => {
  if (Time.goDuration.test(text)) return now - Time.goDurationMs(text)
  const date = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : date
}

/** What the refusals of providers have in common: statuses, when to come back, and texts that are fit to be told. Pure. */
import { Result } from "effect"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Refusal, Target } from "./Dialect.ts"

const mostCharacters = 300

/** Where `brief` has left something out. */
export const ellipsis = "…"

/** A provider's text on one line, and not longer than a line is read. */
export const brief = (text: string): string => {
  const line = text.replaceAll(/[\p{Cc}\s]+/gu, " ").trim()
  return line.length <= mostCharacters ? line : `${line.slice(0, mostCharacters)}${ellipsis}`
}

/** The longest that a provider is believed when it says when to come back, ms: a day. */
const longestWait = 86_400_000

const bounded = (ms: number): number => Math.min(longestWait, Math.max(0, ms))

/** HTTP's dates, and ISO's. */
const dated = /^(?:[A-Z][a-z]{2,8},? |\d{4}-\d{2}-\d{2}T)/

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** ms of a span as `1s`, `6m0s` and `20ms`, of plain seconds, or until a date. */
const msOf = (text: string, now: number): number | undefined => {
  if (/^\d+(?:\.\d+)?$/.test(text)) return Number(text) * 1000
  if (/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text)) {
    return [...text.matchAll(/([\d.]+)(ms|s|m|h)/g)].reduce(
      (sum, [, number, unit]) => sum + Number(number) * unitMs[unit!]!,
      0
    )
  }
  const date = dated.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : date - now
}

const header = ({ headers }: Refusal, name: string): string | undefined => headers[name]?.trim()

/**
 * ms until the provider takes requests again, as its headers say: `retry-after-ms`, `retry-after` in seconds or as a
 * date (RFC 9110, section 10.2.3), or when the limits that have nothing left are reset.
 *
 * @param resets pairs of headers: what remains, and when it is reset; default OpenAI's
 */
export const retryAfterOf = (
  refusal: Refusal,
  resets: ReadonlyArray<readonly [remaining: string, reset: string]> = ["requests", "tokens"].map(
    (what) => [`x-ratelimit-remaining-${what}`, `x-ratelimit-reset-${what}`] as const
  )
): number | undefined => {
  const { now } = refusal
  const exact = Number(header(refusal, "retry-after-ms") ?? "x")
  if (exact >= 0 && exact !== Number.POSITIVE_INFINITY) return bounded(exact)
  const told = [
    header(refusal, "retry-after"),
    ...resets.map(([remaining, reset]) => header(refusal, remaining) === "0" ? header(refusal, reset) : undefined)
  ].map((text) => text === undefined ? undefined : msOf(text, now))
  const [after, ...others] = told
  // A date that has passed by the time it is read says "now".
  if (after !== undefined) return bounded(after)
  const limits = others.filter((ms) => ms !== undefined)
  return limits.length === 0 ? undefined : bounded(Math.max(...limits))
}

/** A prompt's tokens and the window that they do not fit. */
export interface ContextFigures {
  readonly promptTokens: number
  readonly contextWindow: number
  /** There are at least so many. */
  readonly atLeast?: boolean
}

/** What a dialect found in a refusal's body. */
export interface Found {
  /** The provider's own words. */
  readonly message?: string | undefined
  /** The field that is wrong, by our name for it. */
  readonly path?: string | undefined
  /** The prompt does not fit; figures where they are told. */
  readonly contextLength?: ContextFigures | true | undefined
  /** It is refused by the provider's content policy. */
  readonly contentRefused?: boolean | undefined
}

/** Whose mistake it is: the request's own, and no retry makes it better. */
const isCallers = (status: number): boolean => status === 400 || status === 413 || status === 422

const words = ({ status }: Refusal, { message = "" }: Found): string =>
  message === "" ? `it answered with HTTP status ${status}.` : `${brief(message)} (HTTP status ${status})`

const isCounted = ({ contextWindow, promptTokens }: ContextFigures): boolean =>
  Number.isSafeInteger(contextWindow) && Number.isSafeInteger(promptTokens)

const unfit = (
  { model, options }: Target,
  found: Exclude<Found["contextLength"], undefined>,
  text: string
): InferenceError.Reason => {
  const { contextSize } = options
  // A count that nobody told is at least what does not fit.
  const least = contextSize === undefined
    ? undefined
    : { promptTokens: contextSize, contextWindow: contextSize, atLeast: true }
  const figures = found === true || !isCounted(found) ? least : found
  return figures === undefined
    ? new InferenceError.InvalidRequest({ path: "messages", detail: `The prompt is too long: ${text}` })
    : new InferenceError.ContextLengthExceeded({ model, ...figures })
}

const optionally = (retryAfterMs: number | undefined) =>
  retryAfterMs === undefined ? {} : { retryAfterMs: bounded(retryAfterMs) }

const ofStatus = (
  { status }: Refusal,
  { deployment }: Target,
  path: string | undefined,
  detail: string,
  retryAfterMs: number | undefined
): InferenceError.Reason => {
  if (status === 401 || status === 403) return new InferenceError.AuthenticationFailed({ deployment, status })
  if (status === 429) return new InferenceError.RateLimited({ deployment, ...optionally(retryAfterMs) })
  if (isCallers(status)) return new InferenceError.InvalidRequest({ detail, ...(path === undefined ? {} : { path }) })
  const kind = status >= 300 && status < 400 ? "redirect" as const : "status" as const
  return new InferenceError.UpstreamFailed({ deployment, kind, status, detail, ...optionally(retryAfterMs) })
}

/**
 * The reason of a refusal.
 *
 * @param retryAfterMs default what the headers tell
 */
export const reasonOf = (
  refusal: Refusal,
  target: Target,
  found: Found,
  retryAfterMs = retryAfterOf(refusal)
): InferenceError.Reason => {
  const detail = words(refusal, found)
  if (found.contentRefused === true) {
    return new InferenceError.ContentRefused({ deployment: target.deployment, detail })
  }
  return found.contextLength === undefined
    ? ofStatus(refusal, target, found.path, detail, retryAfterMs)
    : unfit(target, found.contextLength, detail)
}

/** What came is not what the dialect says. */
export const malformed = ({ deployment }: Target, what: string): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "malformed", detail: `what it sent is ${what}.` })

/** What a provider says, read: nesting that exhausts the stack is no answer. */
export const readable = <A>(
  target: Target,
  read: () => Result.Result<A, InferenceError.Reason>
): Result.Result<A, InferenceError.Reason> => {
  try {
    return read()
  } catch (error) {
    if (error instanceof RangeError) return Result.fail(malformed(target, "nested too deeply"))
    throw error
  }
}

/**
 * A finish reason in lower case. Undefined where a provider gives none: some write "" or "null" while an answer goes on.
 */
export const finishText = (value: unknown): string | undefined => {
  const text = typeof value === "string" ? value.trim().toLowerCase() : ""
  return text === "" || text === "null" || text === "none" ? undefined : text
}

/** The answer ended before its end. */
export const cut = ({ deployment }: Target): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "cut", detail: "its answer ended before its end." })

/** The answer has an end and no content. */
export const empty = ({ deployment }: Target): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "empty", detail: "its answer has no content." })

/** The dialect has no words for it. */
export const notSupported = ({ deployment }: Target, path: string, detail: string): InferenceError.Reason =>
  new InferenceError.NotSupported({ deployment, path, detail })

/** Parsed JSON; undefined where a text is none. */
export const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Reads from the headers and the body of a response when the server takes requests again. Pure. */
import { Predicate } from "effect"

/** The longest wait that is taken from a server, ms: a day. */
const longest = 86_400_000

export const bounded = (ms: number): number => Math.min(longest, Math.max(0, ms))

/** HTTP's dates, and ISO's. */
const dated = /^(?:[A-Z][a-z]{2,8},? |\d{4}-\d{2}-\d{2}T)/

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

const span = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/

const spanMs = (text: string): number =>
  [...text.matchAll(/([\d.]+)(ms|s|m|h)/g)].reduce((sum, [, number, unit]) => sum + Number(number) * unitMs[unit!]!, 0)

/** Plain numbers above these are times, in s and in ms since 1970. */
const leastSeconds = 1e9
const leastMilliseconds = 1e12

const numberMs = (value: number, now: number): number => {
  // A number of more digits than a time has is a long wait.
  if (value >= leastSeconds * 1e6 || value < leastSeconds) return value * 1000
  return value >= leastMilliseconds ? value - now : value * 1000 - now
}

/** ms of a span as `1s`, `6m0s` and `20ms`, of plain seconds, or until a time. */
const msOf = (text: string, now: number): number | undefined => {
  if (/^\d+(?:\.\d+)?$/.test(text)) return numberMs(Number(text), now)
  if (span.test(text)) return spanMs(text)
  const date = dated.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : date - now
}

/** Headers of what remains of a limit, and of when it is reset: OpenAI's, Anthropic's, OpenRouter's, and the IETF's draft. */
const limits: ReadonlyArray<readonly [remaining: string, reset: string]> = [
  ...["requests", "tokens"].map((what) => [`x-ratelimit-remaining-${what}`, `x-ratelimit-reset-${what}`] as const),
  ...["requests", "tokens", "input-tokens", "output-tokens"].map(
    (what) => [`anthropic-ratelimit-${what}-remaining`, `anthropic-ratelimit-${what}-reset`] as const
  ),
  ["x-ratelimit-remaining", "x-ratelimit-reset"],
  ["ratelimit-remaining", "ratelimit-reset"]
]

type Headers = Readonly<Record<string, string | undefined>>

const fieldOf = (value: unknown, name: string): unknown =>
  Predicate.isObject(value) ? (value as Readonly<Record<string, unknown>>)[name] : undefined

/** The delay of a `google.rpc.RetryInfo`, as `34.5s`, in a body `{ error: { details } }` or a list of one. */
const inDetails = (body: unknown, now: number): number | undefined => {
  const details = fieldOf(fieldOf(Array.isArray(body) ? body[0] : body, "error"), "details")
  for (const detail of Array.isArray(details) ? details : []) {
    const delay = fieldOf(detail, "retryDelay")
    const ms = typeof delay === "string" && span.test(delay) ? msOf(delay, now) : undefined
    if (ms !== undefined) return ms
  }
  return undefined
}

/** ms until the limits that have nothing left are reset. */
const untilReset = (headers: Headers, now: number): number | undefined => {
  const waits = limits.flatMap(([remaining, reset]) => {
    const ms = headers[remaining]?.trim() === "0" ? msOf(headers[reset]?.trim() ?? "", now) : undefined
    return ms === undefined ? [] : [ms]
  })
  return waits.length === 0 ? undefined : Math.max(...waits)
}

/**
 * ms until the server takes requests again, at most a day: `retry-after-ms`, `retry-after` in seconds or as a date (RFC
 * 9110, section 10.2.3), a `RetryInfo` in the body, or when the limits that have nothing left are reset. Undefined
 * without any of them.
 *
 * @param answer `headers` by names in lower case; `now` in ms since 1970
 */
export const retryAfterOf = (
  { body, headers, now }: { readonly headers: Headers; readonly body?: unknown; readonly now: number }
): number | undefined => {
  const exact = Number(headers["retry-after-ms"]?.trim() || "x")
  if (exact >= 0 && exact !== Number.POSITIVE_INFINITY) return bounded(exact)
  const after = headers["retry-after"]?.trim()
  // A date in the past means now.
  const found = (after === undefined ? undefined : msOf(after, now)) ?? inDetails(body, now) ?? untilReset(headers, now)
  return found === undefined ? undefined : bounded(found)
}

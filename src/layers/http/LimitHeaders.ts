/** Response headers of limits and costs. */
import type { Admitted, Standing } from "../../domain/Inference.ts"
import type { LimitExceeded } from "../../domain/InferenceError.ts"
import * as Money from "../../domain/Money.ts"

interface Answered {
  readonly admitted?: Admitted
}

type Headers = Readonly<Record<string, string>>

/** OpenAI's names. */
const namesOf = (measure: "requests" | "tokens") => ({
  limit: `x-ratelimit-limit-${measure}`,
  remaining: `x-ratelimit-remaining-${measure}`,
  reset: `x-ratelimit-reset-${measure}`
})

const ofMeasure = { requests: namesOf("requests"), tokens: namesOf("tokens") }

/** The names of all of them. */
export const names = [...Object.values(ofMeasure.requests), ...Object.values(ofMeasure.tokens), "x-troupe-cost"]

/** The reset is a duration, as `60s`. */
const add = (
  headers: Record<string, string>,
  measure: keyof typeof ofMeasure,
  { limit, remaining, resetMs }: Standing
): Headers => {
  const names = ofMeasure[measure]
  headers[names.limit] = String(limit)
  headers[names.remaining] = String(Math.floor(remaining))
  headers[names.reset] = `${Math.ceil(resetMs / 1000)}s`
  return headers
}

/** Adds the limits that are used up first. */
export const addLimits = (headers: Record<string, string>, admitted: Admitted): void => {
  const found = admitted.standings()
  if (found?.requests !== undefined) add(headers, "requests", found.requests)
  if (found?.tokens !== undefined) add(headers, "tokens", found.tokens)
}

/** Adds what an answer has cost, USD; nothing if a price is unknown. */
export const addCost = (headers: Record<string, string>, first: Answered, others: ReadonlyArray<Answered>): void => {
  let sum = first.admitted?.cost
  for (const { admitted } of others) {
    sum = sum === undefined || admitted?.cost === undefined ? undefined : sum + admitted.cost
  }
  if (sum !== undefined) headers["x-troupe-cost"] = Money.format(sum)
}

/** The limit that rejected a request. */
export const ofRejection = ({ limit, most, remaining, retryAfterMs = 1_000 }: LimitExceeded): Headers =>
  add({}, limit.startsWith("tokens") ? "tokens" : "requests", { limit: most, remaining, resetMs: retryAfterMs })

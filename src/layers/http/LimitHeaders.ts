/** Response headers of limits and costs. */
import type { Admitted, Standing } from "../../domain/Inference.ts"
import type { LimitExceeded } from "../../domain/InferenceError.ts"
import * as Money from "../../domain/Money.ts"

type Headers = Readonly<Record<string, string>>

/** The names of all of them. */
export const names = ["requests", "tokens"].flatMap((measure) =>
  ["limit", "remaining", "reset"].map((field) => `x-ratelimit-${field}-${measure}`)
).concat("x-troupe-cost")

/** OpenAI's names; the reset is a duration, as `60s`. */
const standingHeaders = (measure: "requests" | "tokens", standing: Standing | undefined): Headers =>
  standing === undefined ? {} : {
    [`x-ratelimit-limit-${measure}`]: String(standing.limit),
    [`x-ratelimit-remaining-${measure}`]: String(Math.floor(standing.remaining)),
    [`x-ratelimit-reset-${measure}`]: `${Math.ceil(standing.resetMs / 1000)}s`
  }

/** The limits that are used up first. */
export const ofLimits = (admitted: Admitted): Headers => {
  const found = admitted.standings()
  return found === undefined
    ? {}
    : { ...standingHeaders("requests", found.requests), ...standingHeaders("tokens", found.tokens) }
}

/** What an answer has cost, USD; none while it is not complete, and if a price is unknown. */
export const ofCost = (answers: ReadonlyArray<{ readonly admitted?: Admitted }>): Headers => {
  let sum = 0
  for (const { admitted } of answers) {
    if (admitted?.cost === undefined) return {}
    sum += admitted.cost
  }
  return { "x-troupe-cost": Money.format(sum) }
}

/** The limit that rejected a request. */
export const ofRejection = ({ limit, most, remaining, retryAfterMs = 1_000 }: LimitExceeded): Headers =>
  standingHeaders(limit.startsWith("tokens") ? "tokens" : "requests", { limit: most, remaining, resetMs: retryAfterMs })

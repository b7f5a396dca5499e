/**
 * Messages of the reasons of `InferenceError` that differ by case, and the messages for logs. Pure.
 *
 * **Details**
 *
 * Each says what was wrong, the limit where there is one, and what to do.
 */
import type * as InferenceError from "./InferenceError.ts"
import { didYouMean } from "./NearestName.ts"
import * as Text from "./Text.ts"

type Fields<Reason extends InferenceError.Reason> = Omit<Reason, "message">

const seconds = (ms: number): number => Math.ceil(ms / 1000)

/** When to retry, as a sentence after a space; empty where that is unknown. */
const retryIn = (ms: number | undefined): string => ms === undefined ? "" : ` Retry in ${seconds(ms)} s.`

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`

export const modelNotFound = ({ available, model }: Fields<InferenceError.ModelNotFound>): string => {
  const meant = didYouMean(model, available)
  const list = available.length === 0
    ? "No model is configured."
    : `Available models: ${Text.cutList(available)}.`
  return `The model "${Text.cutName(model)}" does not exist.${meant} ${list}`
}

export const contextLengthExceeded = (
  { atLeast, contextWindow, model, promptTokens, withAnswer }: Fields<InferenceError.ContextLengthExceeded>
): string => {
  if (promptTokens === undefined || contextWindow === undefined) {
    return `The prompt is longer than the context window of "${model}". Shorten the prompt.`
  }
  if (withAnswer === true) {
    return `Prompt and answer have ${promptTokens} tokens together, and the context window of "${model}" is ` +
      `${contextWindow} tokens. Shorten the prompt or ask for a shorter answer.`
  }
  return `The prompt has ${atLeast === true ? "at least " : ""}${promptTokens} tokens, and the context window of ` +
    `"${model}" is ${contextWindow} tokens for prompt and answer together. Shorten the prompt.`
}

export const overloaded = ({ budgets, retryAfterMs }: Fields<InferenceError.Overloaded>): string => {
  if (budgets !== undefined) {
    return `The storage of budgets cannot be reached, so that requests with a budget are rejected.${
      retryIn(retryAfterMs)
    }`
  }
  return `Memory is short: requests with low priority are rejected. Retry in ${seconds(retryAfterMs)} s, or with a ` +
    "higher priority."
}

export const insufficientMemory = (
  { availableBytes, deployment, neededBytes }: Fields<InferenceError.InsufficientMemory>
): string =>
  `"${deployment}" needs ${mebibytes(neededBytes)} of memory, and at most ${
    mebibytes(availableBytes)
  } can be free for ` +
  "it: memory.budget less what pinned models use. Use a smaller variant, fewer slots or a shorter contextSize, or raise " +
  "memory.budget."

export const engineStopped = ({ by, deployment }: Fields<InferenceError.EngineStopped>): string => {
  switch (by) {
    case "unload":
      return `The load of "${deployment}" was stopped: the model was unloaded meanwhile.`
    case "replace":
      return `The load of "${deployment}" was stopped: another version of it is loaded instead.`
    case "scaling":
      return `The load of a replica of "${deployment}" was stopped: fewer replicas are wanted.`
    case "shutdown":
      return `The load of "${deployment}" was stopped: the service is shutting down. Try again.`
    default:
      return `The engine of "${deployment}" was stopped before the answer was complete.`
  }
}

export const rateLimited = ({ cached, deployment, retryAfterMs }: Fields<InferenceError.RateLimited>): string =>
  cached === true
    ? `The provider of "${deployment}" was not called: its rate limit is still in effect.${retryIn(retryAfterMs)}`
    : `The provider of "${deployment}" limits the rate of requests (429).${retryIn(retryAfterMs)}`

export const unauthenticated = ({ problem }: Fields<InferenceError.Unauthenticated>): string => {
  switch (problem) {
    case "missing":
      return "This service requires an API key. Send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`."
    case "unknown":
      return "The API key is not a key of this service. Check the key."
    case "expired":
      return "The API key has expired. Use another key."
    case "revoked":
      return "The API key has been revoked. Use another key."
  }
}

/** What makes a request, or all of its call, fit. */
const shorter = (mostTokens: number | undefined, isOneOfSeveral: boolean): string => {
  if (mostTokens !== undefined) return ` Set max_tokens to at most ${mostTokens}`
  return isOneOfSeveral ? " Send fewer prompts or a smaller n" : " Shorten the prompt"
}

const togetherText = (requests: number, needed: string): string =>
  ` (the ${requests} prompts and choices of the call together ${needed})`

export const limitExceeded = (
  { counter, limit, most, mostTokens, needed = 1, remaining, retryAfterMs, together }: Fields<
    InferenceError.LimitExceeded
  >
): string => {
  if (together !== undefined && !limit.startsWith("tokens")) {
    return `The ${together.requests} prompts and choices of the call are as many requests, more than its limit of ${most} ` +
      `(${limit}, ${counter}). Send fewer prompts or a smaller n.`
  }
  if (needed > most || together !== undefined) {
    const all = together === undefined ? "" : togetherText(together.requests, String(together.needed))
    return `The request may use ${needed} tokens${all}, more than its limit of ${most} (${limit}, ${counter}).${
      shorter(mostTokens, together !== undefined)
    }.`
  }
  if (retryAfterMs === undefined) {
    return `The limit of ${most} request${
      most === 1 ? "" : "s"
    } at the same time is reached (${counter}). Retry when ` +
      "one of them has ended."
  }
  const [measure, unit = ""] = limit.split("Per")
  return `The limit of ${most} ${measure} per ${unit.toLowerCase()} is reached (${counter}; ${remaining} left).${
    retryIn(retryAfterMs)
  }`
}

export const budgetExceeded = (
  { counter, measure, most, mostTokens, needed, period, reserved, retryAfterMs, spent, together, unpriced }: Fields<
    InferenceError.BudgetExceeded
  >
): string => {
  const budget = period === "total" ? `budget (${counter})` : `budget of this ${period} (${counter})`
  if (unpriced !== undefined) {
    return `The price of "${unpriced}" is unknown, and the ${budget} is in USD. Set the price of the deployment.`
  }
  const amount = (value: number) =>
    `${measure === "usd" ? Number(value.toPrecision(6)) : value} ${measure === "usd" ? "USD" : "tokens"}`
  const all = together === undefined ? "" : togetherText(together.requests, amount(together.needed))
  const running = reserved > 0 ? `, ${amount(reserved)} reserved by running requests` : ""
  const next = retryAfterMs === undefined
    ? ""
    : ` The next ${period} begins in ${Math.ceil(retryAfterMs / 3_600_000)} h.`
  return `The ${budget} has no room for this request: ${amount(spent)} of ${
    amount(most)
  } spent${running}, and it may ` +
    `cost up to ${amount(needed)}${all}.${shorter(mostTokens, together !== undefined)}, or raise the budget.${next}`
}

export const authenticationFailed = (
  { deployment, quota, retryAfterMs, status }: Fields<InferenceError.AuthenticationFailed>
): string => {
  const cached = retryAfterMs === undefined
    ? ""
    : ` The provider was not called; the key is tried again in ${Math.max(1, seconds(retryAfterMs))} s.`
  if (quota === true) {
    return `The provider's quota is used up ("${deployment}"). Check the plan and billing.${cached}`
  }
  const answered = status === undefined ? "" : ` (${status})`
  return `The provider rejected the API key of "${deployment}"${answered}. Check the key and its permissions.${cached}`
}

/**
 * The state of a circuit that lets no call through, for messages.
 *
 * @param failures consecutive ones; undefined where a call probes the deployment
 */
export const circuitState = (failures: number | undefined): string =>
  failures === undefined
    ? "its circuit is half-open and another request probes it"
    : `its circuit is open after ${failures} consecutive ${failures === 1 ? "failure" : "failures"}`

/** Deployments that a message lists. */
const mostListed = 10

export const noDeployment = ({ excluded, model, retryAfterMs }: Fields<InferenceError.NoDeployment>): string => {
  const listed = excluded.slice(0, mostListed)
  const more = excluded.length - listed.length
  const reasons = [
    ...listed.map(({ deployment, reason }) => `${deployment}: ${reason}`),
    ...(more > 0 ? [`and ${more} more`] : [])
  ].join("; ")
  const wait = retryAfterMs === undefined || listed.some((one) => one.retryAfterMs !== undefined)
    ? ""
    : `.${retryIn(retryAfterMs)}`
  return `No deployment of "${model}" can take this request. ${reasons}${wait}`
}

/** Names and indexes: providers and callers also write other texts where a field has its name. */
const isPath = /^[a-z_]\w{0,63}(?:\.[a-z_]\w{0,63}|\[\d{1,9}\]){0,63}$/i

/**
 * The message for logs, spans and decision records: without what a provider or a caller wrote, which may quote a prompt. The
 * caller gets `message`.
 */
export const recorded = (reason: InferenceError.Reason): string => {
  switch (reason._tag) {
    case "UpstreamFailed": {
      const { deployment, kind, status } = reason
      if (kind !== "status" && kind !== "malformed") return reason.message
      const what = status === undefined ? "its answer is malformed" : `it answered with HTTP status ${status}`
      return `The provider of "${deployment}" failed: ${what}.`
    }
    case "ContentRefused":
      return `The provider of "${reason.deployment}" rejected the content.`
    case "ModelNotFound":
      return "The requested model does not exist."
    case "InvalidRequest":
      return reason.path === undefined || !isPath.test(reason.path)
        ? "The request is invalid."
        : `The request is invalid at ${Text.cutName(reason.path)}.`
    default:
      return reason.message
  }
}

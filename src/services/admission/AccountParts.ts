/** What accounts of this process and shared accounts have in common: who is charged what, and why requests are rejected. */
import type { Deployment } from "../../domain/Deployment.ts"
import type { Price } from "../../domain/DeploymentFacts.ts"
import { BudgetExceeded, LimitExceeded } from "../../domain/InferenceError.ts"
import type { Nano } from "../../domain/Money.ts"
import * as Money from "../../domain/Money.ts"
import type { BudgetAlert } from "../budgets/BudgetAlert.ts"
import type { Amount, Overspent } from "../budgets/BudgetBook.ts"
import type { LedgerRow } from "../ledger/Usage.ts"
import type { Exceeded } from "../limits/RateWindows.ts"
import type { Demand, Used } from "./Admission.ts"
import type { AdmissionRules } from "./AdmissionRules.ts"
import type { Need } from "./Needs.ts"
import type { Subject } from "./Subject.ts"

/** What accounts report. */
export interface Reports {
  readonly add: (row: LedgerRow) => void
  readonly alert: (alert: BudgetAlert) => void
  readonly rejected: (reason: Exceeded | Overspent, mode: "enforced" | "shadow") => void
}

export interface AccountParts extends Reports {
  readonly rules: AdmissionRules
  /** Undefined if it is unknown. */
  readonly priceOf: (deployment: Deployment) => Price | undefined
  /** ms since 1970 */
  readonly now: () => number
}

/** The largest `max_tokens` with which a request fits into what is left. */
const mostTokensOf = (need: Need | undefined, left: Amount): { readonly mostTokens?: number } => {
  const most = need?.fitting?.(left) ?? 0
  return most >= 1 && most !== Number.POSITIVE_INFINITY ? { mostTokens: most } : {}
}

/** The requests of the call and what they need together, of one measure; none for a request alone. */
const togetherOf = (
  need: Need | undefined,
  valueOf: (amount: Amount, requests: number) => number
): { readonly together?: { readonly requests: number; readonly needed: number } } => {
  const all = need?.together?.()
  return all === undefined ? {} : { together: { requests: all.requests, needed: valueOf(all.amount, all.requests) } }
}

const anything = Number.POSITIVE_INFINITY

export const exceeded = (
  { counter, limit, most, needed, remaining, resetMs }: Exceeded,
  need?: Need
): LimitExceeded => {
  const isOfTokens = limit.startsWith("tokens")
  const all = limit === "parallel" ? {} : togetherOf(
    need,
    ({ tokens }, requests) => isOfTokens ? Math.ceil(tokens) : requests
  )
  // Then it does not help to wait.
  const isTooLarge = Math.max(needed, all.together?.needed ?? 0) > most
  return new LimitExceeded({
    limit,
    counter,
    most,
    remaining: Math.floor(remaining),
    needed: Math.ceil(needed),
    ...(isTooLarge
      ? { ...(isOfTokens ? mostTokensOf(need, { nano: anything, tokens: most }) : {}), ...all }
      : {}),
    ...(resetMs === undefined || isTooLarge ? {} : { retryAfterMs: resetMs })
  })
}

export const overspent = (
  { counter, measure, most, needed, period, reserved, resetMs, spent }: Overspent,
  need?: Need
): BudgetExceeded => {
  const left = most - spent - reserved
  const value = (amount: number) => measure === "usd" ? Money.usdOf(amount) : amount
  return new BudgetExceeded({
    counter,
    period,
    measure,
    most: value(most),
    spent: value(spent),
    reserved: value(reserved),
    needed: value(needed),
    ...togetherOf(need, ({ nano, tokens }) => value(measure === "usd" ? nano : tokens)),
    ...mostTokensOf(need, measure === "usd" ? { nano: left, tokens: anything } : { nano: anything, tokens: left }),
    ...(resetMs === undefined ? {} : { retryAfterMs: resetMs })
  })
}

export const subjectOf = ({ grant, model, operation, tenant }: Demand): Subject => ({
  key: grant?.keyId ?? "",
  keyName: grant?.name,
  user: grant?.user ?? grant?.keyId ?? "",
  tenant,
  model,
  endpoint: operation
})

/** What an attempt has cost. */
export interface Charge {
  /** Undefined if the price is unknown. */
  readonly cost: Nano | undefined
  readonly tokens: number
}

/** Adds a row for what an attempt has used. */
export const charge = (
  { add, priceOf }: AccountParts,
  { endpoint, key, model, tenant, user }: Subject,
  need: Need,
  { attempt, decision, deployment, isEstimated, tookMs, usage: reported }: Used
): Charge => {
  // Providers count tokens free of charge.
  if (endpoint === "tokenize") return { cost: 0, tokens: 0 }
  const usage = { ...reported, promptTokens: reported.promptTokens ?? need.promptTokens }
  const price = priceOf(deployment)
  const cost = price && Money.costOf(price, usage)
  const { cacheWriteTokens = 0, cachedTokens, completionTokens, promptTokens, reasoningTokens = 0 } = usage
  add({
    id: `${decision}-${attempt}`,
    at: need.at,
    decision,
    key,
    user,
    tenant,
    model,
    deployment: deployment.id,
    endpoint,
    promptTokens,
    cachedTokens,
    cacheWriteTokens,
    completionTokens,
    reasoningTokens,
    cost,
    tookMs,
    isEstimated
  })
  return { cost, tokens: promptTokens + completionTokens }
}

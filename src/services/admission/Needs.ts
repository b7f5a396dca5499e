/** The most that requests can cost: what they reserve. Pure. */
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Price } from "../../domain/DeploymentFacts.ts"
import { BudgetExceeded } from "../../domain/InferenceError.ts"
import * as Money from "../../domain/Money.ts"
import type { Amount, BudgetRule, Overspent } from "../budgets/BudgetBook.ts"
import type { Demand } from "./Admission.ts"
import type { Applied } from "./AdmissionRules.ts"
import type { Subject } from "./Subject.ts"
import { describe } from "./Subject.ts"

/** The most tokens of an answer whose request does not say, under a budget. */
const usualMost = 4_096

/** Bytes of the field that sets `max_tokens`, the longest of all dialects; they count as tokens of the prompt. */
const fieldBytes = `,"options":{"num_predict":${usualMost}}`.length

/** What all requests of a call need. */
export interface Together {
  readonly requests: number
  readonly amount: Amount
}

/** What a request reserves. */
export interface Need {
  /** When the request began, ms since 1970: what it uses counts in the periods of this time. */
  readonly at: number
  readonly amount: Amount
  /** Tokens of the prompt, for an attempt that does not report them. */
  readonly promptTokens: number
  /** Of the answer, where the request does not say and a budget does. */
  readonly maxTokens: number | undefined
  /** The need with a shorter answer, so that it fits into what is left; undefined if the answer's length is given. */
  readonly within: ((left: Amount) => Need) | undefined
  /**
   * The longest answer that fits into what is left if the request, or each of its call, sets it, tokens; left out: it has
   * none.
   */
  readonly fitting?: ((left: Amount) => number) | undefined
  /** The need of all requests of its call; left out, of this one alone. */
  readonly together?: (() => Together | undefined) | undefined
}

const highest = (prices: ReadonlyArray<Price>): Price => {
  const most = (field: keyof Price) =>
    prices.reduce<number>((highest, price) => Math.max(highest, price[field] ?? 0), 0)
  return {
    input: Math.max(most("input"), most("cachedInput"), most("cacheWrite"), most("cacheWriteHour")),
    output: Math.max(most("output"), most("reasoning"))
  }
}

/** Tokens of an answer that fit into what is left. */
const affordable = ({ nano, tokens }: Amount, price: Price, promptTokens: number, choices: number): number => {
  const byTokens = Math.floor((tokens - promptTokens) / choices)
  const perToken = Money.mostOf(price, 0, choices)
  const byMoney = perToken === 0
    ? Number.POSITIVE_INFINITY
    : Math.floor((nano - Money.mostOf(price, promptTokens, 0)) / perToken)
  return Math.min(byTokens, byMoney)
}

export interface NeedParts {
  /** ms since 1970 */
  readonly now: () => number
  /** Undefined if it is unknown. */
  readonly priceOf: (deployment: Deployment) => Price | undefined
  readonly rejected: (reason: Overspent, mode: "enforced" | "shadow") => void
}

/** The highest price of the deployments that may answer. */
const priceFor = (
  { priceOf, rejected }: NeedParts,
  deployments: ReadonlyArray<Deployment>,
  budgets: ReadonlyArray<BudgetRule>,
  subject: Subject
): Price | BudgetExceeded => {
  const limiting = budgets.find(({ mode, nano }) => nano !== undefined && mode === "enforced")
  const prices: Array<Price> = []
  for (const deployment of deployments) {
    const price = priceOf(deployment)
    if (price !== undefined) prices.push(price)
    else if (limiting !== undefined) return unpriced(rejected, deployment.id, limiting, subject)
  }
  return highest(prices)
}

const unpriced = (
  rejected: NeedParts["rejected"],
  deployment: string,
  { by, name, nano = 0, period }: BudgetRule,
  subject: Subject
): BudgetExceeded => {
  const counter = describe(by, subject)
  const none = { spent: 0, reserved: 0, needed: 0 }
  rejected({ ...none, rule: name, counter, measure: "usd", most: nano, period, resetMs: undefined }, "enforced")
  return new BudgetExceeded({
    ...none,
    counter,
    measure: "usd",
    most: Money.usdOf(nano),
    period,
    unpriced: deployment
  })
}

/** An answer of a local deployment is not longer than its context window. */
const usualFor = ({ deployments, windows }: Demand): number =>
  deployments.reduce((most, { id, options }) => {
    const window = isRemote(options) ? usualMost : windows?.get(id) ?? options.contextSize ?? usualMost
    return Math.max(most, Math.min(usualMost, window))
  }, 1)

/** Whether limits or budgets count the tokens of a request. */
const isCounted = ({ deployments, operation }: Demand, { budgets, limits }: Applied): boolean =>
  deployments.length > 0 && operation !== "tokenize" &&
  (budgets.length > 0 ||
    limits.some(({ limits }) => limits.tokensPerDay ?? limits.tokensPerHour ?? limits.tokensPerMinute))

/** What the request can cost at most. Its answer has at most `usualFor` tokens if it does not say. */
export const needOf = (
  parts: NeedParts,
  demand: Demand,
  applied: Applied,
  subject: Subject
): Need | BudgetExceeded => {
  const { choices, deployments, generates, maxTokens, mostPromptTokens, promptTokens: estimate, siblings } = demand
  const { budgets } = applied
  const at = parts.now()
  if (!isCounted(demand, applied)) {
    const amount = { nano: 0, tokens: 0 }
    const together = () => {
      const all = siblings?.()
      return all && { requests: all.requests, amount }
    }
    return { at, amount, promptTokens: estimate, maxTokens: undefined, within: undefined, together }
  }
  const promptTokens = mostPromptTokens()
  const price = priceFor(parts, deployments, budgets, subject)
  if (price instanceof BudgetExceeded) return price
  const isOpen = generates && maxTokens === undefined
  const usual = isOpen ? usualFor(demand) : 0
  const amountOf = (prompt: number, answer: number): Amount => ({
    nano: Money.mostOf(price, prompt, answer),
    tokens: prompt + answer
  })
  const fitting = (left: Amount) => affordable(left, price, promptTokens, choices)
  // A budget in shadow mode changes no request.
  const isSet = isOpen && budgets.some(({ mode }) => mode === "enforced")
  const advised = (left: Amount) => {
    const { promptTokens: prompts, requests } = siblings?.() ?? { promptTokens, requests: 1 }
    return affordable(left, price, prompts + (isOpen ? fieldBytes * requests : 0), choices * requests)
  }
  const needWith = (most: number): Need => ({
    at,
    promptTokens: estimate,
    amount: amountOf(promptTokens, most * choices),
    maxTokens: isSet ? most : undefined,
    within: isSet ? (left) => needWith(Math.max(1, Math.min(usual, fitting(left)))) : undefined,
    fitting: generates ? advised : undefined,
    together: () => {
      const all = siblings?.()
      return all && { requests: all.requests, amount: amountOf(all.promptTokens, most * choices * all.requests) }
    }
  })
  return needWith(generates ? maxTokens ?? usual : 0)
}

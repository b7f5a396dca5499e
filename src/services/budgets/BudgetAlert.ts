/** When budgets raise alerts: at shares that are spent, and when little is left for requests like the last. Pure. */
import * as Money from "../../domain/Money.ts"

/** Why an alert is raised: a share of the budget is spent, or little is left for requests like the last. */
export interface BudgetAlert {
  readonly rule: string
  readonly counter: string
  readonly measure: "usd" | "tokens"
  readonly most: number
  readonly spent: number
  /** When its period ends, ms since 1970; undefined if it does not. */
  readonly endsAt?: number | undefined
  readonly cause: { readonly percent: number } | { readonly timesLastCost: number }
}

/** When alerts are raised. */
export interface AlertRules {
  /** The percentages of a budget that are spent. */
  readonly percents: ReadonlyArray<number>
  /** The rest is less than this many times the last cost. */
  readonly timesLastCost: number
}

/** K3. */
export const alertRules: AlertRules = { percents: [50, 80, 95], timesLastCost: 10 }

/** The share of a budget that is spent, percent. */
export const percentOf = (most: number, spent: number): number => (spent / most) * 100

/** The largest of the percentages that is spent; 0 if none is. */
export const percentReached = ({ percents }: AlertRules, most: number, spent: number): number => {
  const share = percentOf(most, spent)
  let reached = 0
  for (const percent of percents) if (percent <= share && percent > reached) reached = percent
  return reached
}

/** Whether the rest is little for requests like the last. */
export const hasLittleLeft = ({ timesLastCost }: AlertRules, most: number, spent: number, lastCost: number): boolean =>
  timesLastCost > 0 && most - spent < timesLastCost * lastCost

const describeShare = ({ measure, most }: BudgetAlert, share: number): string =>
  measure === "usd" ? `${Money.format(share)} of ${Money.format(most)} USD` : `${share} of ${most} tokens`

/** For the log. */
export const alertText = (alert: BudgetAlert): string => {
  const { cause, counter, most, rule, spent } = alert
  const what = "percent" in cause
    ? `${cause.percent} % is spent, ${describeShare(alert, spent)}`
    : `less than ${cause.timesLastCost} times the last cost is left, ${describeShare(alert, Math.max(0, most - spent))}`
  return `Budget ${rule} (${counter}): ${what}.`
}

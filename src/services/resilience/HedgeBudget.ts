/**
 * The budget of hedged attempts: every request of a model earns its policy's share of an attempt, and a hedged attempt
 * costs one.
 */
import type { Policy } from "../../domain/RoutingPolicy.ts"

/** The budget of one model. */
export interface Budget {
  readonly earned: number
}

export const empty: Budget = { earned: 0 }

/** The most hedged attempts that idle requests save up. */
const mostEarned = 10

/** The budget after another request. */
export const earn = ({ earned }: Budget, { hedge }: Policy): Budget => ({
  earned: Math.min(mostEarned, earned + (hedge?.share ?? 0))
})

/** The budget after a hedged attempt; `undefined` if it does not suffice. */
export const spend = ({ earned }: Budget): Budget | undefined =>
  // The sum of shares such as 0.1 is not an exact integer.
  earned < 1 - 1e-9 ? undefined : { earned: Math.max(0, earned - 1) }

/** The budgets of all models. */
export interface HedgeBudget {
  readonly earn: (model: string, policy: Policy) => void
  /** Pays for a hedged attempt; false if the budget does not suffice. */
  readonly spend: (model: string) => boolean
}

export const make = (): HedgeBudget => {
  const budgets = new Map<string, Budget>()
  return {
    earn(model, policy) {
      budgets.set(model, earn(budgets.get(model) ?? empty, policy))
    },
    spend(model) {
      const left = spend(budgets.get(model) ?? empty)
      if (left !== undefined) budgets.set(model, left)
      return left !== undefined
    }
  }
}

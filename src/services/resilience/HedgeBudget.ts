/** What each model may still hedge: see `Policy.HedgeBudget`. */
import type { HedgeBudget } from "../../domain/RoutingPolicy.ts"
import { earn, noHedges, spend } from "../../domain/RoutingPolicy.ts"
import type { Route } from "../routing/Route.ts"

export interface HedgeBudgets {
  /** A request has come. */
  readonly earn: (route: Route) => void
  /** Whether there was enough for one hedge, which is paid then. */
  readonly spend: (route: Route) => boolean
}

export const make = (): HedgeBudgets => {
  const budgets = new Map<string, HedgeBudget>()
  return {
    earn({ model, policy }) {
      if (policy.hedge !== undefined) budgets.set(model, earn(budgets.get(model) ?? noHedges, policy))
    },
    spend({ model }) {
      const left = spend(budgets.get(model) ?? noHedges)
      if (left !== undefined) budgets.set(model, left)
      return left !== undefined
    }
  }
}

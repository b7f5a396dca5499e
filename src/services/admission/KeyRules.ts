/** The limits and budgets that apply to a key, with where they are set, for operators. Pure. */
import { usdOf } from "../../domain/Money.ts"
import type { VirtualKey } from "../keys/VirtualKey.ts"
import type { Limits } from "../limits/RateWindows.ts"
import type { Configured, Covers, Scope, Scoped } from "./AdmissionRules.ts"
import { defaultLimit, limitsRequests } from "./AdmissionRules.ts"
import type { Dimension, Subject } from "./Subject.ts"

/** What a rule allows. */
interface Allowed {
  readonly limits?: Limits
  readonly budget?: NonNullable<VirtualKey["budgets"]>[number]
}

/** A rule that applies to a key. */
export interface KeyRule extends Allowed {
  /** Where it is set, as `limits.team`. */
  readonly place: "key" | "default" | `limits.${string}` | `budgets.${string}`
  /** What counts together. */
  readonly by: ReadonlyArray<Dimension>
  /** The requests of the key that it applies to; left out, all. */
  readonly models?: ReadonlyArray<string> | undefined
  readonly endpoints?: ReadonlyArray<string> | undefined
  readonly isShadow: boolean
}

const subjectOf = ({ id, name, tenant, user }: VirtualKey): Subject => ({
  key: id,
  keyName: name,
  user: user ?? id,
  tenant,
  model: "",
  endpoint: ""
})

/** The rules of the settings that apply to some requests of a key. */
export const rulesOf = (
  { budgets, defaultLimit: byDefault, limits }: Configured,
  covers: Covers,
  key: VirtualKey
): ReadonlyArray<KeyRule> => {
  const subject = subjectOf(key)
  const applies = <R>({ scope: { keys, tenants, users } }: Scoped<R>): boolean =>
    covers({ keys, tenants, users }, subject)
  const own = { place: "key", by: ["key"], isShadow: false } as const
  const placed = (
    place: KeyRule["place"],
    { by, mode }: { readonly by: KeyRule["by"]; readonly mode: "enforced" | "shadow" },
    { endpoints, models }: Scope,
    allowed: Allowed
  ): KeyRule => ({ place, by, endpoints, models, isShadow: mode === "shadow", ...allowed })
  const isWithout = key.limits === undefined || !limitsRequests(key.limits)
  const defaults = byDefault !== undefined && isWithout && applies(byDefault) ? [byDefault] : []
  const defaultPlace = byDefault === defaultLimit ? "default" : "limits.default"
  return [
    ...(key.limits === undefined ? [] : [{ ...own, limits: key.limits }]),
    ...defaults.map(({ rule, scope }) => placed(defaultPlace, rule, scope, { limits: rule.limits })),
    ...limits.filter(applies).map(({ rule, scope }) =>
      placed(`limits.${rule.name}`, rule, scope, { limits: rule.limits })
    ),
    ...(key.budgets ?? []).map((budget) => ({ ...own, budget })),
    ...budgets.filter(applies).map(({ rule, scope }) =>
      placed(`budgets.${rule.name}`, rule, scope, {
        budget: {
          period: rule.period,
          ...(rule.nano === undefined ? {} : { usd: usdOf(rule.nano) }),
          ...(rule.tokens === undefined ? {} : { tokens: rule.tokens })
        }
      })
    )
  ]
}

/** The rules of a key whose service has the settings, which are unknown here. */
export const ownRulesOf = (covers: Covers, key: VirtualKey): ReadonlyArray<KeyRule> =>
  rulesOf({ limits: [], budgets: [], defaultLimit: undefined }, covers, key)

/**
 * Entries about requests that a limit or a budget rejects, or would reject in shadow mode: one for each rule and mode in
 * `Defaults.attemptLogInterval`. They have the rule, its number and what shares its counter, and no text of the request.
 */
import { Duration } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import * as Money from "../../domain/Money.ts"
import type { Overspent } from "../budgets/BudgetBook.ts"
import type { Exceeded } from "../limits/RateWindows.ts"

type Mode = "enforced" | "shadow"

/** The setting that rejects, and its value. */
const settingOf = (rejection: Exceeded | Overspent): string => {
  const { rule } = rejection
  if ("limit" in rejection) {
    const { limit, most } = rejection
    return rule === "key" ? `Limit ${limit}: ${most} of a key` : `Limit limits.${rule}.${limit}: ${most}`
  }
  const { measure, most } = rejection
  const value = measure === "usd" ? Money.format(most) : most
  return rule.startsWith("key ")
    ? `Budget of a ${rule}, ${measure}: ${value}`
    : `Budget budgets.${rule}.${measure}: ${value}`
}

/** The latest entry of a rule. */
interface Logged {
  /** ms since 1970 */
  readonly at: number
  omitted: number
}

export class RejectionLog {
  readonly #logged = new Map<string, Logged>()

  /** The entry; undefined if one was logged shortly before. @param now ms since 1970 */
  entry(rejection: Exceeded | Overspent, mode: Mode, now: number): string | undefined {
    const setting = settingOf(rejection)
    const key = `${rejection.rule} ${"limit" in rejection ? rejection.limit : rejection.measure} ${mode}`
    const last = this.#logged.get(key)
    if (last !== undefined && now - last.at < Duration.toMillis(Defaults.attemptLogInterval)) {
      last.omitted++
      return undefined
    }
    this.#logged.set(key, { at: now, omitted: 0 })
    const omitted = last === undefined || last.omitted === 0 ? "" : ` ${last.omitted} before it were not logged.`
    const done = mode === "shadow" ? "would have rejected" : "rejected"
    return `${setting} (${rejection.counter}) ${done} a request.${omitted}`
  }
}

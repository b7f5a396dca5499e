/** Keys as text: the tables of `troupe keys`. */
import type { Budget } from "../domain/Identity.ts"
import type { KeyRule } from "../services/admission/KeyRules.ts"
import type { VirtualKey } from "../services/keys/VirtualKey.ts"
import { standingOf } from "../services/keys/VirtualKey.ts"
import type { Issued } from "../services/keys/VirtualKeys.ts"
import { asInvoked, table } from "./Output.ts"

/** ms since 1970; a stored end may be later than a date can be. */
const endOfYear9999 = Date.UTC(9999, 11, 31, 23, 59)

/** To the minute, UTC. */
const timeText = (at: number): string =>
  at > endOfYear9999 ? "never" : `${new Date(Math.max(0, at)).toISOString().slice(0, 16)}Z`

/** @param now ms since 1970 */
const stateOf = (key: VirtualKey, now: number): string => {
  const standing = standingOf(key, now)
  const isRotating = standing === "valid" && (key.previousUntil ?? 0) > now
  return isRotating ? `valid, two secrets until ${timeText(key.previousUntil!)}` : standing
}

/** Whether the database has the time of its last use. */
const isUseKept = ({ origin }: VirtualKey): boolean => origin === "store"

const modelsOf = ({ models }: VirtualKey): string => models === undefined ? "all" : models.join(", ")

/** One line a key. @param now ms since 1970 */
export const keyTable = (keys: ReadonlyArray<VirtualKey>, now: number): string =>
  table([
    ["NAME", "ID", "TENANT", "MODELS", "STATE", "EXPIRES", "LAST USED"],
    ...keys.map((key) => [
      key.admin === true ? `${key.name} (admin)` : key.name,
      key.id,
      key.tenant,
      modelsOf(key),
      stateOf(key, now),
      key.expiresAt === undefined ? "" : timeText(key.expiresAt),
      key.lastUsedAt === undefined ? isUseKept(key) ? "" : "-" : timeText(key.lastUsedAt)
    ])
  ]) + (keys.some((key) => !isUseKept(key) && key.lastUsedAt === undefined)
    ? asInvoked(
      "\n\n-: the use of keys of the configuration is not stored. `troupe usage --by key` counts their requests."
    )
    : "")

const limitsText = (limits: NonNullable<KeyRule["limits"]>): string =>
  Object.entries(limits).map(([name, value]) => `${name}=${value}`).join(", ")

const budgetText = ({ period, tokens, usd }: Budget): string =>
  [...(usd === undefined ? [] : [`${usd} USD`]), ...(tokens === undefined ? [] : [`${tokens} tokens`])]
    .join(" and ") + (period === "total" ? " in total" : ` a ${period}`)

const placeText = (place: KeyRule["place"]): string => {
  if (place === "key") return "its own"
  return place === "default" ? "by default; limits.default of the configuration changes it" : place
}

const listed = (name: string, values: ReadonlyArray<string> | undefined): string =>
  values === undefined ? "" : ` for ${name} ${values.join(", ")}`

/** As `requestsPerHour=100 by tenant, user and endpoint (by default)`. */
const ruleText = ({ budget, by, endpoints, isShadow, limits, models, place }: KeyRule): string => {
  const allowed = limits === undefined ? budgetText(budget!) : limitsText(limits)
  const shared = place === "key" ? "" : by.length === 0 ? " for all requests together" : ` for each ${by.join(", ")}`
  const where = `${placeText(place)}${isShadow ? ", in shadow mode" : ""}`
  return `${allowed}${shared}${listed("models", models)}${listed("endpoints", endpoints)} (${where})`
}

/**
 * The limits and budgets of a key, one line each.
 *
 * @param areAll whether those of the configuration are among them
 */
export const rulesText = (rules: ReadonlyArray<KeyRule>, areAll: boolean): string => {
  const others = areAll ? [] : ["those of the service's configuration"]
  const rows = (name: string, some: ReadonlyArray<KeyRule>) =>
    [...some.map(ruleText), ...others].map((text, at) => `${(at === 0 ? name : "").padEnd(13)}${text}`)
  const limits = rules.filter(({ limits }) => limits !== undefined)
  const budgets = rules.filter(({ budget }) => budget !== undefined)
  const lines = [...rows("limits", limits), ...rows("budgets", budgets)]
  return lines.length === 0 ? "limits       none" : lines.join("\n")
}

/** All that is known about a key, one line a fact, without its limits and budgets. @param now ms since 1970 */
export const keyText = (key: VirtualKey, now: number): string =>
  [
    ["name", key.name],
    ["id", key.id],
    ["secret", key.begins === undefined ? "of the configuration" : key.begins],
    ["tenant", key.tenant],
    ["user", key.user],
    ["models", modelsOf(key)],
    ["state", stateOf(key, now)],
    ["admin", key.admin === true ? "yes" : undefined],
    ["sets tenant", key.setsTenant === true ? "yes" : undefined],
    ["created", key.createdAt === undefined ? "in troupe.yaml" : timeText(key.createdAt)],
    ["expires", key.expiresAt === undefined ? undefined : timeText(key.expiresAt)],
    ["revoked", key.revokedAt === undefined ? undefined : timeText(key.revokedAt)],
    ["last used", key.lastUsedAt === undefined ? undefined : timeText(key.lastUsedAt)]
  ].flatMap(([name, value]) => value === undefined ? [] : [`${name!.padEnd(13)}${value}`]).join("\n")

/** The secret alone on its line, so that it can be copied. @param now ms since 1970 */
export const issuedText = ({ endedEarly, key, secret }: Issued, now: number): string =>
  [
    `Key ${key.name} (${key.id}). The secret is shown only now:`,
    "",
    secret,
    ...(key.previousUntil === undefined
      ? []
      : key.previousUntil > now
      ? ["", `The secret before it is accepted until ${timeText(key.previousUntil)}.`]
      : ["", "The secret before it is no longer accepted."]),
    ...(endedEarly === undefined
      ? []
      : [
        `Warning: the secret before that one, which was to be accepted until ${
          timeText(endedEarly)
        }, is no longer accepted ` +
        "either: a key has two secrets at most."
      ])
  ].join("\n")

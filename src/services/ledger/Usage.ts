/** What was used, by whom and for how much: the rows of the ledger, and their sums. Pure. */
import { Schema } from "effect"
import * as Money from "../../domain/Money.ts"

/** One attempt that used tokens. */
export interface LedgerRow {
  /** Unique: a row that is written twice counts once. */
  readonly id: string
  /** ms since 1970 */
  readonly at: number
  readonly decision: string
  /** Empty without a key. */
  readonly key: string
  readonly user: string
  readonly tenant: string
  readonly model: string
  readonly deployment: string
  readonly endpoint: string
  readonly promptTokens: number
  /** Among the prompt's. */
  readonly cachedTokens: number
  readonly cacheWriteTokens: number
  readonly completionTokens: number
  /** Among the answer's. */
  readonly reasoningTokens: number
  /** Nano-dollars; undefined if the price is unknown. */
  readonly cost: Money.Nano | undefined
  readonly tookMs: number
  /** The tokens are an estimate: the provider has not counted them. */
  readonly isEstimated: boolean
}

/** What sums are grouped by. */
export const groups = ["day", "key", "user", "tenant", "model", "deployment", "endpoint"] as const
export type Group = (typeof groups)[number]

/** Which rows are summed: all that match. */
export interface UsageQuery {
  readonly by: ReadonlyArray<Group>
  /** ms since 1970 */
  readonly from?: number | undefined
  /** ms since 1970, exclusive */
  readonly to?: number | undefined
  readonly where?: { readonly [Field in Exclude<Group, "day">]?: string | undefined } | undefined
}

const Text = Schema.optionalKey(Schema.String)

/** Sums of one group. */
export const UsageSum = Schema.Struct({
  /** As 2027-01-31, in UTC. */
  day: Text,
  key: Text,
  /** Of the key, if there still is one of this id. In sums by user and not by key, of a key that is its own user. */
  keyName: Text,
  user: Text,
  tenant: Text,
  model: Text,
  deployment: Text,
  endpoint: Text,
  attempts: Schema.Int,
  promptTokens: Schema.Int,
  cachedTokens: Schema.Int,
  cacheWriteTokens: Schema.Int,
  completionTokens: Schema.Int,
  reasoningTokens: Schema.Int,
  /** Of the attempts whose price is known. */
  costUsd: Schema.Finite,
  /** Attempts whose price is unknown: they are not in `costUsd`. */
  unpriced: Schema.Int
})
export type UsageSum = typeof UsageSum.Type

const sums = [
  "attempts",
  "promptTokens",
  "cachedTokens",
  "cacheWriteTokens",
  "completionTokens",
  "reasoningTokens"
] as const

/** Text that spreadsheets do not take for a formula. */
const field = (text: string): string => {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll("\"", "\"\"")}"` : safe
}

/** The fields by which sums are told apart: the name of a key is beside its id. */
export const fieldsOf = (by: ReadonlyArray<Group>) =>
  by.flatMap((group) => group === "key" ? ["key", "keyName"] as const : [group])

/** The sums as CSV (RFC 4180), with a head. */
export const toCsv = (by: ReadonlyArray<Group>, rows: ReadonlyArray<UsageSum>): string =>
  [
    [...fieldsOf(by), ...sums, "costUsd", "unpriced"],
    ...rows.map((row) => [
      ...fieldsOf(by).map((name) => field(row[name] ?? "")),
      ...sums.map((name) => String(row[name])),
      Money.format(Money.nanoOf(row.costUsd)),
      String(row.unpriced)
    ])
  ].map((cells) => `${cells.join(",")}\r\n`).join("")

/** Figures as text, always with their unit. Unknown figures are a dash. */

import type { Version, WithheldReason } from "../domain/Version.ts"

export const unknown = "–"

type Maybe = number | null | undefined

const isKnown = (value: Maybe): value is number => value !== undefined && value !== null && Number.isFinite(value)

const digits = (value: number): number => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2)

const steps: ReadonlyArray<readonly [limit: number, unit: string, by: number]> = [
  [1_000, "ms", 1],
  [60_000, "s", 1_000],
  [3_600_000, "min", 60_000],
  [172_800_000, "h", 3_600_000],
  [Infinity, "d", 86_400_000]
]

/** @param value ms */
export const duration = (value: Maybe): string => {
  if (!isKnown(value)) return unknown
  const [, unit, by] = steps.find(([limit]) => value < limit)!
  const amount = value / by
  if (Number.isInteger(amount)) return `${amount} ${unit}`
  return `${unit === "ms" ? amount.toFixed(amount < 10 ? 1 : 0) : amount.toFixed(digits(amount))} ${unit}`
}

const sizes = ["B", "KiB", "MiB", "GiB", "TiB"]

export const bytes = (value: Maybe): string => {
  if (!isKnown(value)) return unknown
  const power = value < 1 ? 0 : Math.min(sizes.length - 1, Math.floor(Math.log2(value) / 10))
  const amount = value / 1024 ** power
  return `${power === 0 ? amount : amount.toFixed(digits(amount))} ${sizes[power]}`
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })

export const count = (value: Maybe): string => isKnown(value) ? whole.format(value) : unknown

export const decimal = (value: Maybe, unit = ""): string =>
  isKnown(value)
    ? `${Number.isInteger(value) ? value : value.toFixed(digits(value))}${unit === "" ? "" : ` ${unit}`}`
    : unknown

const reasonTexts = {
  rolledBack: "rolled back",
  replaced: "replaced",
  aborted: "aborted"
} as const satisfies Record<WithheldReason, string>

/** What a deployment gets of its model's requests, and why it gets none. */
export const shareText = ({ reason, role, weight }: Omit<Version, "deployment">): string =>
  reason === undefined ? `${percent(weight)} ${role}` : `${role}: ${reasonTexts[reason]}`

/** @param value from 0 to 1 */
export const percent = (value: Maybe): string =>
  isKnown(value) ? `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %` : unknown

/** US dollars; small amounts with the digits that they need. */
export const usd = (value: Maybe): string => {
  if (!isKnown(value)) return unknown
  if (value === 0) return "$0"
  const places = Math.abs(value) >= 1 ? 2 : Math.min(9, 1 - Math.floor(Math.log10(Math.abs(value))) + 1)
  return `$${value.toFixed(places)}`
}

const narrowUsd = (value: number): string => {
  if (value === 0 || Math.abs(value) >= 1) return usd(value)
  if (Math.abs(value) < 0.0001) return "< $0.0001"
  return `$${value.toFixed(1 - Math.floor(Math.log10(Math.abs(value))))}`
}

/**
 * US dollars in a narrow column.
 *
 * @param unpriced attempts whose cost is unknown
 */
export const shortUsd = (value: Maybe, unpriced = 0): string => {
  if (!isKnown(value)) return unknown
  if (unpriced === 0) return narrowUsd(value)
  return value > 0 && value < 0.0001 ? "> $0" : `≥ ${narrowUsd(value)}`
}

/** US dollars with all their digits. */
export const exactUsd = (value: Maybe, unpriced = 0): string =>
  isKnown(value) ? `${unpriced > 0 ? "at least " : ""}$${value.toFixed(12).replace(/\.?0+$/, "")}` : unknown

/**
 * A cost, or that the price is not known.
 *
 * @param unpriced attempts whose cost is unknown
 */
export const cost = (value: Maybe, unpriced = 0): string =>
  isKnown(value) && (value > 0 || unpriced === 0) ? `${unpriced > 0 ? "at least " : ""}${usd(value)}` : "no price known"

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false
})
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hour12: false })

/** @param at ms since 1970 */
export const time = (at: number): string => clock.format(at)

/** @param at ms since 1970 */
export const dateTime = (at: number): string => day.format(at)

const units = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1_000]] as const

/**
 * In whole units: `3 min ago`.
 *
 * @param at ms since 1970
 */
export const ago = (at: number, now = Date.now()): string => {
  const unit = units.find(([, ms]) => now - at >= ms)
  return unit === undefined ? "now" : `${Math.floor((now - at) / unit[1])} ${unit[0]} ago`
}

/**
 * How many requests a remote deployment processes at the same time: a number, or a limit that follows its measured latency
 * and rejections.
 */
import { Schema } from "effect"
import * as Defaults from "./Defaults.ts"
import { Count, described, optional } from "./Fields.ts"

const { initial, max, min } = Defaults.adaptiveConcurrency

const outOfOrder = (given: { readonly initial?: number; readonly max?: number; readonly min?: number }) => {
  const bounds = { initial, max, min, ...given }
  if (bounds.min > bounds.max) return { path: ["min"], issue: `Expected at most max, which is ${bounds.max}` }
  const first = given.initial
  return first !== undefined && (first < bounds.min || first > bounds.max)
    ? { path: ["initial"], issue: `Expected a number from min to max, ${bounds.min} to ${bounds.max}` }
    : undefined
}

const Adaptive = Schema.Struct({
  adaptive: described("The limit follows what is measured.", Schema.Literal(true)),
  min: optional(`Least limit. Default ${min}.`, Count),
  max: optional(`Greatest limit, and the most connections. Default ${max}.`, Count),
  initial: optional(`Limit before anything is measured. Default ${initial}, within min and max.`, Count)
}).check(Schema.makeFilter(outOfOrder))

/** The setting `maxConcurrent`. */
export const MaxConcurrent = Schema.Union([Count, Adaptive]).annotate({
  expected: "a whole number of at least 1, or { adaptive: true }"
})
export type MaxConcurrent = typeof MaxConcurrent.Type

/** The bounds of an adaptive limit. */
export interface Bounds {
  readonly min: number
  readonly max: number
  readonly initial: number
}

/** The bounds, if the limit is adaptive. */
export const boundsOf = (setting: MaxConcurrent | undefined): Bounds | undefined => {
  if (typeof setting !== "object") return undefined
  const bounds = { min: setting.min ?? min, max: setting.max ?? max }
  return { ...bounds, initial: Math.min(bounds.max, Math.max(bounds.min, setting.initial ?? initial)) }
}

/** The most requests at the same time. */
export const mostConcurrent = (setting: MaxConcurrent | undefined = Defaults.maxConcurrent): number =>
  typeof setting === "object" ? setting.max ?? max : setting

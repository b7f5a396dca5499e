/** The figures of a window: of the whole service, a model or a deployment. */
import type { Figures, WindowName } from "../services/observability/RecentFigures.ts"
import { cost, duration, unknown } from "./format.ts"

export const windowNames: Readonly<Record<WindowName, string>> = {
  "1m": "Last minute",
  "5m": "Last 5 minutes",
  "1h": "Last hour"
}

export const figuresFor = (figures: ReadonlyArray<Figures>, window: WindowName): Figures | undefined =>
  figures.find((one) => one.window === window)

/** What it cost, or that the price is not known. */
export const costText = (figures: Figures | undefined): string => {
  // What has written nothing has no known cost, and needs none.
  if (figures === undefined || (figures.usd === undefined && figures.outputTokens === 0)) return unknown
  return cost(figures.usd, figures.unpriced)
}

/** The time that 95 % do not exceed; undefined where nothing was measured. */
export const withinText = (times: { readonly p95?: number | undefined } | undefined): string | undefined =>
  times?.p95 === undefined ? undefined : `95 % within ${duration(times.p95)}`

/** Failed of all requests; undefined without requests. */
export const failedShare = (figures: Figures | undefined): number | undefined =>
  figures === undefined || figures.requests === 0 ? undefined : figures.failed / figures.requests

/** A bar of a histogram. */
export interface Bar {
  /** ms */
  readonly upTo: number
  readonly count: number
  /** Of the highest bar, from 0 to 1. */
  readonly height: number
}

/** Most bars of a histogram. */
const mostBars = 24

/** The histogram of a distribution: neighboring buckets are joined where there are too many. */
export const barsOf = (buckets: Figures["durationMs"]["buckets"]): ReadonlyArray<Bar> => {
  const size = Math.max(1, Math.ceil(buckets.length / mostBars))
  const joined: Array<{ upTo: number; count: number }> = []
  buckets.forEach(([upTo, count], index) => {
    const last = joined.at(-1)
    if (last === undefined || index % size === 0) joined.push({ upTo, count })
    else {
      last.upTo = upTo
      last.count += count
    }
  })
  const highest = Math.max(1, ...joined.map(({ count }) => count))
  return joined.map((one) => ({ ...one, height: one.count / highest }))
}

/** The median: of an even number, the mean of the two in the middle; `NaN` of none. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const low = sorted[Math.ceil(middle) - 1] ?? Number.NaN
  const high = sorted[Math.floor(middle)] ?? Number.NaN
  return (low + high) / 2
}

/** The percentile by nearest rank; `NaN` of none. */
export const percentile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

/** The spread of figures. */
export interface Spread {
  readonly p50: number
  readonly p99: number
}

export const spreadOf = (values: ReadonlyArray<number>): Spread => ({
  p50: percentile(values, 0.5),
  p99: percentile(values, 0.99)
})

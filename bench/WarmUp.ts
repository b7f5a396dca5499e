/**
 * Load before a measurement, until the code is compiled: as long as the cost of a request falls.
 *
 * **Details**
 *
 * The load runs in slices of equal length. It ends when two consecutive slices differ by less than 5 % in their cost of a
 * request, or at a limit.
 */

/** One slice: its requests, and their cost, µs. */
export interface Slice {
  readonly requests: number
  readonly cost: number
}

export interface Limits {
  readonly requests: number
  readonly milliseconds: number
}

export interface WarmUp {
  /** The cost of a request in the first slice, µs. */
  readonly cold: number
  /** In the last one, µs. */
  readonly steady: number
  readonly requests: number
  /** Whether the last two slices differ by less than 5 %. */
  readonly isSteady: boolean
}

const tolerance = 0.05

/** Whether the last two costs differ by less than 5 %. Pure. */
export const isSteady = (costs: ReadonlyArray<number>): boolean => {
  const [before, last] = costs.slice(-2)
  return before !== undefined && last !== undefined && Math.abs(last - before) < tolerance * before
}

export const run = async (slice: () => Promise<Slice>, limits: Limits): Promise<WarmUp> => {
  const costs: Array<number> = []
  const begun = performance.now()
  let requests = 0
  do {
    const one = await slice()
    requests += one.requests
    costs.push(one.cost / one.requests)
  } while (
    !isSteady(costs) && requests < limits.requests && performance.now() - begun < limits.milliseconds
  )
  return { cold: costs[0]!, steady: costs.at(-1)!, requests, isSteady: isSteady(costs) }
}

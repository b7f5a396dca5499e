/**
 * Increases of counters in a window of time, for the rules of alerts. Pure.
 *
 * **Details**
 *
 * A series is a counter, or the buckets of a histogram: a list of numbers that only grow, except that they begin at zero in a process
 * that starts. Each process of a service reports by how much its series have grown since its last report; the process that evaluates
 * rules adds the reports up. So a process that starts again does not look like an increase, and a late report counts once.
 */

/** Numbers by the names of series. */
export type Table = ReadonlyMap<string, ReadonlyArray<number>>

const minus = (one: ReadonlyArray<number>, other: ReadonlyArray<number> = []): ReadonlyArray<number> =>
  one.map((value, index) => value - (other[index] ?? 0))

const plus = (one: ReadonlyArray<number>, other: ReadonlyArray<number> = []): ReadonlyArray<number> =>
  one.map((value, index) => value + (other[index] ?? 0))

/** By how much the series of this process have grown since the last call. */
export class Growth {
  #last: Table | undefined

  /** The first call returns nothing: it is what later ones are compared with. */
  since(table: Table): Table {
    const last = this.#last
    this.#last = table
    const grown = new Map<string, ReadonlyArray<number>>()
    if (last === undefined) return grown
    for (const [name, values] of table) {
      const before = last.get(name)
      const isReset = before !== undefined && values.some((value, index) => value < (before[index] ?? 0))
      const more = isReset ? values : minus(values, before)
      if (more.some((value) => value > 0)) grown.set(name, more)
    }
    return grown
  }
}

/** The sum of what was reported of a series until a time. */
interface Total {
  /** monotonic ms */
  readonly at: number
  readonly values: ReadonlyArray<number>
}

/** The sums of reports, as far back as the longest window. */
export class Windows {
  readonly #series = new Map<string, Array<Total>>()

  /** @param longestMs the longest window that is asked for, ms */
  add(report: Table, now: number, longestMs: number): void {
    for (const [name, values] of report) {
      const totals = this.#series.get(name) ?? []
      totals.push({ at: now, values: plus(values, totals.at(-1)?.values) })
      this.#series.set(name, totals)
    }
    for (const totals of this.#series.values()) {
      // The last one before the window is what the window is compared with.
      const first = totals.findLastIndex(({ at }) => at <= now - longestMs)
      if (first > 0) totals.splice(0, first)
    }
  }

  /** By how much a series has grown in the window that ends now; empty if nothing was reported of it. */
  increase(name: string, windowMs: number, now: number): ReadonlyArray<number> {
    const totals = this.#series.get(name)
    const last = totals?.at(-1)
    if (totals === undefined || last === undefined) return []
    return minus(last.values, totals.findLast(({ at }) => at <= now - windowMs)?.values)
  }

  /** The names of the series that begin with this text, without it. */
  names(prefix: string): ReadonlyArray<string> {
    return [...this.#series.keys()].flatMap((name) => name.startsWith(prefix) ? [name.slice(prefix.length)] : [])
  }
}

/**
 * The value below which a share of the measured values lies, by linear interpolation in its bucket, as Prometheus'
 * `histogram_quantile` does; above the last bound, that bound.
 *
 * @param counts of each bucket, the last one without an upper bound
 */
export const quantile = (share: number, bounds: ReadonlyArray<number>, counts: ReadonlyArray<number>): number => {
  const rank = share * counts.reduce((sum, count) => sum + count, 0)
  let below = 0
  for (const [index, bound] of bounds.entries()) {
    const count = counts[index] ?? 0
    if (count > 0 && below + count >= rank) {
      const from = index === 0 ? 0 : bounds[index - 1]!
      return from + (bound - from) * ((rank - below) / count)
    }
    below += count
  }
  return bounds.at(-1) ?? 0
}

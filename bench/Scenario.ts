/** What a scenario is given and what it hands back. */

import type { Shape } from "./SyntheticGguf.ts"

/** How long and how often a scenario measures, and on what. */
export interface Effort {
  /** Alternating rounds; a figure is the median of them. */
  readonly rounds: number
  /** Length of one measurement, ms. */
  readonly roundMs: number
  /** Load before the first measurement, so that code is compiled and caches are warm, ms. */
  readonly warmUpMs: number
  /** Of the model that stands for a real one. */
  readonly shape: Shape
}

/** How a figure relates to its baseline, or that it stands alone. */
export type Comparison = "ratio" | "difference" | "none"

/** One line of the table. */
export interface Row {
  readonly scenario: string
  readonly measure: string
  readonly unit: string
  /** What the figure is held against; left out where there is nothing. */
  readonly baseline?: number
  readonly troupe: number
  readonly comparison?: Comparison
  /** What the comparison should be, or with `none` the figure itself. */
  readonly target?: { readonly atLeast: number } | { readonly atMost: number }
}

/** Rows for the table, remarks for under it, and every figure behind them. */
export interface Outcome {
  readonly rows: ReadonlyArray<Row>
  readonly notes: ReadonlyArray<string>
  readonly raw: unknown
}

export interface Scenario {
  readonly name: string
  /**
   * Rejects when an answer was wrong.
   *
   * @param nodeOptions for the service's process, such as `--cpu-prof`
   */
  readonly run: (effort: Effort, nodeOptions: ReadonlyArray<string>) => Promise<Outcome>
}

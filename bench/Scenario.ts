/** The input and output of a scenario. */

import type { Shape } from "./SyntheticGguf.ts"

/** The duration and number of measurements of a scenario, and its model. */
export interface Effort {
  /** Alternating rounds; a figure is the median of them. */
  readonly rounds: number
  /** Length of one measurement, ms. */
  readonly roundMs: number
  /** Load before the first measurement, so that code is compiled and caches are warm, ms. */
  readonly warmUpMs: number
  /** Length of a run with faults, minutes; left out, as the scenario has it. */
  readonly minutes?: number
  /** The size of the synthetic model. */
  readonly shape: Shape
}

/** The comparison of a figure with its baseline, or none. */
export type Comparison = "ratio" | "difference" | "none"

/** One line of the table. */
export interface Row {
  readonly scenario: string
  readonly measure: string
  readonly unit: string
  /** The baseline of the figure; left out if there is none. */
  readonly baseline?: number
  readonly troupe: number
  readonly comparison?: Comparison
  /** The target of the comparison, or with `none` of the figure itself. */
  readonly target?: { readonly atLeast: number } | { readonly atMost: number }
}

/** Rows of the table, remarks below it, and every figure behind them. */
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

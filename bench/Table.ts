/** The table: rows as aligned text, and their problems. */
import type { Row } from "./Scenario.ts"

/** The comparison of the figure with its baseline. */
export const compared = ({ baseline, comparison, troupe }: Row): number | undefined => {
  if (comparison === "none") return troupe
  if (baseline === undefined || comparison === undefined) return undefined
  return comparison === "ratio" ? troupe / baseline : troupe - baseline
}

/** Whether the target is met; undefined without a target. */
export const meetsTarget = (row: Row): boolean | undefined => {
  const value = compared(row)
  if (value === undefined || row.target === undefined) return undefined
  return "atLeast" in row.target ? value >= row.target.atLeast : value <= row.target.atMost
}

/** Whether every figure can be a measurement: finite, and not all zero. */
export const isSound = (row: Row): boolean =>
  [row.troupe, row.baseline ?? 1].every((figure) => Number.isFinite(figure) && figure > 0)

const digitsOf = (value: number): number => Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2

const figure = (value: number | undefined): string => value === undefined ? "" : value.toFixed(digitsOf(value))

const comparisonText = (row: Row): string => {
  const value = compared(row)
  if (value === undefined || row.comparison === "none") return ""
  return row.comparison === "ratio" ? `${value.toFixed(2)}x` : `${value < 0 ? "" : "+"}${figure(value)}`
}

const targetText = (row: Row): string => {
  if (row.target === undefined) return ""
  const sign = row.comparison === "ratio" ? "x" : ""
  const bound = "atLeast" in row.target ? `>= ${row.target.atLeast}` : `<= ${row.target.atMost}`
  return `${bound}${sign}: ${meetsTarget(row) === true ? "met" : "missed"}`
}

const headings = ["SCENARIO", "MEASURE", "UNIT", "BASELINE", "TROUPE", "COMPARED", "TARGET"]
/** Columns of figures, set flush right. */
const rightAligned = new Set([3, 4, 5])

export const format = (rows: ReadonlyArray<Row>): string => {
  const cells = [
    headings,
    ...rows.map((row) => [
      row.scenario,
      row.measure,
      row.unit,
      figure(row.baseline),
      figure(row.troupe),
      comparisonText(row),
      targetText(row)
    ])
  ]
  const widths = headings.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)))
  const pad = (cell: string, column: number) =>
    rightAligned.has(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)
  return cells.map((line) => line.map(pad).join("  ").trimEnd()).join("\n")
}

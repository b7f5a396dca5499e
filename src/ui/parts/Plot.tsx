/** A plot over time, drawn by uPlot, with the colors of the theme and a text for those who do not see it. */
import { useEffect, useRef } from "preact/hooks"
import uPlot from "uplot"
import { colorOf, themeChanges } from "../theme.ts"

export interface Series {
  readonly label: string
  /** A color of the style sheet. */
  readonly color: string
  readonly values: ReadonlyArray<number | null>
  readonly isDashed?: boolean
  readonly isStepped?: boolean
}

interface PlotProps {
  /** Says what the plot shows, for screen readers. */
  readonly label: string
  /** Seconds since 1970, ascending. */
  readonly times: ReadonlyArray<number>
  readonly series: ReadonlyArray<Series>
  readonly format: (value: number) => string
  readonly height?: number
  /** The least value that the axis ends at. */
  readonly most?: number
}

const axis = (grid: string, text: string) => ({
  stroke: text,
  font: "11px system-ui",
  grid: { stroke: grid, width: 1 },
  ticks: { stroke: grid, width: 1, size: 4 }
})

const seriesOf = ({ color, isDashed, isStepped, label }: Series, format: PlotProps["format"]): uPlot.Series => ({
  label,
  stroke: colorOf(color),
  width: 1.5,
  points: { show: false },
  value: (_, value) => value === null || value === undefined ? "–" : format(value),
  ...(isDashed === true ? { dash: [5, 4] } : {}),
  ...(isStepped === true ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {})
})

const optionsOf = ({ format, height = 180, most = 0, series }: PlotProps, width: number): uPlot.Options => {
  const grid = colorOf("line")
  const text = colorOf("muted")
  return {
    width,
    height,
    cursor: { y: false, points: { size: 6 } },
    scales: { y: { range: (_, low, high) => [Math.min(0, low), Math.max(most, high) * 1.05 || 1] } },
    axes: [
      { ...axis(grid, text), space: 70 },
      { ...axis(grid, text), size: 64, values: (_, values) => values.map((value) => format(value)) }
    ],
    series: [
      { value: (_, at) => at === null || at === undefined ? "–" : new Date(at * 1_000).toLocaleTimeString() },
      ...series.map((one) => seriesOf(one, format))
    ]
  }
}

const dataOf = ({ series, times }: PlotProps): uPlot.AlignedData =>
  [times, ...series.map(({ values }) => values)] as unknown as uPlot.AlignedData

export const Plot = (props: PlotProps) => {
  const frame = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | undefined>(undefined)
  const names = props.series.map(({ label }) => label).join()
  const changes = themeChanges.value
  useEffect(() => {
    const element = frame.current!
    const width = () => Math.max(200, element.clientWidth)
    const made = new uPlot(optionsOf(props, width()), dataOf(props), element)
    plot.current = made
    const observer = new ResizeObserver(() => made.setSize({ width: width(), height: props.height ?? 180 }))
    observer.observe(element)
    return () => {
      observer.disconnect()
      made.destroy()
      plot.current = undefined
    }
  }, [names, changes, props.most])
  useEffect(() => plot.current?.setData(dataOf(props)), [props.times, props.series])
  return (
    <figure class="plot">
      <figcaption>{props.label}</figcaption>
      <div ref={frame} aria-hidden="true" />
    </figure>
  )
}

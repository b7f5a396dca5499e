/** A distribution of times as bars, with its median and the time within which 95 % are. */
import type { Distribution } from "../../services/observability/RecentFigures.ts"
import { count, duration } from "../format.ts"
import { barsOf } from "../recent.ts"

interface HistogramProps {
  readonly label: string
  readonly distribution: Distribution
}

/** Units of the drawing. */
const width = 400
const height = 90

const summary = ({ distribution: { count: all, p50, p95 }, label }: HistogramProps): string =>
  all === 0 ? `${label}: nothing measured yet` : `${label}: half within ${duration(p50)}, 95 % within ${duration(p95)}`

export const Histogram = (props: HistogramProps) => {
  const bars = barsOf(props.distribution.buckets)
  const step = width / Math.max(1, bars.length)
  return (
    <figure class="histogram">
      <figcaption>{summary(props)}</figcaption>
      {bars.length > 0 && (
        <>
          <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={summary(props)}>
            {bars.map((bar, index) => (
              <rect
                key={bar.upTo}
                x={index * step + step * 0.06}
                y={height - bar.height * height}
                width={step * 0.88}
                height={bar.height * height}
              >
                <title>{`up to ${duration(bar.upTo)}: ${count(bar.count)}`}</title>
              </rect>
            ))}
          </svg>
          <div class="scale muted" aria-hidden="true">
            <span>{duration(bars[0]!.upTo)}</span>
            <span>{duration(bars.at(-1)!.upTo)}</span>
          </div>
        </>
      )}
    </figure>
  )
}

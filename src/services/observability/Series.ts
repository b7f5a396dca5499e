/**
 * Series of Effect's metrics, as Troupe's metrics make and update them.
 *
 * **Details**
 *
 * `of` looks a series up in the registry once. `Metric.update` does so each time: it merges the attributes, sorts them and makes
 * the text that is the key of the registry, for each of the twenty series that a request updates.
 *
 * **Gotchas**
 *
 * A series that is removed from the registry is not found again: counters and histograms of requests stay.
 */
import { Context, Effect, Metric } from "effect"

/** The bounds of durations in OpenTelemetry's GenAI conventions, v0.1.0, seconds. */
export const durationBounds = [
  0.01,
  0.02,
  0.04,
  0.08,
  0.16,
  0.32,
  0.64,
  1.28,
  2.56,
  5.12,
  10.24,
  20.48,
  40.96,
  81.92
]

/** The bounds of tokens there. */
export const tokenBounds = Array.from({ length: 14 }, (_, power) => 4 ** power)

type Attributes = Readonly<Record<string, string>>

export const counter = (id: string, description: string) => Metric.counter(id, { description, incremental: true })

export const gauge = (id: string, description: string) => Metric.gauge(id, { description })

export const histogram = (id: string, description: string, boundaries: ReadonlyArray<number>) =>
  Metric.histogram(id, { description, boundaries })

/** Updates one series of a metric. */
export type Update = (input: number) => void

/** The context with these attributes beside its own. */
export const withAttributes = (context: Context.Context<never>, attributes: Attributes): Context.Context<never> =>
  Context.add(context, Metric.CurrentMetricAttributes, {
    ...Context.get(context, Metric.CurrentMetricAttributes),
    ...attributes
  })

/** The series of a metric with these attributes, and those of the context. */
export const of = (
  metric: Metric.Counter<number> | Metric.Histogram<number>,
  context: Context.Context<never>,
  attributes: Attributes
): Update => {
  const own = withAttributes(context, attributes)
  // A registry of its own, to learn the key.
  const made: Metric.MetricRegistry = new Map()
  metric.valueUnsafe(Context.add(own, Metric.MetricRegistry, made))
  const [[key, series]] = [...made] as [[string, Metric.Metric.Metadata<number, unknown>]]
  const registry = Context.get(context, Metric.MetricRegistry)
  const { hooks } = registry.get(key) ?? series
  if (!registry.has(key)) registry.set(key, series)
  return hooks.update as Update
}

/** Reads the value of a gauge when it is asked for, until the scope ends. */
export const read = (metric: Metric.Gauge<number>, value: () => number) =>
  Effect.acquireRelease(
    Effect.map(Effect.context(), (context) =>
      Metric.registerUnsafe(metric, context, {
        get: () => ({ value: value() }),
        update: () => {},
        modify: () => {}
      })),
    (registration) => Effect.sync(() => registration.remove())
  )

/** What a sample has set. */
interface Sampled {
  readonly value: number
  readonly remove: () => void
}

const keyOf = ({ id }: Metric.Gauge<number>, attributes: Attributes): string => JSON.stringify([id, attributes])

/** Gauges that are sampled. A series that a sample leaves out is removed: what it was of is no longer there. */
export class SampledGauges {
  readonly #context: Context.Context<never>
  #before: ReadonlyMap<string, Sampled> = new Map()
  #now = new Map<string, Sampled>()

  constructor(context: Context.Context<never>) {
    this.#context = context
  }

  set(metric: Metric.Gauge<number>, value: number, attributes: Attributes = {}): void {
    const own = withAttributes(this.#context, attributes)
    metric.updateUnsafe(value, own)
    this.#now.set(keyOf(metric, attributes), { value, remove: () => Metric.removeUnsafe(metric, own) })
  }

  /** Adds to what this sample has set. */
  add(metric: Metric.Gauge<number>, value: number, attributes: Attributes): void {
    this.set(metric, value + (this.#now.get(keyOf(metric, attributes))?.value ?? 0), attributes)
  }

  /** Sets the higher one of a value and what this sample has set. */
  raise(metric: Metric.Gauge<number>, value: number, attributes: Attributes): void {
    this.set(metric, Math.max(value, this.#now.get(keyOf(metric, attributes))?.value ?? value), attributes)
  }

  /** Ends a sample. */
  end(): void {
    for (const [key, { remove }] of this.#before) if (!this.#now.has(key)) remove()
    this.#before = this.#now
    this.#now = new Map()
  }
}

/** The metrics, recorded into Effect's registry; memory and queues are sampled on a daemon fiber. */
import { Effect, Layer, Metric, Schedule } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import { Models } from "../models/Models.ts"
import type { ModelMetrics, Operation, Outcome } from "./Metrics.ts"
import { forModel, memoryUsage, Metrics, queueSize } from "./Metrics.ts"

export const layer = Layer.effect(
  Metrics,
  Effect.gen(function*() {
    const context = yield* Effect.context()
    const handles = new Map<string, ModelMetrics>()
    const handlesOf = (model: string, operation: Operation): ModelMetrics => {
      const key = `${operation} ${model}`
      const known = handles.get(key)
      if (known !== undefined) return known
      const made = forModel(model, operation)
      handles.set(key, made)
      return made
    }
    return Metrics.of({
      begin: (model, operation) => Effect.sync(() => handlesOf(model, operation).begun.updateUnsafe(1, context)),
      end: ({ end, model, operation, seconds, tokens }: Outcome) =>
        Effect.sync(() => {
          const metrics = handlesOf(model, operation)
          metrics.duration.updateUnsafe(seconds, context)
          metrics.tokens.updateUnsafe(tokens, context)
          if (end === "success") metrics.succeeded.updateUnsafe(1, context)
          if (end === "failure") {
            metrics.failed.updateUnsafe(1, context)
            metrics.errors.updateUnsafe(1, context)
          }
        })
    })
  })
)

/** Samples memory and queues by `Policies.sampleInterval`, for as long as the layer lives. */
export const layerSampler = Layer.effectDiscard(
  Effect.gen(function*() {
    const models = yield* Models
    const sample = Effect.gen(function*() {
      const statuses = yield* models.statuses
      const engines = statuses.reduce((sum, status) => sum + status.memoryBytes, 0)
      yield* Metric.update(memoryUsage, process.memoryUsage.rss() + engines)
      yield* Metric.update(queueSize, statuses.reduce((sum, status) => sum + status.queued, 0))
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(Policies.sampleInterval)))
  })
)

/** The metrics, recorded into Effect's registry; memory and queues are sampled on a daemon fiber. */
import { Effect, Layer, Metric, Schedule } from "effect"
import type { ModelMetrics, Outcome } from "../services/Metrics.ts"
import { forModel, memoryUsage, Metrics, queueSize } from "../services/Metrics.ts"
import { Models } from "../services/Models.ts"
import * as Policies from "../services/Policies.ts"

export const layer = Layer.effect(
  Metrics,
  Effect.gen(function*() {
    const context = yield* Effect.context()
    const handles = new Map<string, ModelMetrics>()
    const handlesOf = (model: string): ModelMetrics => {
      const known = handles.get(model)
      if (known !== undefined) return known
      const made = forModel(model, "chat")
      handles.set(model, made)
      return made
    }
    return Metrics.of({
      begin: (model) => Effect.sync(() => handlesOf(model).begun.updateUnsafe(1, context)),
      end: ({ end, model, seconds, tokens }: Outcome) =>
        Effect.sync(() => {
          const metrics = handlesOf(model)
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

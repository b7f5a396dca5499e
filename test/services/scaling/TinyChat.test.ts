/** Replicas of a real model, in processes of their own. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Ref, References, Schedule } from "effect"
import { fileURLToPath } from "node:url"
import * as App from "../../../src/App.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { Machine, unknown } from "../../../src/services/scaling/Machine.ts"
import { ScalingReports } from "../../../src/services/scaling/ScalingReport.ts"

const file = fileURLToPath(new URL("../../../models/tiny-chat-q8_0.gguf", import.meta.url))

const app = App.layer({
  engineHost: "process",
  config: {
    // Targets that the memory of a full machine does not reach.
    scaling: {
      maxReplicas: 2,
      targets: { memory: 1 },
      every: "50 ms",
      smoothing: "50 ms",
      upAfter: "100 ms",
      downAfter: "200 ms",
      cooldown: "200 ms",
      addition: "100 ms"
    },
    models: { "tiny-chat": { deployments: [{ engine: "llama", file, slots: 1, contextSize: 256 }] } }
  }
}).pipe(Layer.provide(Layer.succeed(Machine, unknown)))

const until = (replicas: number) =>
  Models.use(({ occupancy }) => occupancy("tiny-chat#0")).pipe(
    Effect.repeat({
      until: (found) => found?.replicas === replicas && !found.isLoading,
      schedule: Schedule.spaced("20 millis")
    }),
    Effect.timeout("50 seconds")
  )

describe("tiny-chat", () => {
  it.live("gets a second replica under load and loses it afterwards, and no request fails", () =>
    Effect.gen(function*() {
      const inference = yield* Inference
      const isBusy = yield* Ref.make(true)
      const ask = inference.generate({
        model: "tiny-chat",
        messages: [{ role: "user", content: "What is the capital of France?" }],
        temperature: 0,
        maxTokens: 24
      })
      const caller = Effect.repeat(ask, { while: () => Ref.get(isBusy) })
      const answers = yield* Effect.forkChild(
        Effect.all([caller, caller], { concurrency: "unbounded" })
      )
      yield* until(2)
      yield* Ref.set(isBusy, false)
      yield* Fiber.join(answers)
      yield* until(1)
      const { text } = yield* ask
      assert.include(text, "Paris")
      const report = (yield* ScalingReports).of("tiny-chat#0")
      assert.deepInclude(report, { replicas: 1, minReplicas: 1, maxReplicas: 2 })
      assert.strictEqual(report?.changed?.direction, "down")
    }).pipe(Effect.provide(app), Effect.provideService(References.MinimumLogLevel, "Error")))
})

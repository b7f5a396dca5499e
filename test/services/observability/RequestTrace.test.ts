import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Tracer } from "effect"
import { InferenceError, ModelNotFound } from "../../../src/domain/InferenceError.ts"
import * as GuardedCallbacks from "../../../src/services/observability/GuardedCallbacks.ts"
import * as RequestTrace from "../../../src/services/observability/RequestTrace.ts"

const named: RequestTrace.Named = {
  operation: "chat",
  model: "gpt",
  attributes: () => ({ "user.id": "key-1", left: undefined })
}

/** Runs with what arrives at a program that has a tracer; returns its spans. */
const traced = Effect.fnUntraced(function*(use: (arrival: RequestTrace.Arrival) => void) {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const parts = { callbacks: yield* GuardedCallbacks.make, clock: yield* Clock.Clock, tracing: undefined }
  yield* Effect.withFiber((fiber) => Effect.sync(() => use(RequestTrace.arrive(parts, fiber)!))).pipe(
    Effect.provideService(Tracer.Tracer, tracer)
  )
  return spans
})

describe("a request's span", () => {
  it.effect("has the attributes of its begin and its end", () =>
    Effect.gen(function*() {
      const [span] = yield* traced((arrival) =>
        arrival.begin(named)?.end(Exit.void, (to) => to.put("gen_ai.provider.name", "openai"))
      )
      assert.deepStrictEqual(Object.fromEntries(span!.attributes), {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt",
        "troupe.component": "request",
        "user.id": "key-1",
        "gen_ai.provider.name": "openai"
      })
    }).pipe(Effect.scoped))

  it.effect("is named by its operation alone where the model does not exist", () =>
    Effect.gen(function*() {
      const error = new InferenceError({ reason: new ModelNotFound({ model: "none", available: [] }) })
      const [span] = yield* traced((arrival) => arrival.refused({ ...named, model: undefined }, error))
      assert.strictEqual(span?.name, "chat")
      assert.isTrue(span?.status._tag === "Ended" && Exit.isFailure(span.status.exit))
      assert.strictEqual(span?.attributes.get("error.type"), "ModelNotFound")
    }).pipe(Effect.scoped))

  it.effect("is none where nothing records it", () =>
    Effect.gen(function*() {
      const parts = { callbacks: yield* GuardedCallbacks.make, clock: yield* Clock.Clock, tracing: undefined }
      yield* Effect.withFiber((fiber) => Effect.sync(() => assert.isUndefined(RequestTrace.arrive(parts, fiber))))
    }).pipe(Effect.scoped))
})

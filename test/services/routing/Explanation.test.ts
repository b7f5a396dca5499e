import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { defaults } from "../../../src/domain/RoutingPolicy.ts"
import * as Providers from "../../../src/services/engines/Providers.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { make as makeRegistry, Registry } from "../../../src/services/models/Registry.ts"
import * as Explanation from "../../../src/services/routing/Explanation.ts"
import { Router } from "../../../src/services/routing/Router.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const settingOf = (strategy: "quality" | "round-robin"): Setting => ({
  models: { a: [{ options: { quality: 0.5 } }, { options: { quality: 0.9 } }], b: [{}] },
  fallbacks: { a: ["b", "cached-responses"] },
  policy: {
    selection: { ...defaults.selection, strategy },
    hedge: { share: 0.1 },
    timeouts: { firstTokenMs: 1_000, stallMs: undefined }
  }
})

const explained = Router.use(({ preview }) =>
  Effect.map(Effect.fromResult(preview({ model: "a", capabilities: ["generate"] })), Explanation.make)
)

const answeredBy = Inference.use(({ generate }) =>
  Effect.map(generate({ model: "a", messages: [{ role: "user", content: "Hello" }] }), ({ deployment }) => deployment)
)

describe("an explanation", () => {
  it.effect("is plain data of its schema: the plan in order, without absent limits", () =>
    Effect.gen(function*() {
      const explanation = yield* explained
      assert.deepStrictEqual(explanation.plan.lists, {
        ordinary: ["a#1", "a#0", "b#0", "cached-responses"],
        context: [],
        content: []
      })
      assert.deepStrictEqual(explanation.plan.timeouts, { firstTokenMs: 1_000 })
      assert.deepStrictEqual(explanation.plan.hedge, { share: 0.1 })
      const json = JSON.parse(JSON.stringify(explanation)) as unknown
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(Explanation.Explanation)(json), explanation)
      assert.strictEqual(yield* answeredBy, "a#1")
    }).pipe(Effect.provide(world(settingOf("quality")).layer)))

  it.effect("does not count as a turn", () =>
    Effect.gen(function*() {
      const before = yield* answeredBy
      const next = (yield* explained).plan.lists.ordinary[0]
      assert.notStrictEqual(next, before)
      assert.strictEqual((yield* explained).plan.lists.ordinary[0], next)
      assert.strictEqual(yield* answeredBy, next)
    }).pipe(Effect.provide(world(settingOf("round-robin")).layer)))

  it.effect("lists the deployments of the plan whose keys are in cooldown", () =>
    Effect.gen(function*() {
      const { cooldowns } = yield* Explanation.explain({ model: "a" })
      assert.deepStrictEqual(cooldowns, [{ deployment: "a#0", retryAfterMs: 42_000 }])
    }).pipe(
      Effect.provideService(
        Providers.Providers,
        {
          ...Providers.none,
          waitingKeys: ({ id }) => ({ waiting: id === "a#0" ? 2 : 1, total: 2, rejected: 0, retryAfterMs: 42_000 })
        }
      ),
      Effect.provideService(Registry, makeRegistry([])),
      Effect.provide(world(settingOf("quality")).layer)
    ))

  it("reads a prompt as engines do: without tools, as one message", () => {
    const request = Explanation.routingRequestOf({ prompt: "Hello", needs: ["tools"], maxTokens: 5 }, "a")
    assert.deepInclude(request, { model: "a", capabilities: ["generate", "tools"], maxTokens: 5, promptLength: 5 })
    assert.strictEqual(request.promptText?.(), `[[],[{"role":"user","content":"Hello"}]]`)
    assert.isUndefined(Explanation.routingRequestOf({}, "a").promptText?.())
  })
})

/** An application composed from parts: each takes effect when it is added alone, and the rest works without it. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Metric, Result, Stream } from "effect"
import type { Response } from "effect/ai"
import { LanguageModel } from "effect/ai"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as App from "../src/App.ts"
import * as LanguageModels from "../src/layers/ai/LanguageModels.ts"
import { Inference } from "../src/services/inference/Inference.ts"
import * as Explanation from "../src/services/routing/Explanation.ts"
import type { Route } from "../src/services/routing/Route.ts"
import { Router } from "../src/services/routing/Router.ts"
import type { Settings } from "../src/services/settings/Settings.ts"

const fakeConfig = (reply: string): App.Config => ({
  models: { "fake/a": { deployments: [{ engine: "fake", reply }] } }
})

const ask = (model: string) =>
  Effect.flatMap(
    Inference,
    ({ generate }) => generate({ model, messages: [{ role: "user", content: "What color is snow?" }], temperature: 0 })
  )

const textOf = (model: string) => Effect.map(ask(model), ({ text }) => text)

/** Adds settings of this configuration. */
const configured = (config: App.Config) => Layer.provide(App.settings({ config }))

/** The lines of what building the application fails with. */
const problemsOf = <A, E extends { readonly message: string }>(app: Layer.Layer<A, E>) =>
  Layer.build(app).pipe(Effect.scoped, Effect.flip, Effect.map(({ message }) => message.split("\n").slice(1)))

describe("an application without parts", () => {
  it.live("names every part that its configuration needs", () =>
    Effect.gen(function*() {
      const config: App.Config = {
        policies: { nearest: { strategy: "custom/nearest" } },
        models: {
          "fake/a": { deployments: [{ engine: "fake" }] },
          files: { deployments: [{ engine: "llama", file: "a.gguf" }, { engine: "onnx", folder: "a" }] },
          remote: { deployments: [{ provider: "openai", model: "m" }], strategy: "custom/mine" },
          given: { deployments: [{ engine: "language-model", name: "given" }] }
        }
      }
      assert.deepStrictEqual(yield* problemsOf(App.core.pipe(configured(config))), [
        "  models.fake/a.deployments[0]: Expected the part App.fake",
        "  models.files.deployments[0]: Expected the part App.llama",
        "  models.files.deployments[1]: Expected the part App.onnx",
        "  models.remote.deployments[0]: Expected the part App.providers",
        "  models.given.deployments[0]: Expected the part LanguageModels.layer({ \"given\": ... })",
        "  policies.nearest.strategy: Expected the part App.strategy({ name: \"custom/nearest\", ... })",
        "  models.remote.strategy: Expected the part App.strategy({ name: \"custom/mine\", ... })"
      ])
    }))

  it("requires settings, by its type", () => {
    expectTypeOf<Layer.Services<typeof App.core>>().toEqualTypeOf<Settings>()
    expectTypeOf<Layer.Services<typeof App.fake>>().toEqualTypeOf<never>()
    assert.isTrue(Layer.isLayer(App.core))
  })
})

describe("the part of an engine", () => {
  const models = {
    fake: { part: App.fake, deployment: { engine: "fake", reply: "Snow is white." } },
    llama: { part: App.llama, deployment: { engine: "llama", file: "models/tiny-chat-q8_0.gguf" } },
    onnx: { part: App.onnx, deployment: { engine: "onnx", folder: "models/tiny-chat-onnx" } }
  } as const

  for (const [kind, { deployment, part }] of Object.entries(models)) {
    it.live(`runs deployments of ${kind} and no others`, () =>
      Effect.gen(function*() {
        const name = kind === "fake" ? "fake/a" : "a"
        const app = App.core.pipe(
          Layer.provide(part),
          configured({ models: { [name]: { deployments: [deployment] } } })
        )
        assert.strictEqual(yield* Effect.provide(textOf(name), app), "Snow is white.")
        const all = { "fake/a": models.fake.deployment, b: models.llama.deployment, c: models.onnx.deployment }
        const config = {
          models: Object.fromEntries(Object.entries(all).map(([name, one]) => [name, { deployments: [one] }] as const))
        }
        const others = Object.keys(models).filter((other) => other !== kind)
        assert.deepStrictEqual(
          (yield* problemsOf(App.core.pipe(Layer.provide(part), configured(config)))).map((line) =>
            line.split(".").at(-1)
          ),
          others
        )
      }))
  }

  it.live("can be added beside another", () =>
    Effect.gen(function*() {
      const app = App.core.pipe(
        Layer.provide(App.llama),
        Layer.provide(App.fake),
        configured({
          models: {
            "fake/a": { deployments: [models.fake.deployment] },
            b: { deployments: [models.llama.deployment] }
          }
        })
      )
      const both = Effect.all([textOf("fake/a"), textOf("b")])
      assert.deepStrictEqual(yield* Effect.provide(both, app), ["Snow is white.", "Snow is white."])
    }))
})

/** A provider of one answer. */
const provider = Effect.acquireRelease(
  Effect.callback<{ readonly server: ReturnType<typeof createServer>; readonly baseUrl: string }>((resume) => {
    const server = createServer((_, response) => {
      response.setHeader("content-type", "application/json").end(JSON.stringify({
        choices: [{ index: 0, message: { role: "assistant", content: "White." }, finish_reason: "stop" }],
        usage: { prompt_tokens: 3, completion_tokens: 2 }
      }))
    })
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      resume(Effect.succeed({ server, baseUrl: `http://127.0.0.1:${port}/v1` }))
    })
  }),
  ({ server }) => Effect.sync(() => server.close())
)

describe("the part of the providers", () => {
  it.live("serves remote deployments, without an engine", () =>
    Effect.gen(function*() {
      const { baseUrl } = yield* provider
      const config: App.Config = {
        models: { remote: { deployments: [{ provider: "openai", model: "m", baseUrl, stream: false }] } }
      }
      const app = App.core.pipe(Layer.provide(App.providers), configured(config))
      assert.strictEqual(yield* Effect.provide(textOf("remote"), app), "White.")
      assert.deepStrictEqual(yield* problemsOf(App.core.pipe(Layer.provide(App.engines), configured(config))), [
        "  models.remote.deployments[0]: Expected the part App.providers"
      ])
    }).pipe(Effect.scoped))
})

describe("the part of a strategy", () => {
  it("is named where a configuration has an unknown strategy", async () => {
    const config = { policies: { default: { strategy: "widest" } } } as unknown as App.Config
    const error = await Effect.runPromise(Effect.flip(Effect.scoped(Layer.build(App.layer({ config })))))
    assert.match(error.message, /Expected one of "balanced", .*"prefix", or custom\/NAME of App\.strategy/)
  })

  const score = (): number => 0
  const wrong: ReadonlyArray<readonly [custom: unknown, message: string]> = [
    [{ name: "widest", score }, "name: Expected a name that begins with custom/"],
    [{ nme: "custom/a", score }, "nme: Unknown field. Did you mean name?"],
    [{ name: "custom/a" }, "score: Expected a function"],
    [null, "Expected an object with `name` and `score`"]
  ]

  it.each(wrong)("fails for %o", async (custom, message) => {
    const layer = App.strategy(custom as Parameters<typeof App.strategy>[0])
    const error = await Effect.runPromise(Effect.flip(Effect.scoped(Layer.build(layer))))
    assert.include(error.message, message)
  })

  const last = App.strategy({ name: "custom/last", score: ({ deployment }) => Number(deployment.split("#")[1]) })
  const first = App.strategy({ name: "custom/first", score: ({ deployment }) => -Number(deployment.split("#")[1]) })
  const deployments = [{ engine: "fake" }, { engine: "fake" }, { engine: "fake" }] as const
  const config: App.Config = {
    policies: { default: { strategy: "custom/last" } },
    models: { "fake/a": { deployments }, "fake/b": { deployments, strategy: "custom/first" } }
  }
  const chosen = Effect.map(
    Effect.all([ask("fake/a"), ask("fake/b")]),
    (answers) => answers.map((one) => one.deployment)
  )

  it.live("chooses for the policies and models that name it", () =>
    Effect.gen(function*() {
      const app = App.core.pipe(Layer.provide(App.fake), Layer.provide(Layer.merge(first, last)), configured(config))
      assert.deepStrictEqual(yield* Effect.provide(chosen, app), ["fake/a#2", "fake/b#0"])
    }))

  it.live("is added to the whole runtime alike", () =>
    Effect.gen(function*() {
      const app = App.layer({ config }).pipe(Layer.provide(first), Layer.provide(last))
      assert.deepStrictEqual(yield* Effect.provide(chosen, app), ["fake/a#2", "fake/b#0"])
      assert.deepStrictEqual(yield* problemsOf(App.layer({ config }).pipe(Layer.provide(first))), [
        "  policies.default.strategy: Expected the part App.strategy({ name: \"custom/last\", ... })"
      ])
    }))
})

/** Answers its first request; later ones fail. */
const onceOnly = () => {
  let calls = 0
  return Layer.effect(
    LanguageModel.LanguageModel,
    LanguageModel.make({
      generateText: () => Effect.succeed([]),
      streamText: () =>
        calls++ > 0
          ? Stream.die(new Error("used up"))
          : Stream.fromIterable<Response.StreamPartEncoded>([
            { type: "text-start", id: "t" },
            { type: "text-delta", id: "t", delta: "White." },
            { type: "finish", reason: "stop", usage: { inputTokens: {}, outputTokens: {} } }
          ])
    })
  )
}

describe("the part of the cache", () => {
  const core = (...parts: ReadonlyArray<typeof App.cache>) =>
    App.core.pipe(
      (core) => parts.reduce((app, part) => Layer.provide(app, part), core),
      Layer.provide(LanguageModels.layer({ once: { layer: onceOnly(), configure: () => Context.empty() } })),
      configured({
        policies: { default: { retries: 0 } },
        models: {
          once: { deployments: [{ engine: "language-model", name: "once" }], fallbacks: ["cached-responses"] }
        }
      })
    )
  const twice = Effect.andThen(ask("once"), Effect.exit(ask("once")))

  it.live("keeps answers, and returns one when everything else fails", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.provide(twice, core(App.cache))
      assert.isTrue(Exit.isSuccess(exit) && exit.value.deployment === "cached-responses")
    }))

  it.live("is not needed: without it the failure is the answer", () =>
    Effect.gen(function*() {
      assert.isTrue(Exit.isFailure(yield* Effect.provide(twice, core())))
    }))
})

describe("the part of monitoring", () => {
  const core = App.core.pipe(Layer.provide(App.fake), configured(fakeConfig("Hi")))
  const metricsOf = <E>(app: Layer.Layer<Inference, E>) => {
    const registry = new Map<string, Metric.Metric.Hooks<unknown, unknown>>()
    return Effect.as(Effect.provide(ask("fake/a"), app), registry).pipe(
      Effect.provideService(Metric.MetricRegistry, registry as never),
      Effect.map((kept) => [...kept.keys()].filter((key) => key.includes("llm_requests_total")).length)
    )
  }

  it.live("keeps metrics of requests", () =>
    Effect.gen(function*() {
      assert.isAbove(yield* metricsOf(core.pipe(Layer.provide(App.monitoring))), 0)
    }))

  it.live("is not needed: without it no metric is kept", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* metricsOf(core), 0)
    }))
})

describe("applications in one program", () => {
  it.live("share nothing, though they are composed from the same parts", () =>
    Effect.gen(function*() {
      const app = (reply: string) => App.core.pipe(Layer.provide(App.fake), configured(fakeConfig(reply)))
      const text = textOf("fake/a")
      const inner = Effect.provide(text, app("inner"))
      assert.deepStrictEqual(
        yield* Effect.provide(Effect.all([text, inner, text]), app("outer")),
        ["outer", "inner", "outer"]
      )
    }))

  it.live("are one where one layer is used in several places", () =>
    Effect.gen(function*() {
      for (
        const app of [
          App.layer({ config: fakeConfig("Hi") }),
          App.core.pipe(Layer.provide(App.fake), configured(fakeConfig("Hi")))
        ]
      ) {
        const inference = Effect.provide(Inference, app)
        const [one, two] = yield* Effect.provide(Effect.all([inference, inference]), app)
        assert.strictEqual(one, two)
      }
    }))
})

describe("a replaced router", () => {
  /** The last deployment goes first. */
  const router = Layer.effect(
    Router,
    Effect.map(Router, (own) => {
      const byId = (route: Route): Route => ({
        ...route,
        deployments: route.deployments.toSorted((one, other) => other.id.localeCompare(one.id))
      })
      return Router.of({
        ...own,
        route: (request) => Result.map(own.route(request), byId),
        preview: (request) => Result.map(own.preview(request), byId)
      })
    })
  ).pipe(Layer.provide(App.services.router))
  const config: App.Config = {
    models: { "fake/a": { deployments: [{ engine: "fake", reply: "first" }, { engine: "fake", reply: "second" }] } }
  }
  const apps = {
    "of App.layer": App.layer({ config, services: { router } }),
    "of App.coreWith": App.coreWith({ router }).pipe(Layer.provide(App.fake), configured(config))
  }

  for (const [name, app] of Object.entries(apps)) {
    it.live(`${name} routes every request and every explanation`, () =>
      Effect.gen(function*() {
        const inference = yield* Inference
        assert.strictEqual(yield* textOf("fake/a"), "second")
        const request = { model: "fake/a", messages: [{ role: "user", content: "Hello!" }], temperature: 0 } as const
        const events = yield* Stream.runCollect(inference.stream(request))
        assert.strictEqual(events.map((event) => event.type === "text" ? event.text : "").join(""), "second")
        const { deployment } = yield* inference.embed({ model: "fake/a", inputs: ["Hello!"] })
        assert.strictEqual(deployment, "fake/a#1")
        const { plan } = yield* Explanation.explain({ model: "fake/a" })
        assert.deepStrictEqual(plan.lists.ordinary, ["fake/a#1", "fake/a#0"])
      }).pipe(Effect.provide(app)))
  }
})

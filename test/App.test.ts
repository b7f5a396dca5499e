import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Stream } from "effect"
import type { Response } from "effect/ai"
import { LanguageModel } from "effect/ai"
import { HttpServer } from "effect/http"
import * as App from "../src/App.ts"
import type { Model } from "../src/domain/Deployment.ts"
import * as LanguageModels from "../src/layers/ai/LanguageModels.ts"
import { Admission } from "../src/services/admission/Admission.ts"
import { ResponseCache } from "../src/services/cache/ResponseCache.ts"
import { Engines } from "../src/services/engines/Engine.ts"
import { Providers } from "../src/services/engines/Providers.ts"
import { Breaker } from "../src/services/health/Breaker.ts"
import { Inference } from "../src/services/inference/Inference.ts"
import { Memory } from "../src/services/models/Memory.ts"
import { Pressure } from "../src/services/models/MemoryPressure.ts"
import { Models } from "../src/services/models/Models.ts"
import { Registry } from "../src/services/models/Registry.ts"
import { Metrics } from "../src/services/observability/Metrics.ts"
import { Backoff } from "../src/services/resilience/Backoff.ts"
import { Rollouts } from "../src/services/rollout/Rollouts.ts"
import { DecisionLog } from "../src/services/routing/DecisionLog.ts"
import { Router } from "../src/services/routing/Router.ts"
import { languageModel } from "../src/services/settings/Resolution.ts"
import { Settings } from "../src/services/settings/Settings.ts"
import * as Deployments from "./support/Deployments.ts"

const deployment = (index: number) =>
  Deployments.deployment(`fake/a#${index}`, {
    // The second one cannot be loaded, which no one asks for.
    options: index === 0 ? { engine: "fake" } : { engine: "fake", fault: { kind: "load" } },
    preload: true
  })

const models: ReadonlyArray<Model> = [{ name: "fake/a", deployments: [deployment(0), deployment(1)] }]

const settings = Deployments.settings({ models })

const service = () =>
  Effect.gen(function*() {
    const context = yield* Layer.build(Layer.fresh(Layer.provide(App.service, Layer.succeed(Settings, settings))))
    return yield* Effect.map(HttpServer.HttpServer, ({ address }) => "port" in address ? address.port : 0).pipe(
      Effect.provideContext(context)
    )
  })

const readiness = (port: number) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}/health/ready`)
    return [response.status, (await response.json() as { status: string }).status]
  })

const echo = Layer.effect(
  LanguageModel.LanguageModel,
  LanguageModel.make({
    generateText: () => Effect.succeed([]),
    streamText: ({ prompt }) =>
      Stream.fromIterable<Response.StreamPartEncoded>([
        { type: "text-start", id: "t" },
        { type: "text-delta", id: "t", delta: `${prompt.content.length} message` },
        { type: "finish", reason: "stop", usage: { inputTokens: { total: 3 }, outputTokens: { total: 2 } } }
      ])
  })
)

describe("App.layer", () => {
  it.live("serves language models that the program provides beside the models of the settings", () =>
    Effect.gen(function*() {
      const { models } = yield* Registry
      assert.deepStrictEqual(models().map(({ name }) => name), ["tiny-chat", "tiny-embed", "echo"])
      const { generate } = yield* Inference
      const answer = yield* generate({ model: "echo", messages: [{ role: "user", content: "Hello" }] })
      const { decision, ...rest } = answer
      assert.match(decision, /^dec-/)
      assert.deepStrictEqual(rest, {
        text: "1 message",
        toolCalls: [],
        finishReason: "stop",
        usage: { promptTokens: 3, completionTokens: 2, cachedTokens: 0 },
        deployment: "echo#0",
        attempts: 1
      })
    }).pipe(Effect.provide(App.layer({ languageModels: { echo } }))))

  it.live("leaves a model of the settings its name", () =>
    Effect.gen(function*() {
      const { models } = yield* Registry
      const [model, ...others] = models()
      assert.strictEqual(model?.deployments[0].options.engine, "llama")
      assert.deepStrictEqual(others.map(({ name }) => name), ["tiny-embed"])
    }).pipe(Effect.provide(App.layer({ languageModels: { "tiny-chat": echo } }))))
})

const tags = {
  providers: Providers,
  engines: Engines,
  memory: Memory,
  registry: Registry,
  models: Models,
  breaker: Breaker,
  router: Router,
  metrics: Metrics,
  pressure: Pressure,
  decisionLog: DecisionLog,
  responseCache: ResponseCache,
  backoff: Backoff,
  admission: Admission,
  inference: Inference
} satisfies Record<keyof App.Services, unknown>

/** Troupe's own service, with the reads of its methods noted under its name. */
const observed = (name: string, layer: Layer.Layer<never, unknown>, used: Set<string>) => {
  const tag = tags[name as keyof typeof tags] as unknown as Context.Service<object, object>
  return Layer.effect(
    tag,
    Effect.map(Layer.build(layer), (context) =>
      new Proxy(Context.get(context as Context.Context<object>, tag), {
        get(service, property) {
          used.add(name)
          const value = Reflect.get(service, property) as unknown
          return typeof value === "function" ? value.bind(service) : value
        }
      }))
  )
}

const fakeModel = (reply: string): App.Options => ({
  config: { models: { "fake/a": { deployments: [{ engine: "fake", reply }], fallbacks: ["cached-responses"] } } }
})

const answerTo = Effect.map(
  Effect.flatMap(
    Inference,
    ({ generate }) => generate({ model: "fake/a", messages: [{ role: "user", content: "Hello" }], temperature: 0 })
  ),
  ({ text }) => text
)

describe("App.layer, services", () => {
  it.live("uses the given service wherever Troupe's own would be used, for each of them", () =>
    Effect.gen(function*() {
      const used = new Set<string>()
      const services = Object.fromEntries(
        Object.entries(App.services).map(([name, layer]) => [
          name,
          observed(name, layer as Layer.Layer<never, unknown>, used)
        ])
      ) as Partial<App.Services>
      // A provider is asked only where a deployment is remote; this one refuses connections.
      const config: App.Config = {
        models: {
          "fake/a": {
            deployments: [{ engine: "fake", reply: "Hi" }],
            fallbacks: ["remote", "cached-responses"]
          },
          remote: { deployments: [{ provider: "openai", model: "m", baseUrl: "http://127.0.0.1:9" }] }
        }
      }
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* answerTo, "Hi")
        const { generate } = yield* Inference
        // Memory pressure decides on requests of low priority only.
        yield* Effect.exit(
          generate({ model: "remote", messages: [{ role: "user", content: "Hello" }], priority: "low" })
        )
      }).pipe(Effect.provide(App.layer({ config, services })))
      assert.deepStrictEqual([...used].toSorted(), Object.keys(App.services).toSorted())
    }))

  it.live("shares nothing between two of them in one program", () =>
    Effect.gen(function*() {
      const inner = Effect.provide(answerTo, App.layer(fakeModel("inner")))
      const both = Effect.all([answerTo, inner, answerTo])
      assert.deepStrictEqual(yield* Effect.provide(both, App.layer(fakeModel("outer"))), ["outer", "inner", "outer"])
    }))
})

describe("App.layer, with a rollout or an A/B test in its settings", () => {
  const ask = Effect.gen(function*() {
    const { generate } = yield* Inference
    return (yield* generate({ model: "fake/chat", messages: [{ role: "user", content: "Hello" }] })).text
  })
  const versions = [{ engine: "fake", reply: "old" }, { engine: "fake", reply: "new" }] as const

  it.live("divides requests among the variants", () =>
    Effect.gen(function*() {
      const variants = [{ deployment: "fake/chat#0", weight: 0 }, { deployment: "fake/chat#1", weight: 1 }]
      const config: App.Config = { models: { "fake/chat": { deployments: versions, experiment: { variants } } } }
      assert.strictEqual(yield* Effect.provide(ask, App.layer({ config })), "new")
    }))

  it.live("rolls out what the program starts", () =>
    Effect.gen(function*() {
      const [old, candidate] = versions
      const config: App.Config = {
        models: { "fake/chat": { deployments: [old, { ...candidate, rollout: "candidate" }], rollout: { steps: [1] } } }
      }
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* ask, "old")
        const { start } = Option.getOrThrow(yield* Effect.serviceOption(Rollouts))
        yield* start({ model: "fake/chat", to: "fake/chat#1" })
        // The candidate gets its share after its check.
        yield* Effect.repeat(ask, { until: (answer) => answer === "new" })
      }).pipe(Effect.provide(App.layer({ config })))
    }))

  it.live("has no rollouts otherwise", () =>
    Effect.gen(function*() {
      const config: App.Config = { models: { "fake/chat": { deployments: versions } } }
      const found = yield* Effect.provide(Effect.serviceOption(Rollouts), App.layer({ config }))
      assert.isTrue(Option.isNone(found))
    }))
})

describe("App.layer, config", () => {
  const failure = (options: App.Options) =>
    Effect.flip(Effect.provide(answerTo, App.layer(options))).pipe(Effect.map((error) => error.message))

  it.live("takes the configuration as a value, with a literal key", () =>
    Effect.gen(function*() {
      const text = yield* Effect.provide(
        answerTo,
        App.layer({
          config: {
            models: {
              "fake/a": { deployments: [{ engine: "fake", reply: "Hi" }] },
              remote: { deployments: [{ provider: "openai", model: "m", key: `sk-${"a".repeat(40)}` }] }
            }
          }
        })
      )
      assert.strictEqual(text, "Hi")
    }))

  it.live("names every field that is wrong, and refuses a file beside it", () =>
    Effect.gen(function*() {
      const wrong = {
        models: { "fake/a": { deployments: [{ engine: "fake" }], idelUnload: "1 minute", queueLimit: 0 } }
      }
      const message = yield* failure({ config: wrong as unknown as App.Config })
      assert.match(message, /^Invalid configuration: the option `config`\n/)
      assert.include(message, "idelUnload")
      assert.include(message, "queueLimit")
      assert.include(
        yield* failure({ ...fakeModel("Hi"), file: "troupe.yaml" }),
        "Set either `config` or `file`, not both"
      )
    }))
})

describe("App.service", () => {
  it.live("serves a language model over HTTP", () =>
    Effect.gen(function*() {
      const models: ReadonlyArray<Model> = [languageModel("echo")]
      const running = App.service.pipe(
        Layer.provide(Layer.succeed(Settings, { ...settings, models })),
        Layer.provide(LanguageModels.layer({ echo }))
      )
      const context = yield* Layer.build(Layer.fresh(running))
      const { address } = Context.get(context, HttpServer.HttpServer)
      const response = yield* Effect.promise(async () => {
        const answer = await fetch(`http://127.0.0.1:${"port" in address ? address.port : 0}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ model: "echo", messages: [{ role: "user", content: "Hello" }] })
        })
        return await answer.json() as { readonly choices: ReadonlyArray<{ readonly message: unknown }> }
      })
      assert.deepInclude(response.choices[0]?.message, { content: "1 message" })
    }).pipe(Effect.scoped))

  it.live("can run twice in one process, at once and one after another", () =>
    Effect.gen(function*() {
      const outer = yield* service()
      yield* Effect.scoped(Effect.gen(function*() {
        assert.deepStrictEqual(yield* readiness(yield* service()), [200, "ready"])
      }))
      assert.deepStrictEqual(yield* readiness(outer), [200, "ready"])
      assert.deepStrictEqual(yield* readiness(yield* service()), [200, "ready"])
    }).pipe(Effect.scoped))
})

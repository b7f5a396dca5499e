import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import type { Response } from "effect/ai"
import { LanguageModel } from "effect/ai"
import { HttpServer } from "effect/http"
import * as App from "../src/App.ts"
import * as LanguageModels from "../src/layers/ai/LanguageModels.ts"
import { Inference } from "../src/services/Inference.ts"
import type { Model } from "../src/services/Model.ts"
import { Registry } from "../src/services/Registry.ts"
import { languageModel, Settings } from "../src/services/Settings.ts"
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
      assert.deepStrictEqual((yield* models).map(({ name }) => name), ["tiny-chat", "echo"])
      const { generate } = yield* Inference
      const answer = yield* generate({ model: "echo", messages: [{ role: "user", content: "Hello" }] })
      const { decision, ...told } = answer
      assert.match(decision, /^dec-/)
      assert.deepStrictEqual(told, {
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
      const [model, ...others] = yield* models
      assert.strictEqual(model?.deployments[0].options.engine, "llama")
      assert.deepStrictEqual(others, [])
    }).pipe(Effect.provide(App.layer({ languageModels: { "tiny-chat": echo } }))))
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

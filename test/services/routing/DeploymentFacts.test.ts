import { assert, describe, it } from "@effect/vitest"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import * as KnownModels from "../../../src/domain/KnownModels.ts"
import { factsOf } from "../../../src/services/routing/DeploymentFacts.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"

const of = (options: DeploymentOptions) => factsOf(modelWith("m", options).deployments[0])

const remote = { engine: "remote", provider: "openai", model: "gpt-4o" } as const

describe("Facts", () => {
  it("has no cost for a local model, and no price for a remote one without configuration", () => {
    assert.deepStrictEqual(of({ engine: "fake" }).price, { input: 0, output: 0 })
    assert.strictEqual(of({ engine: "language-model", name: "m" }).price, undefined)
    assert.strictEqual(of({ ...remote, model: "a model of one's own" }).price, undefined)
  })

  it("prefers the configuration to a provider's published figures", () => {
    const published = of(remote)
    assert.deepStrictEqual([published.price, published.contextWindow], [
      {
        input: 2.5,
        output: 10,
        cachedInput: 1.25,
        asOf: "2025-06",
        source: "https://platform.openai.com/docs/models/gpt-4o"
      },
      128_000
    ])
    const price = { input: 1, output: 1 }
    const given = of({ ...remote, price, contextSize: 9 })
    assert.deepStrictEqual([given.price, given.contextWindow], [price, 9])
  })

  it("does not use a provider's prices for another host", () => {
    const { contextWindow, price } = of({ ...remote, baseUrl: "https://host.example/v1" })
    assert.deepStrictEqual([price, contextWindow], [undefined, undefined])
  })

  it("counts the slots of all replicas, and a provider's connections", () => {
    assert.strictEqual(of({ engine: "fake", slots: 3, replicas: 2 }).slots, 6)
    assert.strictEqual(of({ engine: "fake" }).slots, 4)
    assert.strictEqual(of({ ...remote, maxConcurrent: 7 }).slots, 7)
    assert.strictEqual(of(remote).slots, 64)
  })

  it("has the dialect whose fields a deployment accepts", () => {
    const lacks = (options: DeploymentOptions) =>
      [...of(options).missing ?? []].filter((need) => need.endsWith(" fields")).sort()
    const all = ["anthropic fields", "ollama fields", "openai fields", "responses fields"]
    const without = (...dialects: ReadonlyArray<string>) =>
      all.filter((need) => !dialects.some((dialect) => need === `${dialect} fields`))
    assert.deepStrictEqual(lacks({ engine: "fake" }), all)
    assert.deepStrictEqual(lacks({ engine: "language-model", name: "m" }), all)
    assert.deepStrictEqual(lacks(remote), without("openai", "responses"))
    for (const provider of ["openai", "azure-openai", "troupe"] as const) {
      const elsewhere = { ...remote, provider, baseUrl: "https://host.example/v1" }
      assert.deepStrictEqual(lacks(elsewhere), without("openai"))
      assert.deepStrictEqual(lacks({ ...elsewhere, responses: true }), without("openai", "responses"))
    }
    assert.deepStrictEqual(lacks({ ...remote, responses: false }), without("openai"))
    assert.deepStrictEqual(lacks({ ...remote, provider: "anthropic" }), without("anthropic"))
    assert.deepStrictEqual(lacks({ ...remote, provider: "ollama" }), without("ollama"))
    assert.deepStrictEqual(lacks({ ...remote, provider: "gemini" }), all)
  })

  it("leaves figures unknown that are neither configured nor published", () => {
    const { contextWindow, quality, tasks } = of({ engine: "llama", file: "m.gguf" })
    assert.deepStrictEqual([contextWindow, quality, tasks], [undefined, undefined, undefined])
    assert.strictEqual(KnownModels.find("constructor", "name"), undefined)
  })
})

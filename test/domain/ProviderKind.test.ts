/** The record of each provider: it agrees with its codec, and nothing else in the source names a provider. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import { canCount } from "../../src/domain/Capability.ts"
import type { DeploymentOptions } from "../../src/domain/Deployment.ts"
import { keyHeader, type Provider, providerKindOf, providerNameOf, providers } from "../../src/domain/ProviderKind.ts"
import { dialects } from "../../src/layers/providers/Providers.ts"
import { modelWith } from "../../src/services/settings/Resolution.ts"

const src = new URL("../../src/", import.meta.url)

const sources = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts"))

/** Where providers are named: their records, the line of each codec, and their own folders. */
const isTable = (path: string): boolean =>
  path === "domain/ProviderKind.ts" || path === "layers/providers/Providers.ts" ||
  providers.some((provider) => path.startsWith(`dialects/${provider}/`))

/** Capabilities with an endpoint of their own, by the codec's part for it. */
const endpoints = ["embed", "rerank", "classify", "tokenize"] as const satisfies ReadonlyArray<keyof Dialect>

describe("providers", () => {
  it("are named in their records, their codecs and their folders only", () => {
    // Names of callers' dialects and of this product stand elsewhere too, and are never compared with a provider.
    const own = providers.filter((provider) => !["openai", "anthropic", "ollama", "troupe"].includes(provider))
    const literal = new RegExp(`["'\`](?:${own.join("|")})["'\`]`)
    const compared = /\bprovider\b\s*(?:===|!==)\s*["'`]|case\s+["'`](?:azure-openai|gemini|ollama)["'`]/
    const found = sources.filter((path) => {
      if (isTable(path)) return false
      const text = readFileSync(new URL(path, src), "utf8")
      return literal.test(text) || compared.test(text)
    })
    assert.deepStrictEqual(found, [])
  })

  for (const provider of providers) {
    const kind = providerKindOf(provider)
    const dialect = dialects[provider]

    it(`${provider} has an endpoint for each capability that needs one`, () => {
      for (const endpoint of endpoints) {
        assert.strictEqual(dialect[endpoint] !== undefined, kind.capabilities.includes(endpoint), endpoint)
      }
      assert.strictEqual(dialect.count !== undefined, kind.canCountTokens === true)
    })

    it(`${provider} has a URL, or an example of one`, () => {
      assert.isTrue((kind.baseUrl === undefined) !== (kind.exampleUrl === undefined))
      assert.isFalse((kind.baseUrl ?? kind.exampleUrl)!.endsWith("/"))
    })

    it(`${provider} passes requests of its callers through where it shares their dialect`, () => {
      assert.strictEqual(dialect.generate.passThrough !== undefined, kind.callerDialect !== undefined)
    })
  }

  it("take the key in a header", () => {
    const expected: Readonly<Record<Provider, object>> = {
      openai: { authorization: "Bearer k" },
      "azure-openai": { "api-key": "k" },
      anthropic: { "x-api-key": "k" },
      gemini: { "x-goog-api-key": "k" },
      ollama: { authorization: "Bearer k" },
      troupe: { authorization: "Bearer k" }
    }
    for (const provider of providers) {
      assert.deepStrictEqual(keyHeader(providerKindOf(provider), "k"), expected[provider])
    }
  })

  it("count prompts where they generate, by an endpoint or by tokens", () => {
    const countsWith = (provider: Provider) =>
      canCount({ engine: "remote", provider, model: "m" }, providerKindOf(provider).capabilities)
    assert.deepStrictEqual(providers.filter(countsWith), ["anthropic", "troupe"])
  })
})

const nameOf = (options: DeploymentOptions) => providerNameOf(modelWith("m", options).deployments[0])

describe("the name of a provider", () => {
  it.each<[Provider, string]>([
    ["openai", "openai"],
    ["azure-openai", "azure.ai.openai"],
    ["anthropic", "anthropic"],
    ["gemini", "gcp.gemini"],
    ["ollama", "ollama"],
    ["troupe", "troupe"]
  ])("names the provider %s as OpenTelemetry does: %s", (provider, name) => {
    assert.strictEqual(nameOf({ engine: "remote", provider, model: "m" }), name)
  })

  it("of a local engine is Troupe's", () => {
    assert.strictEqual(nameOf({ engine: "llama", file: "m.gguf" }), "troupe.llama")
    assert.strictEqual(nameOf({ engine: "onnx", folder: "m" }), "troupe.onnx")
    assert.strictEqual(nameOf({ engine: "fake" }), "troupe.fake")
    assert.strictEqual(nameOf({ engine: "language-model", name: "m" }), "troupe.language-model")
  })
})

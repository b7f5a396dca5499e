import { assert, describe, it } from "@effect/vitest"
import type { DeploymentOptions, Provider } from "../../src/domain/Deployment.ts"
import { providerNameOf } from "../../src/domain/Deployment.ts"
import { modelWith } from "../../src/services/settings/Resolution.ts"

const nameOf = (options: DeploymentOptions) => providerNameOf(modelWith("m", options).deployments[0])

describe("Model", () => {
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

  it("names engines of ours as ours", () => {
    assert.strictEqual(nameOf({ engine: "llama", file: "m.gguf" }), "troupe.llama")
    assert.strictEqual(nameOf({ engine: "onnx", folder: "m" }), "troupe.onnx")
    assert.strictEqual(nameOf({ engine: "fake" }), "troupe.fake")
    assert.strictEqual(nameOf({ engine: "language-model", name: "m" }), "troupe.language-model")
  })
})

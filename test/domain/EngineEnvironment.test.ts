import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import { engineEnvironment } from "../../src/domain/EngineEnvironment.ts"

describe("engineEnvironment", () => {
  it("passes on the variables that an engine needs", () => {
    const needed = {
      PATH: "/bin",
      Path: "C:\\",
      HOME: "/root",
      LC_ALL: "C",
      CUDA_VISIBLE_DEVICES: "0",
      GGML_CUDA_FORCE_MMQ: "1",
      NODE_COMPILE_CACHE: "/cache"
    }
    assert.deepStrictEqual(engineEnvironment({ ...needed, UNSET: undefined }), needed)
  })

  it("passes on no keys of providers, hubs, clouds or databases", () => {
    const secrets = [
      "OPENAI_API_KEY",
      "ANTHROPIC_API_KEY",
      "HF_TOKEN",
      "HUGGING_FACE_HUB_TOKEN",
      "AWS_ACCESS_KEY_ID",
      "AWS_SECRET_ACCESS_KEY",
      "AWS_SESSION_TOKEN",
      "GOOGLE_APPLICATION_CREDENTIALS",
      "AZURE_CLIENT_SECRET",
      "GITHUB_TOKEN",
      "NPM_TOKEN",
      "DATABASE_URL",
      "REDIS_URL",
      "SSH_AUTH_SOCK",
      "TROUPE_API_KEYS",
      "LLAMA_API_KEY",
      "NVIDIA_API_KEY",
      "CUDA_AUTH",
      "HTTPS_PROXY",
      "OPENAI_KEY",
      "constructor",
      "__proto__"
    ]
    assert.deepStrictEqual(engineEnvironment(Object.fromEntries(secrets.map((name) => [name, "secret"]))), {})
  })

  it("passes on no other variable of any environment", () => {
    const known = /^(?:PATH|HOME|LANG|TZ|TMPDIR|[A-Z]+_[A-Z0-9_]*)$/i
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.string()), (environment) => {
      for (const [name, value] of Object.entries(engineEnvironment(environment))) {
        assert.match(name, known)
        assert.strictEqual(value, environment[name])
      }
    }))
  })

  it("passes on the variables that TROUPE_ENGINE_ENV names", () => {
    assert.deepStrictEqual(
      engineEnvironment({ TROUPE_ENGINE_ENV: "MY_DRIVER, other_key", MY_DRIVER: "x", OTHER_KEY: "y", THIRD: "z" }),
      { MY_DRIVER: "x", OTHER_KEY: "y" }
    )
  })
})

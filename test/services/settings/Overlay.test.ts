import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { environments } from "../../../src/services/settings/Settings.ts"

import { llama, paths, problems, resolved } from "./support.ts"

describe("a configuration with sections of environments", () => {
  describe("overlays", () => {
    const file = {
      server: { host: "0.0.0.0", port: 80 },
      logLevel: "info",
      models: { a: { deployments: [llama("one"), llama("two")], preload: false } },
      environments: {
        test: { server: { port: 8080 }, logLevel: "error", models: { a: { deployments: [llama("three")] } } },
        production: { models: { b: { deployments: [llama("four")] } } }
      }
    }

    it("mappings merge", () => {
      const { models, server } = resolved(file, { environment: "test" })
      assert.deepInclude(server, { host: "0.0.0.0", port: 8080 })
      assert.isFalse(models[0]?.deployments[0].preload)
    })

    it("lists are replaced whole", () => {
      const { models } = resolved(file, { environment: "test" })
      assert.deepStrictEqual(models[0]?.deployments.map(({ options }) => options), [llama("/folder/three")])
    })

    it("scalars are replaced", () => {
      assert.strictEqual(resolved(file, { environment: "test" }).logLevel, "Error")
    })

    it("new keys are added", () => {
      const { models } = resolved(file, { environment: "production" })
      assert.deepStrictEqual(models.map(({ name }) => name), ["a", "b"])
    })

    it("of other environments change nothing", () => {
      const { environments: _, ...base } = file
      assert.deepStrictEqual(resolved(file), resolved(base))
    })

    it.each(["toString", "constructor", "a.b", "a/b", "0"])("leave a model named %s alone", (name) => {
      const { models } = resolved({
        models: { [name]: { deployments: [llama()] } },
        environments: { development: { models: { other: { deployments: [llama()] } } } }
      })
      assert.deepStrictEqual(models.map(({ name }) => name), [name, "other"])
    })

    it("may omit what the rest of the file sets", () => {
      const { models } = resolved({
        models: { a: { deployments: [llama()] } },
        environments: { development: { models: { a: { idleUnload: "1 minute" } } } }
      })
      assert.deepStrictEqual(models[0]?.deployments[0].idleUnload, Duration.minutes(1))
    })
  })

  describe("environments", () => {
    it("an empty NODE_ENV is development, like an unset one", () => {
      assert.strictEqual(resolved({}, { environment: "" }).environment, "development")
    })

    it("an empty section equals an absent one", () => {
      assert.deepStrictEqual(
        resolved({ server: null, models: null, environments: { test: null, production: { server: null } } }),
        resolved({})
      )
    })

    it.each(["staging", "Production", "prod"])("NODE_ENV %j is refused", (environment) => {
      const [problem, ...others] = problems({}, { environment })
      assert.deepStrictEqual(others, [])
      assert.strictEqual(problem?.path, "NODE_ENV")
      for (const known of environments) assert.include(problem?.expected, known)
    })

    it("an overlay for an unknown one is refused by its path", () => {
      assert.deepStrictEqual(paths({ environments: { staging: {}, test: {} } }), ["environments.staging"])
    })

    it("that are not a mapping are refused", () => {
      assert.deepStrictEqual(paths({ environments: ["test"] }), ["environments"])
    })
  })
})

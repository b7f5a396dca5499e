import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Model } from "../../../src/domain/Deployment.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import { makeIsOfFirst } from "../../../src/services/processes/Shares.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"

const model = (name: string, aliases: ReadonlyArray<string>, engine: "fake" | "remote" = "fake"): Model => ({
  ...modelWith(name, engine === "fake" ? { engine } : { engine, provider: "openai", model: "m" }),
  aliases
})

const registry = Registry.make([model("big", ["gpt-4o", "default"]), model("small", [])])

describe("an alias", () => {
  it("selects its model, and is no model of its own", () => {
    assert.strictEqual(Result.getOrThrow(registry.find("gpt-4o")).name, "big")
    assert.deepStrictEqual(registry.models().map(({ name }) => name), ["big", "small"])
    const { reason } = Result.getOrThrow(Result.flip(registry.find("none")))
    assert.deepInclude(reason, { available: ["big", "small"] })
  })

  it("has its model's own name for keys and limits; an unknown name stays", () => {
    const nameOf = Registry.namesIn(registry)
    assert.deepStrictEqual(["default", "small", "none"].map(nameOf), ["big", "small", "none"])
  })

  it("is served by the process that serves its model", () => {
    const models = [model("local", ["l"]), model("far", ["f"], "remote")]
    assert.deepStrictEqual(["local", "l", "far", "f"].filter(makeIsOfFirst(models)), ["local", "l"])
  })
})

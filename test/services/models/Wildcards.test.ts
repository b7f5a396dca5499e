import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Model } from "../../../src/domain/Deployment.ts"
import { isRemote } from "../../../src/domain/Deployment.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import { longestName, mostLabels, mostNames } from "../../../src/services/models/Wildcards.ts"
import { leasedLimits, settingsOf } from "../../../src/services/processes/Shares.ts"
import { factsOf } from "../../../src/services/routing/DeploymentFacts.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"

const remote = (name: string, model = "*"): Model =>
  modelWith(name, { engine: "remote", provider: "openai", model, maxConcurrent: 8 })

const registry = () =>
  Registry.make([remote("openai/*"), remote("openai/ft-*", "ft:*:acme"), remote("openai/own", "own")])

const found = (name: string, one = registry()) => Result.getOrThrow(one.find(name))

const upstreamOf = ({ deployments: [{ options }] }: Model) => isRemote(options) ? options.model : undefined

describe("a wildcard", () => {
  it("serves each name as a model of its own, with the rest of the name at the provider", () => {
    const one = registry()
    const model = found("openai/gpt-4o-mini", one)
    assert.deepStrictEqual([model.name, model.deployments[0].id, model.deployments[0].model, upstreamOf(model)], [
      "openai/gpt-4o-mini",
      "openai/gpt-4o-mini#0",
      "openai/gpt-4o-mini",
      "gpt-4o-mini"
    ])
    assert.strictEqual(found("openai/gpt-4o-mini", one), model)
    assert.deepInclude(factsOf(model.deployments[0]).price, { input: 0.15, output: 0.6 })
    assert.strictEqual(upstreamOf(found("openai/org/$&")), "org/$&")
  })

  it("comes after models of the name, and the longest prefix first", () => {
    assert.strictEqual(upstreamOf(found("openai/own")), "own")
    assert.strictEqual(upstreamOf(found("openai/ft-x")), "ft:x:acme")
  })

  it.each(["openai/", "anthropic/x", "openai/../files", "openai/..", `openai/${"x".repeat(longestName)}`])(
    "does not serve %s",
    (name) => {
      assert.deepInclude(Result.getOrThrow(Result.flip(registry().find(name))).reason, { _tag: "ModelNotFound" })
    }
  )

  it("is the model that is listed, and names the deployments of its models", () => {
    const one = registry()
    found("openai/gpt-x", one)
    assert.deepStrictEqual(one.models().map(({ name }) => name), ["openai/*", "openai/ft-*", "openai/own"])
    assert.strictEqual(Registry.deploymentOfWildcard(one, "openai/gpt-x#0")?.model, "openai/gpt-x")
    assert.strictEqual(Registry.deploymentOfWildcard(one, "openai/gpt-x#1"), undefined)
    assert.strictEqual(new Registry.ServedNames(one).nameOf("openai/gpt-x#0"), "gpt-x")
  })

  it("serves a limited number of names that are called", () => {
    const one = registry()
    for (let index = 0; index < mostNames; index++) assert.isUndefined(one.call?.(`openai/${index}`))
    assert.deepInclude(one.call?.("openai/more")?.reason, { _tag: "InvalidRequest", path: "model" })
    for (const name of ["openai/0", "openai/own"]) assert.isUndefined(one.call?.(name), name)
    assert.strictEqual(upstreamOf(found("openai/0", one)), "0")
  })

  it.each(["openai/*", "openai/ft-*", "openai/gpt-*"])("cannot be called as %s", (name) => {
    assert.deepInclude(registry().call?.(name)?.reason, {
      _tag: "InvalidRequest",
      path: "model",
      detail: `\`${name}\` stands for many models: write the name of one in place of \`*\`.`
    })
  })

  it("does not count names that are only looked up, and keeps the model of one that is called", () => {
    const one = registry()
    const called = found("openai/called", one)
    assert.isUndefined(one.call?.("openai/called"))
    for (let index = 0; index < 3 * mostNames; index++) found(`openai/${index}`, one)
    assert.isUndefined(one.call?.("openai/more"))
    assert.strictEqual(found("openai/called", one), called)
  })

  it("has labels of metrics for the names that are called first, and its own for the others", () => {
    const one = registry()
    assert.strictEqual(Registry.modelLabel(one, "openai/0"), "openai/*")
    for (let index = 0; index < mostLabels + 5; index++) assert.isUndefined(one.call?.(`openai/${index}`))
    assert.isUndefined(one.call?.("openai/ft-a"))
    const last = mostLabels - 1
    const labels = [
      `openai/${last}`,
      `openai/${last + 1}`,
      "openai/ft-a",
      "openai/ft-b",
      "openai/own",
      "x#y",
      "openai/*"
    ]
    assert.deepStrictEqual(labels.map((name) => Registry.modelLabel(one, name)), [
      `openai/${last}`,
      "openai/*",
      "openai/ft-a",
      "openai/ft-*",
      "openai/own",
      "x#y",
      "openai/*"
    ])
    assert.strictEqual(Registry.deploymentLabel(one, `openai/${last}#1`), `openai/${last}#1`)
    assert.strictEqual(Registry.deploymentLabel(one, `openai/${last + 1}#1`), "openai/*#1")
    assert.strictEqual(Registry.configuredDeployment(one, "openai/0#1"), "openai/*#1")
    assert.strictEqual(Registry.configuredModel(one, "openai/own"), "openai/own")
  })

  it("has its concurrency divided among processes, where that of other models is leased", () => {
    const models = [remote("openai/*"), remote("plain", "p")]
    assert.deepStrictEqual([...leasedLimits(models)], [["plain#0", 8]])
    const settings = { server: { maxConnections: 10 }, models } as unknown as Resolved
    const own = [1, 2, 3].map((index) => {
      const { options } = settingsOf(settings, index, 3).models[0]!.deployments[0]
      return isRemote(options) ? options.maxConcurrent : undefined
    })
    assert.deepStrictEqual(own, [3, 3, 2])
  })
})

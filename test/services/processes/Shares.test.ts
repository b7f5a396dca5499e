import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Model } from "../../../src/domain/Deployment.ts"
import { isRemote } from "../../../src/domain/Deployment.ts"
import { defaults } from "../../../src/domain/RoutingPolicy.ts"
import * as Shares from "../../../src/services/processes/Shares.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"
import { deployment, settings as settingsInMemory } from "../../support/Deployments.ts"

const settings = (given: Parameters<typeof settingsInMemory>[0] = {}) =>
  settingsInMemory({ storage: { type: "sqlite", folder: "/data" }, ...given })

const remote = { engine: "remote", model: "m", baseUrl: "http://127.0.0.1:1", headers: {} } as never

const model = (name: string, isLocal: boolean, ...fallbacks: Array<string>): Model => ({
  name,
  deployments: [deployment(`${name}#0`, { preload: true, ...(isLocal ? {} : { options: remote }) })],
  ...(fallbacks.length === 0
    ? {}
    : { routing: { policy: defaults, fallbacks: { ordinary: fallbacks, context: [], content: [] } } })
})

const models = [
  model("local", true),
  model("remote", false),
  model("to-remote", false, "remote"),
  model("to-local", false, "local"),
  model("far", false, "to-local")
]

describe("Shares", () => {
  it("divides a limit into parts that differ by at most 1 and add up to it", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 128 }), fc.nat(10_000), (count, limit) => {
      const parts = Array.from({ length: count }, (_, index) => Shares.shareOf(limit, index + 1, count))
      assert.strictEqual(parts.reduce((sum, part) => sum + part, 0), limit)
      assert.isAtMost(Math.max(...parts) - Math.min(...parts), 1)
    }))
  })

  it("leaves models that can reach a local one to the first process", () => {
    const isOfFirst = Shares.makeIsOfFirst(models)
    assert.deepStrictEqual(models.map(({ name }) => name).filter(isOfFirst), ["local", "to-local", "far"])
    assert.deepStrictEqual([...Shares.leasedLimits(models).keys()], ["remote#0", "to-remote#0"])
  })

  it("leaves the names of a wildcard that can reach a local model to the first process, with its whole concurrency", () => {
    const wildcard = (name: string, ...fallbacks: Array<string>): Model => ({
      ...model(name, false, ...fallbacks),
      ...modelWith(name, { engine: "remote", provider: "openai", model: "*", maxConcurrent: 8 })
    })
    const all = [...models, wildcard("open/*", "local"), wildcard("open/ft-*"), model("to-name", false, "open/x")]
    const isOfFirst = Shares.makeIsOfFirst(all)
    const names = ["open/x", "open/ft-x", "to-name", "open/", "remote"]
    assert.deepStrictEqual(names.filter(isOfFirst), ["open/x", "to-name"])
    const concurrent = [1, 2].map((index) =>
      Shares.settingsOf(settings({ models: all }), index, 2).models.flatMap(({ deployments: [{ options }], name }) =>
        isRemote(options) && name.endsWith("*") ? [options.maxConcurrent] : []
      )
    )
    assert.deepStrictEqual(concurrent, [[8, 4], [8, 4]])
  })

  it("leases an adaptive limit with its bounds, whole in each process, and rejects one of a wildcard", () => {
    const maxConcurrent = { adaptive: true, min: 2, max: 64, initial: 20 } as const
    const adaptive = (name: string): Model => ({
      ...model(name, false),
      ...modelWith(name, { engine: "remote", provider: "openai", model: "m", maxConcurrent })
    })
    const all = [adaptive("m"), adaptive("open/*")]
    assert.deepStrictEqual([...Shares.leasedLimits(all).values()], [
      { min: 2, max: 64, initial: 20, server: ["openai", undefined, "m"] }
    ])
    const { options } = Shares.settingsOf(settings({ models: all }), 3, 3).models[0]!.deployments[0]
    assert.deepStrictEqual(isRemote(options) && options.maxConcurrent, maxConcurrent)
    const [problem, ...others] = Shares.problemsOf(settings({ models: all }), 3)
    assert.deepStrictEqual(others, [])
    assert.strictEqual(problem!.path, "models.open/*.deployments[0].maxConcurrent")
    assert.include(problem!.expected, "Set server.processes: 1, or list its models")
  })

  it("loads local models in the first process only, and divides the queues of the others", () => {
    const parts = [1, 2, 3].map((index) => Shares.settingsOf(settings({ models }), index, 3))
    const preloaded = parts.map(({ models }) =>
      models.filter(({ deployments: [{ preload }] }) => preload).map(({ name }) => name)
    )
    assert.deepStrictEqual(preloaded, [models.map(({ name }) => name), ["remote", "to-remote"], [
      "remote",
      "to-remote"
    ]])
    const queues = (name: string) =>
      parts.map(({ models }) => models.find((model) => model.name === name)!.deployments[0].queueLimit)
    assert.deepStrictEqual(queues("remote"), [171, 171, 170])
    assert.deepStrictEqual(queues("local"), [512, 512, 512])
    const { maxConnections } = settings().server
    assert.strictEqual(parts.reduce((sum, { server }) => sum + server.maxConnections, 0), maxConnections)
  })

  it("rejects storage in memory, of which each process would have its own", () => {
    const [problem] = Shares.problemsOf(settingsInMemory({ models }), 3)
    assert.strictEqual(problem!.path, "storage.type")
    assert.include(problem!.expected, "sqlite or postgres")
  })

  it("rejects limits with less than 1 for each process", () => {
    const problems = Shares.problemsOf(settings({ models, server: { ...settings().server, maxConnections: 2 } }), 3)
    assert.deepStrictEqual(problems, [{
      path: "server.maxConnections",
      expected: "Expected at least 3, 1 for each of the 3 processes (server.processes)"
    }])
    assert.deepStrictEqual(Shares.problemsOf(settings({ models }), 3), [])
    const wildcard = (maxConcurrent: number) =>
      modelWith("open/*", { engine: "remote", provider: "openai", model: "*", maxConcurrent })
    assert.deepStrictEqual(Shares.problemsOf(settings({ models: [...models, wildcard(2)] }), 3), [{
      path: "models.open/*.deployments[0].maxConcurrent",
      expected: "Expected at least 3, 1 for each of the 3 processes (server.processes)"
    }])
    assert.deepStrictEqual(Shares.problemsOf(settings({ models: [...models, wildcard(3)] }), 3), [])
  })
})

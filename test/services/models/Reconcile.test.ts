import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import { reconcile } from "../../../src/services/models/Reconcile.ts"
import { deployment } from "../../support/Deployments.ts"

const remote = (id: string, model: string, more: Partial<Deployment> = {}): Deployment =>
  deployment(id, { options: { engine: "remote", provider: "openai", model, key: Redacted.make("sk-1") }, ...more })

const model = (name: string, ...deployments: [Deployment, ...Array<Deployment>]): Model => ({ name, deployments })

const idsOf = (deployments: ReadonlyArray<Deployment>) => deployments.map(({ id }) => id)

describe("Reconcile", () => {
  it("keeps the objects of equal models and deployments", () => {
    const before = [model("a", remote("a#0", "x"), remote("a#1", "y")), model("b", remote("b#0", "x"))]
    const { added, changed, models, removed } = reconcile(before, [
      model("a", remote("a#0", "x"), remote("a#1", "y")),
      model("b", remote("b#0", "z"))
    ])
    assert.strictEqual(models[0], before[0])
    assert.deepStrictEqual([added, removed], [[], []])
    assert.deepStrictEqual(idsOf(changed.map(({ after }) => after)), ["b#0"])
  })

  it("keeps the id of a deployment that has moved in its list", () => {
    const before = [model("a", remote("a#0", "x"), remote("a#1", "y"))]
    const { added, changed, models: [found], removed } = reconcile(before, [
      model("a", remote("a#0", "new"), remote("a#1", "x"), remote("a#2", "y"))
    ])
    assert.deepStrictEqual(idsOf(found!.deployments), ["a#2", "a#0", "a#1"])
    assert.strictEqual(found!.deployments[1], before[0]!.deployments[0])
    assert.deepStrictEqual([idsOf(added), changed, removed], [["a#2"], [], []])
  })

  it("keeps the id of a deployment that has moved and serves the same with another trait", () => {
    const waiting = deployment("a#1", { options: { engine: "fake", reply: "new", rollout: "candidate" } })
    const before = [model("a", deployment("a#0", { options: { engine: "fake", reply: "old" } }), waiting)]
    const { added, changed, models: [found], removed } = reconcile(before, [
      model("a", deployment("a#0", { options: { engine: "fake", reply: "new" } }))
    ])
    assert.deepStrictEqual(idsOf(found!.deployments), ["a#1"])
    assert.deepStrictEqual([added, idsOf(removed)], [[], ["a#0"]])
    assert.deepStrictEqual(changed.map(({ before: one, needsEngine }) => [one, needsEngine]), [[waiting, false]])
  })

  it("removes deployments and models", () => {
    const { removed } = reconcile(
      [model("a", remote("a#0", "x"), remote("a#1", "y")), model("b", remote("b#0", "x"))],
      [model("a", remote("a#0", "y"))]
    )
    assert.deepStrictEqual(idsOf(removed), ["a#0", "b#0"])
  })

  it.each([
    [
      "a key",
      remote("a#0", "x"),
      remote("a#0", "x", { options: { ...remote("a#0", "x").options, key: Redacted.make("sk-2") } as never }),
      true
    ],
    ["a limit of the queue", remote("a#0", "x"), remote("a#0", "x", { queueLimit: 1 }), false],
    [
      "the price of a local model",
      deployment("a#0"),
      deployment("a#0", { options: { engine: "fake", price: { input: 1, output: 2 } } }),
      false
    ],
    [
      "a context of a local model",
      deployment("a#0"),
      deployment("a#0", { options: { engine: "fake", contextSize: 9 } }),
      true
    ],
    ["a time without progress", deployment("a#0"), deployment("a#0", { stallAfter: Duration.seconds(1) }), true]
  ])("says whether %s needs another engine", (_, before, after, expected) => {
    const { changed } = reconcile([model("a", before)], [model("a", after)])
    assert.deepStrictEqual(changed.map(({ needsEngine }) => needsEngine), [expected])
  })

  it("makes another model for other aliases, with the same deployments", () => {
    const before = [model("a", remote("a#0", "x"))]
    const { changed, models: [found] } = reconcile(before, [{ ...model("a", remote("a#0", "x")), aliases: ["gpt"] }])
    assert.deepStrictEqual(found?.aliases, ["gpt"])
    assert.strictEqual(found?.deployments[0], before[0]!.deployments[0])
    assert.deepStrictEqual(changed, [])
  })
})

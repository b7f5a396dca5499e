import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import type { Deployment, Model } from "../../src/services/Model.ts"
import { route } from "../../src/services/Selector.ts"

const deployment = (index: number): Deployment => ({
  id: `fake/a#${index}`,
  model: "fake/a",
  options: { engine: "fake" },
  idleUnload: Duration.minutes(10),
  preload: true,
  pinned: false,
  queueLimit: 512,
  stallAfter: Duration.minutes(2)
})

const model: Model = { name: "fake/a", deployments: [deployment(0), deployment(1), deployment(2)] }

describe("Selector", () => {
  it("routes to the first deployment of the model", () => {
    assert.strictEqual(route(model).deployment, model.deployments[0])
  })

  it("names the model that was asked for", () => {
    assert.strictEqual(route(model).model, "fake/a")
  })

  it("gives its reason in words", () => {
    assert.strictEqual(route(model).reason, "the first deployment of the model asked for")
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as Actor from "../../../src/services/models/Actor.ts"
import { deployment } from "../../support/Deployments.ts"

const now = 1_000

const loading = (fields: Partial<Actor.Actor>) => {
  const actor = Object.assign(Actor.make(deployment("m"), 0), fields)
  actor.instance = Actor.makeInstance(actor, actor.deployment)
  return actor
}

describe("loadingOf", () => {
  it("is undefined for a deployment that nothing has asked for, or that is ready", () => {
    assert.isUndefined(Actor.loadingOf(undefined, now))
    assert.isUndefined(Actor.loadingOf(Actor.make(deployment("m"), 0), now))
    const ready = loading({})
    ready.instance!.state = "ready"
    assert.isUndefined(Actor.loadingOf(ready, now))
  })

  it.each([
    ["of the first load is unknown", { loadBegan: 400 }, null],
    ["is the share of the time that the load before took", { loadBegan: 400, lastLoadMs: 2_400 }, 0.25],
    ["does not reach the end before the load does", { loadBegan: 0, lastLoadMs: 10 }, 0.99],
    ["has no error after a load without duration", { loadBegan: now, lastLoadMs: 0 }, 0]
  ])("progress %s", (_, fields, progress) => {
    assert.deepStrictEqual(Actor.loadingOf(loading(fields), now), { state: "loading", progress })
  })

  it("has no progress of an engine that drains or has failed", () => {
    const draining = loading({ loadBegan: 0, lastLoadMs: 10 })
    draining.instance!.state = "draining"
    assert.deepStrictEqual(Actor.loadingOf(draining, now), { state: "draining", progress: null })
    const failed = Object.assign(Actor.make(deployment("m"), 0), { failed: true })
    assert.deepStrictEqual(Actor.loadingOf(failed, now), { state: "failed", progress: null })
  })
})

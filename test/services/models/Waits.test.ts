import { assert, describe, it } from "@effect/vitest"
import * as Actor from "../../../src/services/models/Actor.ts"
import type { WaitProgress } from "../../../src/services/models/Waits.ts"
import { progressOf, Waits } from "../../../src/services/models/Waits.ts"
import { deployment } from "../../support/Deployments.ts"

const loading = () => {
  const actor = Actor.make(deployment("m"), 0)
  actor.instance = Actor.makeInstance(actor, actor.deployment)
  return actor
}

const enqueue = (actor: Actor.Actor, now: number) => Actor.enqueue(actor, {}, "", now)

describe("progressOf", () => {
  it("has the load's progress while the engine loads, measured as in errors", () => {
    const actor = loading()
    const waiting = enqueue(actor, 1_000.4)
    const { id, model } = actor.deployment
    const expected: WaitProgress = {
      model,
      deployment: id,
      state: "loading",
      position: 1,
      progress: null,
      waitedMs: 1_000
    }
    assert.deepStrictEqual(progressOf(actor, waiting, 2_000), expected)
    Object.assign(actor, { loadBegan: 1_500, lastLoadMs: 2_000 })
    assert.deepStrictEqual(progressOf(actor, waiting, 2_000), { ...expected, progress: 0.25 })
    assert.strictEqual(progressOf(actor, waiting, 2_000)?.progress, Actor.loadingOf(actor, 2_000)?.progress)
  })

  it("has no progress in the queue of a loaded engine, whose position falls", () => {
    const actor = loading()
    actor.instance!.state = "ready"
    const [first, second] = [enqueue(actor, 0), enqueue(actor, 0)]
    const placeOf = () => {
      const { position, progress, state } = progressOf(actor, second, 0)!
      return [state, position, progress]
    }
    assert.deepStrictEqual(placeOf(), ["queued", 2, null])
    actor.mailbox.remove(first)
    assert.deepStrictEqual(placeOf(), ["queued", 1, null])
  })

  it("is undefined for a caller that has left, or that a full queue refuses", () => {
    const actor = loading()
    const waiting = enqueue(actor, 0)
    actor.mailbox.remove(waiting)
    assert.isUndefined(progressOf(actor, waiting, 0))
    const full = Actor.make({ ...deployment("m"), queueLimit: 0 }, 0)
    assert.isUndefined(progressOf(full, enqueue(full, 0), 0))
  })
})

describe("Waits", () => {
  it("looks at the longest wait that has not ended, and at none once the answer begins", () => {
    const actor = loading()
    const waits = new Waits()
    assert.isUndefined(waits.look())
    const [first, second] = [enqueue(actor, 0), enqueue(actor, 600)]
    for (const waiting of [first, second]) waits.add(() => progressOf(actor, waiting, 1_000))
    assert.strictEqual(waits.look()?.waitedMs, 1_000)
    actor.mailbox.remove(first)
    assert.strictEqual(waits.look()?.waitedMs, 400)
    waits.end()
    waits.add(() => progressOf(actor, second, 1_000))
    assert.isUndefined(waits.look())
  })
})

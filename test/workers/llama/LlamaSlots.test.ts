import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { makeInterlude } from "../../../src/workers/llama/LlamaSlots.ts"

describe("makeInterlude", () => {
  it("holds others up as long as anyone works, and not longer when work fails", async () => {
    const interlude = makeInterlude()
    assert.isUndefined(interlude.pause())
    const first = Promise.withResolvers<void>()
    const second = Promise.withResolvers<void>()
    const works = [interlude.run(() => first.promise), interlude.run(() => second.promise)]
    let paused = true
    const pause = interlude.pause()?.then(() => {
      paused = false
    })
    first.resolve()
    await works[0]
    assert.isTrue(paused)
    second.reject(new Error("no luck"))
    await works[1]?.catch(() => {})
    await pause
    assert.isFalse(paused)
    assert.isUndefined(interlude.pause())
  })
})

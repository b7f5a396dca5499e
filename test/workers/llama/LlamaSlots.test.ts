import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { makeContextLock } from "../../../src/workers/llama/LlamaSlots.ts"

describe("makeContextLock", () => {
  it("blocks generations during exclusive work, and releases them after a failure", async () => {
    const contextLock = makeContextLock()
    assert.isUndefined(contextLock.pause())
    const first = Promise.withResolvers<void>()
    const second = Promise.withResolvers<void>()
    const works = [contextLock.run(() => first.promise), contextLock.run(() => second.promise)]
    let paused = true
    const pause = contextLock.pause()?.then(() => {
      paused = false
    })
    first.resolve()
    await works[0]
    assert.isTrue(paused)
    second.reject(new Error("no luck"))
    await works[1]?.catch(() => {})
    await pause
    assert.isFalse(paused)
    assert.isUndefined(contextLock.pause())
  })
})

import { assert } from "@effect/vitest"
import { setImmediate } from "node:timers/promises"
import { describe, it } from "vitest"
import { Rejoin } from "../../../src/workers/llama/LlamaRejoin.ts"

/** Whether a promise has resolved within this turn of the event loop. */
const hasResolved = async (promise: Promise<void>): Promise<boolean> => {
  let resolved = false
  void promise.then(() => {
    resolved = true
  })
  for (let turn = 0; turn < 5; turn++) await Promise.resolve()
  return resolved
}

describe("Rejoin", () => {
  it("waits for the answers of the batch until each has requested a token or ended", async () => {
    const rejoin = new Rejoin<string>()
    assert.isUndefined(rejoin.wait())
    for (const answer of ["one", "two", "three"]) rejoin.sampled(answer)
    rejoin.settled("two")
    const waited = rejoin.wait()!
    rejoin.settled("one")
    // Was not in the batch.
    rejoin.settled("four")
    assert.isFalse(await hasResolved(waited))
    rejoin.settled("three")
    assert.isTrue(await hasResolved(waited))
    assert.isUndefined(rejoin.wait())
  })

  it("does not wait longer than a turn for an answer that does not go on", async () => {
    const rejoin = new Rejoin<string>()
    rejoin.sampled("slow")
    const waited = rejoin.wait()!
    await setImmediate()
    assert.isTrue(await hasResolved(waited))
    // It is not waited for again, until it has a token.
    rejoin.sampled("fast")
    rejoin.settled("fast")
    assert.isUndefined(rejoin.wait())
    rejoin.settled("slow")
    rejoin.sampled("slow")
    const again = rejoin.wait()!
    rejoin.settled("slow")
    assert.isTrue(await hasResolved(again))
  })
})

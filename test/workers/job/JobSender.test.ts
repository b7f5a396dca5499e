import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { JobEvent } from "../../../src/domain/Job.ts"
import type { PartLimits } from "../../../src/domain/StreamLimits.ts"
import { streamDefaults } from "../../../src/domain/StreamLimits.ts"
import { makeSender } from "../../../src/workers/job/JobSender.ts"

/** A sender whose delay never ends: parts are sent by their other limits. */
const setup = (limits: Partial<PartLimits> = {}) => {
  const events: Array<JobEvent> = []
  const due: Array<() => void> = []
  const state = { spent: 0 }
  const sender = makeSender(
    (tokens) => {
      state.spent += tokens
    },
    { emit: (event) => void events.push(event), later: (send) => void due.push(send) },
    { ...streamDefaults, delayMs: Number.MAX_SAFE_INTEGER, ...limits }
  )
  const push = (text: string) => {
    sender.count()
    sender.send({ type: "text", text })
  }
  const parts = () => events.flatMap((event) => event.type === "tokens" ? [[event.text, event.count] as const] : [])
  return { sender, push, parts, due, state }
}

describe("makeSender", () => {
  it("sends the first token at once, and then ten together", () => {
    const { parts, push } = setup()
    push("a")
    assert.deepStrictEqual(parts(), [["a", 1]])
    for (let token = 0; token < 20; token++) push("b")
    assert.deepStrictEqual(parts().slice(1), [["b".repeat(10), 10], ["b".repeat(10), 10]])
  })

  it("sends at most 100 characters together, and a longer token alone", () => {
    const { parts, push } = setup()
    for (const length of [1, 60, 60, 40, 150, 3]) push("x".repeat(length))
    assert.deepStrictEqual(parts().map(([text, count]) => [text.length, count]), [[1, 1], [60, 1], [100, 2], [150, 1]])
  })

  it("sends what waits when its time is over", () => {
    const { due, parts, push } = setup({ delayMs: 60_000 })
    for (const text of ["a", "b", "c"]) push(text)
    assert.deepStrictEqual(parts(), [["a", 1]])
    assert.strictEqual(due.length, 1)
    due[0]!()
    assert.deepStrictEqual(parts()[1], ["bc", 2])
  })

  it("sends each token with a limit of one, or without a delay", () => {
    for (const limits of [{ tokens: 1 }, { delayMs: 0 }]) {
      const { parts, push } = setup(limits)
      for (const text of ["a", "b", "c"]) push(text)
      assert.deepStrictEqual(parts(), [["a", 1], ["b", 1], ["c", 1]])
    }
  })

  it("sends the same text and tokens with any limits", () => {
    const limits = fc.record({ tokens: fc.integer({ min: 1, max: 12 }), characters: fc.integer({ min: 1, max: 12 }) })
    fc.assert(fc.property(fc.array(fc.string({ minLength: 1, maxLength: 15 })), limits, (texts, limits) => {
      const { parts, push, sender, state } = setup(limits)
      texts.forEach(push)
      sender.flush()
      assert.strictEqual(parts().map(([text]) => text).join(""), texts.join(""))
      assert.strictEqual(parts().reduce((sum, [, count]) => sum + count, 0), texts.length)
      assert.strictEqual(state.spent, texts.length)
      for (const [text, count] of parts()) {
        assert.isAtMost(count, limits.tokens)
        assert.isTrue(text.length <= limits.characters || count === 1)
      }
    }))
  })
})

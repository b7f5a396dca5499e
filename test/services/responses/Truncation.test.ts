import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Message } from "../../../src/domain/Inference.ts"
import { ContextLengthExceeded } from "../../../src/domain/InferenceError.ts"
import { shortened } from "../../../src/services/responses/Truncation.ts"

const tooLong = new ContextLengthExceeded({ model: "m" })

const system: Message = { role: "system", content: "Be brief." }
const turn = (name: string): ReadonlyArray<Message> => [
  { role: "user", content: name },
  { role: "assistant", content: "", toolCalls: [{ id: name, name: "f", arguments: "{}" }] },
  { role: "tool", content: "x", toolCallId: name },
  { role: "assistant", content: "done" }
]

describe("a conversation that does not fit", () => {
  it("loses its oldest turns as a whole, and no message of the system", () => {
    const messages = [system, ...turn("1"), ...turn("2"), { ...system, content: "Now German." }, ...turn("3")]
    assert.deepStrictEqual(shortened(messages, tooLong), [
      system,
      { ...system, content: "Now German." },
      ...turn("3")
    ])
  })

  it("keeps as much as the lengths of prompt and window let expect", () => {
    const messages = Array.from({ length: 10 }, (_, index) => turn(String(index))).flat()
    const reason = new ContextLengthExceeded({ model: "m", promptTokens: 1000, contextWindow: 950 })
    assert.strictEqual(shortened(messages, reason)?.length, 24)
  })

  it("ends with the last turn, which stays", () => {
    assert.isUndefined(shortened([system, ...turn("1")], tooLong))
    fc.assert(fc.property(fc.integer({ min: 1, max: 40 }), (count) => {
      let messages: ReadonlyArray<Message> | undefined = Array.from({ length: count }, (_, at) => turn(String(at)))
        .flat()
      let last = messages
      while (messages !== undefined) {
        last = messages
        messages = shortened(messages, tooLong)
        assert.isBelow(messages?.length ?? 0, last.length)
      }
      assert.deepStrictEqual(last, turn(String(count - 1)))
    }))
  })
})

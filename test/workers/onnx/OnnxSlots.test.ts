import { assert } from "@effect/vitest"
import fc from "fast-check"
import { describe, it } from "vitest"
import { promptPiece } from "../../../src/domain/EngineProtocol.ts"
import type { Decoder } from "../../../src/workers/onnx/OnnxDecoder.ts"
import type { Slot } from "../../../src/workers/onnx/OnnxSlots.ts"
import { begin, shared } from "../../../src/workers/onnx/OnnxSlots.ts"

const slotOf = (tokens: ReadonlyArray<number>, inPieces = 0): Slot => ({
  owner: "",
  tokens,
  cache: { length: tokens.length, tensors: {} },
  inPieces
})

const decoder: Decoder = {
  vocabulary: 1,
  empty: () => ({ length: 0, tensors: {} }),
  cut: (_, length) => ({ length, tensors: {} }),
  read: () => Promise.reject(new Error("Not played.")),
  step: () => Promise.reject(new Error("Not played."))
}

const someTokens = fc.array(fc.nat({ max: 2 }), { maxLength: 8 })
const somePrompt = fc.array(fc.nat({ max: 2 }), { minLength: 1, maxLength: 8 })

describe("OnnxSlots", () => {
  it("shares the longest common beginning, but never the complete prompt", () => {
    fc.assert(fc.property(someTokens, somePrompt, (tokens, prompt) => {
      const count = shared(slotOf(tokens), prompt)
      assert.isBelow(count, prompt.length)
      assert.deepStrictEqual(tokens.slice(0, count), prompt.slice(0, count))
      if (count < Math.min(tokens.length, prompt.length - 1)) assert.notStrictEqual(tokens[count], prompt[count])
    }))
  })

  it("keeps only completely computed pieces", () => {
    const tokens = Array.from({ length: 3 * promptPiece }, (_, index) => index)
    const kept = (slot: Slot, prompt: ReadonlyArray<number>) => {
      const count = begin(decoder, slot, prompt)
      assert.deepStrictEqual(slot, slotOf(prompt.slice(0, count), count))
      return count
    }
    assert.strictEqual(kept(slotOf(tokens, 2 * promptPiece), [...tokens, 0]), 2 * promptPiece)
    assert.strictEqual(kept(slotOf(tokens, 2 * promptPiece), tokens.slice(0, 2 * promptPiece)), promptPiece)
    assert.strictEqual(kept(slotOf(tokens, 0), tokens), 0)
  })
})

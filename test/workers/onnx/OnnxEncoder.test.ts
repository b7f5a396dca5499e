import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import type { EncoderOptions } from "../../../src/workers/onnx/OnnxEncoder.ts"
import { makeEncoder } from "../../../src/workers/onnx/OnnxEncoder.ts"

/** Tokenizing needs no graph. */
const encoderOf = (encoded: Array<string>) =>
  makeEncoder({
    contextWindow: 10,
    tokenizer: {
      longestToken: 10,
      encodeInput: (text: string) => {
        encoded.push(text)
        return { ids: [1], types: [0] }
      }
    }
  } as unknown as EncoderOptions)

const texts = Array.from({ length: 100 }, (_, index) => ({ path: `inputs[${index}]`, text: `${index}` }))

describe("OnnxEncoder", () => {
  it("lets other jobs run while it tokenizes many texts, and reports progress", async () => {
    const encoded: Array<string> = []
    const others: Array<number> = []
    let signs = 0
    const other = () => {
      others.push(encoded.length)
      if (encoded.length < texts.length) setImmediate(other)
    }
    setImmediate(other)
    const read = await encoderOf(encoded).read(texts, { isCancelled: () => false, progress: () => signs++ })
    assert.deepStrictEqual(read.map((each) => each.ok), texts.map(() => true))
    assert.isAbove(others.filter((count) => count < texts.length).length, 3)
    assert.isAbove(signs, 3)
  })

  it("stops tokenizing after a cancellation", async () => {
    const encoded: Array<string> = []
    let cancelled = false
    setImmediate(() => {
      cancelled = true
    })
    await encoderOf(encoded).read(texts, { isCancelled: () => cancelled, progress: () => {} })
    assert.isBelow(encoded.length, texts.length)
  })
})

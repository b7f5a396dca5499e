/** The arithmetic of memory, against figures worked out by hand. */
import { assert } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import * as MemoryEstimate from "../../../src/services/models/MemoryEstimate.ts"
import * as Gguf from "../../../src/services/store/Gguf.ts"

const file = fileURLToPath(new URL("../../../models/tiny-chat-q8_0.gguf", import.meta.url))
const bytes = readFileSync(file)
const header = Result.getOrThrow(Gguf.parse(bytes))
const use = { slots: 1, replicas: 1 }
const of = (more: Partial<MemoryEstimate.Use> = {}) => MemoryEstimate.ofGguf(header, bytes.length, { ...use, ...more })

/** tiny-chat: 6 layers, 6 heads of 32, for keys and for values. */
const entriesPerToken = 2 * 6 * 6 * 32

describe("ofGguf", () => {
  it("counts the weights, and a cache of F16 for the model's own window", () => {
    const estimate = of()
    assert.strictEqual(estimate.weightsBytes, 3_038_976)
    assert.strictEqual(estimate.kvCacheBytes, entriesPerToken * 512 * 2)
    assert.strictEqual(
      estimate.totalBytes,
      estimate.weightsBytes + estimate.kvCacheBytes + estimate.computeBytes
    )
  })

  it("multiplies by slots and replicas what they do not share", () => {
    assert.strictEqual(of({ slots: 8 }).kvCacheBytes, 8 * of().kvCacheBytes)
    assert.strictEqual(of({ replicas: 3 }).kvCacheBytes, 3 * of().kvCacheBytes)
    assert.strictEqual(of({ replicas: 3 }).weightsBytes, of().weightsBytes)
    assert.strictEqual(of({ replicas: 3, useMmap: false }).weightsBytes, 3 * of().weightsBytes)
  })

  it("rounds a window up to 256 tokens", () => {
    assert.strictEqual(of({ contextSize: 257 }).kvCacheBytes, of({ contextSize: 512 }).kvCacheBytes)
    assert.strictEqual(of({ contextSize: 256 }).kvCacheBytes, of({ contextSize: 512 }).kvCacheBytes / 2)
  })

  it("counts blocks of quantized cache types", () => {
    assert.strictEqual(of({ kvCacheType: "q8_0" }).kvCacheBytes, entriesPerToken * 512 / 32 * 34)
    assert.strictEqual(of({ kvCacheType: "q4_0" }).kvCacheBytes, entriesPerToken * 512 / 32 * 18)
  })

  it("uses the heads of keys and values, one number for all layers or one for each", () => {
    const withHeads = (heads: Gguf.Value): number =>
      MemoryEstimate.ofGguf(
        { ...header, metadata: new Map([...header.metadata, ["llama.attention.head_count_kv", heads]]) },
        bytes.length,
        use
      ).kvCacheBytes
    assert.strictEqual(withHeads(2), of().kvCacheBytes / 3)
    assert.strictEqual(withHeads([2, 2, 2, 2, 2, 2]), withHeads(2))
  })

  it("uses the file's size if a tensor's type is unknown", () => {
    const strange = { ...header, tensors: header.tensors.map((tensor) => ({ ...tensor, type: 99, bytes: undefined })) }
    assert.strictEqual(
      MemoryEstimate.ofGguf(strange, bytes.length, use).weightsBytes,
      bytes.length - header.weightsOffset
    )
  })

  it("never decreases with a larger window, more slots or more replicas", () => {
    const size = fc.record({
      contextSize: fc.integer({ min: 1, max: 200_000 }),
      slots: fc.integer({ min: 1, max: 64 }),
      replicas: fc.integer({ min: 1, max: 8 })
    })
    fc.assert(fc.property(size, size, (one, other) => {
      const most = {
        contextSize: Math.max(one.contextSize, other.contextSize),
        slots: Math.max(one.slots, other.slots),
        replicas: Math.max(one.replicas, other.replicas)
      }
      assert.isAtLeast(of(most).totalBytes, of(one).totalBytes)
      assert.isTrue(Number.isSafeInteger(of(most).totalBytes))
    }))
  })
})

describe("ofOnnx", () => {
  it("counts a copy of the weights for each replica and a cache of F32", () => {
    const config = JSON.parse(
      readFileSync(fileURLToPath(new URL("../../../models/tiny-chat-onnx/config.json", import.meta.url)), "utf8")
    ) as Record<string, unknown>
    const estimate = MemoryEstimate.ofOnnx(config, 12_000_000, { slots: 2, replicas: 2 })
    assert.strictEqual(estimate.weightsBytes, 24_000_000)
    assert.strictEqual(estimate.kvCacheBytes, entriesPerToken * 512 * 4 * 2 * 2)
  })
})

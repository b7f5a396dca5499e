import { assert } from "@effect/vitest"
import fc from "fast-check"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import { floatOfHalf, makeDecoder } from "../../../src/workers/onnx/OnnxDecoder.ts"
import { importRuntime, openSession } from "../../../src/workers/onnx/OnnxRuntime.ts"
import { decoderGraph, vectorGraph } from "../../support/OnnxModels.ts"
import type { Graph } from "../../support/OnnxWriter.ts"
import { writeOnnx } from "../../support/OnnxWriter.ts"
import { temporaryFolder } from "../../support/Service.ts"

const open = async (graph: Graph, device: "cpu" | "wasm" = "cpu") => {
  using folder = temporaryFolder()
  const file = join(folder.path, "model.onnx")
  writeFileSync(file, writeOnnx(graph))
  const runtime = await importRuntime({ device, threads: 1 })
  return makeDecoder(runtime.library, await openSession(runtime, file, 1))
}

/** The failure of `open`. */
const failureOf = (graph: Graph): Promise<unknown> => open(graph).then(() => undefined, (cause: unknown) => cause)

describe("OnnxDecoder", () => {
  for (const device of ["cpu", "wasm"] as const) {
    for (const type of ["float32", "float16"] as const) {
      it(`keeps the computed tokens in a cache of ${type} on ${device}`, async () => {
        const decoder = await open(decoderGraph(type, 4), device)
        assert.strictEqual(decoder.vocabulary, 4)
        // Numbers that are exact in half precision, plus positions 0 to 4.
        const read = await decoder.read(decoder.empty(), [10, 20])
        const first = await decoder.step(read, [30])
        const second = await decoder.step(first.cache, [5, 6])
        assert.deepStrictEqual([...first.logits], [63, 31.5, 15.75, 7.875])
        assert.deepStrictEqual([...second.logits], [81, 40.5, 20.25, 10.125])
        assert.strictEqual(second.cache.length, 5)
        const back = decoder.cut(second.cache, 2)
        assert.strictEqual(back.length, 2)
        assert.strictEqual((await decoder.step(back, [30])).logits[0], 63)
        assert.strictEqual((await decoder.step(decoder.cut(back, 0), [30])).logits[0], 30)
        // Continuing from a cache does not change it.
        assert.deepStrictEqual((await decoder.step(read, [0])).logits[0], 33)
      })
    }
  }

  it("rejects a graph with an unknown input, or without a cache", async () => {
    const graph = decoderGraph("float32", 4)
    const strange = { name: "encoder_hidden_states", type: "float32", shape: [1] } as const
    assert.deepInclude(await failureOf({ ...graph, inputs: [...graph.inputs, strange] }), {
      kind: "load_failed",
      message: "The model requires the input encoder_hidden_states, which Troupe does not support."
    })
    assert.match(JSON.stringify(await failureOf(vectorGraph(4, "logits"))), /load_failed.*no KV cache/)
  })

  it("converts half-precision numbers", () => {
    fc.assert(fc.property(fc.nat({ max: 0xffff }), (half) => {
      const expected = new DataView(Uint16Array.of(half).buffer).getFloat16(0, true)
      assert.deepStrictEqual([floatOfHalf(half)], [expected])
    }))
  })
})

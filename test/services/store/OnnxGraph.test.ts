/** Inputs and outputs of ONNX files, and files that are none. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import * as OnnxGraph from "../../../src/services/store/OnnxGraph.ts"

/** Scans a file that is in memory; each piece is overwritten after its use, as a reader's buffer is. */
const read = (bytes: Uint8Array) => {
  const scan = OnnxGraph.scan(bytes.length)
  const buffer = new Uint8Array(70_000)
  let step = scan.next(buffer)
  while (step.done !== true) {
    const { length, offset } = step.value
    assert.isAtMost(offset + length, bytes.length)
    buffer.fill(0).set(bytes.subarray(offset, offset + length))
    step = scan.next(buffer.subarray(0, length))
  }
  return step.value
}

const model = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../models/${name}/onnx/model.onnx`, import.meta.url)))

const field = (number: number, content: Uint8Array | ReadonlyArray<number>): ReadonlyArray<number> => [
  number * 8 + 2,
  (content.length % 128) + 128,
  Math.floor(content.length / 128),
  ...content
]
const text = (value: string) => new TextEncoder().encode(value)
const dimensions = (...sizes: ReadonlyArray<number | string>) =>
  field(
    2,
    field(1, field(2, sizes.flatMap((size) => field(1, typeof size === "number" ? [8, size] : field(2, text(size))))))
  )
const graph = (...fields: ReadonlyArray<ReadonlyArray<number>>) => new Uint8Array([8, 9, ...field(7, fields.flat())])

describe("OnnxGraph", () => {
  it("reads the inputs and outputs of a model", () => {
    const { inputs = [], outputs = [] } = read(model("tiny-chat-onnx")) ?? {}
    assert.includeMembers([...inputs], ["input_ids", "past_key_values.0.key"])
    assert.include(outputs, "logits")
  })

  it("reads the last dimension of the logits, if it is fixed", () => {
    const logits = (...sizes: ReadonlyArray<number | string>) =>
      read(graph(field(1, [0, 0]), field(12, [...field(1, text("logits")), ...dimensions(...sizes)])))
    assert.deepStrictEqual(logits("batch", 3), { inputs: [], outputs: ["logits"], logits: 3 })
    assert.deepStrictEqual(logits(3, "labels"), { inputs: [], outputs: ["logits"], logits: undefined })
  })

  it("reports a file that is cut anywhere", () => {
    const whole = graph(field(11, field(1, text("input_ids"))), field(12, field(1, text("logits"))))
    for (let length = 0; length < whole.length; length++) assert.isUndefined(read(whole.subarray(0, length)))
    assert.deepStrictEqual(read(whole), { inputs: ["input_ids"], outputs: ["logits"], logits: undefined })
  })

  it("ends for any bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      for (const one of [bytes, graph([...bytes])]) {
        const found = read(one)
        assert.isTrue(found === undefined || found.inputs.length + found.outputs.length <= bytes.length)
      }
    }))
  })
})

import { assert } from "@effect/vitest"
import { Exit } from "effect"
import { describe, it } from "vitest"
import { InferenceError, ModelNotFound } from "../../../src/domain/InferenceError.ts"
import type { Ended } from "../../../src/layers/telemetry/RecordedSpans.ts"
import { isSampled, make } from "../../../src/layers/telemetry/RecordedSpans.ts"
import * as SpanIds from "../../../src/layers/telemetry/SpanIds.ts"
import type { AttributeWriter } from "../../../src/services/observability/RequestSpans.ts"

let draws = 0
const random = { nextDoubleUnsafe: () => (draws++ % 97) / 97, nextIntUnsafe: () => draws++ }
const always = { isParentBased: true, ratio: 1 }
const never = { isParentBased: true, ratio: 0 }
const failed = Exit.fail(new InferenceError({ reason: new ModelNotFound({ model: "none", available: [] }) }))
const none = () => {}

const recorded = (sampling: typeof always) => {
  const sent: Array<Ended> = []
  const root = make(sampling, random, (spans) => sent.push(...spans))("chat a", undefined, 1n)!
  return { root, sent }
}

describe("the spans of a request", () => {
  it.each([[always, Exit.void, 2], [never, Exit.void, 0], [never, failed, 2], [never, Exit.interrupt(), 0]])(
    "sampled %o, are sent together when it ends, or not",
    (sampling, end, count) => {
      const { root, sent } = recorded(sampling)
      const inner = root.child("attempt a", "internal", 2n)!
      const late = root.child("attempt b", "internal", 2n)!
      inner.end(3n, Exit.void, none)
      assert.lengthOf(sent, 0)
      root.end(4n, end, none)
      assert.lengthOf(sent, count)
      late.end(5n, Exit.void, none)
      assert.lengthOf(sent, count === 0 ? 0 : 3)
    }
  )

  it("have attributes only where they are sent", () => {
    let made = 0
    const attributes = (to: AttributeWriter) => to.put("made", ++made)
    for (const sampling of [never, always]) {
      const { root } = recorded(sampling)
      root.child("attempt a", "internal", 2n)!.end(3n, Exit.void, attributes)
      root.end(4n, Exit.void, attributes)
    }
    assert.strictEqual(made, 0)
    const { root, sent } = recorded(always)
    root.end(4n, Exit.void, attributes)
    const written: Array<unknown> = []
    sent[0]!.attributes({ put: (...attribute) => void written.push(attribute), putKept: () => assert.fail() })
    assert.deepStrictEqual(written, [["made", 1]])
  })

  it("are one trace, and the headers of a request name the span that sends it", () => {
    const { root, sent } = recorded(always)
    const client = root.child("chat b", "client", 2n)!
    const [, traceparent] = client.headers()
    client.end(3n, failed, none)
    root.end(4n, Exit.void, none)
    const [inference, request] = sent
    assert.match(SpanIds.toHex(request!.traceId), /^[\da-f]{32}$/)
    assert.match(SpanIds.toHex(request!.spanId), /^[\da-f]{16}$/)
    assert.strictEqual(traceparent, `00-${SpanIds.toHex(request!.traceId)}-${SpanIds.toHex(inference!.spanId)}-01`)
    assert.deepStrictEqual(inference!.parentId, request!.spanId)
    assert.isUndefined(request!.parentId)
    assert.strictEqual(inference!.error?.name, "ModelNotFound")
  })
})

describe("an id of a span", () => {
  it("is the same as text and as numbers, and never zero", () => {
    for (const hex of ["00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736", "ffffffff00000000"]) {
      assert.strictEqual(SpanIds.toHex(SpanIds.fromHex(hex)), hex)
    }
    const zeros = [0, 0, 0, 0.5]
    const id = SpanIds.make(2, { ...random, nextDoubleUnsafe: () => zeros.shift()! })
    assert.strictEqual(SpanIds.toHex(id), "0000000080000000")
  })
})

describe("sampling", () => {
  const caller = (sampled: boolean) => ({ sampled }) as never
  it.each([
    ["the ratio decides", { isParentBased: true, ratio: 0.25 }, undefined, 0.2, true],
    ["the ratio decides, above", { isParentBased: true, ratio: 0.25 }, undefined, 0.25, false],
    ["the caller decides", { isParentBased: true, ratio: 0 }, caller(true), 0.5, true],
    ["the caller decides against", { isParentBased: true, ratio: 1 }, caller(false), 0, false],
    ["the caller does not decide", { isParentBased: false, ratio: 1 }, caller(false), 0.5, true]
  ])("%s", (_, sampling, parent, random, expected) => {
    assert.strictEqual(isSampled(sampling, parent, random), expected)
  })
})

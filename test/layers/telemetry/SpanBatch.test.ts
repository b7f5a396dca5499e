/** Both encodings of spans, as a receiver decodes them. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import type { Ended } from "../../../src/layers/telemetry/RecordedSpans.ts"
import * as SpanBatch from "../../../src/layers/telemetry/SpanBatch.ts"
import type { Names } from "../../../src/services/settings/TelemetrySettings.ts"
import type { Received } from "../../support/Collector.ts"
import { spansOfExport } from "../../support/Collector.ts"

const span: Ended = {
  traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
  spanId: "00f067aa0ba902b7",
  parentId: undefined,
  name: "a \"name\" \u2028 漢",
  kind: "client",
  startTime: 1_700_000_000_000_000_001n,
  endTime: 1_700_000_000_000_000_009n,
  error: undefined,
  attributes: {
    "gen_ai.provider.name": "openai",
    text: "\u2028 \"quoted\" 漢",
    flag: false,
    whole: 12,
    unsafe: 2 ** 60,
    fraction: 0.25,
    none: Number.NaN,
    list: ["a", 1, true],
    left: undefined
  }
}
const child: Ended = {
  ...span,
  spanId: "1111111111111111",
  parentId: span.spanId,
  kind: "internal",
  error: { name: "UpstreamFailed", message: "It \"failed\"." },
  attributes: { long: "漢".repeat(100_000) }
}

const received = (
  protocol: "json" | "protobuf",
  names: Names,
  batches: ReadonlyArray<ReadonlyArray<Ended>>
): ReadonlyArray<ReadonlyArray<Received>> => {
  const batch = SpanBatch.make(protocol, { "service.name": "troupe" }, names)
  return batches.map((spans) => {
    for (const one of spans) batch.add(one)
    assert.strictEqual(batch.size, spans.length)
    const body = batch.take()
    assert.strictEqual(batch.size, 0)
    const spansThere = spansOfExport(Buffer.from(body), batch.contentType)
    batch.release(body)
    return spansThere
  })
}

describe.each(["json", "protobuf"] as const)("spans as %s", (protocol) => {
  it("have all values, in each batch its own", () => {
    const [first, second, third] = received(protocol, "latest", [[span, child, span, span, span], [child], [span]])
    assert.lengthOf(first!, 5)
    assert.lengthOf(second!, 1)
    assert.strictEqual(third?.[0]?.spanId, span.spanId)
    const [root, below] = first!
    assert.deepInclude(root!, {
      traceId: span.traceId,
      spanId: span.spanId,
      name: span.name,
      kind: 3,
      startTimeUnixNano: "1700000000000000001",
      endTimeUnixNano: "1700000000000000009",
      events: []
    })
    assert.strictEqual(root!.parentSpanId ?? "", "")
    assert.strictEqual(root!.resource["service.name"], "troupe")
    const { left: _, ...attributes } = span.attributes
    assert.deepStrictEqual(root!.attributes, attributes)
    assert.deepInclude(below!, { parentSpanId: span.spanId, kind: 1 })
    assert.deepStrictEqual(below!.status, { code: 2, message: "It \"failed\"." })
    assert.deepStrictEqual(below!.events, [{
      name: "exception",
      attributes: { "exception.type": "UpstreamFailed", "exception.message": "It \"failed\"." }
    }])
    assert.deepStrictEqual(below!.attributes, child.attributes)
  })

  it.each(
    [
      ["latest", ["gen_ai.provider.name"]],
      ["older", ["gen_ai.system"]],
      ["both", ["gen_ai.system", "gen_ai.provider.name"]]
    ] as const
  )("have the %s names", (names, expected) => {
    const [[only] = []] = received(protocol, names, [[{
      ...span,
      attributes: { "gen_ai.provider.name": "openai" }
    }]])
    assert.deepStrictEqual(only!.attributes, Object.fromEntries(expected.map((name) => [name, "openai"])))
  })
})

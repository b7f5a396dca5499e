/** Both encodings of spans, as a receiver decodes them. */
import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { Ended } from "../../../src/layers/telemetry/RecordedSpans.ts"
import * as SpanBatch from "../../../src/layers/telemetry/SpanBatch.ts"
import * as SpanIds from "../../../src/layers/telemetry/SpanIds.ts"
import { putAll } from "../../../src/services/observability/RequestSpans.ts"
import type { Names } from "../../../src/services/settings/TelemetrySettings.ts"
import type { Received } from "../../support/Collector.ts"
import { spansOfExport } from "../../support/Collector.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"

const attributes = {
  "gen_ai.provider.name": "openai",
  text: "\u2028 \"quoted\" 漢",
  flag: false,
  other: true,
  whole: 12,
  wide: 2 ** 31 - 1,
  wider: 2 ** 31,
  negative: -7,
  unsafe: 2 ** 60,
  fraction: 0.25,
  none: Number.NaN,
  list: ["a", 1, true],
  names: ["a", "b"],
  [`a long name ${"x".repeat(200)}`]: 5,
  [`another long name ${"x".repeat(100)}`]: "漢".repeat(40)
}
const long = { long: "漢".repeat(100_000) }
const kept = { kept: "always", "gen_ai.request.model": "m", left: undefined }

const span: Ended = {
  traceId: SpanIds.fromHex(traceId),
  spanId: SpanIds.fromHex(spanId),
  parentId: undefined,
  name: "a \"name\" \u2028 漢",
  kind: "client",
  startTime: 1_700_000_000_000_000_001n,
  endTime: 1_700_000_000_000_000_009n,
  error: undefined,
  attributes(to) {
    to.putKept(kept)
    putAll({ ...attributes, left: undefined }, to)
  }
}
const child: Ended = {
  ...span,
  spanId: SpanIds.fromHex("1111111111111111"),
  parentId: span.spanId,
  kind: "internal",
  error: { name: "UpstreamFailed", message: "It \"failed\"." },
  attributes: (to) => putAll(long, to)
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
    assert.strictEqual(third?.[0]?.spanId, spanId)
    const [root, below] = first!
    assert.deepInclude(root!, {
      traceId,
      spanId,
      name: span.name,
      kind: 3,
      startTimeUnixNano: "1700000000000000001",
      endTimeUnixNano: "1700000000000000009",
      events: []
    })
    assert.strictEqual(root!.parentSpanId ?? "", "")
    assert.strictEqual(root!.resource["service.name"], "troupe")
    assert.deepStrictEqual(root!.attributes, { kept: "always", "gen_ai.request.model": "m", ...attributes })
    assert.deepInclude(below!, { parentSpanId: spanId, kind: 1 })
    assert.deepStrictEqual(below!.status, { code: 2, message: "It \"failed\"." })
    assert.deepStrictEqual(below!.events, [{
      name: "exception",
      attributes: { "exception.type": "UpstreamFailed", "exception.message": "It \"failed\"." }
    }])
    assert.deepStrictEqual(below!.attributes, long)
  })

  it.each(
    [
      ["latest", ["gen_ai.provider.name"]],
      ["older", ["gen_ai.system"]],
      ["both", ["gen_ai.system", "gen_ai.provider.name"]]
    ] as const
  )("have the %s names", (names, expected) => {
    const provider = { "gen_ai.provider.name": "openai" }
    const written: ReadonlyArray<Ended["attributes"]> = [(to) => putAll(provider, to), (to) => to.putKept(provider)]
    for (const attributes of written) {
      const [[only] = []] = received(protocol, names, [[{ ...span, attributes }]])
      assert.deepStrictEqual(only!.attributes, Object.fromEntries(expected.map((name) => [name, "openai"])))
    }
  })

  it("have the same values where more texts of an attribute came than are kept", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: "binary", maxLength: 60 }), { minLength: 1, maxLength: 200 }), (texts) => {
        const spans = texts.map((text): Ended => ({ ...span, attributes: (to) => to.put("text", text) }))
        const [got] = received(protocol, "latest", [spans])
        assert.deepStrictEqual(
          got?.map(({ attributes }) => attributes["text"]),
          texts.map((text) => text.toWellFormed())
        )
      }),
      { numRuns: 50 }
    )
  })
})

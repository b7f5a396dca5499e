import { assert } from "@effect/vitest"
import { Context, Exit, Option } from "effect"
import { describe, it } from "vitest"
import { encode, encodeJson, Span } from "../../../src/layers/telemetry/OtlpSpan.ts"
import { isSampled } from "../../../src/layers/telemetry/Traces.ts"

let draws = 0
const random = { nextDoubleUnsafe: () => (draws++ % 97) / 97, nextIntUnsafe: () => draws++ }

const spanWith = (attributes: Readonly<Record<string, unknown>>, isSampled = true) => {
  const sent: Array<Span> = []
  const options = {
    name: "a \"name\"",
    parent: Option.none(),
    annotations: Context.empty(),
    links: [],
    startTime: 1_700_000_000_000_000_001n,
    kind: "client" as const,
    sampled: true,
    root: true
  }
  const span = new Span(options, { isSampled, random, send: (spans) => sent.push(...spans) })
  for (const [name, value] of Object.entries(attributes)) span.attribute(name, value)
  return { span, sent, child: () => span.child({ ...options, parent: Option.some(span) }) }
}

const values = {
  text: "\u2028 \"quoted\" 漢",
  flag: false,
  whole: 12,
  unsafe: 2 ** 60,
  fraction: 0.25,
  none: Number.NaN,
  list: ["a", 1, true],
  nothing: null
}

describe("a span in JSON", () => {
  it.each([
    ["of a success", Exit.void],
    ["of a failure", Exit.die(new Error("broken"))],
    ["of an interruption", Exit.interrupt()]
  ])("%s has what the general encoding has", (_, exit) => {
    const { span } = spanWith({ ...values, none: undefined })
    span.end(1_700_000_000_000_000_009n, exit)
    const { droppedAttributesCount: _a, droppedEventsCount: _e, droppedLinksCount: _l, ...expected } = encode(span)
    const pieces: Array<string> = []
    encodeJson(span, pieces)
    const json = JSON.parse(pieces.join("")) as object
    assert.deepInclude({ events: [], links: [], ...json }, JSON.parse(JSON.stringify(expected)) as object)
  })
})

describe("the spans of a request", () => {
  it.each([[true, Exit.void, 2], [false, Exit.void, 0], [false, Exit.die(new Error("broken")), 2], [
    false,
    Exit.interrupt(),
    0
  ]])(
    "sampled %s, are sent together when it ends, or not",
    (isSampled, exit, count) => {
      const { child, sent, span } = spanWith({}, isSampled)
      const inner = child()
      const late = child()
      inner.end(1n, Exit.void)
      assert.lengthOf(sent, 0)
      span.end(2n, exit)
      assert.lengthOf(sent, count)
      late.end(3n, Exit.void)
      assert.lengthOf(sent, count === 0 ? 0 : 3)
      assert.strictEqual(inner.traceId, span.traceId)
      assert.match(span.traceId, /^[\da-f]{32}$/)
      assert.match(span.spanId, /^[\da-f]{16}$/)
    }
  )
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

import { assert } from "@effect/vitest"
import { Context, Option, Tracer } from "effect"
import { describe, it } from "vitest"
import { callerOf, headersOf } from "../../src/domain/TraceContext.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"
const header = (version: string, trace = traceId, span = spanId, flags = "01", rest = "") =>
  `${version}-${trace}-${span}-${flags}${rest}`

describe("a traceparent", () => {
  it.each([
    ["is sampled by its last bit", header("00"), true],
    ["is not sampled without it", header("00", traceId, spanId, "02"), false],
    ["of a later version may be longer", header("01", traceId, spanId, "03", "-more"), true]
  ])("%s", (_, traceparent, sampled) => {
    assert.deepInclude(callerOf({ traceparent }), { traceId, spanId, sampled })
  })

  it.each([
    ["of the invalid version", header("ff")],
    ["longer than its version", header("00", traceId, spanId, "01", "-more")],
    ["with a trace of zeros", header("00", "0".repeat(32))],
    ["with a span of zeros", header("00", traceId, "0".repeat(16))],
    ["in upper case", header("00").toUpperCase()],
    ["that came twice", `${header("00")}, ${header("00")}`],
    ["that is empty", ""]
  ])("%s is ignored", (_, traceparent) => {
    assert.isUndefined(callerOf({ traceparent, tracestate: "vendor=1" }))
  })
})

describe("the headers of a span", () => {
  const below = (parent: Tracer.AnySpan) =>
    new Tracer.NativeSpan({
      name: "child",
      parent: Option.some(parent),
      annotations: Context.empty(),
      links: [],
      startTime: 0n,
      kind: "client",
      sampled: parent.sampled
    })

  it("have its ids, and the state of the trace that it joined", () => {
    const span = below(below(callerOf({ traceparent: header("00"), tracestate: "vendor=1,other=2" })!))
    assert.deepStrictEqual(headersOf(span), [
      "traceparent",
      `00-${traceId}-${span.spanId}-01`,
      "tracestate",
      "vendor=1,other=2"
    ])
  })

  it.each([["empty", ""], ["too long", "x".repeat(2000)]])("have no state that is %s", (_, tracestate) => {
    const span = below(callerOf({ traceparent: header("00", traceId, spanId, "00"), tracestate })!)
    assert.deepStrictEqual(headersOf(span), ["traceparent", `00-${traceId}-${span.spanId}-00`])
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as LatencyStats from "../../../src/services/health/LatencyStats.ts"

/** What a request measures that has its slot after 10 s, content 100 ms later, and its end 400 ms after that. */
const measured = (...parts: ReadonlyArray<"granted" | "content" | "success" | "failure" | "left">) => {
  const at = { granted: 10_000, content: 10_100, success: 10_500, failure: 10_500, left: 10_500 }
  let now = 0
  const stats = LatencyStats.make(() => now)
  const sample = stats.begin("a")
  for (const part of parts) {
    now = at[part]
    if (part === "granted") sample.granted()
    else if (part === "content") sample.content()
    else sample.end(part, 5)
  }
  const { firstTokenMs, firstTokens, inFlight, latencyMs, samples, tokensPerSecond } = stats.of("a")
  return { firstTokenMs, firstTokens, inFlight, latencyMs, samples, tokensPerSecond }
}

const nothing = {
  firstTokenMs: undefined,
  firstTokens: [],
  inFlight: 0,
  latencyMs: undefined,
  samples: 0,
  tokensPerSecond: undefined
}

describe("the latency of a request", () => {
  it("begins with its slot, to the first token and to the end", () => {
    assert.deepStrictEqual(measured("granted", "content", "success"), {
      firstTokenMs: 100,
      firstTokens: [100],
      inFlight: 0,
      latencyMs: 500,
      samples: 1,
      tokensPerSecond: 10
    })
  })

  it("is that of the first slot and the first content", () => {
    assert.deepStrictEqual(
      measured("granted", "content", "granted", "content", "success"),
      measured("granted", "content", "success")
    )
  })

  it("is none without a slot, however long it waited", () => {
    assert.deepStrictEqual(measured("content", "failure"), { ...nothing, samples: 1 })
    assert.deepStrictEqual(measured("success"), { ...nothing, latencyMs: 0, samples: 1 })
  })

  it("does not count where its caller left", () => {
    assert.deepStrictEqual(measured("granted", "content", "left"), nothing)
    assert.deepStrictEqual(measured("granted", "content"), { ...nothing, inFlight: 1 })
  })
})

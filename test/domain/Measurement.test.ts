import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Measurement as MeasurementOf, Sample } from "../../src/domain/Measurement.ts"
import { unmeasured } from "../../src/domain/Measurement.ts"
import * as Measurement from "../../src/domain/Measurement.ts"

const of = (samples: ReadonlyArray<readonly [Sample, number]>): MeasurementOf =>
  samples.reduce((all, [sample, at]) => Measurement.ended(Measurement.started(all), sample, at), unmeasured)

const answer = (tookMs: number, more: Partial<Sample> = {}): Sample => ({ ok: true, tookMs, ...more })

const sample = fc.record({
  ok: fc.boolean(),
  tookMs: fc.integer({ min: 1, max: 100_000 }),
  firstTokenMs: fc.option(fc.integer({ min: 1, max: 1_000 }), { nil: undefined }),
  tokens: fc.option(fc.nat(1_000), { nil: undefined })
})

const history = fc.array(fc.tuple(sample, fc.nat(60_000)), { minLength: 1, maxLength: 40 }).map((steps) => {
  let now = 0
  return steps.map(([one, pause]) => [one, now += pause] as const)
})

describe("Measurements", () => {
  it("leaves figures without measurements undefined, not zero", () => {
    assert.strictEqual(unmeasured.latencyMs, undefined)
    assert.strictEqual(Measurement.expectedMs(unmeasured, 100), undefined)
    assert.strictEqual(Measurement.confidence(unmeasured, 0), 0)
    assert.strictEqual(Measurement.slowestFirstToken(unmeasured), undefined)
  })

  it("counts a slower answer in full and a faster one gradually", () => {
    const slower = of([[answer(100), 0], [answer(500), 1_000]])
    assert.strictEqual(slower.latencyMs, 500)
    const faster = Measurement.ended(slower, answer(100), 2_000)
    assert.isAbove(faster.latencyMs!, 400)
    assert.isBelow(faster.latencyMs!, 500)
  })

  it("reduces the weight of a slow answer after fast ones", () => {
    const fast = Array.from({ length: 60 }, (_, index) => [answer(100), 1_000 + index * 1_000] as const)
    assert.isBelow(of([[answer(60_000), 0], ...fast]).latencyMs!, 300)
  })

  it("does not make a deployment that fails fast look fast, but counts slow failures", () => {
    const failing = of([[answer(500), 0], [{ ok: false, tookMs: 1 }, 1_000]])
    assert.strictEqual(failing.latencyMs, 500)
    assert.isAbove(failing.errorRate, 0)
    assert.strictEqual(Measurement.ended(failing, { ok: false, tookMs: 30_000 }, 2_000).latencyMs, 30_000)
    assert.isAbove(Measurement.expectedMs(failing, 100)!, 500)
  })

  it("measures speed by the tokens after the first", () => {
    const { tokensPerSecond } = of([[answer(1_100, { firstTokenMs: 100, tokens: 51 }), 0]])
    assert.strictEqual(tokensPerSecond, 50)
  })

  it("expects the first token and then the others at the measured speed", () => {
    const measured = of([[answer(1_100, { firstTokenMs: 100, tokens: 51 }), 0]])
    assert.strictEqual(Measurement.expectedMs(measured, 200), 4_100)
  })

  it("expects of buffered answers the time for each token that earlier answers took", () => {
    const measured = of([[answer(1_000, { tokens: 50 }), 0]])
    assert.strictEqual(measured.tokensPerSecond, 50)
    assert.strictEqual(measured.firstTokenMs, undefined)
    assert.strictEqual(Measurement.expectedMs(measured, 100), 2_000)
  })

  it("has less confidence the older it is", () => {
    const measured = of([[answer(100), 0]])
    const ages = [0, 60_000, 300_000, 3_600_000].map((now) => Measurement.confidence(measured, now))
    assert.strictEqual(ages[0], 1)
    assert.strictEqual(ages[2], 0.5)
    assert.deepStrictEqual(ages, ages.toSorted((a, b) => b - a))
  })

  it("has the 95th percentile of the time to first token once there are enough samples", () => {
    const times = Array.from({ length: 20 }, (_, index) => [answer(1_000, { firstTokenMs: index + 1 }), index] as const)
    assert.strictEqual(Measurement.slowestFirstToken(of(times.slice(0, 9))), undefined)
    assert.strictEqual(Measurement.slowestFirstToken(of(times)), 19)
  })

  it("stays within the measured values, whatever happens", () => {
    fc.assert(fc.property(history, (samples) => {
      const measured = of(samples)
      const slowest = Math.max(...samples.map(([{ tookMs }]) => tookMs))
      assert.strictEqual(measured.samples, samples.length)
      assert.isTrue(measured.errorRate >= 0 && measured.errorRate <= 1)
      assert.isAtMost(measured.firstTokens.length, 64)
      assert.isAtMost(measured.latencyMs ?? 0, slowest)
      assert.strictEqual(measured.latencyMs === undefined, samples.every(([{ ok }]) => !ok))
    }))
  })

  it("counts requests in flight, and never below zero", () => {
    fc.assert(fc.property(fc.array(fc.constantFrom("start", "end", "leave")), (steps) => {
      let expected = 0
      let measured = unmeasured
      for (const step of steps) {
        expected = step === "start" ? expected + 1 : Math.max(0, expected - 1)
        measured = step === "start"
          ? Measurement.started(measured)
          : step === "end"
          ? Measurement.ended(measured, answer(1), 0)
          : Measurement.left(measured)
      }
      assert.strictEqual(measured.inFlight, expected)
    }))
  })
})

/** What a request measures that has its slot after 10 s, content 100 ms later, and its end 400 ms after that. */
const measured = (...parts: ReadonlyArray<"granted" | "content" | "success" | "failure" | "left">) => {
  const at = { granted: 10_000, content: 10_100, success: 10_500, failure: 10_500, left: 10_500 }
  let now = 0
  const stats = Measurement.makeStats(() => now)
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

  it("is none without a slot, regardless of the wait", () => {
    assert.deepStrictEqual(measured("content", "failure"), { ...nothing, samples: 1 })
    assert.deepStrictEqual(measured("success"), { ...nothing, latencyMs: 0, samples: 1 })
  })

  it("does not count if its caller disconnected", () => {
    assert.deepStrictEqual(measured("granted", "content", "left"), nothing)
    assert.deepStrictEqual(measured("granted", "content"), { ...nothing, inFlight: 1 })
  })
})

import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { Availability, sumOf } from "../../../src/services/health/Availability.ts"

const every = 5_000

/** Samples for this many minutes; a request each, of which some fail. */
const after = (minutes: number, isFailure: (minute: number) => boolean, isAvailable = (_: number) => true) => {
  const availability = new Availability()
  let answered = 0
  let failed = 0
  for (let at = 0; at <= minutes * 60_000; at += every) {
    availability.add({ at, answered, failed, isAvailable: isAvailable(at / 60_000) })
    if (isFailure(at / 60_000)) failed++
    else answered++
  }
  return availability
}

describe("availability", () => {
  it("is that of each window", () => {
    const availability = after(120, (minute) => minute >= 110 && minute < 112, (minute) => minute < 30 || minute >= 33)
    assert.deepStrictEqual(availability.over("5m"), {
      window: "5m",
      seconds: 300,
      requests: 60,
      failed: 0,
      errorRate: 0,
      availability: 1,
      meetsTargets: true
    })
    const hour = availability.over("1h")
    assert.deepInclude(hour, { seconds: 3600, requests: 720, failed: 24, availability: 1, meetsTargets: false })
    const day = availability.over("1d")
    assert.deepInclude(day, { seconds: 7200, failed: 24, meetsTargets: false })
    assert.approximately(day.availability, 1 - 3 / 120, 0.001)
  })

  it("is that of several processes together, by the time that each covers", () => {
    const long = after(5, () => false).over("5m")
    const short = after(1, () => true, () => false).over("5m")
    assert.deepInclude(short, { seconds: 60, requests: 12, failed: 12, availability: 0 })
    const sum = sumOf(long, [short])
    assert.deepInclude(sum, { window: "5m", seconds: 300, requests: 72, failed: 12, meetsTargets: false })
    assert.approximately(sum.errorRate ?? 0, 12 / 72, 1e-9)
    assert.approximately(sum.availability, 300 / 360, 1e-9)
    assert.deepStrictEqual(sumOf(long, []), long)
    const none = new Availability().over("5m")
    assert.deepStrictEqual(sumOf(none, [none]), none)
  })

  it("keeps a bounded number of samples over days", () => {
    const day = after(3 * 1_440, () => false).over("1d")
    assert.deepInclude(day, { seconds: 86_400, requests: 17_280, availability: 1 })
  })

  it("has no error rate without requests", () => {
    const availability = new Availability()
    availability.add({ at: 0, answered: 0, failed: 0, isAvailable: true })
    availability.add({ at: every, answered: 0, failed: 0, isAvailable: true })
    assert.deepStrictEqual(availability.over("1d"), {
      window: "1d",
      seconds: 5,
      requests: 0,
      failed: 0,
      availability: 1,
      meetsTargets: true
    })
  })
})

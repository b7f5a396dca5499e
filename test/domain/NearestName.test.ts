import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { didYouMean, didYouMeanId, likelyName, nearestName } from "../../src/domain/NearestName.ts"

const names = ["host", "port", "contextSize", "shutdownGrace", "gpu"]

describe("nearestName", () => {
  it.each([
    ["hots", "host"],
    ["prot", "port"],
    ["pots", undefined],
    ["PORT", "port"],
    ["context_size", "contextSize"],
    ["contexSise", "contextSize"],
    ["shutdown-grace", "shutdownGrace"],
    ["gpus", "gpu"],
    ["xy", undefined],
    ["temperature", undefined],
    ["", undefined]
  ])("takes %j for %s", (name, expected) => {
    assert.strictEqual(nearestName(name, names), expected)
  })

  it("chooses the nearest, not the first", () => {
    assert.strictEqual(nearestName("variant", ["variance", "variants"]), "variants")
  })

  it("chooses the one with the same beginning among equally near ones", () => {
    for (const known of [["top_p", "stop"], ["stop", "top_p"]]) assert.strictEqual(nearestName("stopp", known), "stop")
  })

  it("chooses the one with the same end among those with the same beginning", () => {
    for (const known of [["store", "storage"], ["storage", "store"]]) {
      assert.strictEqual(nearestName("storge", known), "storage")
    }
  })

  it("finds any name with one letter too many, too few or wrong", () => {
    const slip = fc.tuple(
      fc.constantFrom("contextSize", "shutdownGrace"),
      fc.nat({ max: 10 }),
      fc.constantFrom("", "q"),
      fc.nat({ max: 1 })
    )
    fc.assert(fc.property(slip, ([name, at, letter, removed]) => {
      assert.strictEqual(nearestName(name.slice(0, at) + letter + name.slice(at + removed), names), name)
    }))
  })
})

describe("likelyName", () => {
  it.each([
    ["eror", "errors"],
    ["gpuMem", "gpuMemory"],
    ["mem", "memory"],
    ["me", undefined],
    ["xerrors", "errors"],
    ["rrors", "errors"],
    ["tolerance", undefined]
  ])("takes %j for %s", (name, expected) => {
    assert.strictEqual(likelyName(name, ["refusals", "errors", "gpuMemory", "memory"]), expected)
  })

  it("is a sentence, and says nothing of ids with another number only", () => {
    assert.deepStrictEqual([didYouMean("chta", ["chat"]), didYouMean("x", ["chat"])], [" Did you mean chat?", ""])
    assert.deepStrictEqual(
      [didYouMeanId("chta#1", ["chat#0", "chat#1"]), didYouMeanId("chat#7", ["chat#0", "chat#1"])],
      [" Did you mean chat#1?", ""]
    )
  })
})

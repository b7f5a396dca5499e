import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Draws } from "../../../bench/RolloutSimulation.ts"
import { resolveShadow, ShadowSettings } from "../../../src/services/rollout/RolloutSettings.ts"
import * as Shadow from "../../../src/services/rollout/Shadow.ts"

const plan = resolveShadow({ to: "chat#1", share: 0.2, exceptTenants: ["bank"] })
const fine = { failed: false, refused: false }
const failed = { failed: true, refused: false }

describe("the choice of requests to copy", () => {
  const chosen = (tenant: string | undefined, share = 0.2) =>
    Array.from({ length: 10_000 }, (_, index) => Shadow.copies({ ...plan, share }, 7, index, tenant))

  it("copies the share, always the same requests", () => {
    const copied = chosen("shop").filter((choice) => choice === "copied").length
    assert.closeTo(copied / 10_000, 0.2, 0.02)
    assert.deepStrictEqual(chosen("shop"), chosen(undefined))
    assert.isTrue(chosen("shop", 0).every((choice) => choice === "notDrawn"))
    assert.isTrue(chosen("shop", 1).every((choice) => choice === "copied"))
  })

  it("leaves excepted tenants out", () => {
    assert.isFalse(chosen("bank").includes("copied"))
    assert.deepStrictEqual(
      chosen("bank").map((choice) => choice === "optedOut"),
      chosen("shop").map((choice) => choice === "copied")
    )
  })
})

describe("the comparison of two answers", () => {
  it("is exact but for white space at the ends", () => {
    assert.strictEqual(Shadow.exact("Yes.\n", " Yes."), 1)
    assert.strictEqual(Shadow.exact("Yes.", "yes."), 0)
  })

  it("is the cosine of embeddings, at least 0", () => {
    assert.closeTo(Shadow.similarity([3, 4], [6, 8]), 1, 1e-12)
    assert.closeTo(Shadow.similarity([1, 0], [1, 1]), Math.SQRT1_2, 1e-12)
    assert.strictEqual(Shadow.similarity([1, 0], [-1, 0]), 0)
    assert.strictEqual(Shadow.similarity([1, 0], [1, 0, 0]), 0)
    assert.strictEqual(Shadow.similarity([0, 0], [1, 0]), 0)
  })
})

describe("what copies have shown", () => {
  it("adds the pairs of several processes", () => {
    const [one, other] = [Shadow.emptyBatch(), Shadow.emptyBatch()]
    for (const agreement of [1, 1, 1, 0.3]) Shadow.record(one, plan, fine, fine, agreement)
    Shadow.record(other, plan, failed, fine)
    Shadow.record(other, plan, fine, failed)
    Shadow.record(other, plan, failed, failed)
    Shadow.skip(other, "underPressure")
    Shadow.skip(other, "optedOut")
    const shadow = [one, other].reduce(Shadow.observed, Shadow.start(plan))
    const { metrics, ...counts } = Shadow.report(shadow)
    assert.deepStrictEqual(counts, {
      pairs: 7,
      compared: 4,
      agreed: 3,
      medianAgreement: 0.95,
      onlyOriginalFailed: 1,
      onlyCopyFailed: 1,
      underPressure: 1,
      optedOut: 1
    })
    assert.deepStrictEqual(metrics[0]?.candidate, { count: 2, of: 7 })
    assert.deepStrictEqual({ ...Shadow.report(Shadow.evaluated(shadow)), metrics }, Shadow.report(shadow))
  })

  const afterPairs = (copyFailures: number) => {
    const draws = new Draws(3)
    let shadow = Shadow.start(plan)
    for (let evaluation = 0; evaluation < 30; evaluation++) {
      const batch = Shadow.emptyBatch()
      for (let pair = 0; pair < 20; pair++) {
        // What fails the original fails the copy as well.
        const original = draws.chance(0.1) ? failed : fine
        Shadow.record(batch, plan, original, original.failed || draws.chance(copyFailures) ? failed : fine)
      }
      shadow = Shadow.evaluated(Shadow.observed(shadow, batch))
    }
    return shadow
  }

  it("has evidence where the copies are worse, and none where they fail with the originals", () => {
    const found = (copyFailures: number) =>
      Shadow.report(afterPairs(copyFailures)).metrics.filter(({ logE, needed }) => logE >= needed)
    assert.deepStrictEqual(found(0.2).map(({ metric }) => metric), ["errors"])
    assert.deepStrictEqual(found(0), [])
  })

  it("is a state that survives JSON", () => {
    const json = Schema.fromJsonString(Shadow.Shadow)
    const shadow = afterPairs(0.2)
    assert.deepStrictEqual(Schema.decodeSync(json)(Schema.encodeSync(json)(shadow)), shadow)
  })
})

describe("the settings of copies", () => {
  it("have defaults", () => {
    const decoded = Schema.decodeUnknownSync(ShadowSettings)({ to: "chat#1", share: 0.1 })
    assert.deepInclude(resolveShadow(decoded), { compare: "exact", agreesFrom: 1, maxConcurrent: 4, exceptTenants: [] })
    assert.strictEqual(resolveShadow({ ...decoded, compare: "similarity" }).agreesFrom, 0.9)
  })
})

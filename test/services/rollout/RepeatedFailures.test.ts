import { assert, describe, it } from "@effect/vitest"
import { apartMs, RepeatedFailures } from "../../../src/services/rollout/RepeatedFailures.ts"

const [stable, candidate] = [1, 2]

describe("a failure", () => {
  it("is a repetition after another one of the session at the version", () => {
    const failures = new RepeatedFailures()
    assert.isFalse(failures.isRepeated(stable, 7))
    assert.isTrue(failures.isRepeated(stable, 7))
    assert.isFalse(failures.isRepeated(candidate, 7))
    assert.isFalse(failures.isRepeated(stable, 8))
  })

  it("counts again after a minute, however often the session has failed meanwhile", () => {
    const failures = new RepeatedFailures()
    const repeated = Array.from({ length: 10 }, () => {
      const isRepeated = failures.isRepeated(stable, 7)
      failures.pass(apartMs / 5)
      return isRepeated
    })
    assert.deepStrictEqual(repeated.flatMap((isRepeated, fifth) => isRepeated ? [] : [fifth]), [0, 5])
  })

  it("without a session is none", () => {
    const failures = new RepeatedFailures()
    assert.isFalse(failures.isRepeated(stable, undefined))
    assert.isFalse(failures.isRepeated(stable, undefined))
  })
})

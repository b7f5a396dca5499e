/** Checks beside requests: what they find in long texts, and what they leave out under load. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { FlagChecks } from "../../../src/services/guard/FlagChecks.ts"
import { InputPolicy } from "../../../src/services/guard/InputPolicy.ts"
import { allRules } from "../../../src/services/settings/GuardSettings.ts"

const origin = { model: "a" }

const make = () => {
  const recorded: Array<string> = []
  const started: Array<Effect.Effect<void>> = []
  const checks = new FlagChecks(
    new InputPolicy(allRules("flag")),
    { record: (rule) => recorded.push(rule) },
    (checking) => started.push(checking)
  )
  const user = (content: string) => checks.note([{ role: "user", content }], origin)
  return { recorded, started, user }
}

const run = (checks: Effect.Effect<void>) =>
  Effect.gen(function*() {
    yield* Effect.forkChild(checks)
    yield* TestClock.adjust("1 minute")
  })

describe("checks beside requests", () => {
  it.effect("find what lies at the border of two slices of a long text", () =>
    Effect.gen(function*() {
      for (const place of [16_370, 16_380, 15_870, 100_000]) {
        const { recorded, started, user } = make()
        user(`${" ".repeat(place)}al@example.com${" ".repeat(300_000)}`)
        yield* run(started[0]!)
        assert.deepStrictEqual(recorded, ["email"])
      }
    }))

  it.effect("leave requests out while too many characters wait, and start again", () =>
    Effect.gen(function*() {
      const { recorded, started, user } = make()
      user(" ".repeat(200_000))
      user("al@example.com")
      assert.deepStrictEqual(recorded, ["unchecked"])
      assert.lengthOf(started, 1)
      yield* run(started[0]!)
      user("al@example.com")
      assert.lengthOf(started, 2)
      yield* run(started[1]!)
      assert.deepStrictEqual(recorded, ["unchecked", "email"])
    }))

  it("ignore what is no list of messages", () => {
    const { recorded, started } = make()
    new FlagChecks(new InputPolicy(allRules("flag")), { record: () => {} }, () => {}).note([null] as never, origin)
    assert.deepStrictEqual([recorded, started], [[], []])
    const given: Array<unknown> = []
    const chat = new FlagChecks(new InputPolicy(allRules("flag")), { record: () => {} }, () => {}).beside({
      generate: (request: unknown) => {
        given.push(request)
        return Effect.die("not called")
      }
    } as never)
    assert.isTrue(Effect.isEffect(chat.generate(undefined as never)))
    assert.deepStrictEqual(given, [undefined])
  })
})

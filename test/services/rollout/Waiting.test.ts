import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import * as Comparison from "../../../src/services/rollout/Comparison.ts"
import { Rollout } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import { resolve, resolveComparison } from "../../../src/services/rollout/RolloutSettings.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"
import { Waiting } from "../../../src/services/rollout/Waiting.ts"

const { levels } = Tally.scales.hanging

/** Levels are powers of a root: 200 ms is one of them. */
const rounding = 1e-6

const request = fc.record({
  at: fc.integer({ min: 0, max: 20_000 }),
  tookMs: fc.integer({ min: 0, max: 40_000 }),
  isAnswered: fc.boolean()
})
type Request = typeof request extends fc.Arbitrary<infer A> ? A : never

/** What is known of the requests at a time: of each level, those above it, and those that are known to be on one side. */
const expected = (requests: ReadonlyArray<Request>, now: number) =>
  levels.map((level) => {
    const begun = requests.filter(({ at }) => at <= now)
    const above = begun.filter(({ at, tookMs }) => Math.min(tookMs, now - at) >= level - rounding).length
    const below = begun.filter(({ at, isAnswered, tookMs }) =>
      isAnswered && at + tookMs <= now && tookMs < level - rounding
    ).length
    return [above, above + below]
  })

const found = ({ answered, waiting }: Tally.Tally) =>
  levels.map((_, level) => {
    const after = (buckets: ReadonlyArray<number>) => buckets.slice(level + 1).reduce((sum, count) => sum + count, 0)
    const above = after(answered) + after(waiting)
    return [above, above + answered.slice(0, level + 1).reduce((sum, count) => sum + count, 0)]
  })

describe("requests without an answer", () => {
  it("count once at every level that they have reached, however often they are reported", () => {
    fc.assert(
      fc.property(fc.array(request), fc.integer({ min: 1_500, max: 9_000 }), (requests, everyMs) => {
        let batch = Tally.empty()
        let sum = Tally.empty()
        const waiting = new Waiting(() => batch)
        const events = requests.flatMap((one) => {
          let wait: ReturnType<Waiting["begin"]> | undefined
          return [
            { at: one.at, run: (now: number) => void (wait = waiting.begin(undefined, now)) },
            {
              at: one.at + one.tookMs,
              run: (now: number) => wait!.end(now, one.isAnswered)
            }
          ]
        }).toSorted((a, b) => a.at - b.at)
        for (let now = everyMs; now < 62_000 + everyMs; now += everyMs) {
          while (events[0] !== undefined && events[0].at <= now) {
            const { at, run } = events.shift()!
            run(at)
          }
          waiting.report(now)
          // No batch takes away what another one has counted.
          for (const [above = 0, of = 0] of found(batch)) assert.isTrue(above >= 0 && of >= above)
          sum = Tally.add(sum, batch)
          batch = Tally.empty()
          assert.deepStrictEqual(found(sum), expected(requests, now))
        }
      }),
      // A wait of exactly a level.
      { numRuns: 20, examples: [[[{ at: 0, tookMs: 400, isAnswered: false }], 1500]] }
    )
  })

  it("end once", () => {
    const tally = Tally.empty()
    const waiting = new Waiting(() => tally)
    const [first, second, third] = [0, 0, 0].map(() => waiting.begin(undefined, 0))
    second!.end(300, true)
    second!.end(9_000, false)
    first!.end(250, false)
    first!.end(9_000, true)
    third!.end(50, true)
    waiting.report(60_000)
    const bucketOf = Tally.scales.hanging.bucketOf
    assert.strictEqual(tally.answered[bucketOf(300)], 1)
    assert.strictEqual(tally.answered[bucketOf(50)], 1)
    assert.strictEqual(tally.waiting[bucketOf(250)], 1)
    assert.strictEqual(tally.waiting.reduce((sum, count) => sum + Math.max(0, count), 0), 1)
  })

  it("are compared where the old version has no requests any more", () => {
    const plan = resolveComparison()
    const tallies = { stable: Tally.empty(), candidate: Tally.empty() }
    const waiting = new Waiting(() => tallies.candidate)
    for (let index = 0; index < 10; index++) {
      Tally.record(tallies.stable, { failed: false, refused: false, firstTokenMs: 200 })
      Tally.answered(tallies.stable, 0, 200)
      waiting.begin("new", 0)
    }
    let compared = Comparison.fresh()
    for (let now = 250; now <= 2_000; now += 250) {
      waiting.report(now)
      compared = Comparison.evaluated(Comparison.observed(compared, tallies), plan)
      tallies.stable = Tally.empty()
      tallies.candidate = Tally.empty()
    }
    const worst = Comparison.worst(Comparison.metricsOf(compared, plan))
    assert.deepInclude(worst, { metric: "hanging", candidate: { count: 10, of: 10 }, stable: { count: 0, of: 10 } })
  })

  it("are unknown in states of earlier versions, which go on", () => {
    const input = { id: "r", model: "chat", stable: "chat#0", candidate: "chat#1", plan: resolve() }
    const { state } = RolloutMachine.start(input, 0)
    const text = JSON.stringify(
      Schema.encodeSync(Rollout)(state),
      (key, value: unknown) => key === "answered" || key === "waiting" || key === "hanging" ? undefined : value
    )
    assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.fromJsonString(Rollout))(text), state)
  })
})

/**
 * Random schedules of failures and cancellations against `Inference`: every run satisfies the `Invariants`.
 *
 * **Gotchas**
 *
 * `SEED=96 npx vitest run test/services/inference/Schedules.test.ts` runs one schedule, and prints its events.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { repetitions } from "../../support/Repetitions.ts"
import { policyOf, resultOf } from "../../support/schedules/Checks.ts"
import { faultsOf } from "../../support/schedules/Invariants.ts"
import type { Call, Record } from "../../support/schedules/Record.ts"
import { report, shrink, traceOf } from "../../support/schedules/Report.ts"
import { run } from "../../support/schedules/Run.ts"
import { scheduleOf } from "../../support/schedules/Schedule.ts"

const schedules = repetitions(500, 10_000)
const perPart = 500
/** Few enough for the time limit of a test on a machine with other load. */
const perTest = 50

/** Every schedule with a multiple of this seed runs twice. */
const twice = 50

const assertNothingBroken = Effect.fnUntraced(function*(record: Record) {
  const [first] = faultsOf(record)
  if (first === undefined) return
  assert.fail(report(record, yield* shrink(record, first[0])))
})

/** Counts of outcomes over many schedules, to prove that each outcome occurs. */
const makeTally = () => {
  const tally = {
    success: 0,
    failure: 0,
    cancelled: 0,
    pending: 0,
    takenOver: 0,
    cancelledCalls: 0,
    followed: 0,
    watched: 0,
    opened: 0,
    restarted: 0
  }
  const add = (record: Record) => {
    const { calls, transitions, visits } = record
    for (const visit of visits) {
      const outcome = resultOf(visit)
      tally[outcome]++
      const first = calls.find(({ caller }) => caller === visit.caller.id)
      if (outcome === "success" && first?.finished === false) tally.takenOver++
    }
    const limitsOf = (call: Call) => {
      const { timeouts } = policyOf(record, visits.find(({ caller }) => caller.id === call.caller)!)
      return [timeouts.firstTokenMs, timeouts.stallMs, timeouts.totalMs].filter((limit) => limit !== undefined)
    }
    const watched = calls.filter((call) => call.isFollowed && limitsOf(call).length > 0)
    tally.watched += watched.length
    tally.cancelledCalls += calls.filter(({ cancelled }) => cancelled !== undefined).length
    tally.followed += calls.filter(({ isFollowed }) => isFollowed).length
    tally.opened += transitions.filter(({ to }) => to === "open").length
    tally.restarted +=
      calls.filter(({ outcome: { end }, outcomeReached }) => outcomeReached && (end === "crash" || end === "hang"))
        .length
  }
  return { add, tally }
}

describe("Inference in random schedules", () => {
  const seed = process.env["SEED"]

  // Schedules create many errors, and unused stack traces cost a tenth of the time.
  const { stackTraceLimit } = Error
  beforeAll(() => {
    Error.stackTraceLimit = 0
  })
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit
  })

  it.runIf(seed !== undefined)(
    `satisfies the invariants in schedule ${seed}`,
    () =>
      Effect.runPromise(Effect.gen(function*() {
        const record = yield* run(scheduleOf(Number(seed)))
        process.stdout.write(`${traceOf(record).join("\n")}\n`)
        yield* assertNothingBroken(record)
        assert.isNotEmpty(record.visits)
      }))
  )

  for (let first = 1; first <= schedules; first += perPart) {
    const last = first + perPart - 1
    describe.runIf(seed === undefined)(`schedules ${first} to ${last}`, () => {
      const { add, tally } = makeTally()
      for (let from = first; from <= last; from += perTest) {
        const to = from + perTest - 1
        it(`${from} to ${to} satisfy the invariants`, async () => {
          for (let seed = from; seed <= to; seed++) {
            const record = await Effect.runPromise(run(scheduleOf(seed)))
            await Effect.runPromise(assertNothingBroken(record))
            add(record)
            if (seed % twice !== 0) continue
            const again = await Effect.runPromise(run(scheduleOf(seed)))
            assert.deepStrictEqual(traceOf(again), traceOf(record), `I10: seed ${seed} gives the same decisions`)
          }
        })
      }
      it("have every outcome", () => {
        const {
          cancelled,
          cancelledCalls,
          failure,
          followed,
          opened,
          pending,
          restarted,
          success,
          takenOver,
          watched
        } = tally
        assert.strictEqual(pending, 0)
        assert.isAbove(Math.min(success, failure), 500)
        assert.isAbove(Math.min(cancelled, opened), 150)
        assert.isAbove(Math.min(takenOver, cancelledCalls, restarted), 50)
        assert.isAbove(Math.min(followed, watched), 20)
      })
    })
  }
})

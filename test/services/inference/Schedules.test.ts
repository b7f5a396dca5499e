/**
 * Random worlds against the front door: whatever fails, in whatever order, and whoever leaves meanwhile, what the design
 * promises holds. `Invariants` names what that is.
 *
 * **Gotchas**
 *
 * `SEED=96 npx vitest run test/services/inference/Schedules.test.ts` runs one world alone, and prints all that happens.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fateOf } from "../../support/schedules/Checks.ts"
import { faultsOf } from "../../support/schedules/Invariants.ts"
import type { Record } from "../../support/schedules/Record.ts"
import { report, shrink, traceOf } from "../../support/schedules/Report.ts"
import { run } from "../../support/schedules/Run.ts"
import { worldOf } from "../../support/schedules/World.ts"

const worlds = 10_000
const parts = 20

/** Worlds between two that are run twice. */
const twice = 50

const assertNothingBroken = Effect.fnUntraced(function*(record: Record) {
  const [first] = faultsOf(record)
  if (first === undefined) return
  assert.fail(report(record, yield* shrink(record, first[0])))
})

/** What went on in many worlds, so that they are known to be eventful. */
const makeTally = () => {
  const tally = { success: 0, failure: 0, left: 0, pending: 0, takenOver: 0, cancelled: 0, opened: 0, restarted: 0 }
  const add = ({ calls, transitions, visits }: Record) => {
    for (const visit of visits) {
      const fate = fateOf(visit)
      tally[fate]++
      const first = calls.find(({ caller }) => caller === visit.caller.id)
      if (fate === "success" && first?.finished === false) tally.takenOver++
    }
    tally.cancelled += calls.filter(({ cancelled }) => cancelled !== undefined).length
    tally.opened += transitions.filter(({ to }) => to === "open").length
    tally.restarted +=
      calls.filter(({ fate: { end }, fateCame }) => fateCame && (end === "crash" || end === "hang")).length
  }
  return { add, tally }
}

describe("Inference in random worlds", () => {
  const seed = process.env["SEED"]

  // Worlds are full of errors, whose stacks nobody reads and cost a tenth of the time.
  const { stackTraceLimit } = Error
  beforeAll(() => {
    Error.stackTraceLimit = 0
  })
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit
  })

  it.runIf(seed !== undefined)(
    `keeps what it promises in world ${seed}`,
    () =>
      Effect.runPromise(Effect.gen(function*() {
        const record = yield* run(worldOf(Number(seed)))
        process.stdout.write(`${traceOf(record).join("\n")}\n`)
        yield* assertNothingBroken(record)
        assert.isNotEmpty(record.visits)
      }))
  )

  for (let part = 0; part < parts; part++) {
    const first = 1 + part * worlds / parts
    const last = (part + 1) * worlds / parts
    it.runIf(seed === undefined)(`keeps what it promises in worlds ${first} to ${last}`, async () => {
      const { add, tally } = makeTally()
      for (let seed = first; seed <= last; seed++) {
        const record = await Effect.runPromise(run(worldOf(seed)))
        await Effect.runPromise(assertNothingBroken(record))
        add(record)
        if (seed % twice !== 0) continue
        const again = await Effect.runPromise(run(worldOf(seed)))
        assert.deepStrictEqual(traceOf(again), traceOf(record), `I10: seed ${seed} gives the same decisions`)
      }
      const { cancelled, failure, left, opened, pending, restarted, success, takenOver } = tally
      assert.strictEqual(pending, 0)
      assert.isAbove(Math.min(success, failure), 500)
      assert.isAbove(Math.min(left, opened), 150)
      assert.isAbove(Math.min(takenOver, cancelled, restarted), 50)
    })
  }
})

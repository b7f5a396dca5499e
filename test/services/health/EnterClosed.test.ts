/** `enterClosed` is `enter` at a closed circuit without failures: every sequence of calls gives the same circuit. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Layer, Option, References, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import type { Ending } from "../../../src/services/health/Circuit.ts"

const deployment = "a"

const reasons = {
  broken: new InferenceError.EngineFailed({ deployment, detail: "It broke." }),
  crashed: new InferenceError.EngineCrashed({ deployment, detail: "It crashed." }),
  network: new InferenceError.UpstreamFailed({ deployment, kind: "network", detail: "refused" }),
  slow: new InferenceError.UpstreamTimeout({ deployment, phase: "total", afterMs: 1_000 })
} as const

const endings: Readonly<Record<string, Ending>> = {
  success: { verdict: "success" },
  left: { verdict: "left" },
  defect: { verdict: "failure" },
  ...Object.fromEntries(
    Object.entries(reasons).map(([name, reason]) => [name, { verdict: "failure", reason } satisfies Ending])
  )
}

/** A step of a sequence; `call` is an index of the calls that have begun and not ended. */
type Step =
  | { readonly type: "begin" | "reset" }
  | { readonly type: "content"; readonly call: number }
  | { readonly type: "end"; readonly call: number; readonly ending: string }
  | { readonly type: "wait"; readonly ms: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Step>({ type: "begin" }) },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant("end" as const),
      call: fc.nat(5),
      ending: fc.constantFrom(...Object.keys(endings))
    })
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("content" as const), call: fc.nat(5) }) },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant("wait" as const), ms: fc.constantFrom(1, 999, 1_000, 60_000) })
  },
  { weight: 1, arbitrary: fc.constant<Step>({ type: "reset" }) }
)

/** A call that has begun. */
interface Call {
  readonly content: () => void
  readonly end: (ending: Ending) => Effect.Effect<unknown>
}

const entered = Effect.fnUntraced(function*(breaker: Breaker.Breaker["Service"]) {
  const scope = yield* Scope.make()
  let own: Ending = { verdict: "left" }
  const content = yield* Scope.provide(breaker.enter(deployment, () => own), scope)
  const end = (ending: Ending) => {
    own = ending
    return Scope.close(scope, Exit.void)
  }
  return { content, end } satisfies Call
})

const closed = (breaker: Breaker.Breaker["Service"]): Call | undefined => {
  const call = breaker.enterClosed(deployment)
  return call && { content: () => {}, end: (ending) => call.leave(ending) ?? Effect.void }
}

/** What can be seen of the circuit after a step. */
const seen = Effect.fnUntraced(function*(breaker: Breaker.Breaker["Service"], now: number) {
  return {
    states: yield* breaker.states,
    closedFor: breaker.closedFor(deployment, now),
    failures: breaker.failures(deployment),
    openings: breaker.openings(deployment)
  }
})

/** The circuit and the calls through it. */
interface Run {
  readonly breaker: Breaker.Breaker["Service"]
  readonly calls: Array<Call>
  /** What could be seen after each step. */
  readonly states: Array<unknown>
}

/** A call that cannot begin with `enterClosed` begins with `enter`, as an attempt does. */
const begin = Effect.fnUntraced(function*({ breaker, calls, states }: Run, isDirect: boolean) {
  const direct = isDirect ? closed(breaker) : undefined
  const call = direct ?? Option.getOrUndefined(yield* Effect.option(entered(breaker)))
  states.push(call !== undefined)
  if (call !== undefined) calls.push(call)
})

const perform = (run: Run, step: Step, isDirect: boolean): Effect.Effect<unknown> => {
  const { breaker, calls } = run
  switch (step.type) {
    case "begin":
      return begin(run, isDirect)
    case "content":
      return Effect.sync(() => calls[step.call % Math.max(1, calls.length)]?.content())
    case "end":
      return calls.splice(step.call % Math.max(1, calls.length), 1)[0]?.end(endings[step.ending]!) ?? Effect.void
    case "wait":
      return TestClock.adjust(step.ms)
    case "reset":
      return breaker.reset(deployment)
  }
}

/** Runs a sequence. */
const run = (steps: ReadonlyArray<Step>, isDirect: (index: number) => boolean, opensAfter: number) =>
  Effect.gen(function*() {
    const breaker = yield* Breaker.Breaker
    const clock = yield* Clock.Clock
    const transitions: Array<Breaker.Transition> = []
    yield* Effect.forkScoped(Stream.runForEach(breaker.transitions, (one) => Effect.sync(() => transitions.push(one))))
    yield* TestClock.adjust(0)
    const own: Run = { breaker, calls: [], states: [] }
    for (const [index, step] of steps.entries()) {
      yield* perform(own, step, isDirect(index))
      own.states.push(yield* seen(breaker, clock.currentTimeMillisUnsafe()))
    }
    yield* TestClock.adjust(0)
    return { states: own.states, transitions }
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.provideMerge(
        Breaker.layerWith({ opensAfter, openFor: Duration.seconds(1), closesAfter: 2 }),
        TestClock.layer()
      )
    ),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

describe("Breaker.enterClosed", () => {
  it("gives the same circuit as `enter`, whatever calls begin and end in whatever order", async () => {
    let opened = 0
    const found = await fc.check(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 40 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 4 }),
        async (steps, direct, opensAfter) => {
          const expected = await Effect.runPromise(run(steps, () => false, opensAfter))
          for (const isDirect of [() => true, (index: number) => direct[index % direct.length]!]) {
            assert.deepStrictEqual(await Effect.runPromise(run(steps, isDirect, opensAfter)), expected)
          }
          if (expected.transitions.some(({ to }) => to === "open")) opened++
        }
      ),
      { numRuns: 500, seed: 7 }
    )
    assert.isFalse(found.failed, found.failed ? fc.defaultReportMessage(found) : "")
    assert.isAbove(opened, 50)
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Reason } from "../../../src/domain/InferenceError.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { makePlan, next } from "../../../src/services/resilience/AttemptMachine.ts"
import type { Action, Input, Plan, State, Target } from "../../../src/services/resilience/AttemptPlan.ts"
import { jitter } from "../../../src/services/resilience/Backoff.ts"
import * as HedgeBudget from "../../../src/services/resilience/HedgeBudget.ts"
import { targetsOf } from "../../../src/services/resilience/NextDeployment.ts"
import type { Log, Outcome, Scenario, ScriptedDeployment } from "../../support/AttemptsDriver.ts"
import { run } from "../../support/AttemptsDriver.ts"
import { repetitions } from "../../support/Repetitions.ts"

const target = (deployment: string, more: Partial<Target> = {}): Target => ({ deployment, ...more })

interface Lists {
  readonly ordinary?: ReadonlyArray<Target>
  readonly context?: ReadonlyArray<Target>
  readonly content?: ReadonlyArray<Target>
}

const plan = (lists: Lists, policy: Partial<Policy> = {}, more: Partial<Input> = {}): Plan =>
  makePlan({
    model: "m",
    policy: { ...RoutingPolicy.defaults, ...policy },
    lists: { ordinary: [], context: [], content: [], ...lists },
    now: 0,
    ...more
  })

const detail = "It broke."
const network = (deployment: string) => new InferenceError.UpstreamFailed({ deployment, kind: "network", detail })
const failed = (deployment: string) => new InferenceError.EngineFailed({ deployment, detail })
const limited = (retryAfterMs?: number) => (deployment: string) =>
  new InferenceError.RateLimited({ deployment, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) })
const unauthorised = (deployment: string) => new InferenceError.AuthenticationFailed({ deployment, status: 401 })
const invalid = () => new InferenceError.InvalidRequest({ detail })
const refused = (deployment: string) => new InferenceError.ContentRefused({ deployment, detail })
const tooLong = (promptTokens: number, contextWindow: number) => () =>
  new InferenceError.ContextLengthExceeded({ model: "m", promptTokens, contextWindow })
const counted = () => new InferenceError.ContextLengthExceeded({ model: "m", promptTokens: 200 })
const uncounted = () => new InferenceError.ContextLengthExceeded({ model: "m" })

const answers: Outcome = { contentMs: 10, endMs: 100 }
const fails = (reason: (deployment: string) => Reason, endMs = 5): Outcome => ({ endMs, reason })
const script = (...outcomes: ReadonlyArray<Outcome>): ScriptedDeployment => ({ outcomes })

const actionsOf = ({ entries }: Log) => entries.flatMap(({ actions }) => actions)
const starts = (log: Log) => actionsOf(log).filter((action) => action.type === "start")
const called = ({ calls }: Log) => calls.map(({ deployment }) => deployment)
const failureOf = (log: Log) => actionsOf(log).find((action) => action.type === "fail")!
const endsOf = (log: Log) => [
  ...log.done.map((attempt) => ({ type: "done", attempt })),
  ...actionsOf(log).filter(({ type }) => type === "fail")
]

const a = target("a")
const b = target("b")
const both = { ordinary: [a, b] }

describe("Attempts", () => {
  describe("a deployment that fails", () => {
    it("is retried after growing pauses if a retry may help, and then the next one is tried", () => {
      const log = run(plan(both), { deployments: { a: script(fails(network)), b: script(answers) } })
      assert.deepStrictEqual(called(log), ["a", "a", "a", "b"])
      const [, second, third, next] = starts(log).map(({ afterMs }) => afterMs)
      assert.isTrue(second! >= 200 && second! <= 300 && third! >= 400 && third! <= 600, `${second} ${third}`)
      assert.strictEqual(next, 0)
    })

    it("is retried once for a status of `retryOnce` before the next one, and as often as others where there is none", () => {
      const status = (deployment: string) =>
        new InferenceError.UpstreamFailed({ deployment, kind: "status", status: 500, detail })
      const deployments = { a: script(fails(status)), b: script(answers) }
      assert.deepStrictEqual(called(run(plan(both), { deployments })), ["a", "a", "b"])
      assert.deepStrictEqual(called(run(plan(both, { retries: 0 }), { deployments })), ["a", "b"])
      assert.deepStrictEqual(called(run(plan(both, { retryOnce: [] }), { deployments })), ["a", "a", "a", "b"])
      assert.deepStrictEqual(called(run(plan({ ordinary: [a] }), { deployments })), ["a", "a", "a"])
    })

    it("is not retried if a retry cannot help", () => {
      const log = run(plan(both), { deployments: { a: script(fails(failed)), b: script(answers) } })
      assert.deepStrictEqual(called(log), ["a", "b"])
    })

    it("is followed by another if it is the candidate of a rollout, whatever the failure is", () => {
      const reasons = [network, failed, limited(), unauthorised, invalid, refused, uncounted]
      for (const reason of reasons) {
        for (const policy of [{}, { maxAttempts: 1 }, { retries: 0 }]) {
          const log = run(plan(both, policy, { candidate: "a" }), {
            deployments: { a: script(fails(reason)), b: script(answers) }
          })
          assert.deepStrictEqual(called(log), ["a", "b"], reason("a")._tag)
        }
      }
    })

    it("ends an invalid request", () => {
      const log = run(plan(both), { deployments: { a: script(fails(invalid)), b: script(answers) } })
      assert.deepStrictEqual(called(log), ["a"])
      assert.strictEqual(failureOf(log).reason._tag, "InvalidRequest")
    })

    it("reports every attempt and its cause when all have failed", () => {
      const log = run(plan(both, { retries: 0 }), {
        deployments: { a: script(fails(network, 7)), b: script(fails(failed)) }
      })
      const { attempts, reason } = failureOf(log)
      assert.deepStrictEqual(attempts.map((one) => [one.deployment, one.reason._tag, one.tookMs]), [
        ["a", "UpstreamFailed", 7],
        ["b", "EngineFailed", 5]
      ])
      assert.strictEqual(reason._tag, "EngineFailed")
    })

    it("is reported in preference to a budget that has no room for another attempt, which does not count", () => {
      const spent = () =>
        new InferenceError.BudgetExceeded({
          counter: "tenant t",
          period: "day",
          measure: "tokens",
          most: 500,
          spent: 300,
          reserved: 0,
          needed: 210
        })
      const unknown = () => new InferenceError.Overloaded({ retryAfterMs: 1_000, budgets: "unknown" })
      for (const refusal of [spent, unknown]) {
        const ofAttempts = (log: Log) => {
          const { attempts, reason, started } = failureOf(log)
          return [reason._tag, attempts.map((one) => one.reason._tag), started]
        }
        const retried = run(plan({ ordinary: [a] }), { deployments: { a: script(fails(network), fails(refusal)) } })
        assert.deepStrictEqual(ofAttempts(retried), ["UpstreamFailed", ["UpstreamFailed"], 1])
        const moved = run(plan(both), { deployments: { a: script(fails(failed)), b: script(fails(refusal)) } })
        assert.deepStrictEqual(ofAttempts(moved), ["EngineFailed", ["EngineFailed"], 1])
      }
      const first = run(plan({ ordinary: [a] }), { deployments: { a: script(fails(spent)) } })
      assert.strictEqual(failureOf(first).reason._tag, "BudgetExceeded")
    })

    it("is reported in preference to a rejection", () => {
      const closed = { outcomes: [answers], closed: [{ from: 3, to: 100_000 }] }
      const log = run(plan(both, { retries: 1 }), { deployments: { a: script(fails(network, 2)), b: closed } })
      assert.strictEqual(failureOf(log).reason._tag, "UpstreamFailed")
    })
  })

  describe("a rate limit", () => {
    it("tries a free deployment at once, with low priority", () => {
      const log = run(plan(both), { deployments: { a: script(fails(limited(2_000))), b: script(answers) } })
      assert.deepStrictEqual(
        starts(log).map(({ afterMs, deployment, lowPriority }) => [deployment, afterMs, lowPriority]),
        [
          ["a", 0, false],
          ["b", 0, true]
        ]
      )
    })

    it("waits if no deployment is free, at most as long as the policy says", () => {
      const scenario = (ms: number) => ({ deployments: { a: script(fails(limited(ms)), answers) } })
      const patient = run(plan({ ordinary: [a] }), scenario(9_000))
      assert.deepStrictEqual(starts(patient).map(({ afterMs }) => afterMs), [0, 9_000])
      assert.strictEqual(endsOf(patient)[0]!.type, "done")
      const { reason } = failureOf(run(plan({ ordinary: [a] }), scenario(11_000)))
      assert.strictEqual((reason as InferenceError.RateLimited).retryAfterMs, 11_000)
    })

    it("does not delay an attempt beyond the deadline", () => {
      const short = plan({ ordinary: [a] }, { timeouts: { totalMs: 1_000 } })
      assert.strictEqual(starts(run(short, { deployments: { a: script(fails(limited(2_000)), answers) } })).length, 1)
    })
  })

  describe("a failure with the time when the deployment takes requests again", () => {
    const unavailable = (retryAfterMs: number) => (deployment: string) =>
      new InferenceError.UpstreamFailed({ deployment, kind: "status", status: 503, detail, retryAfterMs })
    const startsAfter = (lists: Lists, retryAfterMs: number) =>
      starts(
        run(plan(lists), { deployments: { a: script(fails(unavailable(retryAfterMs)), answers), b: script(answers) } })
      )

    it("sends the request to the next deployment at once, instead of a retry before that time", () => {
      assert.deepStrictEqual(
        startsAfter(both, 2_000).map(({ afterMs, deployment }) => [deployment, afterMs]),
        [["a", 0], ["b", 0]]
      )
    })

    it("delays the next attempt until that time if no other deployment is free", () => {
      assert.deepStrictEqual(startsAfter({ ordinary: [a] }, 2_000).map(({ afterMs }) => afterMs), [0, 2_000])
    })

    it("changes nothing if the pause before a retry is longer", () => {
      const [first, second] = startsAfter(both, 100)
      assert.deepStrictEqual([first!.deployment, second!.deployment], ["a", "a"])
      assert.isTrue(second!.afterMs >= 200 && second!.afterMs <= 300, String(second!.afterMs))
    })
  })

  it("tries the next deployment if a provider rejects the keys", () => {
    const log = run(plan(both), { deployments: { a: script(fails(unauthorised)), b: script(answers) } })
    assert.deepStrictEqual(called(log), ["a", "b"])
  })

  describe("a prompt that is too long", () => {
    it("requests 0.7 of the answer if the prompt itself fits", () => {
      const log = run(plan({ ordinary: [a] }, {}, { maxTokens: 100 }), {
        deployments: { a: script(fails(tooLong(60, 100)), fails(tooLong(60, 100)), answers) }
      })
      assert.deepStrictEqual(starts(log).map(({ maxTokens }) => maxTokens), [100, 70, 49])
    })

    it("is retried with a shorter answer where only the sum of prompt and answer is known, if the prompt fits alone", () => {
      const sum = (promptTokens: number) => () =>
        new InferenceError.ContextLengthExceeded({ model: "m", promptTokens, contextWindow: 1000, withAnswer: true })
      const limits = (promptTokens: number) =>
        starts(run(plan({ ordinary: [a] }, {}, { maxTokens: 100 }), {
          deployments: { a: script(fails(sum(promptTokens)), answers) }
        })).map(({ maxTokens }) => maxTokens)
      assert.deepStrictEqual(limits(1050), [100, 70])
      assert.deepStrictEqual(limits(1100), [100])
    })

    it("moves to a larger window, by its own list and then by known windows", () => {
      const log = run(
        plan({
          ordinary: [a, target("small", { contextWindow: 50 }), target("large", { contextWindow: 500 })],
          context: [target("long", { contextWindow: 400 })],
          content: [b]
        }),
        {
          deployments: {
            a: script(fails(tooLong(200, 100))),
            small: script(answers),
            long: script(fails(failed)),
            large: script(answers),
            b: script(answers)
          }
        }
      )
      assert.deepStrictEqual(called(log), ["a", "long", "large"])
    })

    const windows = (known: number | undefined) => ({
      ordinary: [
        target("a", { contextWindow: known }),
        ...[100, 200, 300, undefined].map((contextWindow) => target(`ordinary ${contextWindow}`, { contextWindow }))
      ],
      context: [100, 200, 300, undefined].map((contextWindow) => target(`context ${contextWindow}`, { contextWindow })),
      content: [100, 200, 300, undefined].map((contextWindow) => target(`content ${contextWindow}`, { contextWindow }))
    })
    const tried = (known: number | undefined, reason: () => Reason) => {
      const lists = windows(known)
      const others = [...lists.ordinary, ...lists.context, ...lists.content].map(({ deployment }) =>
        [deployment, script(fails(failed))] as const
      )
      const deployments = { ...Object.fromEntries(others), a: script(fails(reason)) }
      return called(run(plan(lists, { maxAttempts: 20 }), { deployments })).slice(1)
    }
    const larger = (than: number) =>
      ["context", "ordinary"].flatMap((list) =>
        [100, 200, 300, undefined].filter((window = 1_000) => window > than).map((window) => `${list} ${window}`)
      )

    it.each([
      ["the reported window, not the configured one", 100, tooLong(250, 200), 200],
      ["the known window, where none is reported", 100, uncounted, 100],
      ["the known window, also where the prompt was counted", 100, counted, 100],
      ["the prompt's length, where no window is known", undefined, counted, 200],
      ["nothing, where neither is known", undefined, uncounted, 0]
    ])("excludes windows that are not larger than %s", (_, known, reason, than) => {
      assert.deepStrictEqual(tried(known, reason), larger(than))
    })

    it("fails the request if no window is larger", () => {
      const log = run(plan({ ordinary: [a, target("b", { contextWindow: 100 })] }), {
        deployments: { a: script(fails(tooLong(200, 100))), b: script(answers) }
      })
      assert.strictEqual(failureOf(log).reason._tag, "ContextLengthExceeded")
      assert.deepStrictEqual(called(log), ["a"])
    })
  })

  it("waits again for a deployment whose circuit refuses the attempt after the wait, as often as it may be retried", () => {
    const refusing = (times: number): ScriptedDeployment => ({
      outcomes: [answers],
      closed: Array.from({ length: times }, (_, index) => ({ from: index * 2_000, to: (index + 1) * 2_000 }))
    })
    const runs = (times: number) => run(plan(both), { deployments: { a: script(fails(failed)), b: refusing(times) } })
    assert.deepStrictEqual(starts(runs(2)).map(({ afterMs, alone, deployment }) => [deployment, afterMs, alone]), [
      ["a", 0, undefined],
      ["b", 1_995, true],
      ["b", 2_000, true]
    ])
    assert.deepStrictEqual(called(runs(3)), ["a", "b"])
    assert.strictEqual(failureOf(runs(4)).reason._tag, "EngineFailed")
  })

  it("moves refused content to its own list, or nowhere", () => {
    const deployments = { a: script(fails(refused)), b: script(answers), c: script(answers) }
    assert.deepStrictEqual(called(run(plan({ ...both, content: [target("c")] }), { deployments })), ["a", "c"])
    assert.strictEqual(failureOf(run(plan(both), { deployments })).reason._tag, "ContentRefused")
  })

  it("reports that no deployment is free, and when one is, without a call", () => {
    const closed = (to: number) => ({ outcomes: [answers], closed: [{ from: 0, to }] })
    const log = run(plan(both), { deployments: { a: closed(9_000), b: closed(4_000) } })
    const reason = failureOf(log).reason as InferenceError.NoDeployment
    assert.strictEqual(reason._tag, "NoDeployment")
    assert.strictEqual(reason.retryAfterMs, 4_000)
    assert.deepStrictEqual(log.calls, [])
  })

  describe("after the first content", () => {
    it("starts no other attempt, and a failure is the request's failure", () => {
      const log = run(plan(both), {
        deployments: { a: script({ contentMs: 1, endMs: 5, reason: network }), b: script(answers) }
      })
      assert.deepStrictEqual(actionsOf(log).map(({ type }) => type), ["start", "commit", "fail"])
    })
  })

  describe("a cut answer that another deployment may continue", () => {
    const goOn = { continue: true }
    const cutBy = (reason: (deployment: string) => Reason): Outcome => ({ contentMs: 1, endMs: 5, reason })

    it("is continued at once by the next deployment, not by its own", () => {
      const log = run(plan(both, goOn), { deployments: { a: script(cutBy(network)), b: script(answers) } })
      assert.deepStrictEqual(actionsOf(log).map(({ type }) => type), ["start", "commit", "start", "commit"])
      assert.deepStrictEqual(log.done, [2])
      assert.deepStrictEqual(starts(log).map(({ afterMs, deployment }) => [deployment, afterMs]), [["a", 0], ["b", 0]])
    })

    it("is continued by its own deployment after a pause, if no other is left and a retry may help", () => {
      const alone = plan({ ordinary: [a] }, goOn)
      assert.deepStrictEqual(called(run(alone, { deployments: { a: script(cutBy(network), answers) } })), ["a", "a"])
      assert.deepStrictEqual(called(run(alone, { deployments: { a: script(cutBy(failed), answers) } })), ["a"])
    })

    it("is not continued if the request is wrong, Troupe is closed, or the deadline has passed", () => {
      for (const reason of [invalid, (deployment: string) => new InferenceError.EngineStopped({ deployment })]) {
        const log = run(plan(both, goOn), { deployments: { a: script(cutBy(reason)), b: script(answers) } })
        assert.deepStrictEqual(called(log), ["a"])
      }
      const late = run(plan(both, { ...goOn, timeouts: { totalMs: 5 } }), {
        deployments: { a: script(cutBy(network)), b: script(answers) }
      })
      assert.deepStrictEqual(called(late), ["a"])
    })

    it("fails with the reason of the cut if no deployment continues it, and lists every attempt", () => {
      const log = run(plan(both, { ...goOn, retries: 0 }), {
        deployments: { a: script(cutBy(network)), b: script(fails(failed)) }
      })
      const { attempts, reason } = failureOf(log)
      assert.strictEqual(reason._tag, "UpstreamFailed")
      assert.deepStrictEqual(attempts.map((one) => one.reason._tag), ["UpstreamFailed", "EngineFailed"])
    })

    it("skips a deployment that supports no continuation", () => {
      const three = { ordinary: [a, b, target("c")] }
      const log = run(plan(three, goOn), {
        deployments: { a: script(cutBy(network)), b: script(fails(invalid)), c: script(answers) }
      })
      assert.deepStrictEqual(called(log), ["a", "b", "c"])
    })

    it("is continued by the deployment that was only slower than the one that was cut", () => {
      const hedged = plan(both, { ...goOn, retries: 0, hedge: { share: 1, afterMs: 10 } })
      const log = run(hedged, {
        deployments: {
          a: script({ contentMs: 100, endMs: 200 }),
          b: script({ contentMs: 20, endMs: 30, reason: failed })
        }
      })
      assert.deepStrictEqual(called(log), ["a", "b", "a"])
      assert.strictEqual(endsOf(log)[0]!.type, "done")
    })
  })

  describe("hedging", () => {
    const hedging = (afterMs?: number) => ({ hedge: { share: 0.05, ...(afterMs === undefined ? {} : { afterMs }) } })
    const slow: Outcome = { contentMs: 1_000, endMs: 1_100 }

    it("starts a second attempt when the first is slow, takes the quicker one and cancels the other", () => {
      const log = run(plan(both, hedging(50)), { deployments: { a: script(slow), b: script(answers) } })
      assert.deepStrictEqual(actionsOf(log), [
        { type: "start", attempt: 1, deployment: "a", afterMs: 0, hedge: false, lowPriority: false },
        { type: "await-hedge", attempt: 1, afterMs: 50 },
        { type: "start", attempt: 2, deployment: "b", afterMs: 0, hedge: true, lowPriority: false },
        { type: "commit", attempt: 2 },
        { type: "cancel", attempt: 1 }
      ])
      assert.deepStrictEqual(log.done, [2])
    })

    it("ignores events of cancelled attempts", () => {
      const log = run(plan(both, hedging(50)), { deployments: { a: script(slow), b: script(answers) } })
      const committed = log.entries.find(({ after }) => after.phase === "committed")!.after
      const late = { type: "failed", attempt: 1, reason: network("a"), tookMs: 60, backoffMs: 250 } as const
      const step = next(committed, late, { now: 60, closedFor: () => 0 })
      assert.deepStrictEqual(step, { state: committed, actions: [] })
    })

    it("waits for the 95th percentile of first tokens by default", () => {
      assert.strictEqual(plan(both, hedging(), { slowestFirstTokenMs: 70 }).hedgeAfterMs, 70)
      assert.strictEqual(plan(both, hedging()).hedgeAfterMs, undefined)
      assert.strictEqual(plan(both, {}, { slowestFirstTokenMs: 70 }).hedgeAfterMs, undefined)
    })

    it("does nothing if the budget does not suffice or no other deployment is free", () => {
      const deployments = { a: script(slow), b: script(answers) }
      assert.deepStrictEqual(called(run(plan(both, hedging(50)), { deployments, hedgeAllowed: false })), ["a"])
      assert.deepStrictEqual(called(run(plan({ ordinary: [a] }, hedging(50)), { deployments })), ["a"])
    })

    it("continues the other attempt when one of the two fails", () => {
      const log = run(plan(both, hedging(50)), { deployments: { a: script(slow), b: script(fails(failed)) } })
      assert.deepStrictEqual(called(log), ["a", "b"])
      assert.deepStrictEqual(endsOf(log), [{ type: "done", attempt: 1 }])
    })

    it("hedges at most its share of requests", () => {
      const policy = { ...RoutingPolicy.defaults, hedge: { share: 0.1 } }
      let budget = HedgeBudget.empty
      let hedges = 0
      for (let request = 0; request < 1_000; request++) {
        budget = HedgeBudget.earn(budget, policy)
        const paid = HedgeBudget.spend(budget)
        if (paid !== undefined) hedges++
        budget = paid ?? budget
      }
      assert.isTrue(hedges >= 99 && hedges <= 100, String(hedges))
    })
  })

  describe("in any scenario", () => {
    const names = ["a", "b", "c", "d", "e"] as const
    const reasons: ReadonlyArray<(deployment: string) => Reason> = [
      network,
      failed,
      limited(),
      limited(700),
      limited(60_000),
      unauthorised,
      invalid,
      refused,
      tooLong(50, 100),
      tooLong(500, 100),
      counted,
      (deployment) => new InferenceError.EngineCrashed({ deployment, detail }),
      (deployment) => new InferenceError.UpstreamTimeout({ deployment, phase: "stall", afterMs: 5 }),
      (deployment) => new InferenceError.QueueFull({ deployment, limit: 1, retryAfterMs: 500 })
    ]
    const outcome: fc.Arbitrary<Outcome> = fc.record({
      contentMs: fc.option(fc.nat(500), { nil: undefined, freq: 2 }),
      endMs: fc.integer({ min: 500, max: 1_000 }),
      reason: fc.option(fc.constantFrom(...reasons), { nil: undefined, freq: 5 })
    })
    const closed = fc.array(
      fc.tuple(fc.nat(4_000), fc.integer({ min: 1, max: 3_000 })).map(([from, ms]) => ({ from, to: from + ms })),
      { maxLength: 2 }
    )
    const some = fc.record({ outcomes: fc.array(outcome, { minLength: 1, maxLength: 3 }), closed })
    const scenario: fc.Arbitrary<Scenario> = fc.record({
      deployments: fc.record({ a: some, b: some, c: some, d: some, e: some }),
      cancelAt: fc.option(fc.nat(3_000), { nil: undefined, freq: 1 }),
      hedgeAllowed: fc.boolean(),
      seed: fc.nat()
    })
    const window = fc.constantFrom(undefined, 100, 1_000)
    const windowOf = fc.record({ a: window, b: window, c: window, d: window, e: window })
    const list = fc.subarray([...names])
    const lists = fc.tuple(windowOf, fc.record({ ordinary: list, context: list, content: list })).map(
      ([windowOf, { content, context, ordinary }]) => {
        const targets = (chosen: ReadonlyArray<typeof names[number]>) =>
          chosen.map((deployment) => target(deployment, { contextWindow: windowOf[deployment] }))
        return { ordinary: targets(ordinary), context: targets(context), content: targets(content) }
      }
    )
    const anyPlan = fc.record({
      lists,
      retries: fc.nat(3),
      maxAttempts: fc.integer({ min: 1, max: 8 }),
      maxWaitMs: fc.constantFrom(0, 1_000, 10_000),
      hedgeAfter: fc.constantFrom(undefined, 0, 100, 600),
      totalMs: fc.constantFrom(undefined, 1_500),
      maxTokens: fc.constantFrom(undefined, 1, 100),
      continue: fc.boolean()
    }).map(({ hedgeAfter, lists, maxTokens, totalMs, ...policy }) =>
      plan(lists, {
        ...policy,
        timeouts: { totalMs },
        hedge: hedgeAfter === undefined ? undefined : { share: 1, afterMs: hedgeAfter }
      }, { maxTokens })
    )

    /** The longest pause before an attempt at the same deployment. */
    const longestPause = RoutingPolicy.defaults.backoff.capMs * jitter.most

    const always = (check: (log: Log, plan: Plan, scenario: Scenario) => void) =>
      fc.assert(fc.property(anyPlan, scenario, (plan, scenario) => check(run(plan, scenario), plan, scenario)), {
        numRuns: repetitions(1_000, 5_000)
      })

    it("ends exactly once, and does nothing afterwards", () => {
      always((log) => {
        assert.strictEqual(endsOf(log).length, log.cancelled ? 0 : 1)
        const last = log.entries.findIndex(({ after }) => after.phase === "ended")
        assert.strictEqual(last >= 0, actionsOf(log).some(({ type }) => type === "fail"))
        if (last >= 0) assert.isTrue(log.entries.slice(last + 1).every(({ actions }) => actions.length === 0))
      })
    })

    it("leaves nothing running when it ends", () => {
      always((log) => {
        if (log.cancelled) return
        const over = new Set<number>(log.done)
        for (const { actions, event } of log.entries) {
          if (event?.type === "failed" || event?.type === "cut") over.add(event.attempt)
          for (const action of actions) if (action.type === "cancel") over.add(action.attempt)
        }
        assert.deepStrictEqual([...over].toSorted((a, b) => a - b), starts(log).map(({ attempt }) => attempt))
      })
    })

    it("uses no window that is known to be too small for the prompt", () => {
      always((log) => {
        for (const { actions, after: { plan: { lists }, tooSmall }, before } of log.entries) {
          for (const action of actions) {
            if (action.type !== "start" || before?.tried[action.deployment] !== undefined) continue
            const { contextWindow = Number.POSITIVE_INFINITY } = Object.values(lists).flat().find(({ deployment }) =>
              deployment === action.deployment
            )!
            assert.isAbove(contextWindow, tooSmall)
          }
        }
      })
    })

    const committedAfter = (committed: number | undefined, action: Action): number | undefined => {
      if (action.type === "start" || action.type === "commit") assert.isUndefined(committed)
      return action.type === "commit" ? action.attempt : committed
    }

    it("has one deployment's answer, and after its first content uses another only to continue it", () => {
      always((log, { policy }) => {
        let committed: number | undefined
        for (const { actions, event } of log.entries) {
          if (policy.continue && event?.type === "cut" && event.attempt === committed) committed = undefined
          for (const action of actions) committed = committedAfter(committed, action)
        }
        for (const attempt of log.done) assert.strictEqual(attempt, committed)
      })
    })

    it("fails with the reason of the last cut, if there is one", () => {
      always((log, { policy }) => {
        const cuts = log.entries.flatMap(({ before, event }) =>
          event?.type === "cut" && before?.phase === "committed" ? [event.reason] : []
        )
        const failure = actionsOf(log).find((action) => action.type === "fail")
        if (failure === undefined || cuts.length === 0) return
        assert.strictEqual(failure.reason, cuts.at(-1))
        assert.isTrue(policy.continue || cuts.length === 1)
      })
    })

    it("never calls or schedules a deployment whose circuit is open", () => {
      always((log) => {
        for (const { at, deployment } of log.calls) assert.strictEqual(log.closedFor(deployment, at), 0)
        for (const { actions, at } of log.entries) {
          for (const action of actions) {
            assert.isTrue(action.type !== "start" || log.closedFor(action.deployment, at) <= action.afterMs)
          }
        }
      })
    })

    it("stays within its attempts, at most two at a time and one of them a hedge", () => {
      always((log, { policy }) => {
        assert.isAtMost(starts(log).length, policy.maxAttempts)
        assert.isAtMost(starts(log).filter(({ hedge }) => hedge).length, 1)
        for (const { after } of log.entries) assert.isAtMost(after.running.length, 2)
        for (const name of names) {
          const tries = starts(log).filter(({ deployment }) => deployment === name).length
          // Who has lost against an answer that was cut begins anew.
          assert.isAtMost(tries, (policy.retries + 1) * (policy.continue && policy.hedge !== undefined ? 2 : 1))
        }
      })
    })

    /** Every attempt that follows a failure, with that. */
    const followUps = ({ entries }: Log) =>
      entries.flatMap(({ actions, after, at, before, event }) =>
        event?.type !== "failed" && event?.type !== "cut" ?
          [] :
          actions.flatMap((action) => action.type !== "start" ? [] : [{ action, after, at, before: before!, event }])
      )

    it("never waits for a deployment with a Retry-After while another is free", () => {
      always((log) => {
        for (const { action, after, at, before, event } of followUps(log)) {
          const free = targetsOf(after).filter(({ deployment }) =>
            before.tried[deployment] === undefined && log.closedFor(deployment, at) === 0
          )
          if (action.afterMs === 0 || free.length === 0) continue
          const saidWhen = "retryAfterMs" in event.reason ? event.reason.retryAfterMs ?? 0 : 0
          assert.isTrue(saidWhen <= action.afterMs && action.afterMs <= longestPause)
          assert.strictEqual(action.deployment, failedOf(before, event.attempt))
        }
      })
    })

    it("starts nothing after the deadline, and waits at most its limit", () => {
      always((log, { deadline = Number.POSITIVE_INFINITY, policy }) => {
        for (const { action, at } of followUps(log)) {
          assert.isBelow(at + action.afterMs, deadline)
          assert.isAtMost(action.afterMs, Math.max(policy.maxWaitMs, longestPause))
        }
      })
    })

    it("is deterministic", () => {
      always((log, plan, scenario) => assert.deepStrictEqual(run(plan, scenario).calls, log.calls))
    })

    const failedOf = (state: State, attempt: number) => state.running.find((one) => one.attempt === attempt)?.deployment
  })
})

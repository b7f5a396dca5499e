/** Copies of requests: what callers do not notice of them, and what becomes of each. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Metric, Random, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import type { AnsweredBy, AnswerSink, Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Demand, Ticket, Used } from "../../../src/services/admission/Admission.ts"
import { Admission, CopyAdmission, free } from "../../../src/services/admission/Admission.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Compare } from "../../../src/services/inference/ShadowCopies.ts"
import { CustomComparison } from "../../../src/services/inference/ShadowCopies.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import type { Outcome } from "../../../src/services/observability/Metrics.ts"
import type { Report } from "../../../src/services/rollout/ShadowRun.ts"
import { Shadows } from "../../../src/services/rollout/Shadows.ts"
import type { ShadowSettings } from "../../../src/services/rollout/ShadowSettings.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import type { Job, Part, Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const failed = new InferenceError.EngineFailed({ deployment: "chat#1", detail: "No." })

const ask = (more: Partial<Request> = {}): Request => ({
  model: "chat",
  messages: [{ role: "user", content: "Hello" }],
  ...more
})

/** Ways to ask; each ends with the text. */
const ways = {
  generate: (request: Request) =>
    Inference.use((inference) => Effect.map(inference.generate(request), ({ text }) => text)),
  open: (request: Request) =>
    Inference.use((inference) =>
      Effect.scoped(
        Effect.flatMap(inference.open(request), ({ events }) =>
          Stream.runFold(events, () => "", (text, event) => event.type === "text" ? text + event.text : text))
      )
    ),
  deliver: (request: Request) =>
    Inference.use((inference) =>
      Effect.suspend(() => {
        let text = ""
        const sink: AnswerSink = {
          begin: (_: AnsweredBy) => {},
          events: (events: ReadonlyArray<Event>) => {
            for (const event of events) if (event.type === "text") text += event.text
            return true
          },
          whenDrained: (callback) => callback()
        }
        return Effect.map(inference.deliver(request, sink), () => text)
      })
    )
} as const
type Way = keyof typeof ways

interface Given {
  readonly primary?: Part
  readonly candidate?: Part
  readonly shadow?: Partial<ShadowSettings>
  readonly setting?: Partial<Setting>
  readonly request?: Partial<Request>
  readonly way?: Way
  /** ms after which the caller leaves. */
  readonly leavesMs?: number
  readonly requests?: number
  readonly compare?: Compare
  /** Of the copies. */
  readonly ticket?: (demand: Demand) => Ticket
  /** Runs at each step of 10 ms. */
  readonly each?: (step: number) => Effect.Effect<void>
}

/** What callers and operators see of some requests. */
interface Seen {
  readonly ends: ReadonlyArray<unknown>
  readonly tookMs: ReadonlyArray<number>
  readonly jobs: ReadonlyArray<Job>
  readonly outcomes: ReadonlyArray<Outcome>
  readonly records: unknown
  readonly charges: ReadonlyArray<Used>
  readonly admitted: number
  readonly circuits: ReadonlyArray<number>
  readonly reports: ReadonlyArray<Report>
  readonly metrics: ReadonlyArray<Metric.Metric.Snapshot>
}

const everything: ShadowSettings = { candidate: "chat#1", percent: 100 }

/** Makes a request with its time, as its caller sees them. */
const callerOf = ({ leavesMs, request, way = "deliver" }: Given, ends: Array<unknown>, tookMs: Array<number>) =>
  Effect.gen(function*() {
    const begun = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    const asked = ways[way](ask(request))
    const exit = yield* Effect.exit(leavesMs === undefined ? asked : Effect.timeout(asked, leavesMs))
    ends.push(
      Exit.isSuccess(exit) ? exit.value : Cause.hasDies(exit.cause) ? Cause.pretty(exit.cause) : "failed"
    )
    tookMs.push((yield* Effect.clockWith((clock) => clock.currentTimeMillis)) - begun)
  })

/** Requests one after another, in test time. */
const run = (given: Given, shadows: Setting["shadows"] = { chat: { ...everything, ...given.shadow } }) => {
  const outcomes: Array<Outcome> = []
  const made = world({
    models: { chat: [given.primary ?? {}, given.candidate ?? {}], embed: [{}] },
    metrics: { begin: () => {}, end: (outcome) => void outcomes.push(outcome) },
    ...(shadows === undefined ? {} : { shadows }),
    ...given.setting
  })
  const [ends, tookMs, charges]: [Array<unknown>, Array<number>, Array<Used>] = [[], [], []]
  let admitted = 0
  const own: Ticket = { ...free, charge: (used) => void charges.push(used) }
  const admission = {
    isForAll: true,
    admit: () => {
      admitted++
      return own
    }
  }
  return Effect.gen(function*() {
    const { requests = 1 } = given
    const caller = Effect.andThen(callerOf(given, ends, tookMs), Effect.sleep(100))
    const callers = yield* Effect.forkChild(Effect.replicateEffect(caller, requests))
    for (let step = 0; step < 40 * requests; step++) {
      yield* given.each?.(step) ?? Effect.void
      yield* TestClock.adjust(10)
    }
    yield* Fiber.join(callers)
    const breaker = yield* Breaker
    const records = JSON.parse(JSON.stringify((yield* DecisionLog).latest(100))) as unknown
    return {
      ends,
      tookMs,
      jobs: made.jobs,
      outcomes,
      records,
      charges,
      admitted,
      circuits: ["chat#0", "chat#1"].map((id) => breaker.failures(id) ?? 0),
      reports: (yield* Shadows)?.reports ?? [],
      metrics: yield* Metric.snapshot
    } satisfies Seen
  }).pipe(
    Effect.provide(Layer.provideMerge(Layer.fresh(made.layer), [
      Layer.succeed(Admission, admission),
      Layer.succeed(CustomComparison, given.compare),
      ...(given.ticket === undefined
        ? []
        : [Layer.succeed(CopyAdmission, Effect.succeed({ isForAll: true, admit: given.ticket }))])
    ])),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Random.withSeed("shadow")
  )
}

const reportOf = (given: Given) => Effect.map(run(given), ({ reports }) => reports[0]!)

/** What a caller and its operator see, without the candidate. */
const ofCallers = ({ admitted, charges, circuits, ends, jobs, outcomes, records, tookMs }: Seen) =>
  JSON.parse(JSON.stringify({
    ends,
    tookMs,
    outcomes,
    records,
    admitted,
    charges,
    circuit: circuits[0],
    jobs: jobs.filter(({ deployment }) => deployment === "chat#0").map(({ generation, left }) => ({ generation, left }))
  })) as unknown

const outcomesOf = ({ answered, cancelled, failed, skipped, timedOut, unanswered }: Report) => ({
  answered,
  cancelled,
  failed,
  timedOut,
  unanswered,
  skipped: Object.entries(skipped).filter(([, count]) => count > 0).map(([reason]) => reason)
})

const none = { answered: 0, cancelled: 0, failed: 0, timedOut: 0, unanswered: 0, skipped: [] }

const wayNames = Object.keys(ways) as ReadonlyArray<Way>

describe("a caller whose request is copied", () => {
  const part = fc.record({
    pieces: fc.array(fc.constantFrom("a", "b "), { minLength: 1, maxLength: 3 }),
    firstMs: fc.constantFrom(0, 20, 1_000),
    gapMs: fc.constantFrom(0, 10)
  })
  const parts: fc.Arbitrary<Part> = fc.oneof(
    part,
    fc.tuple(part, fc.constantFrom(0, 1)).map(([own, after]) => ({ ...own, fails: { after, reason: failed } }))
  )
  const cases = fc.record({
    primary: parts.map((one) => ({ ...one, firstMs: Math.min(one.firstMs ?? 0, 20) })),
    candidate: parts,
    way: fc.constantFrom(...wayNames),
    shadow: fc.record({
      percent: fc.constantFrom(100, 50),
      compare: fc.constantFrom("exact", "similarity"),
      embeddings: fc.constant("embed"),
      timeout: fc.constantFrom("50 millis", "60 seconds"),
      maxConcurrent: fc.constantFrom(1, 4)
    }),
    leavesMs: fc.option(fc.constantFrom(5, 15, 25), { nil: undefined })
  })

  it.effect("sees the answer, the time, the limits and the records that it has without copies", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(cases, async ({ leavesMs, shadow, ...given }) => {
          const asked = {
            ...given,
            requests: 3,
            shadow: shadow as never,
            ...(leavesMs === undefined ? {} : { leavesMs })
          }
          const withheld: Setting["shadows"] = { chat: { ...everything, percent: 0 } }
          const [copied, alone] = await Promise.all(
            [run(asked), run(asked, withheld)].map((one) => Effect.runPromise(Effect.provide(one, TestClock.layer())))
          )
          assert.deepStrictEqual(ofCallers(copied!), ofCallers(alone!))
          assert.isFalse(alone!.jobs.some(({ deployment }) => deployment === "chat#1"))
          const { reports: [report] } = copied!
          const skipped = Object.values(report!.skipped).reduce((sum, count) => sum + count, 0)
          assert.strictEqual(report!.sampled, report!.unanswered + skipped + report!.sent + report!.running)
        }),
        { numRuns: 15, seed: 26 }
      )
    ))

  it.effect("pays nothing: a copy is charged to an identity of its own, with its budget", () =>
    Effect.gen(function*() {
      const demands: Array<Demand> = []
      const used: Array<Used> = []
      const budget = { period: "day", usd: 1 } as const
      const { charges, reports: [report] } = yield* run({
        shadow: { budget },
        request: { tenant: "shop" },
        ticket: (demand) => {
          demands.push(demand)
          return { ...free, charge: (one) => void used.push(one), cost: 2_000_000 }
        }
      })
      assert.deepStrictEqual(charges.map(({ deployment: { id } }) => id), ["chat#0"])
      assert.deepStrictEqual(used.map(({ deployment: { id } }) => id), ["chat#1"])
      assert.match(used[0]!.decision, /^shadow-/)
      const [{ grant, tenant }] = demands as [Demand]
      assert.deepStrictEqual([tenant, grant?.keyId, grant?.user, grant?.budgets], [
        "shadow",
        "shadow:chat",
        "shadow",
        [budget]
      ])
      assert.strictEqual(report!.costUsd, 0.002)
    }))
})

describe("a copy", () => {
  it.effect.each(wayNames)("is sent after the answer, and compared: %s", (way) =>
    Effect.gen(function*() {
      const { jobs, metrics, reports: [report] } = yield* run({
        way,
        primary: { pieces: ["Hel", "lo"], firstMs: 20, gapMs: 10 },
        candidate: { pieces: ["Hello "], firstMs: 50 },
        request: { tenant: "shop", priority: "high", route: { session: "s", retries: 3 }, maxTokens: 7 }
      })
      assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), ["chat#0", "chat#1"])
      const [{ caller, generation }] = jobs.slice(1) as [Job]
      assert.deepStrictEqual([caller.tenant, caller.priority], ["shadow", "low"])
      assert.strictEqual(generation?.maxTokens, 7)
      assert.deepStrictEqual(outcomesOf(report!), { ...none, answered: 1 })
      assert.strictEqual(report!.exact?.value, 1)
      assert.closeTo(report!.candidate.medianMs! / report!.primary.medianMs!, 50 / 30, 0.3)
      assert.strictEqual(report!.candidate.medianFirstTokenMs === null, way === "generate")
      const ended = metrics.find(({ id }) => id === "troupe_shadow_requests_total")
      assert.deepStrictEqual(ended?.attributes, { model: "chat", outcome: "exact" })
    }))

  it.effect("goes to the candidate only, which has no requests of callers, even where all others fail", () =>
    Effect.gen(function*() {
      const { ends, jobs, reports: [report] } = yield* run({ primary: { fails: { reason: failed } }, requests: 3 })
      assert.deepStrictEqual(ends, ["failed", "failed", "failed"])
      assert.isFalse(jobs.some(({ deployment }) => deployment === "chat#1"))
      assert.deepStrictEqual(outcomesOf(report!), { ...none, unanswered: 3 })
    }))

  it.effect.each(["deliver", "generate"] as const)(
    "is not sent where the caller leaves: %s",
    (way) =>
      Effect.gen(function*() {
        const report = yield* reportOf({ way, leavesMs: 30, primary: { pieces: ["a", "b"], firstMs: 10, gapMs: 50 } })
        assert.deepStrictEqual(outcomesOf(report), { ...none, unanswered: 1 })
      })
  )

  it.effect("that fails is logged as one, without a decision record that does not exist", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    return Effect.map(run({ candidate: { fails: { reason: failed } } }), () => {
      assert.deepStrictEqual(lines, ["An attempt of a copied request at \"chat#1\" failed (EngineFailed)."])
    }).pipe(Effect.provide(Logger.layer([logger])))
  })

  it.effect.each(wayNames)(
    "has signed reasoning only where the candidate's host made it: %s",
    (way) =>
      Effect.gen(function*() {
        const [own, other] = ["https://a.test", "https://b.test"].map((baseUrl): Partial<DeploymentOptions> => ({
          provider: "anthropic",
          baseUrl
        }))
        const thought = { type: "thinking", thinking: "Hm.", signature: "by-a" }
        const messages = [
          { role: "user", content: "Hello" },
          { role: "assistant", content: [thought, { type: "text", text: "Hi." }] },
          { role: "user", content: "Go on." }
        ]
        const source = {
          dialect: "anthropic" as const,
          body: { model: "chat", messages },
          unknownFields: [{ path: ["messages", 1, "content", 0], optional: true }]
        }
        // The first answer of chat#0 has the signature; requests send it back.
        let isNoted = false
        const disguise = (engine: Engine): Engine => ({
          ...engine,
          generate: (generation, caller, meter) => {
            if (!isNoted) meter?.makers?.note(["by-a"], own as DeploymentOptions)
            isNoted = true
            return engine.generate(generation, caller, meter)
          }
        })
        const signed = (jobs: ReadonlyArray<Job>) =>
          jobs.filter(({ deployment }) => deployment === "chat#1").map(({ generation }) =>
            JSON.stringify(generation!.source!.body).includes("by-a")
          )
        const asked = (candidate: Partial<DeploymentOptions>) => {
          isNoted = false
          return Effect.map(
            run({
              way,
              requests: 2,
              request: { source },
              setting: {
                disguise,
                models: { chat: [{ options: own! }, { options: candidate }], embed: [{}] }
              }
            }),
            ({ jobs }) => signed(jobs)
          )
        }
        assert.deepStrictEqual(yield* asked(own!), [true, true])
        assert.deepStrictEqual(yield* asked(other!), [false, false])
      })
  )

  it.effect("that fails counts for the candidate's circuit alone", () =>
    Effect.gen(function*() {
      const { circuits, ends, reports: [report] } = yield* run({
        candidate: { fails: { reason: failed } },
        requests: 7
      })
      assert.deepStrictEqual(ends, Array.from({ length: 7 }, () => "chat#0"))
      assert.deepStrictEqual(circuits, [0, 5])
      // The circuit is open then.
      assert.deepStrictEqual(outcomesOf(report!), { ...none, failed: 5, skipped: ["unavailable"] })
      assert.deepStrictEqual(report!.failures, { EngineFailed: 5 })
    }))

  it.effect("ends after its time, and others are skipped meanwhile", () =>
    Effect.gen(function*() {
      const { jobs, reports: [report] } = yield* run({
        candidate: { firstMs: 100_000 },
        shadow: { timeout: "500 millis" as never, maxConcurrent: 1 },
        requests: 3
      })
      assert.deepStrictEqual(outcomesOf(report!), { ...none, timedOut: 1, skipped: ["concurrency"] })
      assert.strictEqual(report!.skipped.concurrency, 2)
      assert.isTrue(jobs.find(({ deployment }) => deployment === "chat#1")!.left)
    }))

  it.effect("is ended by memory pressure, and not begun under it", () =>
    Effect.gen(function*() {
      const pressure = yield* SubscriptionRef.make<Level>("normal")
      const report = yield* reportOf({
        primary: { firstMs: 200 },
        candidate: { firstMs: 100_000 },
        requests: 2,
        setting: { pressure },
        each: (step) => step === 25 ? SubscriptionRef.set(pressure, "critical") : Effect.void
      })
      assert.deepStrictEqual(outcomesOf(report), { ...none, cancelled: 1, skipped: ["pressure"] })
    }))

  it.effect("is not sent while another one waits at the candidate", () =>
    Effect.gen(function*() {
      const report = yield* reportOf({ setting: { queued: (id) => id === "chat#1" ? 1 : 0 } })
      assert.deepStrictEqual(outcomesOf(report), { ...none, skipped: ["queue"] })
    }))

  it.effect("is not sent beyond its budget", () =>
    Effect.gen(function*() {
      const exceeded = new InferenceError.BudgetExceeded({
        counter: "key shadow:chat",
        period: "day",
        measure: "usd",
        most: 1,
        spent: 1,
        reserved: 0,
        needed: 1
      })
      const { ends, reports: [report] } = yield* run({ ticket: () => exceeded as never })
      assert.deepStrictEqual(ends, ["chat#0"])
      assert.deepStrictEqual(outcomesOf(report!), { ...none, skipped: ["budget"] })
    }))
})

describe("a request that is not copied", () => {
  const source = { dialect: "openai", body: {} } as const
  const withTool = { ...source, body: { tools: [{}] }, unknownFields: [{ path: ["tools", 0] }] }

  it.effect.each<readonly [string, "excluded" | "unsupported", Given]>([
    ["names other deployments", "excluded", { request: { route: { deployments: ["chat#0"] } } }],
    ["excludes the candidate", "excluded", { request: { route: { except: ["chat#1"] } } }],
    ["is of an excepted tenant", "excluded", { request: { tenant: "bank" }, shadow: { exceptTenants: ["bank"] } }],
    ["has tokens of a model", "unsupported", {
      request: { completion: { tokens: [1] }, messages: [{ role: "user", content: "" }] }
    }],
    ["is one of several choices", "unsupported", { request: { source: { ...source, isChoice: true } } }]
  ])("%s", ([, reason, given]) =>
    Effect.gen(function*() {
      const { jobs, reports: [report] } = yield* run(given)
      assert.deepStrictEqual(outcomesOf(report!), { ...none, skipped: [reason] })
      assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), ["chat#0"])
    }))

  it.effect("has fields that only its provider knows, such as tools that it runs", () =>
    Effect.gen(function*() {
      const report = yield* reportOf({ request: { source: withTool } })
      assert.deepStrictEqual(outcomesOf(report).skipped, ["unsupported"])
    }))
})

describe("the comparison", () => {
  const vectorOf = (text: string) => text === "one" ? [1, 0] : [0.6, 0.8]
  const models = (candidate: string): Partial<Setting> => ({
    models: { chat: [{ pieces: ["one"] }, { pieces: [candidate] }], embed: [{ vectorOf }] }
  })

  it.effect("by similarity embeds answers that differ, as a copy", () =>
    Effect.gen(function*() {
      const given = { shadow: { compare: "similarity", embeddings: "embed" } as const, requests: 2 }
      const { admitted, jobs, reports: [report] } = yield* run({ ...given, setting: models("two") })
      assert.closeTo(report!.agreement!.value, 0.6, 1e-6)
      assert.deepStrictEqual([report!.compared, report!.agreed, report!.exact?.value], [2, 0, 0])
      const embedded = jobs.filter(({ deployment }) => deployment === "embed#0")
      assert.strictEqual(embedded.length, 2)
      assert.strictEqual(admitted, 2)
      const equal = yield* run({ ...given, setting: models("one") })
      assert.isFalse(equal.jobs.some(({ deployment }) => deployment === "embed#0"))
    }))

  it.effect("by a program gets both answers", () =>
    Effect.gen(function*() {
      const report = yield* reportOf({
        shadow: { compare: "custom", agreesFrom: 0.5 },
        requests: 2,
        setting: models("two"),
        compare: ({ candidate, messages, model, primary }) =>
          Effect.succeed(
            messages[0]!.content === "Hello" && model === "chat" && primary.text === "one" && candidate.text === "two"
              ? 0.5
              : 0
          )
      })
      assert.deepStrictEqual([report.agreement?.value, report.agreed], [0.5, 2])
    }))

  it.effect.each<readonly [string, Compare, RegExp]>([
    ["fails", () => Effect.fail("No."), /^No\.$/],
    ["dies", () => Effect.die("No."), /^No\.$/],
    ["throws", () => {
      throw new Error("No.")
    }, /^No\.$/],
    ["does not end", () => Effect.never, /tim/i],
    ["is no number from 0 to 1", () => Effect.succeed(2), /^It returned 2 instead of a number from 0 to 1\.$/]
  ])("that %s makes the pair incomparable, and is shown", ([, compare, problem]) =>
    Effect.gen(function*() {
      const report = yield* reportOf({
        shadow: { compare: "custom" },
        compare,
        each: () => TestClock.adjust("1 second")
      })
      assert.deepStrictEqual([report.answered, report.compared, report.incomparable], [1, 0, 1])
      assert.match(report.comparisonProblem ?? "", problem)
    }))

  it.effect("keeps texts of pairs that differ only where the settings say so", () =>
    Effect.gen(function*() {
      const without = yield* reportOf({ setting: models("two"), requests: 3 })
      assert.deepStrictEqual(without.differing, [])
      const { differing } = yield* reportOf({ setting: models("two"), requests: 3, shadow: { keepDiffering: 2 } })
      assert.deepStrictEqual(
        differing.map(({ candidate, primary, prompt }) => [prompt, primary, candidate]),
        [["Hello", "one", "two"], ["Hello", "one", "two"]]
      )
    }))
})

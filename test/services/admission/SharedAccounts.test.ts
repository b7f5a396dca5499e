/** Processes with shared counters decide as one process would, in the order in which the counters have handled their messages. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger } from "effect"
import { RedisError } from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import { Accounts } from "../../../src/services/admission/Accounts.ts"
import type { Demand, Ticket, Used } from "../../../src/services/admission/Admission.ts"
import { Later } from "../../../src/services/admission/Admission.ts"
import { AdmissionRules } from "../../../src/services/admission/AdmissionRules.ts"
import type { Counters, Hold, Outcome, Spend } from "../../../src/services/admission/Counters.ts"
import { CountersLost } from "../../../src/services/admission/Counters.ts"
import { CounterTable } from "../../../src/services/admission/CounterTable.ts"
import { Settlements } from "../../../src/services/admission/Settlements.ts"
import { SharedAccounts } from "../../../src/services/admission/SharedAccounts.ts"
import { BudgetBook, History } from "../../../src/services/budgets/BudgetBook.ts"
import { RateWindows } from "../../../src/services/limits/RateWindows.ts"
import { admissionOf, covers } from "../../../src/services/settings/AdmissionSettings.ts"
import * as Deployments from "../../support/Deployments.ts"

const day = 86_400_000
const deployment = Deployments.deployment("m#0")

/** A token costs a thousandth of a USD. */
const price = { input: 1_000, output: 1_000 }

const partsOf = (settings: Parameters<typeof admissionOf>[0]) => ({
  rules: new AdmissionRules(admissionOf({ ...settings, limits: { default: false, ...settings.limits } }), covers),
  now: () => 20_000 * day,
  priceOf: () => price,
  add: () => {},
  alert: () => {},
  rejected: () => {}
})

const accountsOf = (settings: Parameters<typeof admissionOf>[0]): Accounts =>
  new Accounts({ ...partsOf(settings), windows: new RateWindows(), book: new BudgetBook() })

const promptTokens = 10

const demandOf = (key: string, maxTokens: number | undefined, given: Partial<Demand> = {}): Demand => ({
  grant: { keyId: key },
  tenant: "team",
  model: "m",
  operation: "chat",
  deployments: [deployment],
  promptTokens,
  mostPromptTokens: () => promptTokens,
  choices: 1,
  maxTokens,
  generates: true,
  hedges: false,
  ...given
})

const usedOf = (completionTokens: number): Used => ({
  deployment,
  decision: "dec-0",
  attempt: 0,
  usage: { promptTokens, completionTokens, cachedTokens: 0 },
  isEstimated: false,
  tookMs: 1
})

type Decision = Ticket | InferenceError["reason"]

const isTicket = (decision: Decision): decision is Ticket => !("_tag" in decision)

const nameOf = (decision: Decision): string => isTicket(decision) ? "admitted" : decision._tag

/** The same sentence, whichever counters refuse. */
const sentenceOf = (decision: Decision): string => isTicket(decision) ? "admitted" : decision.message

/** A message that the counters have handled. */
interface Handled {
  readonly type: "reserve" | "settle"
  readonly id: string
}

/** Counters that handle a message when the test says so. */
class LateCounters implements Counters {
  readonly place = "a table"
  readonly table = new CounterTable(() => 0)
  readonly handled: Array<Handled> = []
  #messages: Array<() => void> = []

  constructor() {
    this.table.join(0)
  }

  get waiting(): number {
    return this.#messages.length
  }

  reserve(id: string, holds: ReadonlyArray<Hold>): Effect.Effect<Outcome> {
    return this.#ask({ type: "reserve", id }, () => this.table.reserve(0, id, holds))
  }

  settle(id: string, spends: ReadonlyArray<Spend>): Effect.Effect<ReadonlyArray<number>> {
    return this.#ask({ type: "settle", id }, () => this.table.settle(id, spends))
  }

  #ask<A>(message: Handled, answer: () => A): Effect.Effect<A> {
    return Effect.callback((resume) => {
      this.#messages.push(() => {
        this.handled.push(message)
        resume(Effect.succeed(answer()))
      })
    })
  }

  /** Handles one of the messages that wait. */
  handle(at: number): void {
    if (this.waiting > 0) this.#messages.splice(at % this.waiting, 1)[0]!()
  }
}

/** Counters that answer at once. */
const countersInTable = (): Counters => {
  const table = new CounterTable(() => 0)
  table.join(0)
  return {
    place: "a table",
    reserve: (id, holds) => Effect.sync(() => table.reserve(0, id, holds)),
    settle: (id, spends) => Effect.sync(() => table.settle(id, spends))
  }
}

const sharedOf = (
  counters: Counters,
  settings: Parameters<typeof admissionOf>[0],
  instance = "p0",
  history: () => ReadonlyMap<"day", History> = () => new Map()
) =>
  Effect.map(Effect.context(), (context) => {
    const run = Effect.runForkWith(context)
    const settlements = new Settlements(counters, (effect) => void run(effect))
    const parts = { counters, settlements, instance, local: accountsOf(settings), history: Effect.sync(history) }
    return new SharedAccounts({ ...partsOf(settings), ...parts }, history())
  })

const decide = (accounts: SharedAccounts, demand: Demand): Effect.Effect<Decision> => {
  const found = accounts.admit(demand)
  return found instanceof Later ? found.outcome : Effect.succeed(found)
}

/** Lets all fibers run as far as they can. */
const settled = Effect.repeat(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), { times: 2 })

const settings: Parameters<typeof admissionOf>[0] = {
  limits: {
    keys: { by: ["key"], requestsPerDay: 6, tokensPerDay: 250, parallel: 3 },
    all: { requestsPerDay: 9, mode: "shadow" }
  },
  budgets: {
    keys: { by: ["key"], period: "day", usd: 0.2 },
    all: { period: "day", tokens: 330 }
  }
}

type Act =
  | { readonly type: "admit"; readonly at: number; readonly key: string; readonly maxTokens: number }
  | { readonly type: "handle"; readonly at: number }
  | { readonly type: "end"; readonly at: number; readonly part: number }

const at = fc.nat(20)
const acts: fc.Arbitrary<ReadonlyArray<Act>> = fc.array(
  fc.oneof(
    fc.record({
      type: fc.constant("admit" as const),
      at,
      key: fc.constantFrom("k1", "k2"),
      maxTokens: fc.integer({ min: 1, max: 90 })
    }),
    fc.record({ type: fc.constant("handle" as const), at }),
    fc.record({ type: fc.constant("handle" as const), at }),
    fc.record({ type: fc.constant("end" as const), at, part: fc.nat(90) })
  ),
  { minLength: 20, maxLength: 80 }
)

interface Asked {
  readonly demand: Demand
  decision: Decision | undefined
  /** Of the answer, once it has ended. */
  tokens: number | undefined
}

/** Two processes do what they are told; then everything ends. Returns the requests by their ids. */
const perform = Effect.fnUntraced(function*(counters: LateCounters, list: ReadonlyArray<Act>) {
  const processes = [yield* sharedOf(counters, settings, "p0"), yield* sharedOf(counters, settings, "p1")]
  const counts = [0, 0]
  const asked = new Map<string, Asked>()
  const running = () => [...asked.values()].filter((one) => one.decision !== undefined && one.tokens === undefined)
  const end = (one: Asked | undefined, part: number): void => {
    if (one === undefined || !isTicket(one.decision!)) return
    one.tokens = Math.min(part, one.demand.maxTokens!)
    one.decision.charge(usedOf(one.tokens))
    one.decision.end()
    one.decision.end()
  }
  for (const act of list) {
    if (act.type === "handle") counters.handle(act.at)
    else if (act.type === "end") {
      const all = running().filter(({ decision }) => isTicket(decision!))
      end(all[act.at % Math.max(1, all.length)], act.part)
    } else {
      const index = act.at % processes.length
      const one: Asked = { demand: demandOf(act.key, act.maxTokens), decision: undefined, tokens: undefined }
      asked.set(`p${index}-${++counts[index]!}`, one)
      yield* Effect.forkChild(Effect.map(decide(processes[index]!, one.demand), (decision) => {
        one.decision = decision
      }))
    }
    yield* settled
  }
  for (let part = 0; counters.waiting > 0 || running().some(({ decision }) => isTicket(decision!)); part++) {
    counters.handle(0)
    yield* settled
    running().forEach((one) => end(one, part))
    yield* settled
  }
  return asked
})

describe("shared accounts", () => {
  it("decide as the accounts of one process do in the order of the counters' messages", () =>
    fc.assert(
      fc.asyncProperty(acts, (list) =>
        Effect.gen(function*() {
          const counters = new LateCounters()
          const asked = yield* perform(counters, list)
          const model = accountsOf(settings)
          const tickets = new Map<string, Ticket>()
          for (const { id, type } of counters.handled) {
            const { decision, demand, tokens } = asked.get(id)!
            if (type === "reserve") {
              const expected = model.admit(demand)
              assert.strictEqual(sentenceOf(decision!), sentenceOf(expected), id)
              if (isTicket(expected)) tickets.set(id, expected)
            } else {
              const ticket = tickets.get(id)!
              ticket.charge(usedOf(tokens!))
              ticket.end()
              assert.strictEqual(ticket.cost, (decision as Ticket).cost)
            }
          }
          assert.deepStrictEqual([...asked.values()].filter(({ decision }) => decision === undefined), [])
        }).pipe(Effect.scoped, Effect.provide(TestClock.layer()), Effect.runPromise)),
      { numRuns: 60 }
    ))

  it.effect.each([5, 20, 60])(
    "refuse another attempt in the words of one process: after %d tokens",
    (used) =>
      Effect.gen(function*() {
        const counters = countersInTable()
        const budget = { budgets: { all: { period: "day", tokens: 100 } } } as const
        const shared = yield* sharedOf(counters, budget)
        const model = accountsOf(budget)
        const sentences: Array<string | undefined> = []
        for (
          const admit of [(demand: Demand) => decide(shared, demand), (demand: Demand) =>
            Effect.sync(() => model.admit(demand))]
        ) {
          const other = yield* admit(demandOf("k1", 20))
          const ticket = yield* admit(demandOf("k1", 50))
          assert.isTrue(isTicket(other) && isTicket(ticket))
          if (!isTicket(ticket)) {
            return
          }
          ticket.charge(usedOf(used))
          const refused = ticket.again()
          const reason = refused instanceof Later ? yield* refused.outcome : refused
          sentences.push(reason?.message)
        }
        assert.isDefined(sentences[0])
        assert.strictEqual(sentences[0], sentences[1])
      })
  )

  it.effect("reserve nothing for a caller that leaves while it waits", () =>
    Effect.gen(function*() {
      const counters = new LateCounters()
      const one = yield* sharedOf(counters, { limits: { one: { parallel: 1 } } })
      const waiting = yield* Effect.forkChild(decide(one, demandOf("k1", 5)))
      yield* settled
      yield* Fiber.interrupt(waiting)
      yield* settled
      while (counters.waiting > 0) {
        counters.handle(0)
        yield* settled
      }
      const next = yield* Effect.forkChild(decide(one, demandOf("k1", 5)))
      yield* settled
      counters.handle(0)
      assert.strictEqual(nameOf(yield* Fiber.join(next)), "admitted")
    }))

  it.effect("shorten an answer without a limit to what others have left, and reserve for a hedge only if there is room", () =>
    Effect.gen(function*() {
      const counters = countersInTable()
      const budget = { budgets: { all: { period: "day", tokens: 200 } } } as const
      const [one, two] = [yield* sharedOf(counters, budget, "p0"), yield* sharedOf(counters, budget, "p1")]
      const first = yield* decide(one, demandOf("k1", 40, { hedges: true }))
      assert.isTrue(isTicket(first) && first.another())
      const second = yield* decide(two, demandOf("k1", 80, { hedges: true }))
      assert.isTrue(isTicket(second) && !second.another())
      if (!isTicket(first) || !isTicket(second)) return
      second.charge(usedOf(20))
      second.end()
      yield* settled
      const open = yield* decide(one, demandOf("k1", undefined))
      assert.deepStrictEqual(isTicket(open) && open.maxTokens, 200 - 2 * 50 - 30 - promptTokens)
      const none = yield* decide(two, demandOf("k1", undefined))
      assert.strictEqual(nameOf(none), "BudgetExceeded")
    }))

  it.effect("without their counters reject what has a budget, and count limits alone; then they read the ledger again", () => {
    const log: Array<string> = []
    return Effect.gen(function*() {
      const counters = new LateCounters()
      let isLost = true
      const cause = new RedisError({ cause: new Error("Connection refused") })
      const link: Counters = {
        place: "a table",
        reserve: (id, holds) => isLost ? Effect.fail(new CountersLost({ cause })) : counters.reserve(id, holds),
        settle: (id, spends) => counters.settle(id, spends)
      }
      let reads = 0
      const history = () => {
        reads++
        const subject = { key: "k1", user: "k1", tenant: "team", model: "m", endpoint: "chat" }
        return new Map([["day" as const, new History(20_000 * day, [{ subject, spent: { nano: 0, tokens: 190 } }])]])
      }
      const both = {
        limits: { one: { parallel: 1 } },
        budgets: { k1: { keys: ["k1"], period: "day", tokens: 200 } }
      } as const
      const one = yield* sharedOf(link, both, "p0", history)
      const decisions = [
        yield* decide(one, demandOf("k1", 5)),
        yield* decide(one, demandOf("k2", 5)),
        yield* decide(one, demandOf("k2", 5))
      ]
      assert.deepStrictEqual(decisions.map(nameOf), ["Overloaded", "admitted", "LimitExceeded"])
      assert.strictEqual(reads, 2)
      isLost = false
      const found = yield* Effect.forkChild(decide(one, demandOf("k1", 5)))
      yield* settled
      while (counters.waiting > 0) counters.handle(0)
      assert.strictEqual(nameOf(yield* Fiber.join(found)), "BudgetExceeded")
      assert.deepStrictEqual(log.map((line) => line.split(".", 1)[0]), [
        "Limits and budgets cannot be counted in a table",
        "Limits and budgets are counted in a table again"
      ])
      assert.include(log[0], "The reason: Redis failed (Connection refused).")
    }).pipe(
      Effect.provide(
        Logger.layer([Logger.make(({ message }) => void log.push([message].flat().map(String).join(" ")))])
      )
    )
  })

  it.effect("wait for their counters for 5 s", () =>
    Effect.gen(function*() {
      const counters = new LateCounters()
      const one = yield* sharedOf(counters, { budgets: { all: { period: "day", tokens: 200 } } })
      const waiting = yield* Effect.forkChild(decide(one, demandOf("k1", 5)))
      yield* TestClock.adjust(4_999)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(nameOf(yield* Fiber.join(waiting)), "Overloaded")
    }))
})

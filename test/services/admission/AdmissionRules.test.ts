import { assert, describe, it } from "@effect/vitest"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import type { Reason } from "../../../src/domain/InferenceError.ts"
import { Accounts } from "../../../src/services/admission/Accounts.ts"
import type { Demand, Ticket } from "../../../src/services/admission/Admission.ts"
import type { Grant } from "../../../src/services/admission/AdmissionRules.ts"
import { AdmissionRules } from "../../../src/services/admission/AdmissionRules.ts"
import { rulesOf as keyRulesOf } from "../../../src/services/admission/KeyRules.ts"
import { mostPromptTokens } from "../../../src/services/admission/Subject.ts"
import { alertText } from "../../../src/services/budgets/BudgetAlert.ts"
import type { Amount, Overspent, Reservation } from "../../../src/services/budgets/BudgetBook.ts"
import { BudgetBook } from "../../../src/services/budgets/BudgetBook.ts"
import type { VirtualKey } from "../../../src/services/keys/VirtualKey.ts"
import { RateWindows } from "../../../src/services/limits/RateWindows.ts"
import { admissionOf, covers } from "../../../src/services/settings/AdmissionSettings.ts"

const subjectOf = (keyId: string) => ({ key: keyId, user: keyId, tenant: "t", model: "m", endpoint: "chat" })

const rulesOf = (grant: Grant) => new AdmissionRules(admissionOf({}), covers).of(grant, subjectOf(grant.keyId))

describe("the budgets of a key", () => {
  it("each count alone, also several of one period", () => {
    const { budgets } = rulesOf({
      keyId: "k1",
      budgets: [{ period: "day", usd: 1 }, { period: "day", tokens: 100 }, { period: "month", tokens: 150 }]
    })
    const book = new BudgetBook()
    const overspent = (amount: Amount) => book.reserve(budgets, subjectOf("k1"), amount, 0) as Overspent
    assert.deepInclude(overspent({ nano: 2e9, tokens: 1 }), { measure: "usd", most: 1e9 })
    assert.deepInclude(overspent({ nano: 0, tokens: 101 }), { measure: "tokens", most: 100 })
    const held = book.reserve(budgets, subjectOf("k1"), { nano: 6e8, tokens: 60 }, 0) as Reservation
    held.charge({ nano: 6e8, tokens: 60 })
    assert.deepStrictEqual(book.left(budgets, subjectOf("k1"), 0), { nano: 4e8, tokens: 40 })
  })

  it("have the same names for all keys, because metrics have them", () => {
    const [one, other] = ["k1", "k2"].map((keyId) =>
      rulesOf({ keyId, budgets: [{ period: "day", usd: 1 }] }).budgets[0]!
    )
    assert.strictEqual(one!.name, other!.name)
    const book = new BudgetBook()
    book.reserve([one!], subjectOf("k1"), { nano: 1e9, tokens: 0 }, 0)
    assert.deepStrictEqual(book.left([other!], subjectOf("k2"), 0).nano, 1e9)
  })
})

describe("the keys of a rule", () => {
  const { budgets, limits } = admissionOf({
    limits: { one: { keys: ["ann"], requestsPerDay: 1 } },
    budgets: { one: { keys: ["team-*"], period: "day", tokens: 1 } }
  })

  it("are ids or names, with patterns", () => {
    const of = (key: string, keyName?: string) => {
      const subject = { ...subjectOf(key), keyName }
      return [covers(limits[0]!.scope, subject), budgets[0]!.rule.applies!(subject)]
    }
    assert.deepStrictEqual(of("settings/ann", "ann"), [true, false])
    assert.deepStrictEqual(of("ann"), [true, false])
    assert.deepStrictEqual(of("key_1", "team-red"), [false, true])
    assert.deepStrictEqual(of("settings/annie", "annie"), [false, false])
    assert.deepStrictEqual(of("key_1"), [false, false])
    assert.deepStrictEqual(of(""), [false, false])
  })
})

describe("the limit default", () => {
  const limitsOf = (settings: Parameters<typeof admissionOf>[0], grant: Grant | undefined, model = "m") =>
    new AdmissionRules(admissionOf(settings), covers).of(grant, { ...subjectOf(grant?.keyId ?? ""), model }).limits
  const configured = { limits: { default: { requestsPerHour: 2 } } }
  const few = { keyId: "k1", limits: { requestsPerMinute: 60 } }

  it.each([{}, configured])("holds for keys that have no limit of requests of their own: %j", (settings) => {
    const names = (grant: Grant | undefined) => limitsOf(settings, grant).map(({ name }) => name)
    assert.deepStrictEqual(names({ keyId: "k1" }), ["default"])
    assert.deepStrictEqual(names({ keyId: "k1", limits: { parallel: 4 } }), ["key", "default"])
    assert.deepStrictEqual(names(few), ["key"])
    assert.deepStrictEqual(names(undefined), [])
  })

  it("counts each user and endpoint, unless it says otherwise", () => {
    assert.deepInclude(limitsOf(configured, { keyId: "k1" })[0], {
      by: ["tenant", "user", "endpoint"],
      limits: { requestsPerHour: 2 }
    })
    const shared = { limits: { default: { by: [], requestsPerHour: 2 } } }
    assert.deepStrictEqual(limitsOf(shared, { keyId: "k1" })[0]?.by, [])
  })

  it("applies to the requests that it names", () => {
    const scoped = { limits: { default: { models: ["big-*"], requestsPerHour: 2 } } } as const
    assert.lengthOf(limitsOf(scoped, { keyId: "k1" }, "big-1"), 1)
    assert.lengthOf(limitsOf(scoped, { keyId: "k1" }), 0)
  })

  it("is among the rules of a key only where it applies", () => {
    const settings = admissionOf(configured)
    const some: VirtualKey = { id: "k1", name: "ann", tenant: "t", origin: "store" }
    assert.deepStrictEqual(keyRulesOf(settings, covers, some).map(({ place }) => place), ["limits.default"])
    assert.deepStrictEqual(keyRulesOf(admissionOf({}), covers, some).map(({ place }) => place), ["default"])
    assert.deepStrictEqual(
      keyRulesOf(settings, covers, { ...some, limits: few.limits }).map(({ place }) => place),
      ["key"]
    )
  })
})

describe("an alert of a budget", () => {
  const alert = { rule: "team", counter: "all", measure: "tokens", most: 1000, spent: 150 } as const

  it("names what is spent at a share, and what is left before the end", () => {
    assert.strictEqual(
      alertText({ ...alert, spent: 500, cause: { percent: 50 } }),
      "Budget team (all): 50 % is spent, 500 of 1000 tokens."
    )
    assert.strictEqual(
      alertText({ ...alert, cause: { timesLastCost: 10 } }),
      "Budget team (all): less than 10 times the last cost is left, 850 of 1000 tokens."
    )
    assert.strictEqual(
      alertText({ ...alert, measure: "usd", most: 2e9, spent: 1.5e9, cause: { timesLastCost: 10 } }),
      "Budget team (all): less than 10 times the last cost is left, 0.5 of 2 USD."
    )
    assert.include(alertText({ ...alert, spent: 1100, cause: { timesLastCost: 10 } }), "left, 0 of 1000 tokens")
  })
})

describe("a request that is too large", () => {
  const local = (contextSize?: number) =>
    ({ id: "m#0", model: "m", options: { engine: "fake", ...(contextSize && { contextSize }) } }) as Deployment
  const demandOf = (more: Partial<Demand>): Demand => ({
    grant: undefined,
    tenant: "t",
    model: "m",
    operation: "chat",
    deployments: [local()],
    promptTokens: 10,
    mostPromptTokens: () => 100,
    choices: 1,
    maxTokens: undefined,
    generates: true,
    hedges: false,
    ...more
  })
  const accountsOf = (settings: Parameters<typeof admissionOf>[0]) =>
    new Accounts({
      add: () => {},
      alert: () => {},
      rejected: () => {},
      rules: new AdmissionRules(admissionOf(settings), covers),
      now: () => 0,
      priceOf: () => ({ input: 1, output: 1 }),
      windows: new RateWindows(),
      book: new BudgetBook()
    })
  const admit = (settings: Parameters<typeof admissionOf>[0], more: Partial<Demand> = {}) =>
    accountsOf(settings).admit(demandOf(more))
  const messageOf = (admitted: Ticket | Reason) => "message" in admitted ? admitted.message : "admitted"
  const limited = (tokensPerMinute: number) => ({ limits: { few: { tokensPerMinute } } })
  const budgeted = (tokens: number) => ({ budgets: { few: { period: "day", tokens } } }) as const

  it("hears which max_tokens fits into a limit of tokens", () => {
    assert.include(messageOf(admit(limited(1000))), "may use 4196 tokens")
    assert.include(messageOf(admit(limited(1000), { maxTokens: 2000 })), "Set max_tokens to at most 900.")
    assert.include(messageOf(admit(limited(1000), { choices: 2, maxTokens: 2000 })), "Set max_tokens to at most 450.")
    assert.strictEqual(messageOf(admit(limited(1000), { maxTokens: 900 })), "admitted")
    assert.include(messageOf(admit(limited(50))), "Shorten the prompt.")
  })

  describe("with several prompts or choices", () => {
    const several = (requests: number) => ({ siblings: () => ({ requests, promptTokens: 100 * requests }) })

    it("hears what all together need, and which max_tokens fits for all", () => {
      const limit = messageOf(admit(limited(1000), { ...several(3), maxTokens: 2000 }))
      assert.include(limit, "may use 2100 tokens (the 3 prompts and choices of the call together 6300), more than")
      assert.include(limit, "Set max_tokens to at most 233.")
      assert.include(
        messageOf(admit(budgeted(1000), { ...several(2), maxTokens: 901 })),
        "cost up to 1001 tokens (the 2 prompts and choices of the call together 2002 tokens). Set max_tokens to at most 400"
      )
      assert.include(
        messageOf(admit(budgeted(150), { ...several(2), maxTokens: 90 })),
        "Send fewer prompts or a smaller n"
      )
    })

    it("is not told to wait for a limit that its call exceeds", () => {
      const accounts = accountsOf(limited(1000))
      const admitOne = () => accounts.admit(demandOf({ ...several(2), maxTokens: 600 }))
      assert.strictEqual(messageOf(admitOne()), "admitted")
      const refused = admitOne()
      assert.notProperty(refused, "retryAfterMs")
      assert.include(messageOf(refused), "together 1400), more than its limit of 1000")
      const requests = accountsOf({ limits: { few: { requestsPerDay: 1 } } })
      assert.strictEqual(messageOf(requests.admit(demandOf(several(2)))), "admitted")
      assert.include(
        messageOf(requests.admit(demandOf(several(2)))),
        "The 2 prompts and choices of the call are as many requests, more than its limit of 1"
      )
      assert.property(requests.admit(demandOf({})), "retryAfterMs")
    })
  })

  it("keeps its length under a budget in shadow mode", () => {
    const open = admit({ budgets: { few: { period: "day", tokens: 1000, mode: "shadow" } } })
    assert.isUndefined("maxTokens" in open ? open.maxTokens : 0)
  })

  const fields: ReadonlyArray<readonly [field: string, fields: (most: number) => object]> = [
    ["max_tokens", (most) => ({ max_tokens: most })],
    ["max_completion_tokens", (most) => ({ max_completion_tokens: most })],
    ["max_output_tokens", (most) => ({ max_output_tokens: most })],
    ["num_predict", (most) => ({ options: { num_predict: most } })]
  ]
  it.each(fields)("hears a length that fits with the field that it adds, %s", (_, fieldsOf) => {
    const demandOf = (body: object): Partial<Demand> => ({
      mostPromptTokens: () => mostPromptTokens({ source: { dialect: "openai", body: { ...body }, isChecked: true } })
    })
    const body = { model: "m", input: "Hi" }
    for (const limit of [50, 100, 101, 110, 400, 1_000, 4_000]) {
      const message = messageOf(admit(limited(limit), demandOf(body)))
      const most = Number(/at most (\d+)/.exec(message)?.[1])
      if (Number.isNaN(most)) assert.include(message, "Shorten the prompt")
      else {
        const again = admit(limited(limit), { ...demandOf({ ...body, ...fieldsOf(most) }), maxTokens: most })
        assert.strictEqual(messageOf(again), "admitted")
      }
    }
  })

  it("hears which max_tokens fits into a budget, and has an answer that fits if it does not say", () => {
    assert.include(
      messageOf(admit(budgeted(1000), { maxTokens: 901 })),
      "Set max_tokens to at most 900, or raise the budget."
    )
    assert.include(messageOf(admit(budgeted(100))), "Shorten the prompt, or raise the budget.")
    const open = admit(budgeted(1000))
    assert.strictEqual("maxTokens" in open ? open.maxTokens : undefined, 900)
  })

  it("counts an answer that it does not limit up to the window of a local deployment", () => {
    const [small, large] = [local(512), local(8192)]
    assert.strictEqual(messageOf(admit(limited(612), { deployments: [small] })), "admitted")
    assert.include(messageOf(admit(limited(611), { deployments: [small] })), "may use 612 tokens")
    assert.include(messageOf(admit(limited(1000), { deployments: [small, large] })), "may use 4196 tokens")
  })

  it("counts an answer that it does not limit up to the window that the engine or the file has", () => {
    const windows = new Map([["m#0", 512]])
    for (const deployment of [local(), local(8192)]) {
      const deployments = [deployment]
      assert.strictEqual(messageOf(admit(limited(612), { deployments, windows })), "admitted")
      assert.include(messageOf(admit(limited(611), { deployments, windows })), "may use 612 tokens")
    }
    const remote = { id: "m#0", model: "m", options: { engine: "remote" } } as Deployment
    assert.include(messageOf(admit(limited(611), { deployments: [remote], windows })), "may use 4196 tokens")
  })
})

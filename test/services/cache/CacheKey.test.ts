/** What identifies a request for the cache, and for the fallback `cached-responses`. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted, Schema } from "effect"
import * as fc from "fast-check"
import type { DeploymentOptions, Model } from "../../../src/domain/Deployment.ts"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import { Request } from "../../../src/domain/Inference.ts"
import * as CacheKey from "../../../src/services/cache/CacheKey.ts"
import * as Deployments from "../../support/Deployments.ts"

const base: Request = { model: "chat", messages: [{ role: "user", content: "Hello" }] }

/** The body of a caller, with a field that Troupe does not know. */
const sourceOf = (verbosity: string) => ({
  dialect: "openai",
  body: { messages: [], verbosity },
  unknownFields: [{ path: ["verbosity"] }]
} as const)

/** Two values of each field, neither of which equals a missing field. */
const values: { readonly [Field in keyof Request]-?: readonly [Request[Field], Request[Field]] } = {
  model: ["chat", "other"],
  messages: [base.messages, [{ role: "user", content: [{ type: "text", text: "Hello" }] }]],
  completion: [{}, { tokens: [1] }],
  temperature: [0, 0.5],
  topP: [0.1, 0.2],
  seed: [1, 2],
  topK: [1, 2],
  minP: [0.1, 0.2],
  repeatPenalty: [1.1, 1.2],
  presencePenalty: [0.1, 0.2],
  frequencyPenalty: [0.1, 0.2],
  logitBias: [{ "1": 5 }, { "2": 5 }],
  decoding: [{ minTokens: 1 }, { stopTokens: [1] }],
  maxTokens: [1, 2],
  stop: [["a"], ["b"]],
  tools: [[{ name: "a" }], [{ name: "a", description: "It adds." }]],
  parallelToolCalls: [false, true],
  toolChoice: ["none", { name: "a" }],
  reasoning: [{ effort: "low" }, { budget: 1024 }],
  format: [{ type: "json_object" }, { type: "json_schema", schema: {} }],
  logprobs: [1, 2],
  assistantPrefix: ["The", "The capital"],
  source: [sourceOf("low"), sourceOf("high")],
  tenant: ["one", "two"],
  identity: [
    { keyId: "a", tenant: "", isAdmin: false, setsTenant: false },
    { keyId: "b", tenant: "", isAdmin: false, setsTenant: false }
  ],
  priority: ["low", "high"],
  keepAlive: [Duration.seconds(1), Duration.seconds(2)],
  route: [{ retries: 0 }, { retries: 1 }],
  cache: [{ noCache: true }, { maxAge: 60 }]
}

/** Fields that do not change the answer. */
const ignored: ReadonlySet<string> = new Set(["identity", "priority", "keepAlive", "cache"])

/** Further ones that do not keep the last fallback from answering. */
const ignoredByFallback: ReadonlySet<string> = new Set([...ignored, "seed", "route"])

const fields = Object.keys(values) as ReadonlyArray<keyof Request>

/** For each field: missing (-1), or one of its two values. */
const choices = fc.tuple(...fields.map(() => fc.constantFrom(-1, 0, 1).map(Number)))

const requestOf = (choice: ReadonlyArray<number>): Request => ({
  ...base,
  ...Object.fromEntries(
    fields.flatMap((field, index) => choice[index]! < 0 ? [] : [[field, values[field][choice[index] as 0 | 1]]])
  )
})

/** Equal for requests that must have the same key: a missing required field has its value of `base`. */
const relevant = (choice: ReadonlyArray<number>, ignored: ReadonlySet<string>): string =>
  fields.map((field, index) => {
    const chosen = choice[index]!
    if (ignored.has(field)) return ""
    return chosen < 0 && (field === "model" || field === "messages") ? 0 : chosen
  }).join()

const modelOf = (...options: readonly [DeploymentOptions, ...Array<DeploymentOptions>]): Model => {
  const [first, ...others] = options.map((own, index) => Deployments.deployment(`chat#${index}`, { options: own }))
  return { name: "chat", deployments: [first!, ...others] }
}

const local = { engine: "fake" } as DeploymentOptions
const remote = (provider: string) =>
  ({ engine: "remote", provider, model: "up", key: Redacted.make("secret") }) as unknown as DeploymentOptions

const ofLocal = modelOf(local)
const ofOpenAi = modelOf(remote("openai"))

const keys = {
  "of a local model": [(request: Request) => CacheKey.identify(request, ofLocal), ignored],
  "of a remote model": [(request: Request) => CacheKey.identify(request, ofOpenAi), ignored],
  "of a model with both": [(request: Request) => CacheKey.identify(request, modelOf(local, remote("openai"))), ignored],
  "for the fallback": [CacheKey.identifyForFallback, ignoredByFallback]
} as const

/** `true` is what a missing `parallelToolCalls` means to engines on this machine. */
const withoutDefault = (choice: ReadonlyArray<number>): ReadonlyArray<number> =>
  choice.map((chosen, index) => fields[index] === "parallelToolCalls" && chosen === 1 ? -1 : chosen)

describe.each(Object.entries(keys))("the identity %s", (name, [identify, ignored]) => {
  const normal = name === "of a local model" ? withoutDefault : (choice: ReadonlyArray<number>) => choice

  it("covers every field of a request", () => {
    assert.sameMembers([...fields], Object.keys(Request.fields))
  })

  it("differs exactly if a field that changes the answer differs", () => {
    fc.assert(
      fc.property(choices, choices, (one, two) => {
        const isSame = identify(requestOf(one)) === identify(requestOf(two))
        assert.strictEqual(isSame, relevant(normal(one), ignored) === relevant(normal(two), ignored))
      }),
      { numRuns: 1_000 }
    )
  })

  it("differs for other thoughts of earlier answers", () => {
    const thinking = (more: object): Request => ({
      ...base,
      messages: [...base.messages, { role: "assistant", content: "Hi", ...more }, ...base.messages]
    })
    const signed = (signature: string) => ({ reasoning: [{ type: "thinking", thinking: "a", signature }] })
    const others = [{}, { thoughts: "a" }, { thoughts: "b" }, signed("s"), signed("t")]
    assert.strictEqual(new Set(others.map((more) => identify(thinking(more)))).size, others.length)
  })

  it("differs for a change of any single field, and for every tenant", () => {
    fc.assert(fc.property(choices, fc.nat(fields.length - 1), (choice, index) => {
      for (const way of [-1, 0, 1].filter((way) => way !== choice[index])) {
        const changed = choice.with(index, way)
        const isSame = identify(requestOf(choice)) === identify(requestOf(changed))
        assert.strictEqual(
          isSame,
          relevant(normal(choice), ignored) === relevant(normal(changed), ignored),
          fields[index]
        )
      }
      const tenants = fc.sample(fc.string({ minLength: 1 }), 3)
      const found = ["", ...new Set(tenants)].map((tenant) => identify({ ...requestOf(choice), tenant }))
      assert.strictEqual(new Set(found).size, found.length)
    }))
  })

  it("depends on every field of a program's partial body", () => {
    const found = ["low", "high"].map((effort) =>
      identify({ ...base, source: { dialect: "openai", body: { reasoning_effort: effort } } })
    )
    assert.strictEqual(new Set([...found, identify(base)]).size, 3)
  })

  it("does not depend on the order of fields, and a missing tenant equals an empty one", () => {
    const schema = Schema.decodeSync(Request)
    const one = schema({ ...base, format: { type: "json_schema", schema: { type: "object", required: ["a"] } } })
    const two = schema({
      format: { schema: { required: ["a"], type: "object" }, type: "json_schema" },
      messages: base.messages,
      model: base.model,
      tenant: ""
    })
    assert.strictEqual(identify(one), identify(two))
    assert.notStrictEqual(identify({ ...base, stop: ["a", "b"] }), identify({ ...base, stop: ["b", "a"] }))
  })
})

describe("an exact number", () => {
  const bodies = (field: string) =>
    ["3", "5"].map((digit) => {
      const text = `{"messages":[],"x_id":1,"tools":1,"seed":1}`.replace(
        `"${field}":1`,
        `"${field}":900719925474099${digit}`
      )
      return {
        ...base,
        source: {
          dialect: "openai",
          body: ExactNumber.parse(text) as Readonly<Record<string, unknown>>,
          unknownFields: [{ path: ["x_id"] }],
          hasExactNumbers: true
        }
      } as const
    })

  it.each(["x_id", "tools", "seed"])("changes the identity with every digit, in %s", (field) => {
    const [one, two] = bodies(field)
    for (const model of [ofLocal, ofOpenAi]) {
      assert.notStrictEqual(CacheKey.identify(one!, model), CacheKey.identify(two!, model))
    }
    assert.strictEqual(
      CacheKey.identifyForFallback(one!) === CacheKey.identifyForFallback(two!),
      field === "seed"
    )
  })
})

describe("the caller's own body", () => {
  const ask = (dialect: "openai" | "anthropic", body: Readonly<Record<string, unknown>> = {}): Request => ({
    ...base,
    source: { dialect, body: { messages: [], ...body } }
  })

  it("does not count where no deployment is sent it, so that callers of all dialects share answers", () => {
    const found = [base, ask("openai", { stream: true }), ask("anthropic")].map((request) =>
      CacheKey.identify(request, ofLocal)
    )
    assert.strictEqual(new Set(found).size, 1)
  })

  it("counts where a deployment is sent it, without what does not change the answer", () => {
    const known = CacheKey.identify(ask("openai"), ofOpenAi)
    for (const field of [{ stream: true }, { stream_options: {} }, { user: "me" }, { model: "chat" }, { stop: null }]) {
      assert.strictEqual(CacheKey.identify(ask("openai", field), ofOpenAi), known)
    }
    assert.notStrictEqual(CacheKey.identify(ask("openai", { verbosity: "low" }), ofOpenAi), known)
    assert.notStrictEqual(CacheKey.identify(base, ofOpenAi), known)
  })
})

describe("fields with their default", () => {
  const defaults: ReadonlyArray<Partial<Request>> = [
    { temperature: 1 },
    { topP: 1 },
    { minP: 0 },
    { repeatPenalty: 1 },
    { presencePenalty: 0 },
    { frequencyPenalty: 0 },
    { toolChoice: "auto" },
    { parallelToolCalls: true }
  ]

  it.each(defaults)("%o is the same as none for engines on this machine, and not for providers", (field) => {
    assert.strictEqual(CacheKey.identify({ ...base, ...field }, ofLocal), CacheKey.identify(base, ofLocal))
    assert.notStrictEqual(CacheKey.identify({ ...base, ...field }, ofOpenAi), CacheKey.identify(base, ofOpenAi))
  })

  it.each<Partial<Request>>([{ stop: [] }, { tools: [] }, { logitBias: {} }])("%o is the same as none", (field) => {
    for (const model of [ofLocal, ofOpenAi]) {
      assert.strictEqual(CacheKey.identify({ ...base, ...field }, model), CacheKey.identify(base, model))
    }
  })
})

describe("the weights of a deployment", () => {
  const weights = (options: object, version = "1") =>
    CacheKey.weightsOf(
      Deployments.deployment("chat#0", { options: { ...local, ...options } as DeploymentOptions }),
      version
    )

  it("do not depend on its operation", () => {
    for (const options of [{ slots: 4 }, { weight: 2 }, { price: {} }, { key: Redacted.make("a") }, { timeouts: {} }]) {
      assert.strictEqual(weights(options), weights({}))
    }
  })

  it("depend on its files and on every other option", () => {
    const all = [
      weights({}),
      weights({}, "2"),
      weights({ path: "a" }),
      weights({ path: "b" }),
      weights({ contextSize: 9 }),
      weights({ lora: [{ path: "a", scale: 1 }] }),
      weights({ lora: [{ path: "a", scale: 0.5 }] })
    ]
    assert.strictEqual(new Set(all).size, all.length)
  })
})

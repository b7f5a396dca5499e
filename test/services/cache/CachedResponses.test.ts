/** Cached responses: what identifies a request, what is kept, and how the fallback returns an earlier answer. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Metric, Schema, Stream } from "effect"
import * as fc from "fast-check"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { keyOf } from "../../../src/layers/cache/CachedResponses.ts"
import type { Response } from "../../../src/services/cache/CachedResponses.ts"
import * as CachedResponses from "../../../src/services/cache/CachedResponses.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import type { Router } from "../../../src/services/routing/Router.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

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
  temperature: [0, 0.5],
  topP: [0.1, 0.2],
  seed: [1, 2],
  topK: [1, 2],
  minP: [0.1, 0.2],
  repeatPenalty: [1.1, 1.2],
  presencePenalty: [0.1, 0.2],
  frequencyPenalty: [0.1, 0.2],
  logitBias: [{ "1": 5 }, { "2": 5 }],
  maxTokens: [1, 2],
  stop: [["a"], ["b"]],
  tools: [[{ name: "a" }], [{ name: "a", description: "It adds." }]],
  parallelToolCalls: [false, true],
  toolChoice: ["none", { name: "a" }],
  format: [{ type: "json_object" }, { type: "json_schema", schema: {} }],
  logprobs: [1, 2],
  assistantPrefix: ["The", "The capital"],
  source: [sourceOf("low"), sourceOf("high")],
  tenant: ["one", "two"],
  priority: ["low", "high"],
  keepAlive: [Duration.seconds(1), Duration.seconds(2)],
  route: [{ retries: 0 }, { retries: 1 }]
}

/** Fields that do not change the answer. */
const ignored: ReadonlySet<string> = new Set(["seed", "priority", "keepAlive", "route"])

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
const relevant = (choice: ReadonlyArray<number>): string =>
  fields.map((field, index) => {
    const chosen = choice[index]!
    if (ignored.has(field)) return ""
    return chosen < 0 && (field === "model" || field === "messages") ? 0 : chosen
  }).join()

describe("the key of a request", () => {
  it("covers every field of a request", () => {
    assert.sameMembers([...fields], Object.keys(Request.fields))
  })

  it("differs exactly if a field that changes the answer differs", () => {
    fc.assert(
      fc.property(choices, choices, (one, two) => {
        const isSame = keyOf(requestOf(one)) === keyOf(requestOf(two))
        assert.strictEqual(isSame, relevant(one) === relevant(two))
      }),
      { numRuns: 2_000 }
    )
  })

  it("differs for a change of any single field, and for every tenant", () => {
    fc.assert(fc.property(choices, fc.nat(fields.length - 1), (choice, index) => {
      const others = [-1, 0, 1].filter((way) => way !== choice[index])
      for (const way of others) {
        const changed = choice.with(index, way)
        const isSame = keyOf(requestOf(choice)) === keyOf(requestOf(changed))
        assert.strictEqual(isSame, relevant(choice) === relevant(changed), fields[index])
      }
      const tenants = fc.sample(fc.string({ minLength: 1 }), 3)
      const keys = ["", ...new Set(tenants)].map((tenant) => keyOf({ ...requestOf(choice), tenant }))
      assert.strictEqual(new Set(keys).size, keys.length)
    }))
  })

  it("does not depend on known fields of the caller's body, which the request has as well", () => {
    const body = { messages: [], stream: true }
    assert.strictEqual(keyOf({ ...base, source: { dialect: "openai", body } }), keyOf(base))
    assert.strictEqual(keyOf({ ...base, source: { dialect: "anthropic", body: { messages: [] } } }), keyOf(base))
  })

  it("depends on every digit of a number, except of the seed", () => {
    const keys = ["3", "5"].flatMap((digit) =>
      ["x_id", "tools", "seed"].map((field) => {
        const text = `{"messages":[],"x_id":1,"tools":1,"seed":1}`.replace(
          `"${field}":1`,
          `"${field}":900719925474099${digit}`
        )
        return keyOf({
          ...base,
          source: {
            dialect: "openai",
            body: ExactNumber.parse(text) as Readonly<Record<string, unknown>>,
            unknownFields: [{ path: ["x_id"] }],
            hasExactNumbers: true
          }
        })
      })
    )
    assert.strictEqual(new Set(keys).size, 5)
    assert.strictEqual(keys[2], keys[5])
  })

  it("depends on every field of a program's partial body", () => {
    const keys = ["low", "high"].map((effort) =>
      keyOf({ ...base, source: { dialect: "openai", body: { reasoning_effort: effort } } })
    )
    assert.strictEqual(new Set([...keys, keyOf(base)]).size, 3)
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
    assert.strictEqual(keyOf(one), keyOf(two))
    assert.notStrictEqual(keyOf({ ...base, stop: ["a", "b"] }), keyOf({ ...base, stop: ["b", "a"] }))
  })
})

describe("a kept answer", () => {
  const cut: Response = {
    text: "Hi",
    toolCalls: [],
    finishReason: "length",
    usage: { promptTokens: 1, completionTokens: 2, cachedTokens: 0 }
  }

  it("is complete up to the caller's own limit", () => {
    assert.isTrue(CachedResponses.isWhole({ ...cut, finishReason: "stop" }, base))
    assert.isTrue(CachedResponses.isWhole(cut, { ...base, maxTokens: 2 }))
    assert.isFalse(CachedResponses.isWhole(cut, { ...base, maxTokens: 3 }))
    assert.isFalse(CachedResponses.isWhole(cut, base))
  })

  it("is configured by the last entry of the fallbacks only", () => {
    const indexes = [[], ["a"], ["a", "cached-responses"], ["cached-responses", "a"], [
      "cached-responses",
      "cached-responses"
    ]].map(CachedResponses.misplaced)
    assert.deepStrictEqual(indexes, [-1, -1, -1, 0, 0])
  })
})

const broken = new InferenceError.EngineFailed({ deployment: "a#0", detail: "It is broken." })
const mistake = new InferenceError.InvalidRequest({ path: "stop", detail: "Expected shorter ones" })
const tooLong = new InferenceError.ContextLengthExceeded({
  model: "a",
  promptTokens: 5_000,
  contextWindow: 4_096
})

const hello: Request = { model: "a", messages: [{ role: "user", content: "Hello" }], tenant: "one" }

/** `a` answers once and then fails with this reason. */
const setting = (reason: InferenceError.Reason = broken, fallbacks = ["cached-responses"]): Setting => ({
  models: {
    a: [{ pieces: ["Hi ", "there"], fails: { reason }, successes: 1 }],
    b: [{ pieces: ["b stands in"], fails: { reason }, successes: 1 }]
  },
  fallbacks: { a: fallbacks }
})

const generate = (request: Request) => Inference.use((inference) => inference.generate(request))

const open = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  const { events, ...by } = yield* inference.open(request)
  return { ...by, events: yield* Stream.runCollect(events) }
}, Effect.scoped)

const textOf = (events: ReadonlyArray<Event>) => events.map((event) => event.type === "text" ? event.text : "").join("")

const latest = DecisionLog.use(({ latest }) => Effect.succeed(latest(1)[0]!))

/** Runs the program with its own services and the number of jobs that the engines received. */
const run = <A, E>(
  setting: Setting,
  program: (jobs: () => number) => Effect.Effect<A, E, Inference | DecisionLog | Router>
) => {
  const made = world(setting)
  return program(() => made.jobs.length).pipe(
    Effect.provide(made.layer),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

const usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 3 }

describe("cached-responses", () => {
  it.effect("returns the earlier answer, buffered and streamed", () =>
    Effect.forEach([generate, open], (first) =>
      run(setting(), () =>
        Effect.gen(function*() {
          yield* first(hello)
          const buffered = yield* generate(hello)
          assert.deepInclude(buffered, {
            text: "Hi there",
            finishReason: "stop",
            usage,
            deployment: "cached-responses",
            attempts: 2
          })
          const { events, ...by } = yield* open({ ...hello, seed: 7 })
          assert.deepInclude(by, { deployment: "cached-responses", attempts: 2 })
          assert.strictEqual(textOf(events), "Hi there")
          assert.deepStrictEqual(events.at(-1), { type: "finish", reason: "stop", usage })
        }))))

  it.effect("records the attempt, and counts the request once", () =>
    run(setting(), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        yield* open(hello)
        const record = yield* latest
        assert.deepInclude(record, { answeredBy: "cached-responses", end: "success" })
        assert.deepStrictEqual(record.fallbacks.ordinary, ["cached-responses"])
        assert.deepStrictEqual(record.attempts.map(({ deployment, outcome }) => [deployment, outcome]), [
          ["a#0", "failed"],
          ["cached-responses", "answered"]
        ])
        const metrics = yield* Metric.snapshot
        const stateOf = (name: string) =>
          metrics.find(({ attributes, id }) => id === name && attributes?.["model"] === "a")?.state
        assert.deepInclude(stateOf("llm_requests_total"), { count: 2 })
        assert.deepInclude(stateOf("llm_tokens_generated"), { count: 2, sum: 2 })
        assert.isUndefined(stateOf("llm_errors_total"))
      })))

  it.effect("fails with the last error if no answer is kept, and records the attempt", () =>
    run(setting(), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        const others: ReadonlyArray<Request> = [
          { ...hello, tenant: "two" },
          { ...hello, temperature: 0 }
        ]
        for (const other of others) {
          assert.strictEqual((yield* Effect.flip(generate(other))).reason, broken)
          assert.strictEqual((yield* Effect.flip(open(other))).reason, broken)
        }
        const record = yield* latest
        assert.strictEqual(record.end, "failure")
        assert.deepInclude(record.attempts.at(-1), { deployment: "cached-responses", outcome: "failed" })
        assert.strictEqual(record.attempts.at(-1)?.error?.reason, "NotCached")
      })))

  it.effect("does not replace an error that the caller caused", () =>
    Effect.forEach([mistake, tooLong], (reason) =>
      run(setting(reason), () =>
        Effect.gen(function*() {
          yield* generate(hello)
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, reason)
          assert.lengthOf((yield* latest).attempts, 1)
        }))))

  it.effect("follows the fallback models, and keeps their answers", () =>
    run(setting(broken, ["b", "cached-responses"]), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        assert.strictEqual((yield* generate(hello)).deployment, "b#0")
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", text: "b stands in", attempts: 3 })
      })))

  it.effect("answers without a call when every circuit is open", () =>
    run(setting(), (jobs) =>
      Effect.gen(function*() {
        yield* generate(hello)
        for (let index = 0; index < 5; index++) yield* generate(hello)
        const before = jobs()
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", attempts: 1 })
        assert.deepInclude(yield* open(hello), { deployment: "cached-responses", attempts: 1 })
        const none = yield* Effect.flip(generate({ ...hello, tenant: "two" }))
        assert.strictEqual(none.reason._tag, "NoDeployment")
        assert.include(none.message, "a#0: its circuit is open after")
        assert.strictEqual(jobs(), before)
      })))

  it.effect("does not keep an answer that breaks off or is not read to its end", () => {
    const cut: Setting = {
      models: { a: [{ pieces: ["Hi ", "there"], fails: { after: 1, reason: broken } }] },
      fallbacks: { a: ["cached-responses"] }
    }
    return run(cut, () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(open(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
      })).pipe(Effect.andThen(run(setting(), () =>
        Effect.gen(function*() {
          const inference = yield* Inference
          yield* Effect.scoped(
            Effect.flatMap(inference.open(hello), ({ events }) => Stream.runDrain(Stream.take(events, 1)))
          )
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        }))))
  })

  it.effect("is off for models without the entry, and a request can add it", () =>
    run(setting(broken, []), () =>
      Effect.gen(function*() {
        const optingIn: Request = { ...hello, route: { fallbacks: ["cached-responses"] } }
        yield* generate(hello)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(optingIn))).reason, broken)
        const misplaced: Request = { ...hello, route: { fallbacks: ["cached-responses", "b"] } }
        const refused = (yield* Effect.flip(generate(misplaced))).reason
        assert.deepInclude(refused, { _tag: "InvalidRequest", path: "route.fallbacks[0]" })
      })))
})

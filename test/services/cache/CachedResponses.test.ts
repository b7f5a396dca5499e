import { assert } from "@effect/vitest"
import { Duration, Schema } from "effect"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import { Request } from "../../../src/domain/Inference.ts"
import { keyOf } from "../../../src/layers/cache/CachedResponses.ts"
import type { Response } from "../../../src/services/cache/CachedResponses.ts"
import * as CachedResponses from "../../../src/services/cache/CachedResponses.ts"

const base: Request = { model: "chat", messages: [{ role: "user", content: "Hello" }] }

/** Two ways to say each field, of which none is as if it were left out. */
const ways: { readonly [Field in keyof Request]-?: readonly [Request[Field], Request[Field]] } = {
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
  continues: ["The", "The capital"],
  extra: [
    { dialect: "openai", fields: [{ path: ["verbosity"], value: "low" }] },
    { dialect: "openai", fields: [{ path: ["verbosity"], value: "high" }] }
  ],
  source: [{ dialect: "openai", body: { stream: true } }, { dialect: "openai", body: {} }],
  tenant: ["one", "two"],
  priority: ["low", "high"],
  keepAlive: [Duration.seconds(1), Duration.seconds(2)],
  route: [{ retries: 0 }, { retries: 1 }]
}

/** What changes nothing of the answer. */
const passedOver: ReadonlySet<string> = new Set(["seed", "source", "priority", "keepAlive", "route"])

const fields = Object.keys(ways) as ReadonlyArray<keyof Request>

/** For each field: left out, or said in one of its ways. */
const choices = fc.tuple(...fields.map(() => fc.constantFrom(-1, 0, 1).map(Number)))

const requestOf = (choice: ReadonlyArray<number>): Request => ({
  ...base,
  ...Object.fromEntries(
    fields.flatMap((field, index) => choice[index]! < 0 ? [] : [[field, ways[field][choice[index] as 0 | 1]]])
  )
})

/** What is told apart: the two fields that a request must have are as in `base` where they are left out. */
const relevant = (choice: ReadonlyArray<number>): string =>
  fields.map((field, index) => {
    const chosen = choice[index]!
    if (passedOver.has(field)) return ""
    return chosen < 0 && (field === "model" || field === "messages") ? 0 : chosen
  }).join()

describe("the key of a request", () => {
  it("covers every field that there is", () => {
    assert.sameMembers([...fields], Object.keys(Request.fields))
  })

  it("differs wherever a field differs that changes the answer, and is the same otherwise", () => {
    fc.assert(
      fc.property(choices, choices, (one, two) => {
        const isSame = keyOf(requestOf(one)) === keyOf(requestOf(two))
        assert.strictEqual(isSame, relevant(one) === relevant(two))
      }),
      { numRuns: 2_000 }
    )
  })

  it("differs for any one field alone, and never is another tenant's", () => {
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

  it("does not mind the order of fields, and nobody in particular is the tenant of no name", () => {
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

describe("what is kept", () => {
  const cut: Response = {
    text: "Hi",
    toolCalls: [],
    finishReason: "length",
    usage: { promptTokens: 1, completionTokens: 2, cachedTokens: 0 }
  }

  it("is not cut before the caller's own limit", () => {
    assert.isTrue(CachedResponses.isWhole({ ...cut, finishReason: "stop" }, base))
    assert.isTrue(CachedResponses.isWhole(cut, { ...base, maxTokens: 2 }))
    assert.isFalse(CachedResponses.isWhole(cut, { ...base, maxTokens: 3 }))
    assert.isFalse(CachedResponses.isWhole(cut, base))
  })

  it("is asked for at the end of the fallbacks only", () => {
    const indexes = [[], ["a"], ["a", "cached-responses"], ["cached-responses", "a"], [
      "cached-responses",
      "cached-responses"
    ]].map(CachedResponses.misplaced)
    assert.deepStrictEqual(indexes, [-1, -1, -1, 0, 0])
  })
})

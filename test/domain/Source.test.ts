import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Source } from "../../src/domain/Source.ts"
import { bodyWith, isComplete, requiredPaths, valueAt } from "../../src/domain/Source.ts"

const source = (body: Source["body"], unknownFields: Source["unknownFields"] = []): Source => ({
  dialect: "openai",
  body,
  unknownFields
})

describe("the caller's own request", () => {
  it("keeps every field, at every place, but Troupe's own and those that change", () => {
    const body = {
      model: "m",
      store: true,
      messages: [{ role: "user", content: "Hi", name: "Ann" }],
      keep_alive: "5m",
      priority: "high",
      troupe: { retries: 0 }
    }
    const before = structuredClone(body)
    assert.deepStrictEqual<unknown>(bodyWith(source(body), { model: "other", stream: true, user: undefined }), {
      model: "other",
      store: true,
      messages: body.messages,
      stream: true
    })
    assert.deepStrictEqual(body, before)
  })

  it("passes any JSON on as it is", () => {
    fc.assert(fc.property(fc.string(), fc.jsonValue(), (name, value) => {
      fc.pre(!["keep_alive", "priority", "troupe"].includes(name))
      const body = Object.fromEntries([[name, value]])
      assert.deepStrictEqual(Object.entries(bodyWith(source(body), {})), [[name, value]])
    }))
  })

  it("of a program may have only some fields, which are added to the encoded request", () => {
    const partial = source({ reasoning_effort: "low", model: "mine" })
    assert.isFalse(isComplete(partial))
    assert.isTrue(isComplete(source({ messages: [] })))
    assert.deepStrictEqual<unknown>(bodyWith(partial, { model: "m", messages: [] }), {
      reasoning_effort: "low",
      model: "m",
      messages: []
    })
  })

  it("lists the unknown fields that no deployment may ignore", () => {
    const fields = [{ path: ["store"] }, { path: ["messages", 0, "name"], optional: true }, {
      path: ["messages", 0, "mood"]
    }]
    assert.deepStrictEqual(requiredPaths(source({}, fields)), ["store", "messages[0].mood"])
    assert.deepStrictEqual(requiredPaths(undefined), [])
  })

  it("has the value of a field, and none where there is no such place", () => {
    const body = { messages: [{ name: "Ann" }] }
    assert.strictEqual(valueAt(source(body), ["messages", 0, "name"]), "Ann")
    assert.isUndefined(valueAt(source(body), ["messages", 1, "name"]))
  })
})

import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import * as PassThrough from "../../src/domain/PassThrough.ts"

const extra = (...fields: ReadonlyArray<PassThrough.Field>): PassThrough.PassThrough => ({ dialect: "openai", fields })

describe("Extra", () => {
  it("puts fields where they stood, and leaves the rest as it is", () => {
    const body = {
      model: "m",
      messages: [{ role: "user", content: "Hi" }, { role: "user", content: [{ type: "text" }] }]
    }
    const before = structuredClone(body)
    const placed = PassThrough.merge(
      body,
      extra(
        { path: ["store"], value: true },
        { path: ["messages", 0, "name"], value: "Ann" },
        { path: ["messages", 1, "content", 0, "cache_control"], value: { type: "ephemeral" } },
        { path: ["response_format", "json_schema", "name"], value: "x" },
        { path: ["messages", 7, "name"], value: "nobody" },
        { path: ["messages", 0, "content", 0, "cache_control"], value: "in a text" }
      )
    )
    assert.deepStrictEqual<unknown>(placed, {
      model: "m",
      store: true,
      messages: [
        { role: "user", content: "Hi", name: "Ann" },
        { role: "user", content: [{ type: "text", cache_control: { type: "ephemeral" } }] }
      ]
    })
    assert.deepStrictEqual(body, before)
  })

  it("passes any JSON as it was", () => {
    fc.assert(fc.property(fc.string(), fc.jsonValue(), (name, value) => {
      const placed = PassThrough.merge({}, extra({ path: [name], value })) as Record<string, unknown>
      assert.deepStrictEqual(Object.entries(placed), [[name, value]])
    }))
  })

  it("names what must not be left out", () => {
    const fields = [
      { path: ["store"], value: true },
      { path: ["messages", 0, "name"], value: "Ann", optional: true },
      { path: ["messages", 0, "mood"], value: "fine" }
    ]
    assert.deepStrictEqual(PassThrough.requiredOf(extra(...fields)), ["store", "messages[0].mood"])
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as ExactNumber from "../../src/domain/ExactNumber.ts"
import { JsonText } from "../../src/domain/JsonText.ts"
import * as JsonTexts from "../support/JsonTexts.ts"

type Fields = Readonly<Record<string, unknown>>

const parse = (text: string) => ExactNumber.parse(text) as Fields

const textWith = (text: string, changes: Fields): string | undefined => {
  const body = parse(text)
  return new JsonText(text, body).with(body, changes)
}

const changes = fc.record({
  id: fc.string(),
  model: fc.string(),
  usage: fc.constantFrom({ id: "n", model: [1] }, undefined),
  stream: fc.constantFrom(true, undefined)
}, { requiredKeys: [] })

describe("JsonText", () => {
  it("gives the JSON of the changed object, or nothing", () => {
    let passed = 0
    fc.assert(
      fc.property(JsonTexts.anyObject, changes, (text, changed) => {
        const found = textWith(text, changed)
        if (found === undefined) return
        passed++
        assert.deepStrictEqual(parse(found), parse(JSON.stringify({ ...parse(text), ...changed })))
      }),
      { numRuns: 1000 }
    )
    assert.isAbove(passed, 200)
  })

  it("keeps every other byte", () => {
    const text = `{ "n": 1.0, "model" :"a" ,"m":[{"model":"b"}, "\\u0041\\"model\\":1"],\n"id":{"id":2}}\n`
    assert.strictEqual(
      textWith(text, { model: "x\"", id: 3 }),
      `{ "n": 1.0, "model" :"x\\"","m":[{"model":"b"}, "\\u0041\\"model\\":1"],\n"id":3}\n`
    )
    assert.strictEqual(textWith(text, {}), text)
  })

  it("adds missing fields at the end", () => {
    assert.strictEqual(textWith(`{"a":"}" } `, { id: 1, x: undefined }), `{"a":"}" ,"id":1} `)
  })

  const unsafe: Readonly<Record<string, readonly [text: string, changes: Fields]>> = {
    "a name that repeats": [`{"model":"a","model":"a"}`, { model: "x" }],
    "another name that repeats": [`{"a":1,"a":1,"model":"a"}`, { model: "x" }],
    "a name that repeats within": [`{"m":[{"role":"a","role":"b"}],"model":"a"}`, { model: "x" }],
    "the same name with an escape": [`{"m":[{"a":1,"\\u0061":2}],"model":"a"}`, { model: "x" }],
    "a name with an escape": [`{"\\u006dodel":"a"}`, { model: "x" }],
    "a field to remove": [`{"model":"a","stream":true}`, { stream: undefined }],
    "no field": [`{ }`, { model: "x" }],
    "more levels than are counted": [`{"m":${"[".repeat(600)}${"]".repeat(600)}}`, { model: "x" }]
  }
  for (const [name, [text, changed]] of Object.entries(unsafe)) {
    it(`gives nothing for ${name}`, () => assert.isUndefined(textWith(text, changed)))
  }

  it("is only for the body that was parsed", () => {
    const text = new JsonText(`{"a":1}`, { a: 1 })
    assert.isUndefined(text.with({ a: 1 }, {}))
    assert.strictEqual(JSON.stringify({ text }), "{}")
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { runInNewContext } from "node:vm"
import { merge } from "../../src/cli/JsonMerge.ts"

type Json = string | number | boolean | ReadonlyArray<Json> | JsonObject
interface JsonObject {
  readonly [name: string]: Json
}

/** JavaScript reads JSON with comments and trailing commas. */
const read = (text: string): JsonObject => JSON.parse(JSON.stringify(runInNewContext(`(${text})`))) as JsonObject

const isObject = (value: Json | undefined): value is JsonObject => typeof value === "object" && !Array.isArray(value)

const merged = (before: JsonObject, values: JsonObject): JsonObject => {
  const result: Record<string, Json> = { ...before }
  for (const [name, value] of Object.entries(values)) {
    const old = result[name]
    result[name] = isObject(old) && isObject(value) ? merged(old, value) : value
  }
  return result
}

const scalar = fc.oneof(fc.constantFrom<Json>(1, true, "text", `"//`, "/* */", "é\n"), fc.constant<Json>([1, ["}"]]))
const { object } = fc.letrec<{ object: JsonObject; value: Json }>((tie) => ({
  object: fc.dictionary(fc.constantFrom("a", "b", "c", "d,", "e\"}"), tie("value"), { maxKeys: 3 }),
  value: fc.oneof({ depthSize: "small" }, scalar, tie("object"))
}))

/** JSON as people write it: on one line or on many, with comments and trailing commas. */
const written = (value: Json, layout: Iterator<number>, indent = ""): string => {
  const pick = (): number => layout.next().value as number
  const comment = () => ["", "", "// a { comment\n", "/* \"b\": 1, */"][pick()]!
  if (!isObject(value)) return JSON.stringify(value)
  const inner = pick() === 0 ? " " : `\n${indent}  `
  const members = Object.entries(value).map(([name, one]) =>
    `${inner}${comment()}${JSON.stringify(name)}:${comment()} ${written(one, layout, `${indent}  `)}${comment()}`
  )
  const comma = members.length > 0 && pick() === 0 ? "," : ""
  return `{${members.join(",")}${comma}${comment()}${inner === " " ? " " : `\n${indent}`}}`
}

const layouts = fc.infiniteStream(fc.integer({ min: 0, max: 3 }))

describe("merge", () => {
  it("gives the values of both, the later ones first, whatever the layout", () => {
    fc.assert(fc.property(object, object, layouts, (before, values, layout) => {
      const text = merge(written(before, layout), values)
      assert.deepStrictEqual(read(text), merged(before, values))
      assert.strictEqual(merge(text, values), text)
    }))
  })

  it("keeps comments, order and layout", () => {
    const before = `// settings
{
    "b": 1, // one
    "a": {
        "x": [1, 2], // two
    }
    // end
}
`
    assert.strictEqual(
      merge(before, { a: { y: { z: true } }, b: 2, c: "new" }),
      `// settings
{
    "b": 2, // one
    "a": {
        "x": [1, 2], // two
        "y": {
          "z": true
        }
    },
    // end
    "c": "new"
}
`
    )
  })

  it("keeps a byte order mark, and sets the last of a repeated name", () => {
    assert.strictEqual(merge("\uFEFF{ \"a\": 1, \"a\": 2 }", { a: 3 }), "\uFEFF{ \"a\": 1, \"a\": 3 }")
  })

  it("writes a file of its own", () => {
    assert.strictEqual(merge("", { a: 1 }), `{\n  "a": 1\n}\n`)
  })

  it.each([
    ["[1]", "expected an object"],
    ["{ \"a\": }", "line 1: value expected"],
    ["{\n\"a\": 1\n\"b\": 2 }", "line 3: comma expected"],
    ["{} {}", "line 1: end of file expected"],
    ["{ \"a\" 1 }", "line 1: colon expected"]
  ])("rejects %s", (text, message) => {
    assert.throws(() => merge(text, { a: 1 }), message)
  })
})

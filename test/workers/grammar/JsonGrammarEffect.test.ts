import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Tool } from "effect/ai"
import { grammarOf, makeMatcher } from "../../../src/workers/grammar/JsonGrammar.ts"
import { layOut } from "../../support/JsonSchemas.ts"

interface Tree {
  readonly value: number
  readonly children: ReadonlyArray<Tree>
}

const Tree = Schema.Struct({
  value: Schema.Int,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
}).annotate({ identifier: "Tree" })

class Person extends Schema.Class<Person>("Person")({
  name: Schema.NonEmptyString,
  age: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120 })).annotate({ description: "years" }),
  email: Schema.optionalKey(Schema.String),
  role: Schema.Literals(["admin", "guest", 3]),
  boss: Schema.NullOr(Schema.String)
}) {}

describe("schemas of Effect", () => {
  const cases: ReadonlyArray<
    readonly [name: string, schema: Schema.Constraint, yes: ReadonlyArray<unknown>, no: ReadonlyArray<unknown>]
  > = [
    ["Int between bounds", Schema.Int.check(Schema.isBetween({ minimum: -3, maximum: 12 })), [-3, 0, 12], [
      -4,
      13,
      0.5
    ]],
    ["Finite above 0", Schema.Finite.check(Schema.isGreaterThan(0)), [0.25, 3], [0, -1]],
    ["Number, which may be a word", Schema.Number, [1.5, "NaN"], ["nan"]],
    ["String of a length", Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(3)), ["a", "abc"], [
      "",
      "abcd"
    ]],
    ["Trimmed", Schema.Trimmed, ["", "a b"], [" a"]],
    ["template", Schema.TemplateLiteral(["id-", Schema.Int]), ["id-12"], ["id-", "x"]],
    ["UUID", Schema.String.check(Schema.isUUID()), ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]],
    ["Literals", Schema.Literals(["a", "b", 3]), ["a", 3], ["c", 4]],
    ["Enum", Schema.Enum({ A: "a", B: 1 }), ["a", 1], ["A"]],
    ["Union", Schema.Union([Schema.Boolean, Schema.Int]), [true, 4], ["x"]],
    ["Array of a length", Schema.Array(Schema.Boolean).check(Schema.isMinLength(1), Schema.isMaxLength(2)), [[true], [
      true,
      false
    ]], [[], [true, true, true]]],
    ["NonEmptyArray", Schema.NonEmptyArray(Schema.Int), [[1], [1, 2]], [[], ["a"]]],
    ["Tuple", Schema.Tuple([Schema.String, Schema.Int]), [["a", 1]], [["a"], ["a", 1, 2]]],
    ["Tuple with an optional end", Schema.Tuple([Schema.String, Schema.optionalKey(Schema.Int)]), [["a"], ["a", 1]], [
      []
    ]],
    ["Record", Schema.Record(Schema.String, Schema.Int), [{}, { a: 1, b: 2 }], [{ a: "x" }]],
    ["Struct with optional keys", Schema.Struct({ a: Schema.String, b: Schema.optional(Schema.Int) }), [{ a: "x" }, {
      a: "x",
      b: null
    }], [{}, { b: 1 }]],
    ["Class", Person, [{ name: "Ada", age: 36, role: "admin", boss: null }], [{
      name: "",
      age: 36,
      role: "admin",
      boss: null
    }, { name: "Ada", age: 121, role: "admin", boss: null }]],
    ["recursive", Tree, [{ value: 1, children: [{ value: 2, children: [] }] }], [{ value: 1, children: [{}] }]],
    [
      "tagged union",
      Schema.Union([Schema.TaggedStruct("A", { x: Schema.Int }), Schema.TaggedStruct("B", { x: Schema.String })]),
      [{ _tag: "A", x: 1 }, { _tag: "B", x: "1" }],
      [{ _tag: "A", x: "1" }]
    ],
    ["Date", Schema.Date, ["2024-02-29T00:00:00.000Z"], [1]],
    ["Unknown", Schema.Unknown, [null, [{ a: 1 }]], []]
  ]
  for (const [name, schema, yes, no] of cases) {
    it(`hold an answer to ${name}`, () => {
      const grammar = grammarOf({ type: "json_schema", schema: Tool.getJsonSchemaFromSchema(schema) })
      const accepts = (value: unknown): boolean => {
        const matcher = makeMatcher(grammar)
        matcher.push(layOut(value, [true]))
        return matcher.isComplete()
      }
      for (const value of yes) assert.isTrue(accepts(value), JSON.stringify(value))
      for (const value of no) assert.isFalse(accepts(value), JSON.stringify(value))
    })
  }
})

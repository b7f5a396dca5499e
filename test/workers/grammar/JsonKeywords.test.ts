/** Keywords about names and counts of properties, conditions, negations and exclusive alternatives, against another validator. */
import { assert, describe, it } from "@effect/vitest"
import { Ajv2020 } from "ajv/dist/2020.js"
import type { JsonSchema } from "../../../src/domain/Job.ts"
import type { Grammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { grammarOf, makeMatcher } from "../../../src/workers/grammar/JsonGrammar.ts"
import { makeRandom } from "../../../src/workers/model/Sampler.ts"

const ofSchema = (schema: JsonSchema): Grammar => grammarOf({ type: "json_schema", schema })

const accepts = (grammar: Grammar, value: unknown): boolean => {
  const matcher = makeMatcher(grammar)
  matcher.push(JSON.stringify(value))
  return matcher.isComplete()
}

const alphabet = [...Array.from("{}[]\"\"\",:0123579-.abcdstxyztruefalsn"), "é"]

/** A random text of the grammar; undefined if it does not end soon. */
const walk = (grammar: Grammar, random: () => number): string | undefined => {
  const matcher = makeMatcher(grammar)
  let text = ""
  for (let step = 0; step < 200; step++) {
    if (matcher.isComplete() && (step > 40 || random() < 0.5 || !matcher.canContinue())) return text
    const allowed = alphabet.filter((one) => matcher.allows(one))
    const closing = step > 40 ? allowed.filter((one) => "}]\"".includes(one)) : []
    const from = closing.length > 0 ? closing : allowed
    if (from.length === 0) return undefined
    const chosen = from[Math.floor(random() * from.length)]!
    matcher.push(chosen)
    text += chosen
  }
  return undefined
}

const string = { type: "string" }
const integer = { type: "integer" }

/** A schema, values that the grammar allows, and values that it does not. */
const rows: ReadonlyArray<
  readonly [schema: JsonSchema, allowed: ReadonlyArray<unknown>, others: ReadonlyArray<unknown>]
> = [
  [{ type: "object", patternProperties: { "^.*$": integer } }, [{}, { a: 1, b: 2 }], [{ a: "x" }]],
  [{ type: "object", patternProperties: { "^x": integer }, additionalProperties: false }, [{ x1: 1 }], [{ a: 1 }, {
    x: "a"
  }]],
  [{ type: "object", patternProperties: { "^x": integer }, additionalProperties: string }, [{ x1: 1, a: "b" }], [{
    a: 1
  }, { x: "a" }]],
  [
    {
      type: "object",
      properties: { xy: { type: ["integer", "string"] } },
      patternProperties: { "^x": integer, "y$": { minimum: 5 } }
    },
    [{ xy: 7 }, { x: 1, y: 6 }, { xzy: 9 }],
    [{ xy: "a" }, { xy: 3 }, { xzy: 4 }, { y: 1 }]
  ],
  [{ type: "object", propertyNames: string, additionalProperties: integer }, [{ a: 1 }], [{ a: "b" }]],
  [{ type: "object", propertyNames: { pattern: "^[a-c]+$" }, additionalProperties: {} }, [{ abc: [] }], [{ d: 1 }]],
  [
    { type: "object", propertyNames: { enum: ["a", "b"] }, additionalProperties: integer, required: ["a"] },
    [{ a: 1 }, { a: 1, b: 2 }],
    [{ b: 2 }, { a: 1, c: 2 }]
  ],
  [{ type: "object", propertyNames: { anyOf: [{ const: "a" }, { maxLength: 0 }] } }, [{ a: 1 }, { "": 1 }], [{ b: 1 }]],
  [{ type: "object", properties: { a: {}, b: {}, c: {} }, minProperties: 2 }, [{ a: 1, b: 1 }, { b: 1, c: 1 }], [{}, {
    c: 1
  }]],
  [{ type: "object", properties: { a: {}, b: {}, c: {} }, maxProperties: 1 }, [{}, { b: 1 }], [{ a: 1, b: 1 }]],
  [{ type: "object", additionalProperties: integer, minProperties: 1, maxProperties: 2 }, [{ a: 1 }, { a: 1, b: 1 }], [
    {},
    { a: 1, b: 1, c: 1 }
  ]],
  [{ type: "object", maxProperties: 0 }, [{}], [{ a: 1 }]],
  [{ type: "array", items: [integer, string], additionalItems: false }, [[], [1], [1, "a"]], [["a"], [1, "a", 2]]],
  [{ type: "array", items: [integer], additionalItems: string }, [[1, "a", "b"]], [[1, 2]]],
  [{ not: string }, [1, null, [], {}], ["a"]],
  [{ type: ["string", "null"], not: { enum: ["a", null] } }, ["b"], ["a", null]],
  [{ type: "string", not: { pattern: "a" } }, ["", "b"], ["ba"]],
  [{ type: "integer", not: { minimum: 3 } }, [2, -5], [3, 4]],
  [{ type: "object", properties: { a: {}, b: {} }, not: { required: ["a", "b"] } }, [{ a: 1 }, { b: 1 }, {}], [{
    a: 1,
    b: 1
  }]],
  [{ type: "object", properties: { a: integer }, not: { properties: { a: { const: 3 } } } }, [{ a: 2 }], [
    { a: 3 },
    {}
  ]],
  [{ type: "string", not: { not: { maxLength: 2 } } }, ["ab"], ["abc"]],
  [{ type: "string", not: { anyOf: [{ maxLength: 1 }, { pattern: "x" }] } }, ["ab"], ["a", "abx"]],
  [
    {
      type: "object",
      properties: { kind: { enum: ["s", "n"] }, value: {} },
      required: ["kind", "value"],
      if: { properties: { kind: { const: "s" } } },
      // oxlint-disable-next-line unicorn/no-thenable
      then: { properties: { value: string } },
      else: { properties: { value: integer } }
    },
    [{ kind: "s", value: "a" }, { kind: "n", value: 1 }],
    [{ kind: "s", value: 1 }, { kind: "n", value: "a" }]
  ],
  [
    { type: "object", properties: { a: {}, b: {} }, dependentRequired: { a: ["b"] } },
    [{}, { b: 1 }, { a: 1, b: 1 }],
    [{ a: 1 }]
  ],
  [
    {
      type: "object",
      properties: { a: {}, b: integer },
      dependentSchemas: { a: { properties: { b: { minimum: 3 } } } }
    },
    [{ b: 1 }, { a: 1, b: 3 }],
    [{ a: 1, b: 1 }]
  ],
  [{ type: "array", items: { enum: ["a", "b", 3] }, uniqueItems: true }, [[], ["b"], [3, "a", "b"]], [["a", "a"], [
    "c"
  ]]],
  [
    { type: "array", items: { enum: ["a", "b", "c"] }, uniqueItems: true, minItems: 1, maxItems: 2 },
    [["a"], ["c", "a"]],
    [[], ["a", "b", "c"]]
  ],
  [{ type: "array", items: { type: "boolean" }, uniqueItems: true }, [[true, false]], [[true, true]]],
  [{ type: "array", items: string, uniqueItems: true, maxItems: 1 }, [["a"], []], [["a", "b"]]],
  [{ type: "integer", multipleOf: 5 }, [0, 5, -10, 12345], [3, 12]],
  [{ type: "number", multipleOf: 7, minimum: 0 }, [0, 7, 7007], [-7, 8]],
  [{ type: "integer", multipleOf: 300, exclusiveMinimum: 0 }, [300, 1500], [0, 200, 350, -300]],
  [{ type: "integer", multipleOf: 250, minimum: -300, maximum: 600 }, [-250, 0, 500], [-500, 750, 1]],
  [{ type: "integer", allOf: [{ multipleOf: 4 }, { multipleOf: 6 }], maximum: 0 }, [-12, 0], [12, -6]],
  [{ enum: [1, 2, 4, "a"], multipleOf: 2 }, [2, 4], [1]],
  [{ oneOf: [string, integer] }, ["a", 1], [[]]],
  [{ type: "object", properties: { a: {}, b: {} }, oneOf: [{ required: ["a"] }, { required: ["b"] }] }, [{ a: 1 }, {
    b: 1
  }], [{}, { a: 1, b: 1 }]],
  [{ oneOf: [{ type: "integer", minimum: 3 }, { type: "integer", maximum: 5 }] }, [2, 6], [3, 5]],
  [{ oneOf: [{ type: "string", pattern: "^a" }, { type: "string", pattern: "b$" }] }, ["a", "b"], ["ab", "c"]],
  [
    {
      oneOf: ["x", "y"].map((kind) => ({
        type: "object",
        properties: { kind: { const: kind }, [kind]: integer },
        required: ["kind", kind]
      }))
    },
    [{ kind: "x", x: 1 }, { kind: "y", y: 1 }],
    [{ kind: "x", y: 1 }]
  ],
  [{ type: "integer", minimum: 3, madeUp: true, minLenght: 5 }, [3], [2]]
]

const ajv = new Ajv2020({ strict: false, validateFormats: false })

/** Drafts before 2020 have lists in `items`. */
const modern = (schema: JsonSchema): JsonSchema => {
  const { additionalItems, items, ...others } = schema
  return Array.isArray(items) ? { ...others, prefixItems: items, items: additionalItems } : schema
}

describe("a grammar of JSON", () => {
  it.each(rows)("allows only values of %j", (schema, allowed, others) => {
    const grammar = ofSchema(schema)
    const isValid = ajv.compile(modern(schema))
    for (const value of allowed) {
      assert.isTrue(isValid(value), `the row is wrong: ${JSON.stringify(value)}`)
      assert.isTrue(accepts(grammar, value), JSON.stringify(value))
    }
    for (const value of others) assert.isFalse(accepts(grammar, value), JSON.stringify(value))
    const random = makeRandom(7)
    for (let round = 0; round < 20; round++) {
      const text = walk(grammar, random)
      if (text !== undefined) assert.isTrue(isValid(JSON.parse(text)), text)
    }
  })

  it.each([
    [{ type: "number", minimum: 1, exclusiveMinimum: true }, [2], [1]],
    [{ type: "number", maximum: 1, exclusiveMaximum: false }, [1], [2]],
    [{ type: "string", nullable: true }, ["a", null], [1]],
    [{ type: "string", format: "email" }, ["ada.l@example.com"], ["ada", "a@b", "a b@example.com"]],
    [{ type: "string", format: "ipv4" }, ["192.168.0.1"], ["256.1.1.1", "1.2.3"]],
    [{ type: "string", format: "hostname" }, ["a-b.example"], ["-a", "a..b", "a".repeat(64)]],
    [{ type: "string", format: "uri" }, ["https://example.com/a?b=c#d", "urn:isbn:1"], ["example.com", "http://a b"]]
  ])("reads older and other forms: %j", (schema, allowed, others) => {
    const grammar = ofSchema(schema)
    for (const value of allowed) assert.isTrue(accepts(grammar, value), JSON.stringify(value))
    for (const value of others) assert.isFalse(accepts(grammar, value), JSON.stringify(value))
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { JsonSchema } from "../../../src/domain/Job.ts"
import type { Grammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { gbnfOf, grammarOf, makeMatcher, toolGrammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import type { AnySchema } from "../../support/JsonFits.ts"
import { jsonFits } from "../../support/JsonFits.ts"
import { examples, layOut } from "../../support/JsonSchemas.ts"

const ofSchema = (schema: AnySchema): Grammar => grammarOf({ type: "json_schema", schema: schema as JsonSchema })

const accepts = (grammar: Grammar, text: string): boolean => {
  const matcher = makeMatcher(grammar)
  matcher.push(text)
  return matcher.isComplete()
}

const spaces = fc.array(fc.boolean(), { minLength: 1, maxLength: 5 })

/** Characters of random texts: those of JSON, several times, and some others. */
const alphabet = [
  ...Array.from({ length: 0x5f }, (_, index) => String.fromCharCode(0x20 + index)),
  ..."\"\"\"}}}]]]:,0123abtrfn".split(""),
  "é",
  "😀",
  "\n",
  "\u0000"
]

/** Generates a random text of the grammar, which ends at the first opportunity after this number of steps. */
const walk = (grammar: Grammar, dice: ReadonlyArray<number>): string | undefined => {
  const matcher = makeMatcher(grammar)
  let text = ""
  for (let step = 0; step < 1500; step++) {
    const die = dice[step % dice.length]!
    if (matcher.isComplete() && (step > 60 || die % 3 === 0 || !matcher.canContinue())) return text
    const allowed = alphabet.filter((char) => matcher.allows(char))
    assert.notStrictEqual(allowed.length, 0, `nothing may follow ${text}`)
    const closing = step > 60 ? allowed.filter((char) => "\"}]".includes(char)) : []
    const from = closing.length > 0 ? closing : allowed
    const chosen = from[(die + step) % from.length]!
    matcher.push(chosen)
    text += chosen
  }
  return undefined
}

const dice = fc.array(fc.nat({ max: 1000 }), { minLength: 20, maxLength: 60 })

describe("grammarOf", () => {
  it("accepts a valid value, and every beginning of it", () => {
    fc.assert(
      fc.property(examples, spaces, ({ schema, value }, spaces) => {
        assert.isTrue(jsonFits(schema, value), "the example itself is wrong")
        const text = layOut(value, spaces)
        const matcher = makeMatcher(ofSchema(schema))
        for (const char of text) {
          assert.isTrue(matcher.allows(char), text)
          matcher.push(char)
        }
        assert.isTrue(matcher.isComplete(), text)
      }),
      { numRuns: 400 }
    )
  })

  it("generates only valid JSON, without dead ends", () => {
    let ended = 0
    fc.assert(
      fc.property(examples, dice, ({ schema }, dice) => {
        const text = walk(ofSchema(schema), dice)
        if (text === undefined) return
        ended++
        assert.isTrue(jsonFits(schema, JSON.parse(text)), `${text} for ${JSON.stringify(schema)}`)
      }),
      { numRuns: 300 }
    )
    assert.isAbove(ended, 150)
  })

  it("allows any object without a schema", () => {
    const grammar = grammarOf({ type: "json_object" })
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), spaces, (value, spaces) => {
      const plain: unknown = JSON.parse(
        JSON.stringify(value, (_, one: unknown) => typeof one === "number" ? Math.trunc(one % 1e9) : one)
      )
      assert.isTrue(accepts(grammar, layOut(plain, spaces)))
    }))
    fc.assert(fc.property(dice, (dice) => {
      const text = walk(grammar, dice)
      if (text !== undefined) assert.isTrue(jsonFits({ type: "object" }, JSON.parse(text)))
    }))
    for (
      const text of [
        "[]",
        "1",
        "",
        "{",
        "{\"a\":1,}",
        "{\"a\" :1}",
        "{\"a\":  1}",
        " {}",
        "{\"a\":01}",
        "{\"a\":\"\n\"}"
      ]
    ) {
      assert.isFalse(accepts(grammar, text), text)
    }
  })

  it("allows every number with a limited number of digits, and no larger one", () => {
    const grammar = ofSchema({ type: "number" })
    const numbers = fc.double({ noNaN: true, noDefaultInfinity: true }).filter((value) => {
      const size = Math.abs(value)
      return value === 0 || (size >= 1e-307 && size < 1e308)
    })
    fc.assert(
      fc.property(numbers, (value) => assert.isTrue(accepts(grammar, JSON.stringify(value)), JSON.stringify(value)))
    )
    fc.assert(fc.property(dice, (dice) => assert.isTrue(Number.isFinite(JSON.parse(walk(grammar, dice)!)))))
    for (const text of ["1e308", "1e999", "01", ".5", "5.", "+1", "0x1", "9".repeat(22)]) {
      assert.isFalse(accepts(grammar, text), text)
    }
  })

  it("enforces an integer's bounds exactly", () => {
    const bounds = fc.tuple(fc.integer({ min: -1200, max: 1200 }), fc.nat({ max: 1500 }))
    fc.assert(
      fc.property(bounds, ([minimum, width]) => {
        const maximum = minimum + width
        const grammar = ofSchema({ type: "integer", minimum, maximum })
        const tried = [
          minimum - 1,
          minimum,
          minimum + 1,
          maximum - 1,
          maximum,
          maximum + 1,
          0,
          -1,
          1,
          10,
          99,
          100,
          -100,
          minimum * 10
        ]
        for (const value of tried) {
          assert.strictEqual(accepts(grammar, String(value)), value >= minimum && value <= maximum, `${value}`)
        }
        assert.isFalse(accepts(grammar, "-0"))
      }),
      { numRuns: 300 }
    )
    assert.isTrue(accepts(ofSchema({ type: "integer" }), String(Number.MAX_SAFE_INTEGER)))
    assert.isFalse(accepts(ofSchema({ type: "integer" }), "9007199254740992"))
  })

  it("enforces a number's bounds exactly", () => {
    const grammar = ofSchema({ type: "number", exclusiveMinimum: -0.5, exclusiveMaximum: 100 })
    for (const text of ["-0.49999999999", "0", "0.0", "99.999", "7", "42.50"]) {
      assert.isTrue(accepts(grammar, text), text)
    }
    for (const text of ["-0.5", "-0.50", "-1", "100", "100.0", "-0", "99.9999999999999999", "1e1"]) {
      assert.isFalse(accepts(grammar, text), text)
    }
    const positive = ofSchema({ type: "number", exclusiveMinimum: 0 })
    for (const text of ["0", "0.000", "-1"]) assert.isFalse(accepts(positive, text), text)
    assert.isTrue(accepts(positive, "0.001"))
  })

  it("counts characters like JSON Schema: by code points, with any escapes", () => {
    const grammar = ofSchema({ type: "string", minLength: 2, maxLength: 2 })
    for (const text of ["\"ab\"", "\"😀é\"", "\"\\n\\\"\"", "\"\\u00e9\\ud83d\\ude00\""]) {
      assert.isTrue(accepts(grammar, text), text)
    }
    for (const text of ["\"a\"", "\"abc\"", "\"\\ud83dx\"", "\"\\ude00x\""]) {
      assert.isFalse(accepts(grammar, text), text)
    }
  })

  it("closes an object with declared properties unless additionalProperties is a schema", () => {
    const properties = { a: { type: "integer" } }
    const closed = ofSchema({ type: "object", properties, additionalProperties: true })
    assert.isTrue(accepts(closed, "{\"a\":1}"))
    assert.isFalse(accepts(closed, "{\"a\":1,\"b\":2}"))
    const open = ofSchema({ type: "object", properties, additionalProperties: { type: "boolean" } })
    assert.isTrue(accepts(open, "{\"a\":1,\"b\":true,\"aa\":false}"))
    assert.isFalse(accepts(open, "{\"b\":true,\"a\":true}"), "a declared name must not come back as another")
    assert.isTrue(accepts(ofSchema({ type: "object", properties: {} }), "{}"))
    assert.isFalse(accepts(ofSchema({ type: "object", properties: {} }), "{\"a\":1}"))
    assert.isTrue(accepts(ofSchema({ type: "object" }), "{\"a\":[1]}"))
  })

  it("merges objects that must all hold", () => {
    const grammar = ofSchema({
      allOf: [
        { type: "object", properties: { a: { type: "integer", minimum: 3 } }, required: ["a"] },
        { $ref: "#/$defs/more" }
      ],
      $defs: { more: { properties: { a: { maximum: 5 }, b: { const: "x" } } } }
    })
    assert.isTrue(accepts(grammar, "{\"a\":4, \"b\":\"x\"}"))
    for (const text of ["{\"a\":2}", "{\"a\":6}", "{\"b\":\"x\"}", "{}"]) assert.isFalse(accepts(grammar, text), text)
  })

  it("removes impossible alternatives", () => {
    const grammar = ofSchema({ type: "object", properties: { a: { not: {} }, b: { type: "null" } } })
    assert.isFalse(makeMatcher(grammar).allows("{\"a"))
    assert.isTrue(accepts(grammar, "{\"b\":null}"))
    const short = ofSchema({ type: "array", prefixItems: [true], items: false })
    assert.isTrue(accepts(short, "[1]"))
    assert.isFalse(makeMatcher(short).allows("[1,"))
  })

  it("follows recursion", () => {
    const grammar = ofSchema({
      $ref: "#/definitions/node",
      definitions: {
        node: {
          type: "object",
          properties: {
            value: { type: "integer" },
            next: { anyOf: [{ $ref: "#/definitions/node" }, { type: "null" }] }
          },
          required: ["value", "next"]
        }
      }
    })
    const chain = (depth: number): unknown => depth === 0 ? null : { value: depth, next: chain(depth - 1) }
    assert.isTrue(accepts(grammar, layOut(chain(40), [true])))
    assert.isFalse(accepts(grammar, "{\"value\":1,\"next\":{}}"))
  })

  it("grows with the size of the schema, not with the number of its values", () => {
    const lines = (schema: AnySchema) => gbnfOf(ofSchema(schema)).split("\n").length
    const properties = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`p${index}`, { type: "string" }]))
    assert.isBelow(lines({ type: "object", properties }), 320)
    assert.isBelow(lines({ type: "integer", minimum: -987654321, maximum: 123456789012 }), 100)
    assert.isBelow(lines({ type: "string", maxLength: 5000 }), 5100)
  })
})

const refusals: ReadonlyArray<readonly [schema: AnySchema, path: string, message: RegExp]> = [
  [
    { type: "object", properties: { tags: { type: "array", uniqueItems: true } } },
    ".properties.tags.uniqueItems",
    /not supported/
  ],
  [{ properties: { "a b": { contains: {} } } }, ".properties[\"a b\"].contains", /use items/],
  [{ patternProperties: { "(?=a)": true } }, ".patternProperties[\"(?=a)\"]", /looks ahead/],
  [{ not: { multipleOf: 3 } }, ".not", /these keywords/],
  [{ oneOf: [{ type: "object" }, { propertyNames: { maxLength: 3 } }] }, ".oneOf[1]", /distinct const/],
  [{ if: { multipleOf: 3 } }, ".if.not", /these keywords/],
  [{ type: "number", multipleOf: 0.5 }, ".multipleOf", /whole number/],
  [{ type: "integer", multipleOf: 1001 }, ".multipleOf", /at most 1,000/],
  [{ type: "object", minProperties: 3 }, ".minProperties", /above the number/],
  [{ type: "object", properties: { a: true }, maxProperties: 9000, additionalProperties: {} }, "", /counts too many/],
  [{ type: "string", pattern: "(?=a)" }, ".pattern", /looks ahead/],
  [{ type: "string", pattern: "(a)\\1" }, ".pattern", /\\1/],
  [{ type: "string", pattern: "\\bword" }, ".pattern", /\\b/],
  [{ type: "string", pattern: "(" }, ".pattern", /regular expression/],
  [{ type: "string", pattern: "^[^a-\\d]$" }, ".pattern", /a range that ends in a set/],
  [{ type: "string", pattern: "(a{1000}){1000}" }, ".pattern", /too many states/],
  [{ type: "string", pattern: "(a|b)*a(a|b){30}" }, ".pattern", /too many states/],
  [{ type: "string", maxLength: 1e6 }, "", /10,000/],
  [{ type: "array", maxItems: 1e6 }, "", /50,000/],
  [{ type: "text" }, ".type", /must be one of/],
  [{ type: "integer", minimum: "1" }, ".minimum", /a number/],
  [{ type: "number", exclusiveMaximum: 1e-9 }, ".exclusiveMaximum", /15 digits/],
  [{ enum: [] }, ".enum", /not empty/],
  [{ $ref: "#/$defs/none" }, ".$ref", /does not exist/],
  [{ $ref: "https://example.com/schema" }, ".$ref", /this document/],
  [{ $ref: "#" }, "", /refers to itself/],
  [{ anyOf: [{ allOf: [{ $ref: "#" }] }] }, "", /refers to itself/],
  [{ properties: { a: 3 } }, ".properties.a", /must be a schema/],
  [{ type: "integer", minimum: 5, maximum: 3 }, "", /allows no value/],
  [{ type: "integer", minimum: 1e20 }, "", /allows no value/],
  [{ type: "integer", exclusiveMinimum: Number.MAX_SAFE_INTEGER }, "", /allows no value/],
  [{ type: "integer", maximum: -1e20 }, "", /allows no value/],
  [{ type: "string", minLength: 5, maxLength: 3 }, "", /allows no value/],
  [{ type: "array", minItems: 5, maxItems: 3 }, "", /allows no value/],
  [{ type: "array", prefixItems: [true], minItems: 2, maxItems: 1 }, "", /allows no value/],
  [{ type: "object", properties: { a: false }, required: ["a"] }, "", /allows no value/],
  [{ type: "object", properties: { self: { $ref: "#" } }, required: ["self"] }, "", /allows no value/],
  [{ type: "object", required: ["ab"], propertyNames: { maxLength: 1 } }, "", /allows no value/],
  [{ type: "object", properties: { a: true }, minProperties: 2 }, "", /allows no value/],
  [{ not: { title: "anything" } }, "", /allows no value/],
  [
    { patternProperties: Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`a${index}b`, {}])) },
    "",
    /too much work/
  ],
  [{ type: "string", enum: [1, 2] }, "", /allows no value/],
  [
    { allOf: Array.from({ length: 20 }, () => ({ anyOf: [{ type: "string" }, { type: "integer" }] })) },
    "",
    /too many alternatives/
  ]
]

const failureOf = (run: () => unknown): unknown => {
  try {
    return run()
  } catch (failure) {
    return failure
  }
}

describe("an unsupported or impossible schema", () => {
  for (const [schema, path, message] of refusals) {
    it(`is refused: ${JSON.stringify(schema).slice(0, 80)}`, () => {
      const failure = failureOf(() => ofSchema(schema)) as { readonly [key: string]: string }
      assert.strictEqual(failure["kind"], "invalid_request", JSON.stringify(failure).slice(0, 200))
      assert.strictEqual(failure["path"], `format.schema${path}`)
      assert.match(failure["message"]!, message)
    })
  }

  it("is rejected if it is nested too deeply, before the stack overflows", () => {
    const deep = (levels: number): AnySchema =>
      levels === 0 ? { type: "null" } : { type: "array", items: deep(levels - 1) }
    assert.match((failureOf(() => ofSchema(deep(3000))) as { readonly message: string }).message, /64 levels deep/)
    assert.isTrue(accepts(ofSchema(deep(60)), `${"[".repeat(60)}null${"]".repeat(60)}`))
  })

  it("is rejected if alternatives with the same beginning are nested, since their parses multiply", () => {
    const self = { $ref: "#" }
    const late = (tag: string) => ({
      type: "object",
      properties: { of: self, tag: { const: tag } },
      required: ["of", "tag"]
    })
    const early = (tag: string) => ({
      type: "object",
      properties: { tag: { const: tag }, of: self },
      required: ["of", "tag"]
    })
    const messageOf = (schema: AnySchema) =>
      (failureOf(() => ofSchema(schema)) as { readonly message?: string }).message
    const end = { type: "null" }
    assert.match(messageOf({ anyOf: [late("a"), late("b"), end] })!, /alternatives with the same beginning/)
    assert.match(
      messageOf({ anyOf: [{ type: "array", items: self }, { type: "array", items: self, minItems: 2 }] })!,
      /alternatives with the same beginning/
    )
    assert.isUndefined(messageOf({ anyOf: [early("a"), early("b"), end] }))
    assert.isUndefined(messageOf({ anyOf: [{ type: "array", items: self }, early("b"), end] }))
    const nest = (levels: number): AnySchema =>
      levels === 0
        ? end
        : {
          anyOf: [{ type: "array", items: nest(levels - 1) }, { type: "array", items: nest(levels - 1), minItems: 2 }]
        }
    assert.isUndefined(messageOf(nest(5)))
    assert.match(messageOf(nest(9))!, /alternatives with the same beginning/)
  })

  it("is not confused with a schema without constraints", () => {
    const annotated = {
      type: "string",
      title: "t",
      description: "d",
      default: "x",
      examples: ["y"],
      format: "ipv6",
      "x-order": 1
    }
    assert.isTrue(accepts(ofSchema({ $schema: "https://json-schema.org/draft/2020-12/schema", ...annotated }), "\"z\""))
  })
})

describe("toolGrammar", () => {
  const tools = [
    {
      name: "add",
      parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } }, required: ["a", "b"] }
    },
    { name: "now" },
    { name: "get \"it\"", parameters: { properties: { city: { enum: ["Oslo", "Rome"] } }, required: ["city"] } }
  ]
  const call = (name: string, args: string) =>
    `<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": ${args}}\n</tool_call>`

  it("is one call of one of the tools", () => {
    const grammar = toolGrammar(tools, "required")
    for (
      const text of [
        call("add", "{\"a\": 1, \"b\": 2.5}"),
        call("now", "{\"any\": []}"),
        call("now", "{}"),
        call("get \"it\"", "{\"city\":\"Rome\"}")
      ]
    ) {
      assert.isTrue(accepts(grammar, text), text)
      assert.isFalse(accepts(grammar, text + text))
      assert.isFalse(makeMatcher(grammar).allows(`${text} `))
    }
    for (const text of [call("add", "{}"), call("other", "{}"), call("get \"it\"", "{\"city\":\"Bonn\"}"), "Hello"]) {
      assert.isFalse(accepts(grammar, text), text)
    }
  })

  it("is a call of the named tool", () => {
    const grammar = toolGrammar(tools, { name: "now" })
    assert.isTrue(accepts(grammar, call("now", "{}")))
    assert.isFalse(accepts(grammar, call("add", "{\"a\": 1, \"b\": 2}")))
  })

  it("rejects an unknown name, an empty list of tools, and impossible parameters", () => {
    const pathOf = (run: () => unknown) => (failureOf(run) as { readonly path: string }).path
    assert.strictEqual(pathOf(() => toolGrammar(tools, { name: "other" })), "toolChoice.name")
    assert.strictEqual(pathOf(() => toolGrammar([], "required")), "tools")
    assert.strictEqual(
      pathOf(() => toolGrammar([...tools, { name: "x", parameters: { type: "string" } }], "required")),
      "tools[3].parameters"
    )
    const wrong = { name: "x", parameters: { properties: { a: { minimum: 1, multipleOf: 0.3 } } } }
    assert.strictEqual(pathOf(() => toolGrammar([wrong], "required")), "tools[0].parameters.properties.a.multipleOf")
  })
})

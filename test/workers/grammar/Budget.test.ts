import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { EngineFailure } from "../../../src/domain/Job.ts"
import { makeBudget, mostSteps } from "../../../src/workers/grammar/Budget.ts"
import { grammarOf, toolGrammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { examples } from "../../support/JsonSchemas.ts"

/** The work of a schema's grammar, and the reason of a rejection. */
const make = (schema: object) => {
  const budget = makeBudget()
  try {
    grammarOf({ type: "json_schema", schema: schema as Record<string, unknown> }, budget)
    return { spent: budget.spent(), failure: undefined }
  } catch (cause) {
    return { spent: budget.spent(), failure: cause as Extract<EngineFailure, { kind: "invalid_request" }> }
  }
}

const objectOf = (count: number, schemaOf: (index: number) => object) => ({
  type: "object",
  properties: Object.fromEntries(Array.from({ length: count }, (_, index) => [`p${index}`, schemaOf(index)]))
})

/** Many states without rules: `c` is the only value, and is not valid. */
const costly = (index: number) => ({ enum: ["c", index], pattern: `^(a|b)*a(a|b){8}${index}$` })

describe("the budget of a grammar", () => {
  it.each<[name: string, schema: object, path: RegExp]>([
    ["patterns", objectOf(300, costly), /properties\.p\d+\.pattern$/],
    [
      "patterns with wide alphabets",
      objectOf(300, (index) => ({
        enum: [index],
        pattern: `^[${
          Array.from({ length: 200 }, (_, at) => String.fromCharCode(0x400 + 2 * at)).join("")
        }]{90}${index}$`
      })),
      /pattern$/
    ],
    [
      "enums with steps",
      { enum: Array.from({ length: 2000 }, (_, length) => "a".repeat(length)) },
      /schema$/
    ],
    [
      "enums against patterns",
      {
        enum: Array.from({ length: 3000 }, (_, index) => `${"ab".repeat(200)}${index}`),
        allOf: Array.from({ length: 30 }, (_, index) => ({ pattern: `^[a-z0-9]{${index},}$` }))
      },
      /schema$/
    ],
    [
      "enums in alternatives",
      {
        enum: Array.from({ length: 5000 }, (_, index) => `w${index}`),
        anyOf: Array.from({ length: 450 }, () => ({ minLength: 100 }))
      },
      /schema$/
    ],
    [
      "properties in alternatives",
      {
        properties: Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`w${index}`, true])),
        required: Array.from({ length: 5000 }, (_, index) => `w${index}`),
        anyOf: Array.from({ length: 450 }, () => ({ type: "string" }))
      },
      /schema$/
    ],
    [
      "items in alternatives",
      {
        prefixItems: Array.from({ length: 5000 }, () => true),
        anyOf: Array.from({ length: 450 }, () => ({ type: "string" }))
      },
      /schema$/
    ],
    [
      "keywords in alternatives",
      {
        allOf: [Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`x-${index}`, 1]))],
        anyOf: Array.from({ length: 450 }, () => ({ type: "string" }))
      },
      /allOf\[0\]$/
    ],
    [
      "alternatives that are nothing",
      {
        $defs: { none: { anyOf: Array.from({ length: 990 }, () => false) } },
        ...objectOf(20, () => objectOf(480, () => ({ anyOf: [{ $ref: "#/$defs/none" }] })))
      },
      /properties\.p\d+$/
    ]
  ])("limits all its %s together", (_, schema, path) => {
    const { failure, spent } = make(schema)
    assert.strictEqual(failure?.kind, "invalid_request")
    assert.match(failure!.message, /too much work.*fewer or simpler/)
    assert.match(failure!.path, path)
    // The step that exceeded the limit was the last.
    assert.isAtLeast(spent, mostSteps)
    assert.isBelow(spent, 1.1 * mostSteps)
  })

  it("is bounded over all tools", () => {
    const tools = Array.from({ length: 30 }, (_, index) => ({
      name: `t${index}`,
      parameters: objectOf(20, (at) => costly(index * 20 + at))
    }))
    assert.doesNotThrow(() => toolGrammar(tools.slice(0, 1), "required"))
    try {
      toolGrammar(tools, "required")
      assert.fail("It is made.")
    } catch (cause) {
      assert.deepInclude(cause, { kind: "invalid_request" })
      assert.match((cause as { readonly path: string }).path, /^tools\[\d+\]\.parameters\.properties/)
    }
  })

  it("counts every pattern, and a repeated pattern once", () => {
    const [one, ten] = [make(objectOf(1, costly)).spent, make(objectOf(10, costly)).spent]
    assert.isAbove(ten, 8 * one)
    assert.isBelow(make(objectOf(10, () => costly(0))).spent, 1.1 * one + 10 * 1000)
  })

  it("allows realistic schemas", () => {
    const person = () => ({
      ...objectOf(5, (index) => ({ enum: Array.from({ length: 50 }, (_, at) => `code-${index}-${at}`) })),
      required: ["p1"]
    })
    const { failure, spent } = make({
      ...objectOf(50, (index) => index % 2 === 0 ? person() : { type: "string", minLength: 1 }),
      $defs: { at: { type: "string", format: "date-time" } }
    })
    assert.isUndefined(failure)
    assert.isBelow(spent, mostSteps / 5)
    fc.assert(fc.property(examples, ({ schema }) => {
      assert.isBelow(make(typeof schema === "object" && schema !== null ? schema : {}).spent, mostSteps / 5)
    }))
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { count, requestLimits } from "../../src/domain/JsonScan.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

/** What the scan counts, over the value. */
const measure = (value: unknown): { readonly levels: number; readonly fields: number; readonly values: number } => {
  if (typeof value !== "object" || value === null) return { levels: 0, fields: 0, values: 0 }
  const children = Object.values(value)
  const inner = children.map(measure)
  const own = Math.max(1, children.length)
  return {
    levels: 1 + Math.max(0, ...inner.map(({ levels }) => levels)),
    fields: Math.max(Array.isArray(value) ? 0 : own, ...inner.map(({ fields }) => fields)),
    values: own + inner.reduce((sum, { values }) => sum + values, 0)
  }
}

describe("JsonScan", () => {
  it("counts what is there in any JSON text, whatever its strings hold", () => {
    const json = fc.oneof(
      fc.jsonValue({ maxDepth: 4, stringUnit: "binary" }),
      fc.dictionary(fc.constantFrom("[", "{,", "\"", "\\", "\\\"]"), fc.constantFrom("]", ",,", "\\", "\"", 1))
    )
    fc.assert(fc.property(json, fc.boolean(), (value, isSpaced) => {
      const text = JSON.stringify(value, null, isSpaced ? 2 : 0)
      const { fields, levels, values } = measure(value)
      assert.deepStrictEqual(count(bytes(text), { levels, fields, values }), Result.succeed(values))
      for (const limit of ["levels", "fields", "values"] as const) {
        const limits = { levels, fields, values }
        if (limits[limit] === 0) continue
        const found = count(bytes(text), { ...limits, [limit]: limits[limit] - 1 })
        assert.isTrue(Result.isFailure(found), limit)
      }
    }))
  })

  it("stops at the first byte that passes a limit", () => {
    const found = count(bytes("[".repeat(100_000)), requestLimits)
    assert.deepStrictEqual(found, Result.fail({ limit: "levels", most: 500, offset: 500 }))
  })

  it("ends on texts that are not JSON", () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom("[", "]", "{", "}", ",", "\"", "\\", "a") }), (text) => {
      assert.isTrue(Result.isSuccess(count(bytes(text), requestLimits)))
    }))
  })
})

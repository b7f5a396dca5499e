import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parse } from "../../../src/layers/http/Endpoint.ts"

describe("a body", () => {
  it("may begin with a byte order mark, as some editors write it", () => {
    assert.deepStrictEqual(parse("\ufeff{\"a\":1}"), Result.succeed({ a: 1 }))
  })

  it("is refused where it is not JSON", () => {
    for (const text of ["", "\ufeff", "\ufeff\ufeff{}", "{"]) assert.isTrue(Result.isFailure(parse(text)))
  })
})

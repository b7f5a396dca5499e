import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { validateHeaderValue } from "node:http"
import { InferenceError, NoDeployment } from "../../../src/domain/InferenceError.ts"
import * as Telling from "../../../src/layers/http/RoutingHeaders.ts"

const told = (deployment: string): string =>
  Telling.ofAnswer({ deployment, attempts: 1, decision: "dec-1" })["x-troupe-deployment"]!

describe("an error's headers", () => {
  const headersOf = (attempts: { readonly attempts?: [] }) =>
    Telling.ofError(
      new InferenceError({ reason: new NoDeployment({ model: "chat", excluded: [] }), decision: "dec-1", ...attempts })
    )

  it("count no attempt where nobody could be asked, and one where none is listed", () => {
    assert.strictEqual(headersOf({ attempts: [] })["x-troupe-attempts"], "0")
    assert.strictEqual(headersOf({})["x-troupe-attempts"], "1")
  })
})

describe("the deployment in an answer's headers", () => {
  it("is as it is where a header can say it", () => {
    for (const id of ["chat#0", "fake/m#12", "org/Model-7B.Q4_K_M:latest#0"]) assert.strictEqual(told(id), id)
  })

  it("is something that every header can say, whatever a model is called, and can be read back", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (id) => {
      const value = told(id)
      validateHeaderValue("x-troupe-deployment", value)
      assert.match(value, /^[\x21-\x7e]*$/)
      assert.strictEqual(decodeURIComponent(value), id)
    }))
  })

  it("is told of a name that is not well-formed, too", () => {
    assert.strictEqual(decodeURIComponent(told("\ud800#0")), "\ufffd#0")
  })
})

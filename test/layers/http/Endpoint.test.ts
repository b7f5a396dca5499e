import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { validateHeaderValue } from "node:http"
import { InferenceError, NoDeployment } from "../../../src/domain/InferenceError.ts"
import { answerHeaders } from "../../../src/layers/http/Endpoint.ts"
import { errorHeaders } from "../../../src/layers/http/EndpointFailure.ts"
import { parse } from "../../../src/layers/http/RequestBody.ts"

describe("a body", () => {
  it("may begin with a byte order mark", () => {
    assert.deepStrictEqual(parse("\ufeff{\"a\":1}"), Result.succeed({ a: 1 }))
  })

  it("is rejected if it is not JSON", () => {
    for (const text of ["", "\ufeff", "\ufeff\ufeff{}", "{"]) assert.isTrue(Result.isFailure(parse(text)))
  })
})

const deploymentHeader = (deployment: string): string =>
  answerHeaders({ deployment, attempts: 1, decision: "dec-1" })["x-troupe-deployment"]!

describe("an error's headers", () => {
  const headersOf = (attempts: { readonly attempts?: []; readonly started?: number }) =>
    errorHeaders(
      new InferenceError({ reason: new NoDeployment({ model: "chat", excluded: [] }), decision: "dec-1", ...attempts })
    )

  it("count no attempt if no deployment was eligible, and one if none is listed", () => {
    assert.strictEqual(headersOf({ attempts: [] })["x-troupe-attempts"], "0")
    assert.strictEqual(headersOf({})["x-troupe-attempts"], "1")
  })

  it("count cancelled attempts", () => {
    assert.strictEqual(headersOf({ started: 2 })["x-troupe-attempts"], "2")
  })
})

describe("the deployment in an answer's headers", () => {
  it("is the id, if a header can have it", () => {
    for (const id of ["chat#0", "fake/m#12", "org/Model-7B.Q4_K_M:latest#0"]) {
      assert.strictEqual(deploymentHeader(id), id)
    }
  })

  it("is a valid header value for every model name, and can be decoded", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (id) => {
      const value = deploymentHeader(id)
      validateHeaderValue("x-troupe-deployment", value)
      assert.match(value, /^[\x21-\x7e]*$/)
      assert.strictEqual(decodeURIComponent(value), id)
    }))
  })

  it("exists for a name that is not well-formed, too", () => {
    assert.strictEqual(decodeURIComponent(deploymentHeader("\ud800#0")), "\ufffd#0")
  })
})

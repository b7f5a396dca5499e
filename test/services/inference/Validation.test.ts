/** Requests of programs: what stays as it was given, and what is refused. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Identity } from "../../../src/domain/Identity.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as Validation from "../../../src/services/inference/Validation.ts"

const identity: Identity = { keyId: "k1", tenant: "shop", isAdmin: false, setsTenant: false }

const request: Request = { model: "a", messages: [{ role: "user", content: "Hello" }], identity }

describe("a validated request", () => {
  it.effect("has the identity that it was given, which all requests with a key share", () =>
    Effect.gen(function*() {
      const found = yield* Validation.chat(request)
      assert.strictEqual(found.identity, identity)
      assert.deepStrictEqual(found, request)
      assert.strictEqual((yield* Validation.embeddings({ model: "a", inputs: ["x"], identity })).identity, identity)
      assert.notProperty(yield* Validation.chat({ model: "a", messages: request.messages }), "identity")
    }))

  it.effect("is refused for an identity that is none", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Validation.chat({ ...request, identity: { ...identity, keyId: 1 } as never }))
      assert.deepInclude<object>(error.reason, { _tag: "InvalidRequest", path: "identity.keyId" })
    }))
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as AnthropicMessages from "../../src/dialects/anthropic/DecodeRequest.ts"
import * as AnthropicError from "../../src/dialects/anthropic/EncodeError.ts"
import * as OpenAiChat from "../../src/dialects/openai/DecodeRequest.ts"
import * as OpenAiError from "../../src/dialects/openai/EncodeError.ts"
import * as OpenAiFields from "../../src/dialects/openai/FieldNames.ts"
import { refused } from "../../src/dialects/shared/UnknownFields.ts"
import * as Bounded from "../../src/domain/Bounded.ts"
import type { Reason } from "../../src/domain/InferenceError.ts"
import { InvalidRequest, ModelNotFound, NoDeployment, NotSupported } from "../../src/domain/InferenceError.ts"
import * as RoutingOptions from "../../src/domain/RoutingOptions.ts"

/** Names of any length, of characters of one and two code units. */
const names = fc.oneof(
  fc.string({ unit: "binary", maxLength: 200 }),
  fc.tuple(fc.constantFrom("x", "é", "🎭", "\u0000"), fc.nat(3_000)).map(([one, count]) => one.repeat(count))
)

/** What an error is made of that quotes a name of the caller's. */
const quoting: Readonly<Record<string, (name: string) => Reason | undefined>> = {
  "a model": (model) => new ModelNotFound({ model, available: ["tiny-chat"] }),
  "many models": (name) => new ModelNotFound({ model: name, available: Array.from({ length: 999 }, () => name) }),
  "many deployments": (name) =>
    new NoDeployment({ model: "m", excluded: Array.from({ length: 999 }, () => ({ deployment: name, reason: "no" })) }),
  "a path": (path) => new InvalidRequest({ path, detail: "Expected a string" }),
  "a text": (detail) => new InvalidRequest({ detail }),
  "a field": (path) => new NotSupported({ deployment: "m#0", path, detail: "no" }),
  "an unknown field": (name) =>
    new InvalidRequest(
      refused({
        dialect: "openai",
        body: { [name]: 1, a: { [name]: 1 } },
        unknownFields: [{ path: [name] }, { path: ["a", name] }]
      }, "m")
    ),
  "a field of troupe": (name) => failureOf(RoutingOptions.join({ troupe: { [name]: 1 } }, {})),
  "a field of a message": (name) =>
    failureOf(OpenAiChat.decode({ model: "m", messages: [{ role: "user", [name]: 1 }] })),
  "a role": (role) => failureOf(OpenAiChat.decode({ model: "m", messages: [{ role, content: "" }] })),
  "a field of Anthropic's": (name) => failureOf(AnthropicMessages.decode({ model: "m", [name]: 1 }))
}

const failureOf = (result: Result.Result<unknown, { readonly detail: string; readonly path?: string | undefined }>) => {
  if (Result.isSuccess(result)) return undefined
  const { detail, path } = result.failure
  return new InvalidRequest({ detail, ...(path === undefined ? {} : { path }) })
}

describe("what a caller names", () => {
  for (const [what, reasonOf] of Object.entries(quoting)) {
    it(`does not make an error long: ${what}`, () =>
      fc.assert(fc.property(names, (name) => {
        const reason = reasonOf(name)
        if (reason === undefined) return
        const { error } = OpenAiError.fromReason(reason, OpenAiFields.chatErrors).body
        const anthropic = AnthropicError.fromReason(reason, "id").body.error
        assert.isAtMost(error.message.length, Bounded.longestMessage)
        assert.isAtMost(anthropic.message.length, Bounded.longestMessage)
        assert.isAtMost(error.param?.length ?? 0, Bounded.longestPath)
        if (what === "a model") assert.isBelow(reason.message.length, 200)
      })))
  }

  it("is cut with an ellipsis, never in the middle of a character", () => {
    fc.assert(fc.property(names, fc.integer({ min: 2, max: 300 }), (text, most) => {
      const cut = Bounded.cut(text, most)
      assert.isAtMost(cut.length, most)
      if (text.length <= most) return assert.strictEqual(cut, text)
      assert.isTrue(cut.endsWith("…") && text.startsWith(cut.slice(0, -1)))
      assert.strictEqual(cut.isWellFormed(), true)
    }))
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { validateHeaderValue } from "node:http"
import * as AnthropicDecodeRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import * as AnthropicEncodeError from "../../src/dialects/anthropic/EncodeError.ts"
import * as OpenAiDecodeRequest from "../../src/dialects/openai/DecodeRequest.ts"
import * as OpenAiEncodeError from "../../src/dialects/openai/EncodeError.ts"
import * as OpenAiFieldNames from "../../src/dialects/openai/FieldNames.ts"
import { refused } from "../../src/dialects/shared/UnknownFields.ts"
import type { Reason } from "../../src/domain/InferenceError.ts"
import { InvalidRequest, ModelNotFound, NoDeployment, NotSupported } from "../../src/domain/InferenceError.ts"
import * as RoutingOptions from "../../src/domain/RoutingOptions.ts"
import * as Text from "../../src/domain/Text.ts"
import * as Decode from "../../src/services/settings/Decode.ts"

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
      }, (what) => `No deployment accepts this ${what}.`)
    ),
  "a field of troupe": (name) => failureOf(RoutingOptions.join({ troupe: { [name]: 1 } }, {})),
  "a field of a message": (name) =>
    failureOf(OpenAiDecodeRequest.decode({ model: "m", messages: [{ role: "user", [name]: 1 }] })),
  "a role": (role) => failureOf(OpenAiDecodeRequest.decode({ model: "m", messages: [{ role, content: "" }] })),
  "a field of Anthropic's": (name) => failureOf(AnthropicDecodeRequest.decode({ model: "m", [name]: 1 }))
}

const failureOf = (result: Result.Result<unknown, { readonly detail: string; readonly path?: string | undefined }>) => {
  if (Result.isSuccess(result)) return undefined
  const { detail, path } = result.failure
  return new InvalidRequest({ detail, ...(path === undefined ? {} : { path }) })
}

describe("a name from a caller", () => {
  for (const [what, reasonOf] of Object.entries(quoting)) {
    it(`does not make an error long: ${what}`, () =>
      fc.assert(fc.property(names, (name) => {
        const reason = reasonOf(name)
        if (reason === undefined) return
        const { error } = OpenAiEncodeError.fromReason(reason, OpenAiFieldNames.chatErrors).body
        const anthropic = AnthropicEncodeError.fromReason(reason, "id").body.error
        assert.isAtMost(error.message.length, Text.longestMessage)
        assert.isAtMost(anthropic.message.length, Text.longestMessage)
        assert.isAtMost(error.param?.length ?? 0, Text.longestPath)
        if (what === "a model") assert.isBelow(reason.message.length, 200)
      })))
  }

  it("is cut with an ellipsis, never in the middle of a character", () => {
    fc.assert(fc.property(names, fc.integer({ min: 2, max: 300 }), (text, most) => {
      const cut = Text.cut(text, most)
      assert.isAtMost(cut.length, most)
      if (text.length <= most) return assert.strictEqual(cut, text)
      assert.isTrue(cut.endsWith("…") && text.startsWith(cut.slice(0, -1)))
      assert.strictEqual(cut.isWellFormed(), true)
    }))
  })
})

const around = ["\n", "\r\n", "\r", "\uFEFF", " ", "\t", "\u00A0", "\u200B", "\n\n"]

const decode = (deployment: object, variables: Readonly<Record<string, string>>) =>
  Decode.decode({ models: { m: { deployments: [{ provider: "openai", model: "x", ...deployment }] } } }, {
    environment: "production",
    variables,
    resolvePath: (path) => path,
    embedded: {},
    defaultEngineHost: "thread",
    defaultStoreFolder: "/store",
    defaultStorage: "memory",
    defaultDataFolder: "/data",
    findInStore: () => undefined
  })

describe("a value for a header", () => {
  it("is trimmed, and a key loses its quotes", () => {
    const key = fc.stringMatching(/^[\w-]{1,20}$/)
    const noise = fc.array(fc.constantFrom(...around)).map((texts) => texts.join(""))
    fc.assert(fc.property(key, noise, noise, fc.constantFrom("", "'", "\""), (key, before, after, quote) => {
      const text = `${before}${quote}${key}${quote}${after}`
      assert.strictEqual(Text.trimKey(text), key)
      assert.strictEqual(Text.trimValue(`${before}${key}${after}`), key)
    }))
  })

  it("without a problem can be sent", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
      const value = Text.trimKey(text)
      if (Text.headerProblem(value) === undefined) validateHeaderValue("x", value)
      else assert.notInclude(Text.headerProblem(value), value.length > 30 ? value : "\0")
    }))
  })

  it("names the invalid character", () => {
    assert.strictEqual(Text.headerProblem("a\nb"), "it has a line break")
    assert.strictEqual(Text.headerProblem(""), "it is empty")
    assert.strictEqual(Text.headerProblem("sk-“x"), "character 4 is U+201C, which is not printable ASCII")
    assert.isUndefined(Text.headerProblem("Bearer sk-x"))
  })
})

it("a proxy variable that is not a proxy's URL rejects the settings, by its name", () => {
  const problems = Result.getOrThrow(Result.flip(decode({}, { HTTPS_PROXY: "ftp://hidden" })))
  assert.deepStrictEqual(problems.map(({ path }) => path), ["HTTPS_PROXY"])
  assert.notInclude(problems[0]!.expected, "hidden")
})

describe("a secret from an environment variable", () => {
  const fields = [
    ["key", { key: "${K}" }, "key"],
    ["keys", { keys: [{ key: "${K}" }] }, "keys[0].key"],
    ["headers", { headers: { "x-api-key": "${K}" } }, "headers.x-api-key"]
  ] as const

  for (const [name, deployment, path] of fields) {
    it(`is trimmed: ${name}`, () => {
      for (const text of around) assert.isTrue(Result.isSuccess(decode(deployment, { K: `${text}test-key${text}` })))
    })

    it(`is refused by the variable's name, and not shown, if it cannot be sent: ${name}`, () => {
      for (const value of ["hidden\nvalue", "hidden\0value", "hidden“value", "\n"]) {
        const problems = Result.getOrThrow(Result.flip(decode(deployment, { K: value })))
        assert.deepStrictEqual(problems.map(({ path }) => path), [`models.m.deployments[0].${path}`])
        assert.match(problems[0]!.expected, /^Expected the environment variable K to be valid in an HTTP header: /)
        assert.notInclude(JSON.stringify(problems), "hidden")
      }
    })
  }
})

import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { validateHeaderValue } from "node:http"
import * as HeaderValue from "../../src/domain/HeaderValue.ts"
import * as Decode from "../../src/services/settings/Decode.ts"

const around = ["\n", "\r\n", "\r", "\uFEFF", " ", "\t", "\u00A0", "\u200B", "\n\n"]

const decode = (deployment: object, variables: Readonly<Record<string, string>>) =>
  Decode.decode({ models: { m: { deployments: [{ provider: "openai", model: "x", ...deployment }] } } }, {
    environment: "production",
    variables,
    resolvePath: (path) => path,
    embedded: { engine: "fake" },
    defaultEngineHost: "thread",
    defaultStoreFolder: "/store",
    findInStore: () => undefined
  })

describe("a value for a header", () => {
  it("loses what surrounds it, and a key its quotes", () => {
    const key = fc.stringMatching(/^[\w-]{1,20}$/)
    const noise = fc.array(fc.constantFrom(...around)).map((texts) => texts.join(""))
    fc.assert(fc.property(key, noise, noise, fc.constantFrom("", "'", "\""), (key, before, after, quote) => {
      const text = `${before}${quote}${key}${quote}${after}`
      assert.strictEqual(HeaderValue.trimKey(text), key)
      assert.strictEqual(HeaderValue.trim(`${before}${key}${after}`), key)
    }))
  })

  it("that has no problem can be sent, whatever it is", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
      const value = HeaderValue.trimKey(text)
      if (HeaderValue.problemIn(value) === undefined) validateHeaderValue("x", value)
      else assert.notInclude(HeaderValue.problemIn(value), value.length > 30 ? value : "\0")
    }))
  })

  it("says what does not fit", () => {
    assert.strictEqual(HeaderValue.problemIn("a\nb"), "it has a line break")
    assert.strictEqual(HeaderValue.problemIn(""), "it is empty")
    assert.strictEqual(HeaderValue.problemIn("sk-“x"), "character 4 is U+201C, which is not printable ASCII")
    assert.isUndefined(HeaderValue.problemIn("Bearer sk-x"))
  })
})

it("A proxy variable that is no URL of a proxy refuses the settings, by its name", () => {
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
    it(`is taken without what surrounds it: ${name}`, () => {
      for (const text of around) assert.isTrue(Result.isSuccess(decode(deployment, { K: `${text}test-key${text}` })))
    })

    it(`is refused by the variable's name, and not shown, where it cannot be sent: ${name}`, () => {
      for (const value of ["hidden\nvalue", "hidden\0value", "hidden“value", "\n"]) {
        const problems = Result.getOrThrow(Result.flip(decode(deployment, { K: value })))
        assert.deepStrictEqual(problems.map(({ path }) => path), [`models.m.deployments[0].${path}`])
        assert.match(problems[0]!.expected, /^Expected the environment variable K to be valid in an HTTP header: /)
        assert.notInclude(JSON.stringify(problems), "hidden")
      }
    })
  }
})

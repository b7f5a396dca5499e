import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import * as Problem from "../../src/domain/Problem.ts"

const Sample = Schema.Struct({
  name: Schema.NonEmptyString,
  stop: Schema.Array(Schema.NonEmptyString),
  inner: Schema.Struct({ list: Schema.Array(Schema.Struct({ count: Schema.Int })) })
})

const problemsOf = (input: unknown): ReadonlyArray<Problem.Problem> => {
  const decoded = Schema.decodeUnknownResult(Sample, { errors: "all", onExcessProperty: "error" })(input)
  return Problem.fromSchemaError(Result.getOrThrow(Result.flip(decoded)))
}

const pathsOf = (input: unknown) => problemsOf(input).map(({ path }) => path).sort()

describe("Problem", () => {
  it.each<[path: ReadonlyArray<PropertyKey>, text: string]>([
    [[], ""],
    [["server"], "server"],
    [["server", "port"], "server.port"],
    [["stop", 0], "stop[0]"],
    [["models", "tiny-chat", "deployments", 0, "file"], "models.tiny-chat.deployments[0].file"],
    [["matrix", 1, 2], "matrix[1][2]"],
    [[0, "content"], "[0].content"]
  ])("writes the path %j as %s", (path, text) => {
    assert.strictEqual(Problem.formatPath(path), text)
  })

  it("does not mention undefined, which is not valid in a file", () => {
    const Wishes = Schema.Struct({ continue: Schema.optional(Schema.Boolean) })
    const decoded = Schema.decodeUnknownResult(Wishes)({ continue: "yes" })
    assert.deepStrictEqual(Problem.fromSchemaError(Result.getOrThrow(Result.flip(decoded))), [
      { path: "continue", expected: "Expected a boolean" }
    ])
  })

  it("writes different paths of plain names differently", () => {
    const name = fc.string({ unit: fc.constantFrom("a", "b", "-", "_"), minLength: 1, maxLength: 3 })
    const path = fc.array(fc.oneof(name, fc.nat({ max: 20 })), { maxLength: 5 })
    fc.assert(fc.property(path, path, (one, other) => {
      assert.strictEqual(
        Problem.formatPath(one) === Problem.formatPath(other),
        JSON.stringify(one) === JSON.stringify(other)
      )
    }))
  })

  it("a line begins with the path", () => {
    assert.strictEqual(
      Problem.format({ path: "server.port", expected: "Expected a number" }),
      "server.port: Expected a number"
    )
  })

  it("a line about the whole has no path", () => {
    assert.strictEqual(Problem.format({ path: "", expected: "Expected a mapping" }), "Expected a mapping")
  })

  it("names every value that is wrong, missing or unknown, by its path", () => {
    assert.deepStrictEqual(
      pathsOf({ stop: ["a", "", "b", ""], inner: { list: [{ count: 1 }, { count: 1.5 }, {}], more: true } }),
      ["inner.list[1].count", "inner.list[2].count", "inner.more", "name", "stop[1]", "stop[3]"]
    )
  })

  it("says what was expected, not what was there", () => {
    const text = problemsOf({
      name: 4321,
      stop: "a secret",
      inner: { list: [{ count: "another" }], third: "one more" }
    })
      .map(Problem.format).join("\n")
    assert.strictEqual(text.split("\n").length, 4)
    assert.notMatch(text, /4321|a secret|another|one more/)
  })

  it("names the field that an unknown one was meant to be, wherever it stands", () => {
    const linesOf = (input: unknown) => problemsOf(input).map(Problem.format)
    assert.deepStrictEqual(linesOf({ name: "a", stop: [], inner: { list: [{ count: 1, cuont: 2 }] }, nmae: "b" }), [
      "nmae: Unknown field. Did you mean name?",
      "inner.list[0].cuont: Unknown field. Did you mean count?"
    ])
    assert.deepStrictEqual(linesOf({ name: "a", stop: [], inner: { list: [] }, temperature: 1 }), [
      "temperature: Unknown field"
    ])
  })

  it("an empty list that must have elements is named itself, and so is the field that identifies a kind", () => {
    const Shapes = Schema.NonEmptyArray(Schema.Union([
      Schema.Struct({ kind: Schema.Literal("circle"), radius: Schema.Finite }),
      Schema.Struct({ kind: Schema.Literal("square"), side: Schema.Finite }),
      Schema.Struct({ kind: Schema.Literal("point") })
    ]))
    const problemsWith = (input: unknown) =>
      Problem.fromSchemaError(Result.getOrThrow(Result.flip(Schema.decodeUnknownResult(Shapes)(input))))
    assert.deepStrictEqual(problemsWith([]), [{ path: "", expected: "Expected at least one element" }])
    assert.deepStrictEqual(problemsWith([{ kind: "star" }]), [
      { path: "[0].kind", expected: "Expected \"circle\", \"square\" or \"point\"" }
    ])
  })

  it("has no words of schemas", () => {
    const Words = Schema.Struct({
      messages: Schema.Array(Schema.Struct({ role: Schema.String })),
      name: Schema.NonEmptyString,
      code: Schema.String.check(Schema.isPattern(/^a+$/)),
      model: Schema.String
    })
    const decoded = Schema.decodeUnknownResult(Words, { errors: "all" })({ messages: [{}], name: "", code: "b" })
    assert.deepStrictEqual(Problem.fromSchemaError(Result.getOrThrow(Result.flip(decoded))), [
      { path: "messages[0].role", expected: "`role` is required" },
      { path: "name", expected: "Expected a string that is not empty" },
      { path: "code", expected: "Expected text that matches ^a+$" },
      { path: "model", expected: "`model` is required" }
    ])
  })

  it("says object where a schema with a name has one", () => {
    const Named = Schema.Struct({ count: Schema.Int }).annotate({ identifier: "Named" })
    const error = Result.getOrThrow(Result.flip(Schema.decodeUnknownResult(Schema.Array(Named))([5])))
    assert.deepStrictEqual(Problem.fromSchemaError(error), [{ path: "[0]", expected: "Expected an object" }])
  })

  const problemOf = (schema: Schema.Decoder<unknown>, value: unknown) => {
    const decoded = Schema.decodeUnknownResult(schema, { errors: "all" })(value)
    return Problem.fromSchemaError(Result.getOrThrow(Result.flip(decoded)))
  }

  it.each<[expected: string, schema: Schema.Decoder<unknown>, value: unknown]>([
    ["Expected a number", Schema.Finite, "x"],
    ["Expected a whole number", Schema.Int, 1.5],
    ["Expected a number or false", Schema.Union([Schema.Finite, Schema.Literal(false)]), "x"],
    ["Expected an array or null", Schema.NullOr(Schema.Array(Schema.String)), 5],
    ["Expected a number from 0 to 1", Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })), 2],
    ["Expected a number of at least 0", Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)), -1]
  ])("names types and limits in words: %s", (expected, schema, value) => {
    assert.deepStrictEqual(problemOf(schema, value), [{ path: "", expected }])
  })

  it.each(["x", null, 1.5, 0, Number.NaN, Number.POSITIVE_INFINITY])(
    "names the range of a whole number, whatever is wrong with %s",
    (value) => {
      const from = (expected: string) => [{ path: "", expected }]
      assert.deepStrictEqual(problemOf(Problem.wholeNumber(1, 9), value), from("Expected a whole number from 1 to 9"))
      assert.deepStrictEqual(problemOf(Problem.wholeNumber(1), value), from("Expected a whole number of at least 1"))
    }
  )

  it("keeps the keys of a path apart", () => {
    const decoded = Schema.decodeResult(Sample)({ name: "a", stop: [""], inner: { list: [] } })
    const error = Result.getOrThrow(Result.flip(decoded))
    assert.deepStrictEqual(Problem.keyed(error).map(({ path }) => path), [["stop", 0]])
  })
})

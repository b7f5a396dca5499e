import { assert, describe, it } from "@effect/vitest"
import { Yaml } from "effect/encoding"
import * as fc from "fast-check"
import { formatPath } from "../../../src/domain/Problem.ts"
import * as YamlPositions from "../../../src/services/settings/YamlPositions.ts"

type Value = string | number | boolean | ReadonlyArray<Value> | { readonly [key: string]: Value }

const key = fc.constantFrom("models", "a", "fake/b", "gpt-4.1", "x y", "claude:3", "it's", "file", "10")
const { value } = fc.letrec<{ value: Value; list: ReadonlyArray<Value>; mapping: Record<string, Value> }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom("text", "a: b", "# no", "[x]", 5, true),
    tie("list"),
    tie("mapping")
  ),
  list: fc.array(tie("value"), { minLength: 1, maxLength: 3 }),
  mapping: fc.dictionary(key, tie("value"), { minKeys: 1, maxKeys: 4, noNullPrototype: true })
}))
const mappings = value.filter((one) => typeof one === "object" && !Array.isArray(one))

const isScalar = (one: Value) => typeof one !== "object"
const quoted = (name: string) => /^[\w/.-]+$/.test(name) ? name : JSON.stringify(name)

/** Text, and where each key and element is put; some collections in flow style. */
const write = (root: Value, inFlow: (depth: number) => boolean) => {
  let text = "# A comment: with a colon\n"
  const places = new Map<string, string>()
  const note = (path: ReadonlyArray<string | number>) => {
    const lines = text.split("\n")
    places.set(formatPath(path), `${lines.length}:${lines.at(-1)!.length + 1}`)
  }
  const flow = (one: Value, path: ReadonlyArray<string | number>): void => {
    if (isScalar(one)) text += JSON.stringify(one)
    else {
      const isList = Array.isArray(one)
      text += isList ? "[ " : "{ "
      for (const [name, inner] of Object.entries(one)) {
        const own = [...path, isList ? Number(name) : name]
        note(own)
        if (!isList) text += `${quoted(name)}: `
        flow(inner, own)
        text += path.length > 2 ? ",\n  " : ", "
      }
      text += isList ? "]" : "}"
    }
  }
  const block = (one: Value, path: ReadonlyArray<string | number>, indent: string): void => {
    for (const [name, inner] of Object.entries(one)) {
      const isList = Array.isArray(one)
      const own = [...path, isList ? Number(name) : name]
      text += indent
      if (isList) text += "- "
      note(own)
      if (!isList) text += `${quoted(name)}:`
      if (isScalar(inner as Value)) text += `${isList ? "" : " "}${JSON.stringify(inner)} # a comment\n`
      else if (isList || inFlow(path.length)) {
        if (!isList) text += " "
        flow(inner as Value, own)
        text += "\n"
      } else {
        text += "\n\n"
        block(inner as Value, own, `${indent}  `)
      }
    }
  }
  block(root, [], "")
  return { text, places }
}

describe("YamlPositions", () => {
  it("finds every key and element, in block and flow style", () => {
    fc.assert(fc.property(mappings, fc.nat(4), (tree, flowFrom) => {
      const { places, text } = write(tree, (depth) => depth >= flowFrom)
      let parsed: unknown
      try {
        parsed = Yaml.parse(text)
      } catch {
        return fc.pre(false)
      }
      fc.pre(JSON.stringify(parsed) === JSON.stringify(tree))
      const positionOf = YamlPositions.make(text)
      for (const [path, place] of places) {
        const found = positionOf(path)
        assert.strictEqual(found && `${found.line}:${found.column}`, place, `${path} in\n${text}`)
      }
    }))
  })

  it.each<[path: string, line: number, column: number]>([
    ["models.a.deployments[1].engine", 7, 9],
    ["models.a.deployments[1].file", 8, 9],
    ["models.a.deployments[0].engine", 6, 11],
    ["models.a.deployments[0].nothing", 6, 9],
    ["models.b.note", 10, 5],
    ["models.b.after", 13, 5],
    ["policies.p.retries", 14, 17],
    ["nothing", 0, 0]
  ])("finds %s", (path, line, column) => {
    const text = [
      "server: &s",
      "  host: x # models:",
      "models:",
      "  a:",
      "    deployments:",
      "      - { engine: fake, reply: \"a: b\" }",
      "      - engine: llama",
      "        file: x",
      "  \"b\": !x",
      "    note: |",
      "      after: not a key",
      "",
      "    after: 1",
      "policies: { p: { retries: 1,",
      "  x: [1] } }"
    ].join("\n")
    const expected = line === 0 ? undefined : { line, column }
    const found = YamlPositions.make(text)(path)
    assert.deepStrictEqual(found, path.startsWith("policies") ? { line, column: 18 } : expected)
  })

  it("ends for any text", () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(...Array.from("ab:-[]{},\"'#|>&* \n")) }), (text) => {
      assert.isFunction(YamlPositions.make(text))
    }))
  })
})

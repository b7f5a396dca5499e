/** What the package exports is documented. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string): ReadonlyArray<string> =>
  readFileSync(new URL(`../src/${path}`, import.meta.url), "utf8").split("\n")

const index = read("index.ts")

const modules = index.flatMap((line, at) => {
  const [, name, path] = /^export \* as (\w+) from "\.\/(.+)"$/.exec(line) ?? []
  return name === undefined ? [] : [{ name, path: path!, at }]
})

const isDocumented = (lines: ReadonlyArray<string>, at: number): boolean =>
  lines[at - 1]?.trim().endsWith("*/") === true

/** Exports without a doc comment; a type beside a value of its name has the value's. */
const undocumented = (lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  const seen = new Set<string>()
  return lines.flatMap((line, at) => {
    const [, kind, name] = /^export (const|class|interface|type|function) (\w+)/.exec(line) ?? []
    if (name === undefined) return []
    const isNoted = isDocumented(lines, at) || (kind === "type" && seen.has(name))
    seen.add(name)
    return isNoted ? [] : [name]
  })
}

describe("the package", () => {
  it("exports namespaces only, each with a doc comment", () => {
    assert.isAbove(modules.length, 20)
    assert.strictEqual(index.filter((line) => line.startsWith("export")).length, modules.length)
    assert.deepStrictEqual(modules.filter(({ at }) => !isDocumented(index, at)), [])
  })

  it.each(modules)("documents every export of $name", ({ path }) => {
    assert.deepStrictEqual(undocumented(read(path)), [])
  })
})

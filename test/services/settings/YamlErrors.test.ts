import { assert, describe, it } from "@effect/vitest"
import { Yaml } from "effect/encoding"
import * as YamlErrors from "../../../src/services/settings/YamlErrors.ts"

const messageOf = (text: string): string => {
  try {
    Yaml.parse(text)
  } catch (cause) {
    return YamlErrors.describe(text, (cause as Error).message)
  }
  return assert.fail("The text was parsed.")
}

describe("a reference without quotes", () => {
  it.each([
    ["keys: { ann: { key: ${ANN_KEY} } }", "ANN_KEY", 1, 21],
    ["a: ${A} # { it's\nb: '${B}'\nkeys: { \"x\": \"${C}\", y: ${D} }\n", "D", 3, 25],
    ["a:\n  - [1, ${A}]\n  - [${B}]", "A", 2, 9]
  ])("in braces or brackets is named: %s", (text, name, line, column) => {
    assert.strictEqual(
      messageOf(text),
      `\${${name}} needs quotes in braces and brackets: "\${${name}}" at line ${line}, column ${column}`
    )
  })

  it("is not the cause of other errors", () => {
    assert.notInclude(messageOf("a: ${A}\nb: [1, 2\n"), "needs quotes")
    assert.notInclude(messageOf("a: [\"${A}\", 2\n"), "needs quotes")
  })
})

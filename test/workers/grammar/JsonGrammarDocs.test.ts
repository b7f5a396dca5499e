import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { grammarOf, makeMatcher } from "../../../src/workers/grammar/JsonGrammar.ts"

const page = readFileSync(new URL("../../../docs/structured-output.md", import.meta.url), "utf8")

const accepts = (schema: string, answer: string): boolean => {
  const matcher = makeMatcher(grammarOf({ type: "json_schema", schema: JSON.parse(schema) }))
  matcher.push(answer)
  return matcher.isComplete()
}

const pathOfRefusal = (schema: object): unknown => {
  try {
    return grammarOf({ type: "json_schema", schema: { ...schema } })
  } catch (failure) {
    return (failure as { readonly path: string }).path
  }
}

describe("docs/structured-output.md", () => {
  const [schema, ...answers] = Array.from(page.matchAll(/```json\n(.*?)\n```/gs), ([, block]) => block!)
  const others = Array.from(page.matchAll(/not\s+`(\{.*?\})`/g), ([, answer]) => answer!)

  it("shows answers that its schema allows", () => {
    assert.strictEqual(answers.length, 2)
    for (const answer of answers) assert.isTrue(accepts(schema!, answer), answer)
  })

  it("shows answers that its schema does not allow", () => {
    assert.strictEqual(others.length, 2)
    for (const answer of others) assert.isFalse(accepts(schema!, answer), answer)
  })

  it("names keywords that are rejected", () => {
    const [, rejected] = /## Which keywords are rejected\?\n(.*?)\n## /s.exec(page)!
    const keywords = Array.from(rejected!.matchAll(/`([a-zA-Z]+)`/g), ([, keyword]) => keyword!)
    assert.isAbove(keywords.length, 3)
    for (const keyword of keywords) {
      const schema = { type: "object", [keyword]: 0.5 }
      assert.strictEqual(pathOfRefusal(schema), `format.schema.${keyword}`)
    }
  })
})

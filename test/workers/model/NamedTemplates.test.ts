/** Chat templates with names. */
import { assert, describe, it } from "@effect/vitest"
import { makeNamedTemplates } from "../../../src/workers/model/NamedTemplates.ts"

const plain = "{% for m in messages %}{{ m.content }};{% endfor %}"
const forTools = "{% for t in tools %}{{ t.function.name }}:{% endfor %}" +
  "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}" +
  "<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}</tool_call>" +
  "{% endfor %};{% endfor %}"

const made = (source: string, toolUse: string | undefined) => {
  const template = makeNamedTemplates({ name: "a model", source, control: [] }, toolUse)
  if ("problem" in template) return template.problem
  const textOf = (pieces: ReturnType<typeof template.render>) => pieces.map(({ text }) => text).join("")
  return {
    supportsTools: template.supportsTools,
    before: template.callSyntax?.before,
    question: textOf(template.render([{ role: "user", content: "Hi" }])),
    withTools: textOf(template.render([{ role: "user", content: "Hi" }], [{ name: "f" }]))
  }
}

describe("named chat templates", () => {
  it("render prompts with tools by tool_use, others by the default one", () => {
    assert.deepStrictEqual(made(plain, forTools), {
      supportsTools: true,
      before: "<tool_call>{\"name\": \"",
      question: "Hi;",
      withTools: "f:Hi;"
    })
  })

  it("are one template where the other is missing or not usable", () => {
    const alone = { supportsTools: false, before: undefined, question: "Hi;", withTools: "Hi;" }
    assert.deepStrictEqual(made(plain, undefined), alone)
    assert.deepStrictEqual(made(plain, "{% if"), alone)
    assert.deepStrictEqual(made(plain, plain), alone)
    assert.deepInclude(made("", forTools), { supportsTools: true, question: "Hi;", withTools: "f:Hi;" })
    assert.strictEqual(made("", undefined), "it is empty")
  })
})

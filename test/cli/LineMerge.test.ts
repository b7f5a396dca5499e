import { assert, describe, it } from "@effect/vitest"
import { merge } from "../../src/cli/LineMerge.ts"

const profile = { model: "m", model_context_window: 8, "model_providers.troupe": { name: "Troupe", base_url: "u" } }

describe("merge of TOML", () => {
  it("writes a file of its own", () => {
    assert.strictEqual(
      merge("toml", "", profile),
      `model = "m"
model_context_window = 8

[model_providers.troupe]
name = "Troupe"
base_url = "u"
`
    )
  })

  it("keeps comments, order and other tables", () => {
    const before = `# mine
model = "old" # why
sandbox_mode = "read-only"

[model_providers.troupe]
base_url = "old"
stream_max_retries = 2

[mcp_servers.x]
command = "y"
`
    assert.strictEqual(
      merge("toml", before, profile),
      `# mine
model = "m"
sandbox_mode = "read-only"
model_context_window = 8

[model_providers.troupe]
base_url = "u"
stream_max_retries = 2
name = "Troupe"

[mcp_servers.x]
command = "y"
`
    )
  })

  it("changes nothing that is set", () => {
    const text = merge("toml", "", profile)
    assert.strictEqual(merge("toml", text, profile), text)
  })

  it("rejects a style that it does not change", () => {
    assert.throws(() => merge("toml", `model_providers.troupe.name = "x"\n`, profile))
  })
})

describe("merge of YAML", () => {
  const model = { name: "Troupe m", provider: "openai", roles: ["chat"] }

  it("sets values at the top", () => {
    assert.strictEqual(
      merge("yaml", "# mine\nmodel: old\nauto-commits: false\n", { model: "new", "weak-model": "w" }),
      `# mine\nmodel: "new"\nauto-commits: false\nweak-model: "w"\n`
    )
  })

  it("adds an item to a list, and leaves values that are set", () => {
    const before = "name: Mine\nmodels:\n  # first\n  - name: other\n    provider: ollama\n\nrules:\n  - be brief\n"
    assert.strictEqual(
      merge("yaml", before, { models: [model] }, { name: "Default", version: "1.0.0" }),
      `name: Mine
models:
  # first
  - name: other
    provider: ollama
  - name: "Troupe m"
    provider: "openai"
    roles: ["chat"]

rules:
  - be brief
version: "1.0.0"
`
    )
  })

  it("replaces the item of the same name", () => {
    const before = `models:
- provider: openai
  name: 'Troupe m'
  apiBase: old
- name: other
  provider: ollama
`
    assert.strictEqual(
      merge("yaml", before, { models: [model] }),
      `models:
- name: "Troupe m"
  provider: "openai"
  roles: ["chat"]
- name: other
  provider: ollama
`
    )
  })

  it.each(["models: [{ name: other }]\n", "models:\n  - { name: Troupe m, provider: x }\n", "{ model: old }\n"])(
    "rejects %s",
    (text) => {
      assert.throws(() => merge("yaml", text, { model: "m", models: [model] }))
    }
  )
})

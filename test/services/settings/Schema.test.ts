import { assert, describe, it } from "@effect/vitest"
import { fileJsonSchema } from "../../../src/services/settings/Schema.ts"
import { environments } from "../../../src/services/settings/Settings.ts"

describe("JSON Schema", () => {
  const schema = fileJsonSchema() as {
    readonly $schema: string
    readonly type?: string
    readonly properties?: object
  }
  const text = JSON.stringify(schema)
  const missing = (fields: ReadonlyArray<string>) => fields.filter((field) => !text.includes(`"${field}":{`))

  it("is draft 2020-12, of a mapping with the sections of the file", () => {
    assert.strictEqual(schema.$schema, "https://json-schema.org/draft/2020-12/schema")
    assert.strictEqual(schema.type, "object")
    assert.sameMembers(Object.keys(schema.properties ?? {}), [
      "server",
      "decisions",
      "engines",
      "memory",
      "circuits",
      "keys",
      "keyCooldowns",
      "limits",
      "budgets",
      "ledger",
      "budgetAlerts",
      "alerts",
      "deploy",
      "embeddingBatches",
      "reload",
      "store",
      "storage",
      "redis",
      "responses",
      "cache",
      "guard",
      "scaling",
      "troupe",
      "telemetry",
      "policies",
      "logLevel",
      "logFormat",
      "logRequests",
      "models",
      "environments"
    ])
  })

  it("has the fields of the sections and the environments", () => {
    assert.deepStrictEqual(missing(["host", "port", "shutdownGrace", "maxBodyBytes", ...environments]), [])
  })

  it("has the fields of a model and of its deployments", () => {
    const ofModel = ["deployments", "idleUnload", "preload"]
    const ofDeployment = ["engine", "file", "contextSize", "threads", "slots", "replicas", "reply", "fault"]
    assert.deepStrictEqual(missing([...ofModel, ...ofDeployment]), [])
  })

  it("describes every field that is not a section", () => {
    const wordless = (part: unknown): ReadonlyArray<string> => {
      if (typeof part !== "object" || part === null) return []
      const properties = Object.entries(("properties" in part ? part.properties : {}) as Record<string, object>)
      return [
        ...properties.filter(([name, field]) =>
          name !== "engine" && !("description" in field) && !("properties" in field)
        ).map(([name]) => name),
        ...Object.values(part).flatMap(wordless)
      ]
    }
    assert.deepStrictEqual(wordless(schema), [])
  })

  it("has no reference outside itself", () => {
    assert.notInclude(text, "$ref")
  })
})

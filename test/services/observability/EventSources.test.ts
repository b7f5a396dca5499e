import { assert, describe, it } from "@effect/vitest"
import { ofCircuit, ofModel, ofPressure, ofSettings } from "../../../src/services/observability/EventSources.ts"
import { resolved } from "../settings/support.ts"

const deployment = "chat#0"

describe("an event for operators", () => {
  it("says when a circuit opens and closes, not when a probe fails", () => {
    assert.deepInclude(ofCircuit({ deployment, from: "closed", to: "open", at: 0 }), {
      severity: "warning",
      deployment
    })
    assert.deepInclude(ofCircuit({ deployment, from: "half-open", to: "closed", at: 0 }), { severity: "info" })
    assert.isUndefined(ofCircuit({ deployment, from: "half-open", to: "open", at: 0 }))
    assert.isUndefined(ofCircuit({ deployment, from: "open", to: "half-open", at: 0 }))
  })

  it("says when a local model is loaded, unloaded and started again", () => {
    assert.deepInclude(ofModel({ deployment, state: "ready", at: 0 }), { kind: "model", message: "Loaded \"chat#0\"." })
    assert.deepInclude(ofModel({ deployment, state: "gone", at: 0 }), {
      kind: "model",
      message: "Unloaded \"chat#0\"."
    })
    assert.deepInclude(ofModel({ deployment, state: "loading", cause: "It crashed", at: 0 }), {
      kind: "engine",
      severity: "warning",
      message: "The engine of \"chat#0\" is started again. It crashed."
    })
    assert.isUndefined(ofModel({ deployment, state: "loading", at: 0 }))
    assert.isUndefined(ofModel({ deployment, state: "draining", at: 0 }))
  })

  it("says of a remote deployment only that it failed", () => {
    assert.isUndefined(ofModel({ deployment, state: "ready", isRemote: true, at: 0 }))
    assert.isUndefined(ofModel({ deployment, state: "gone", isRemote: true, at: 0 }))
    assert.deepInclude(ofModel({ deployment, state: "failed", isRemote: true, at: 0 }), { severity: "critical" })
  })

  it("has the level of memory pressure", () => {
    assert.deepInclude(ofPressure("emergency"), { kind: "memory", severity: "critical" })
    assert.deepInclude(ofPressure("normal"), { severity: "info" })
  })

  it("has the paths that a reload has changed, without values", () => {
    const alerts = { webhook: { url: "https://hooks.example.com", secret: "${SECRET}" } }
    const settings = (value: string) => resolved({ alerts }, { variables: { SECRET: value } })
    const event = ofSettings(settings("one secret"), settings("S3CR3T"))
    assert.deepInclude(event, { kind: "settings", details: { paths: ["alerts.webhook.secret"] } })
    assert.notInclude(JSON.stringify(event), "S3CR3T")
  })
})

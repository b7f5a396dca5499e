import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { NodeServer } from "../../../src/layers/http/NodeServer.ts"
import { dialect } from "../../../src/layers/http/OpenAiRoutes.ts"
import { defaultServer } from "../../../src/services/settings/Resolution.ts"

describe("NodeServer", () => {
  it("limits the headers and the connections as configured, and never a whole upload that moves", () => {
    const settings = { ...defaultServer, headersTimeout: Duration.seconds(7), maxConnections: 9 }
    const server = new NodeServer({
      settings,
      methodsOf: () => undefined,
      dialectOf: () => dialect,
      makeId: () => "req_1"
    })
    assert.strictEqual(server.headersTimeout, 7_000)
    assert.strictEqual(server.requestTimeout, 0)
    assert.strictEqual(server.timeout, 0)
    assert.strictEqual(server.maxConnections, 9)
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import * as fc from "fast-check"
import { once } from "node:events"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Agent, request } from "node:http"
import type { AddressInfo } from "node:net"
import { Authentication } from "../../../src/layers/http/Authentication.ts"
import { NodeServer } from "../../../src/layers/http/NodeServer.ts"
import { dialect } from "../../../src/layers/http/OpenAiRoutes.ts"
import { canonicalTarget } from "../../../src/layers/http/RequestTarget.ts"
import * as VirtualKeys from "../../../src/services/keys/VirtualKeys.ts"
import { defaultServer } from "../../../src/services/settings/Resolution.ts"

const parts = {
  methodsOf: () => undefined,
  dialectOf: () => dialect,
  dialectFor: () => dialect,
  authentication: new Authentication({
    keys: VirtualKeys.none,
    settings: defaultServer,
    now: () => 0,
    refusals: { record: () => {} }
  }),
  makeId: () => "req_1",
  directRoutes: new Map(),
  streams: undefined
}

describe("NodeServer", () => {
  it("limits headers and connections as configured, but not the total time of an upload in progress", () => {
    const settings = { ...defaultServer, headersTimeout: Duration.seconds(7), maxConnections: 9 }
    const server = new NodeServer({ ...parts, settings })
    assert.strictEqual(server.headersTimeout, 7_000)
    assert.strictEqual(server.requestTimeout, 0)
    assert.strictEqual(server.timeout, 0)
    assert.strictEqual(server.maxConnections, 9)
  })
})

describe("a server that closes", () => {
  for (const hasBegun of [false, true]) {
    it(`closes a connection after a response that had ${hasBegun ? "" : "not "}begun`, async () => {
      const server = new NodeServer({ ...parts, settings: defaultServer })
      // Without a limit, an idle connection would stay open for ever.
      server.keepAliveTimeout = 0
      using agent = { agent: new Agent({ keepAlive: true }), [Symbol.dispose]: () => agent.agent.destroy() }
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      const { port } = server.address() as AddressInfo
      const sent = request({ port, host: "127.0.0.1", agent: agent.agent }).end()
      const [, response] = await once(server, "request") as [IncomingMessage, ServerResponse]
      const answer = once(sent, "response") as Promise<[IncomingMessage]>
      if (hasBegun) {
        response.writeHead(200).write("be")
        await answer
      }
      const closed = new Promise((resolve) => server.close(resolve))
      if (!hasBegun) response.writeHead(200)
      response.end("gun")
      const [received] = await answer
      assert.strictEqual(received.headers.connection, hasBegun ? "keep-alive" : "close")
      assert.strictEqual((await received.toArray()).join(""), hasBegun ? "begun" : "gun")
      await closed
    })
  }
})

describe("a request target", () => {
  it.each([
    ["/v1/models/org/name", "/v1/models/org%2Fname"],
    ["/v1/models/a/b/c?x=1/2", "/v1/models/a%2Fb%2Fc?x=1/2"],
    ["/v1/models/org%2Fname", "/v1/models/org%2Fname"],
    ["/admin/models/org/name/load", "/admin/models/org%2Fname/load"],
    ["/admin/circuits/org/name%230/reset", "/admin/circuits/org%2Fname%230/reset"],
    ["/admin/circuits/events", "/admin/circuits/events"],
    ["/v1/models/plain", "/v1/models/plain"],
    ["/v1/models", "/v1/models"]
  ])("%s is routed as %s", (target, expected) => {
    assert.deepStrictEqual(canonicalTarget(target), Result.succeed(expected))
  })

  it("of any characters is accepted or rejected, and an accepted result is accepted again unchanged", () => {
    const target = fc.tuple(fc.constantFrom("/v1/models/", "/admin/models/", "/v1/messages", "/"), fc.string()).map(
      ([start, rest]) => `${start}${rest}`
    )
    fc.assert(fc.property(target, (text) => {
      const first = canonicalTarget(text)
      if (Result.isSuccess(first)) assert.deepStrictEqual(canonicalTarget(first.success), first)
      else assert.isNotEmpty(first.failure)
    }))
  })
})

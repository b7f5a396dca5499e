/** The requests of web pages that are allowed. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import * as Cors from "../../../src/layers/http/Cors.ts"
import * as Endpoint from "../../../src/layers/http/Endpoint.ts"

const ask = (
  headers: Readonly<Record<string, string>>,
  { bound = "127.0.0.1", origins = ["https://app.example"], path = "/v1/chat/completions" }: {
    readonly bound?: string
    readonly origins?: ReadonlyArray<string>
    readonly path?: string
  } = {}
) =>
  Cors.answer({
    origins,
    bound,
    method: "POST",
    path,
    methods: "POST",
    headers: { host: "localhost:3000", ...headers }
  })

const codeOf = (answer: Cors.Answer): string | null => answer._tag === "Refuse" ? answer.problem.code : answer._tag

const site = (value: string) => ({ "sec-fetch-site": value })
const page = "https://evil.example"
const rebound = { host: "evil.example:3000", origin: "http://evil.example:3000" }

describe("Cors", () => {
  it.each([
    ["a program", {}],
    ["Node's fetch", { host: "llm.example", "sec-fetch-mode": "cors" }],
    ["a typed URL", { host: "llm.example", ...site("none") }],
    ["a page of a listed origin", { origin: "https://app.example", ...site("cross-site") }],
    ["a page of a listed origin by another host", { host: "llm.example", origin: "https://app.example" }],
    ["a page of a listed host", { host: "app.example", ...site("same-origin") }],
    ["a page of the service itself", { origin: "http://localhost:3000", ...site("same-origin") }],
    ["a page at a loopback address", { host: "127.0.0.1:3000", origin: "http://127.0.0.1:3000" }],
    ["a page at a loopback address of IPv6", { host: "[::1]:3000", origin: "http://[::1]:3000" }]
  ])("allows a request of %s", (_, headers) => {
    assert.strictEqual(codeOf(ask(headers)), "Continue")
  })

  it.each([
    ["another origin", { origin: page }],
    ["another origin that states a trusted site", { origin: page, ...site("same-origin") }],
    ["another port of this machine", { origin: "http://localhost:5173" }],
    ["an origin that begins as a listed one", { origin: "https://app.example.evil.example" }],
    ["an opaque origin", { origin: "null" }],
    ["another site, without Origin", site("cross-site")]
  ])("refuses a request of %s", (_, headers) => {
    assert.strictEqual(codeOf(ask(headers)), "origin_not_allowed")
    assert.strictEqual(codeOf(ask(headers, { bound: "0.0.0.0" })), "origin_not_allowed")
    assert.strictEqual(codeOf(ask(headers, { origins: ["*"] })), "Continue")
  })

  it.each([
    ["sends its origin", rebound],
    ["reads as the same origin", { host: rebound.host, ...site("same-origin") }],
    ["has a name that begins as a loopback one", { host: "localhost.evil.example", ...site("same-origin") }]
  ])("refuses a page whose name resolves to a loopback address, that %s", (_, headers) => {
    for (const bound of ["127.0.0.1", "localhost", "::1", "127.1.2.3"]) {
      assert.strictEqual(codeOf(ask(headers, { bound })), "host_not_allowed")
    }
  })

  it("allows a page of the host that is configured", () => {
    assert.strictEqual(codeOf(ask({ host: "lan.example:3000", origin: "http://lan.example:3000" })), "host_not_allowed")
    for (const bound of ["0.0.0.0", "lan.example"]) {
      assert.strictEqual(
        codeOf(ask({ host: "lan.example:3000", origin: "http://lan.example:3000" }, { bound })),
        "Continue"
      )
    }
  })

  it("refuses /admin to listed origins", () => {
    for (const origins of [["*"], ["https://app.example"]]) {
      const answer = ask({ origin: "https://app.example" }, { origins, path: "/admin/deployments" })
      assert.strictEqual(codeOf(answer), "origin_not_allowed")
    }
  })

  it("exposes every routing header to pages", () => {
    const answer = ask({ origin: "https://app.example" })
    const exposed = answer._tag === "Continue" ? answer.headers["access-control-expose-headers"]!.split(", ") : []
    const cache = { result: "hit", tier: "memory", ageMs: 1_999, key: "k" } as const
    const routing = Endpoint.answerHeaders({ deployment: "a#0", attempts: 0, decision: "dec-1", cache })
    assert.deepInclude(routing, {
      "x-troupe-cache": "hit",
      "x-troupe-cache-tier": "memory",
      "x-troupe-cache-age": "1",
      "x-troupe-cache-key": "k"
    })
    assert.includeMembers(exposed, Object.keys(routing))
  })

  it("names the setting, and the origin with limited length", () => {
    const answer = ask({ origin: `https://${"a".repeat(9_000)}` })
    const message = answer._tag === "Refuse" ? answer.problem.message : ""
    assert.include(message, "server.cors.origins")
    assert.isBelow(message.length, 500)
  })
})

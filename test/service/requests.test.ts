/** Unusual HTTP requests that the service answers before it calls a model. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { existsSync, readFileSync } from "node:fs"
import { connect } from "node:net"
import { afterAll, beforeAll, describe, it } from "vitest"
import { exchange, head, last } from "../support/RawHttp.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const yaml = `
models:
  fake/a: { deployments: [{ engine: fake, reply: hi }] }
server:
  maxBodyBytes: 30000
  cors: { origins: ["https://app.example"] }
`

let service: Service
/** With bodies of the usual size. */
let large: Service
beforeAll(async () => {
  service = await startService(yaml)
  large = await startService(yaml.replace("maxBodyBytes: 30000", "maxConnections: 2"))
})
afterAll(async () => {
  await service.stop()
  await large.stop()
})

const body = JSON.stringify({ model: "fake/a", max_tokens: 5, messages: [{ role: "user", content: "Hello" }] })

const post = (path: string, headers: Record<string, string | number> = {}) =>
  head("POST", path, { "content-type": "application/json", "content-length": body.length, ...headers })

/** By the format of their errors. */
const dialects = [
  ["/v1/chat/completions", "error"],
  ["/v1/messages", "type"]
] as const

const messageOf = (json: unknown): string =>
  (json as { readonly error?: { readonly message?: string } } | undefined)?.error?.message ?? ""

describe("an expectation", () => {
  it.each(["/v1/chat/completions", "/v1/messages"])(
    "of 100-continue is answered before the body at %s",
    async (path) => {
      const received = await exchange(
        service.url,
        [post(path, { expect: "100-continue" }), body],
        /100 Continue\r\n\r\n$/
      )
      assert.match(received, /^HTTP\/1\.1 100 Continue\r\n\r\n/)
      assert.strictEqual(last(received).status, 200)
    }
  )

  it("of 100-continue gets the final status at once if the body would be rejected", async () => {
    const received = await exchange(service.url, [
      post("/v1/chat/completions", { expect: "100-continue", "content-length": 40_000 })
    ])
    assert.notInclude(received, "100 Continue")
    assert.strictEqual(last(received).status, 413)
  })

  it.each(dialects)("of another kind is 417 in the format of %s", async (path, field) => {
    const { json, status } = last(await exchange(service.url, [post(path, { expect: "the-impossible" })]))
    assert.strictEqual(status, 417)
    assert.property(json, field)
    assert.include(messageOf(json), "100-continue")
  })
})

describe("a path", () => {
  it.each(["/v1/models/fake/a", "/v1/models/fake%2Fa"])("%s names a model with a slash", async (path) => {
    const { json, status } = last(await exchange(service.url, [head("GET", path)]))
    assert.strictEqual(status, 200)
    assert.deepInclude(json as object, { id: "fake/a" })
  })

  it("with raw slashes of an unknown model is 404 and names the model", async () => {
    const { json, status } = last(await exchange(service.url, [head("GET", "/v1/models/org/some/name")]))
    assert.strictEqual(status, 404)
    assert.include(messageOf(json), "org/some/name")
  })

  for (const [path, field] of dialects) {
    it.each([
      ["%", /%25/],
      ["%zz", /%25/],
      ["%ff", /UTF-8/],
      ["?a=%", /query.*%25/],
      ["?a=%c3%28", /query.*UTF-8/],
      ["?a=1&b=2&a=3", /"a" twice/]
    ])(`${path}%s is 400 in its own shape`, async (end, words) => {
      const { json, status } = last(await exchange(service.url, [post(`${path}${end}`) + body]))
      assert.strictEqual(status, 400)
      assert.property(json, field)
      assert.match(messageOf(json), words)
    })

    it.each(["?beta=true", "?api-version=2024-10-21", "?include[]=a&include[]=b"])(
      `${path}%s is answered: clients of the dialect send it`,
      async (query) => {
        assert.strictEqual(last(await exchange(service.url, [post(`${path}${query}`) + body])).status, 200)
      }
    )
  }
})

describe("a cross-origin request", () => {
  const preflight = (origin: string, path = "/v1/chat/completions") =>
    exchange(service.url, [
      head("OPTIONS", path, {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type"
      })
    ])

  it("of an allowed origin succeeds, including its preflight", async () => {
    const received = await preflight("https://app.example")
    assert.strictEqual(last(received).status, 204)
    assert.include(received, "access-control-allow-origin: https://app.example")
    assert.include(received, "access-control-allow-methods: POST")
    assert.include(received, "access-control-allow-headers: authorization,content-type")
    const answered = await exchange(service.url, [
      post("/v1/chat/completions", { origin: "https://app.example" }) + body
    ])
    assert.strictEqual(last(answered).status, 200)
    assert.include(answered, "access-control-allow-origin: https://app.example")
  })

  it.each(dialects)("of another origin is 403 in the format of %s and names the setting", async (path, field) => {
    const received = await preflight("https://other.example", path)
    const { json, status } = last(received)
    assert.strictEqual(status, 403)
    assert.property(json, field)
    assert.include(messageOf(json), "server.cors.origins")
    assert.notInclude(received, "access-control-allow-origin")
  })

  it.each(dialects.flatMap(([path, field]) =>
    [
      [path, field, { origin: "https://other.example", "content-type": "text/plain" }],
      [path, field, { origin: "null" }],
      [path, field, { "sec-fetch-site": "cross-site" }],
      [path, field, { host: "other.example", origin: "http://other.example" }]
    ] as const
  ))("without a preflight is 403 in the format of %s (%s) before a model is called: %o", async (
    path,
    field,
    headers
  ) => {
    const answered = await exchange(service.url, [post(path, headers) + body])
    const { json, status } = last(answered)
    assert.strictEqual(status, 403)
    assert.property(json, field)
    assert.include(messageOf(json), "server.cors.origins")
    assert.notInclude(answered, "access-control-allow-origin")
    assert.notInclude(answered, "x-troupe-decision")
  })

  it("never reaches administration", async () => {
    assert.strictEqual(last(await preflight("https://app.example", "/admin/deployments")).status, 403)
  })

  it("OPTIONS without an origin lists the methods", async () => {
    const received = await exchange(service.url, [head("OPTIONS", "/v1/models")])
    assert.strictEqual(last(received).status, 204)
    assert.include(received, "allow: GET")
    assert.strictEqual(last(await exchange(service.url, [head("OPTIONS", "/nope")])).status, 404)
  })
})

describe("a client that stops sending", () => {
  let impatient: Service
  beforeAll(async () => {
    impatient = await startService(`${yaml}  headersTimeout: 300 ms\n  bodyTimeout: 300 ms\n`)
  })
  afterAll(async () => {
    await impatient.stop()
  })

  it("in its headers gets 408", async () => {
    assert.strictEqual(
      last(await exchange(impatient.url, ["GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"])).status,
      408
    )
  })

  it.each(dialects)("in the body gets 408 in the format of %s", async (path, field) => {
    const { json, status } = last(await exchange(impatient.url, [post(path) + body.slice(0, 10)]))
    assert.strictEqual(status, 408)
    assert.property(json, field)
    assert.include(messageOf(json), "300ms")
  })
})

describe("the host [::1]", () => {
  it("is supported, and printed in URL syntax", async () => {
    const other = await startService(yaml.replace("server:", "server:\n  host: \"[::1]\""))
    assert.match(other.url, /^http:\/\/\[::1\]:\d+$/)
    assert.strictEqual(last(await exchange(other.url, [post("/v1/messages") + body])).status, 200)
    await other.stop()
  })
})

describe("a body that exceeds the decoding limits", () => {
  const list = (element: string, count: number) => Array.from({ length: count }, () => element).join(",")

  for (const [path, field] of dialects) {
    it.each([
      [`"x":${"[".repeat(501)}${"]".repeat(501)}`, /more than 500 levels of nesting/],
      [`"x":{${Array.from({ length: 8_193 }, (_, index) => `"${index}":1`).join(",")}}`, /more than 8192 fields/],
      [`"x":[${list("1", 350_000)}]`, /more than 350000 values/],
      [`"tools":[${list("{}", 129)}]`, /tools: Expected at most 128 elements/]
    ])(`is 400 at ${path}: %#`, async (fields, words) => {
      const json = `${body.slice(0, -1)},${fields}}`
      const { json: error, status } = last(
        await exchange(large.url, [post(path, { "content-length": json.length }) + json])
      )
      assert.strictEqual(status, 400)
      assert.property(error, field)
      assert.match(messageOf(error), words)
    })
  }
})

describe("a connection beyond server.maxConnections", () => {
  it("is closed, and accepted again after another ends", async () => {
    const { hostname, port } = new URL(large.url)
    const first = connect(Number(port), hostname)
    const second = connect(Number(port), hostname)
    await Promise.all([once(first, "connect"), once(second, "connect")])
    assert.strictEqual(await exchange(large.url, [head("GET", "/health/live")]).catch(() => ""), "")
    first.destroy()
    const answered = await until(async () =>
      await exchange(large.url, [head("GET", "/health/live")]).catch(() => "") || undefined
    )
    assert.strictEqual(last(answered).status, 200)
    second.destroy()
  })
})

/** Linux's table of IPv4 sockets, whose addresses are hexadecimal; state 2 is a connection that is not accepted yet. */
const socketTable = "/proc/net/tcp"
const pendingTo = (port: number): number => {
  const address = `:${port.toString(16).toUpperCase().padStart(4, "0")}`
  return readFileSync(socketTable, "utf8").split("\n").filter((line) => {
    const [, , remote = "", state] = line.trim().split(/\s+/)
    return remote.endsWith(address) && state === "02"
  }).length
}

/** The most connections of a port that Linux opens before its program accepts them. */
const kernelLimit = existsSync(socketTable) ? Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8")) : 0

describe("2,000 connections at once", () => {
  it.runIf(kernelLimit >= 2_000)("are all open while the service does something else", async () => {
    const port = Number(new URL(service.url).port)
    service.process.child.kill("SIGSTOP")
    const sockets = Array.from({ length: 2_000 }, () => connect(port, "127.0.0.1").on("error", () => {}))
    try {
      // Node sends them in the next tick.
      await new Promise<void>((resolve) => process.nextTick(resolve))
      assert.strictEqual(pendingTo(port), 0)
    } finally {
      for (const socket of sockets) socket.destroy()
      service.process.child.kill("SIGCONT")
    }
  })
})

/** Providers and downloads behind a real proxy on loopback. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { HttpBody, HttpClient } from "effect/http"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import * as Providers from "../../../src/layers/providers/Providers.ts"
import { clientLayer } from "../../../src/layers/store/ModelStore.ts"
import type { Environment } from "../../../src/services/settings/ProxySettings.ts"
import { deploymentOf } from "../../conformance/engine.ts"
import { startProxyServer } from "../../support/ProxyServer.ts"
import { fixture, outcome, served, textOf } from "./support.ts"

const { stream: pieces } = fixture("openai").text
const said = "Grüße aus 東京 🎌"

const proxied = (upstream: string, refusal?: number) =>
  Effect.acquireRelease(
    Effect.promise(() => startProxyServer(upstream, refusal)),
    (proxy) => Effect.promise(() => proxy.close())
  )

const ask = Effect.fnUntraced(function*(baseUrl: string, env: Environment) {
  const options: RemoteDeployment = {
    engine: "remote",
    provider: "openai",
    model: "m",
    baseUrl,
    key: Redacted.make("key-one"),
    stream: true
  }
  const providers = yield* Providers.makeWith({ allowHosts: [] }, undefined, env)
  return yield* outcome(yield* providers.start(deploymentOf(options), options))
})

describe("a provider", () => {
  it.live("is called through the proxy for its scheme, with its host", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ pieces }))
      const proxy = yield* proxied(server.url)
      const env = { HTTP_PROXY: proxy.url.replace("//", "//user:p%20w@") }
      const { events, reason } = yield* ask("http://provider.test:8000/v1", env)
      assert.isUndefined(reason)
      assert.strictEqual(textOf(events), said)
      assert.deepStrictEqual(proxy.asked, [{
        method: "POST",
        target: "http://provider.test:8000/v1/chat/completions",
        authorization: `Basic ${btoa("user:p w")}`
      }])
      assert.strictEqual(server.seen[0]?.headers.authorization, "Bearer key-one")
    }))

  it.live("of https is reached by a tunnel, of which the proxy sees no more than TLS", () =>
    Effect.gen(function*() {
      const proxy = yield* proxied("http://127.0.0.1:9")
      const { reason } = yield* ask("https://provider.test/v1", { https_proxy: proxy.url })
      assert.deepInclude(reason, { _tag: "UpstreamFailed", kind: "network" })
      assert.deepStrictEqual(proxy.asked.map(({ method, target }) => [method, target]), [[
        "CONNECT",
        "provider.test:443"
      ]])
      const [hello] = proxy.tunnelled
      assert.deepStrictEqual([...hello!.subarray(0, 2)], [0x16, 0x03])
      assert.include(hello!.toString("latin1"), "provider.test")
      assert.notInclude(hello!.toString("latin1"), "key-one")
    }))

  it.live("is called directly if it is on loopback, or NO_PROXY lists it", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ pieces }))
      const proxy = yield* proxied(server.url)
      const loopback = yield* ask(server.url, { HTTP_PROXY: proxy.url })
      assert.strictEqual(textOf(loopback.events), said)
      const listed = yield* ask("http://provider.invalid/v1", { HTTP_PROXY: proxy.url, NO_PROXY: ".invalid" })
      assert.include(listed.reason?.message ?? "", "could not resolve host `provider.invalid`")
      assert.lengthOf(proxy.asked, 0)
    }))

  it.live("reports that the proxy refused the connection, and names the variables", () =>
    Effect.gen(function*() {
      for (const [baseUrl, status] of [["https://provider.test", 403], ["http://provider.test", 407]] as const) {
        const proxy = yield* proxied("http://127.0.0.1:9", status)
        const { reason } = yield* ask(baseUrl, { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url })
        assert.deepInclude(reason, { _tag: "UpstreamFailed", kind: "network" })
        assert.include(reason!.message, `the proxy refused the connection (${status}). Check HTTPS_PROXY`)
      }
    }))
})

describe("a download", () => {
  it.live("goes through the proxy, and directly to loopback", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ headers: { "content-type": "text/plain" }, pieces: ["Hello"] }))
      const proxy = yield* proxied(server.url)
      const get = (url: string) =>
        Effect.provide(
          Effect.flatMap(HttpClient.post(url, { body: HttpBody.text("{}") }), ({ text }) => text),
          Layer.fresh(clientLayer({ HTTP_PROXY: proxy.url }))
        )
      assert.strictEqual(yield* get("http://files.test/a?b=c"), "Hello")
      assert.strictEqual(yield* get(`${server.url}/d`), "Hello")
      assert.deepStrictEqual(proxy.asked.map(({ target }) => target), ["http://files.test/a?b=c"])
    }))
})

/** Images by URL: which hosts are asked for them, and what comes of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { once } from "node:events"
import type { RequestListener, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo, LookupFunction } from "node:net"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { Dialect, ImageTransport } from "../../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../../src/dialects/troupe/Provider.ts"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Message } from "../../../src/domain/Message.ts"
import { mostImageBytes } from "../../../src/domain/Message.ts"
import type { HttpExchange } from "../../../src/layers/providers/HttpExchange.ts"
import * as ImageFetcher from "../../../src/layers/providers/ImageFetcher.ts"
import * as RemoteEngine from "../../../src/layers/providers/RemoteEngine.ts"
import { until } from "../../support/Service.ts"
import { generation } from "./support.ts"

const picture = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 3, 255])

/** A web server on this machine, which records the hosts of its requests. */
const hosted = (answer: RequestListener) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const seen: Array<{ readonly url: string; readonly host: string }> = []
      const server = createServer((request, response) => {
        seen.push({ url: request.url!, host: request.headers.host! })
        answer(request, response)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return { server, seen, port: (server.address() as AddressInfo).port }
    }),
    ({ server }) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )

const asking = (url: string): ReadonlyArray<Message> => [
  { role: "system", content: "You see." },
  { role: "user", content: [{ type: "text", text: "Look:" }, { type: "image", source: { type: "url", url } }] }
]

const path = "messages[1].content[1].source.url"

/** What a refusal says; it names the image. */
const refusal = (media: ImageFetcher.ImageFetcher, url: string, taken: ImageTransport = "bytes") =>
  Effect.map(Effect.flip(media.prepare(asking(url), taken)), ({ reason }) => {
    assert.deepInclude<object>(reason, { _tag: "InvalidRequest", path })
    return "detail" in reason ? reason.detail : ""
  })

const png: RequestListener = (_, response) => {
  response.writeHead(200, { "content-type": "image/png; charset=binary" }).end(picture)
}

/** Resolves every name to these, one list a call. */
const resolving = (...lists: ReadonlyArray<ReadonlyArray<string>>) => {
  let calls = 0
  const resolve = ((_: string, __: unknown, done: Parameters<LookupFunction>[2]) => {
    const list = lists[Math.min(calls++, lists.length - 1)]!
    done(null, list.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })))
  }) as unknown as NonNullable<ImageFetcher.Options["resolve"]>
  return { resolve, calls: () => calls }
}

describe("ImageFetcher", () => {
  it.live("fetches the image of an allowed host as bytes", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* hosted(png)
      const media = yield* ImageFetcher.make({ allowHosts: ["127.0.0.1"] })
      const [system, user] = yield* media.prepare(asking(`http://127.0.0.1:${port}/cat?size=1`), "bytes")
      assert.strictEqual(system?.content, "You see.")
      assert.deepStrictEqual(user?.content, [
        { type: "text", text: "Look:" },
        { type: "image", source: { type: "base64", mediaType: "image/png", data: picture.toString("base64") } }
      ])
      assert.deepStrictEqual(seen.map(({ url }) => url), ["/cat?size=1"])
    }))

  it.live("keeps conversations without URLs unchanged", () =>
    Effect.gen(function*() {
      const media = yield* ImageFetcher.make({ allowHosts: [] })
      const source = { type: "base64", mediaType: "image/png", data: "AAAA" } as const
      const messages: ReadonlyArray<Message> = [{ role: "user", content: [{ type: "image", source }] }]
      assert.strictEqual(yield* media.prepare(messages, "bytes"), messages)
    }))

  it.live("calls no host that is not public, and passes on no such URL", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* hosted(png)
      const media = yield* ImageFetcher.make({ allowHosts: [] })
      const hosts = ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
      for (const host of [...hosts, "169.254.169.254", "10.0.0.1", "metadata.google.internal"]) {
        for (const taken of ["bytes", "urls"] as const) {
          assert.match(yield* refusal(media, `http://${host}:${port}/`, taken), /public host/)
        }
      }
      assert.deepStrictEqual(seen, [])
      const [, user] = yield* media.prepare(asking("https://example.com/cat.png"), "urls")
      assert.deepStrictEqual(user, asking("https://example.com/cat.png")[1])
    }))

  it.live("connects to no host with a private address, even if others of its addresses are public", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* hosted(png)
      for (const list of [["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:127.0.0.1"], ["fd00::1"]]) {
        const { calls, resolve } = resolving(list)
        const media = yield* ImageFetcher.make({ allowHosts: [], resolve })
        assert.match(yield* refusal(media, `http://cats.example:${port}/`), /public host/)
        assert.strictEqual(calls(), 1)
      }
      assert.deepStrictEqual(seen, [])
    }))

  it.live("connects to the checked address, even if the name resolves to another later", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* hosted(png)
      // Had it been resolved once to look and again to connect, the second answer would refuse the connection.
      const { calls, resolve } = resolving(["127.0.0.1"], ["127.0.0.2"])
      const media = yield* ImageFetcher.make({ allowHosts: ["cats.example"], resolve })
      yield* media.prepare(asking(`http://cats.example:${port}/`), "bytes")
      assert.strictEqual(calls(), 1)
      assert.deepStrictEqual(seen.map(({ host }) => host), [`cats.example:${port}`])
    }))

  it.live("follows redirects on the same host only, up to a limit", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* hosted((request, response) => {
        const [, way, rest] = /^\/(\w+)\/?(.*)$/.exec(request.url!) ?? []
        const to: Record<string, string> = {
          here: "/cat",
          away: `http://localhost:${port}/cat`,
          file: "file:///etc/passwd",
          round: `/round/${rest}x`
        }
        if (to[way!] === undefined) return png(request, response)
        response.writeHead(302, { location: to[way!]! }).end()
      })
      const media = yield* ImageFetcher.make({ allowHosts: ["127.0.0.1", "localhost"] })
      const at = (way: string) => `http://127.0.0.1:${port}/${way}`
      yield* media.prepare(asking(at("here")), "bytes")
      assert.deepStrictEqual(seen.map(({ url }) => url), ["/here", "/cat"])
      assert.match(yield* refusal(media, at("away")), /redirects to another host/)
      assert.match(yield* refusal(media, at("file")), /redirects to another host/)
      assert.match(yield* refusal(media, at("round")), /more than 3 times/)
      assert.isFalse(seen.some(({ host }) => host.startsWith("localhost")))
    }))

  it.live("accepts images only, up to the size limit", () =>
    Effect.gen(function*() {
      const chunk = Buffer.alloc(2 ** 20)
      const { port } = yield* hosted((request, response) => {
        switch (request.url) {
          case "/page":
            return void response.writeHead(200, { "content-type": "text/html" }).end("<secret>")
          case "/said":
            return void response.writeHead(200, {
              "content-type": "image/png",
              "content-length": mostImageBytes + 1
            }).write(chunk)
          case "/long": {
            response.writeHead(200, { "content-type": "image/png" })
            const more = () => {
              while (!response.destroyed && response.write(chunk)) continue
            }
            response.on("drain", more)
            return more()
          }
          case "/cut":
            response.writeHead(200, { "content-type": "image/png", "content-length": 100 }).write(picture)
            return response.socket?.destroySoon()
          default:
            return void response.writeHead(404, { "content-type": "text/plain" }).end("secret")
        }
      })
      const media = yield* ImageFetcher.make({ allowHosts: ["127.0.0.1"] })
      const at = (name: string) => refusal(media, `http://127.0.0.1:${port}/${name}`)
      assert.match(yield* at("page"), /^Expected the URL of an image of one of these types: image\/png/)
      assert.match(yield* at("said"), /at most 20971520 bytes/)
      assert.match(yield* at("long"), /at most 20971520 bytes/)
      assert.match(yield* at("cut"), /connection closed/)
      assert.strictEqual(yield* at("nothing"), "The host of this URL answered with HTTP status 404")
    }))

  it.live("reports that a host cannot be reached, without details", () =>
    Effect.gen(function*() {
      const { port, server } = yield* hosted(png)
      server.close()
      const media = yield* ImageFetcher.make({ allowHosts: ["127.0.0.1"] })
      assert.strictEqual(
        yield* refusal(media, `http://127.0.0.1:${port}/`),
        "The host of this URL cannot be reached"
      )
    }))

  it.effect("hands URLs on to hosts that are public or look by themselves, and bytes to others", () =>
    Effect.gen(function*() {
      const takenBy = (provider: RemoteDeployment["provider"], baseUrl: string, dialect: Dialect) => {
        const taken: Array<ImageTransport> = []
        const media: ImageFetcher.ImageFetcher = {
          prepare: (_, one) => Effect.suspend(() => (taken.push(one), InferenceError.make(stopped)))
        }
        const stopped = new InferenceError.EngineStopped({ deployment: "a" })
        const options = { engine: "remote", provider, model: "m", baseUrl } as const
        const upstream = { clean: (reason: InferenceError.Reason) => reason } as HttpExchange
        const engine = RemoteEngine.make(dialect, { deployment: "a", model: "a", options }, upstream, media)
        const asked = { ...generation, messages: asking("https://example.com/cat.png") }
        return Effect.as(Effect.flip(Stream.runDrain(engine.generate(asked))), taken)
      }
      const hosts: ReadonlyArray<readonly [RemoteDeployment["provider"], string, Dialect, ImageTransport]> = [
        ["openai", "https://api.openai.com/v1", openAi, "urls"],
        ["openai", "http://127.0.0.1:8000/v1", openAi, "bytes"],
        ["openai", "http://vllm:8000/v1", openAi, "bytes"],
        ["anthropic", "http://10.0.0.7", anthropic, "bytes"],
        ["troupe", "http://127.0.0.1:3000/v1", troupe, "urls"]
      ]
      for (const [provider, baseUrl, dialect, taken] of hosts) {
        assert.deepStrictEqual(yield* takenBy(provider, baseUrl, dialect), [taken], baseUrl)
      }
    }))

  it.effect("limits the total time for all images of a request", () =>
    Effect.gen(function*() {
      const waiting: Array<ServerResponse> = []
      const { port, seen } = yield* hosted((_, response) => {
        waiting.push(response)
      })
      const media = yield* ImageFetcher.make({ allowHosts: ["127.0.0.1"] })
      const source = { type: "url", url: `http://127.0.0.1:${port}/` } as const
      const content = Array.from({ length: 20 }, () => ({ type: "image", source }) as const)
      const fiber = yield* Effect.forkChild(Effect.flip(media.prepare([{ role: "user", content }], "bytes")))
      // Each takes nearly as long as one may.
      for (let round = 1; round <= 4; round++) {
        yield* Effect.promise(() => until(() => waiting.length === 4 ? true : undefined))
        yield* TestClock.adjust("18 seconds")
        for (const response of waiting.splice(0)) {
          response.writeHead(200, { "content-type": "image/png" }).end(picture)
        }
      }
      const { reason } = yield* Fiber.join(fiber)
      assert.deepInclude<object>(reason, { _tag: "InvalidRequest", path: "messages" })
      assert.lengthOf(seen, 16)
    }))
})

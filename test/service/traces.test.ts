/** A collector receives the traces of a service's requests, and providers their context. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { HttpServer } from "effect/http"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as App from "../../src/App.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import type { Collector, Received } from "../support/Collector.ts"
import { startCollector } from "../support/Collector.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { wires } from "../support/Wires.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const callerSpan = "00f067aa0ba902b7"
const prompt = "an unusual prompt"

let collector: Collector
let upstream: FaultServer

beforeAll(async () => {
  collector = await startCollector()
  upstream = await startFaultServer((_, { body }) => {
    const { headers, pieces, buffered } = wires["openai"]
    const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
    const json = { "content-type": "application/json" }
    if (model === "down") return { status: 500, headers: json, pieces: ["{\"error\":{\"message\":\"secret text\"}}"] }
    return stream === true ? { headers, pieces } : { headers: json, pieces: [buffered] }
  })
})

afterAll(async () => {
  await upstream.close()
  await collector.close()
})

type Telemetry = NonNullable<SettingsFile.Config["telemetry"]>

/** Sends requests to a service with this telemetry; returns the spans that the collector has got when it has stopped. */
const traced = async (
  telemetry: Telemetry,
  bodies: ReadonlyArray<object>,
  headers: Readonly<Record<string, string>> = {}
): Promise<ReadonlyArray<Received>> => {
  const before = collector.spans.length
  const remote = (model: string) => ({ provider: "openai" as const, model, baseUrl: `${upstream.url}/v1`, key: "k" })
  const config: SettingsFile.Config = {
    server: { port: 0, admin: { socket: false } },
    storage: { type: "memory" },
    policies: { default: { retries: 1 } },
    telemetry: { endpoint: collector.url, ...telemetry },
    models: {
      chat: { deployments: [remote("up")] },
      second: { deployments: [remote("down")], fallbacks: ["chat"] },
      broken: { deployments: [remote("down")] }
    }
  }
  const service = App.service.pipe(
    Layer.provide(SettingsFile.layer({ config })),
    Layer.provide(Logger.layer([]))
  )
  await Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const port = "port" in address ? address.port : 0
    yield* Effect.promise(async () => {
      for (const body of bodies) {
        const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json", ...headers },
          body: JSON.stringify({ messages: [{ role: "user", content: prompt }], ...body })
        })
        await response.text()
      }
    })
  }).pipe(Effect.provide(service), Effect.scoped, Effect.runPromise)
  return collector.spans.slice(before)
}

const named = (spans: ReadonlyArray<Received>, name: string): Received => {
  const found = spans.find((span) => span.name === name)
  assert.isDefined(found, `${name} among ${spans.map((span) => span.name).join(", ")}`)
  return found
}

describe("traces", () => {
  it.each([[false], [true]])(
    "are below the caller's span, and the provider's are below them; streamed: %s",
    async (stream) => {
      const model = stream ? "second" : "chat"
      const spans = await traced({}, [{ model, stream }], {
        traceparent: `00-${traceId}-${callerSpan}-01`,
        tracestate: "vendor=1"
      })
      const request = named(spans, `chat ${model}`)
      assert.deepInclude(request, { traceId, parentSpanId: callerSpan, kind: 2, status: { code: 0 } })
      assert.deepInclude(request.attributes, {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "up",
        "troupe.success": true
      })
      const parents = new Set(spans.map(({ spanId }) => spanId)).add(callerSpan)
      for (const span of spans) assert.isTrue(parents.has(span.parentSpanId!), span.name)
      const inference = named(spans, "chat up")
      assert.strictEqual(inference.kind, 3)
      assert.deepInclude(inference.attributes, {
        "server.address": "127.0.0.1",
        "gen_ai.provider.name": "openai"
      })
      const sent = upstream.seen.find(({ headers }) => headers["traceparent"]?.includes(inference.spanId))
      assert.strictEqual(sent?.headers["traceparent"], `00-${traceId}-${inference.spanId}-01`)
      assert.strictEqual(sent?.headers["tracestate"], "vendor=1")
      if (!stream) return
      const failed = named(spans, "chat down")
      assert.strictEqual(failed.status.code, 2)
      assert.strictEqual(failed.attributes["error.type"], "UpstreamFailed")
      assert.deepStrictEqual(failed.events.map(({ name }) => name), ["exception"])
      assert.isNumber(inference.attributes["gen_ai.response.time_to_first_chunk"])
    }
  )

  it("have no text of a caller or a provider, and the resource of the settings", async () => {
    const spans = await traced(
      {
        service: "my-gateway",
        attributes: { "deployment.environment.name": "test" },
        headers: { "x-token": "t" }
      },
      [{ model: "chat" }, { model: "broken" }, { model: "nothing-of-this-name" }]
    )
    assert.notMatch(JSON.stringify(spans), /unusual|secret text/)
    assert.isTrue(collector.headers.some((headers) => headers["content-type"] === "application/x-protobuf"))
    const unknown = named(spans, "chat")
    assert.strictEqual(unknown.status.code, 2)
    assert.strictEqual(unknown.attributes["error.type"], "ModelNotFound")
    assert.deepInclude(unknown.resource, { "service.name": "my-gateway", "deployment.environment.name": "test" })
    assert.isTrue(collector.headers.some((headers) => headers["x-token"] === "t"))
  })

  it("of failed requests are sent, whatever the ratio", async () => {
    const spans = await traced({ sample: 0, compression: "gzip", protocol: "json" }, [{ model: "chat" }, {
      model: "broken"
    }])
    assert.deepStrictEqual(
      spans.map(({ name }) => name).sort(),
      ["attempt broken#0", "attempt broken#0", "chat broken", "chat down", "chat down", "select balanced"]
    )
    assert.strictEqual(new Set(spans.map(({ traceId }) => traceId)).size, 1)
  })

  it("follow the caller's decision", async () => {
    const traceparent = `00-${traceId.replace("4", "5")}-${callerSpan}`
    assert.isEmpty(await traced({ sample: 1 }, [{ model: "chat" }], { traceparent: `${traceparent}-00` }))
    assert.isNotEmpty(await traced({ sample: 0 }, [{ model: "chat" }], { traceparent: `${traceparent}-01` }))
  })

  it("have prompts and answers where that is switched on", async () => {
    for (const stream of [false, true]) {
      const inference = named(await traced({ content: true }, [{ model: "chat", stream }]), "chat up")
      assert.deepStrictEqual(JSON.parse(String(inference.attributes["gen_ai.input.messages"])), [
        { role: "user", parts: [{ type: "text", content: prompt }] }
      ])
      const [answer] = JSON.parse(String(inference.attributes["gen_ai.output.messages"])) as ReadonlyArray<object>
      assert.deepInclude(answer, { role: "assistant" })
    }
  })
})

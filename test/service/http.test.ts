/** The service over real sockets: answers, errors, faults, shutdown. */
import { assert } from "@effect/vitest"
import { connect } from "node:net"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import { writeLora } from "../support/LoraFiles.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder, until } from "../support/Service.ts"

const adapters = temporaryFolder()
const adapter = join(adapters.path, "adapter.gguf")

const yaml = `
models:
  tiny-chat:
    deployments:
      - engine: llama
        file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname}
        slots: 8
  adapted:
    preload: false
    deployments:
      - engine: llama
        file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname}
        lora: [{ path: ${adapter}, scale: 0.5 }]
      - engine: llama
        file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname}
        lora: ${adapter}
  fake/endless:
    deployments:
      - engine: fake
        slots: 1
        contextSize: 100000
        tokenDelayMs: 20
        reply: "${"word ".repeat(20_000).trim()}"
  fake/abort:
    deployments:
      - engine: fake
        tokenDelayMs: 5
        reply: "${"word ".repeat(40).trim()}"
        fault: { kind: abort, afterTokens: 5, trigger: crash }
  fake/abort-early:
    deployments:
      - engine: fake
        fault: { kind: abort, trigger: crash }
  fake/error:
    deployments:
      - engine: fake
        reply: some words before it
        tokenDelayMs: 20
        fault: { kind: error, afterTokens: 3 }
  fake/small:
    deployments:
      - engine: fake
        contextSize: 20
scaling:
  every: 200 ms
  upAfter: 24 hours
server:
  maxBodyBytes: 30000
  shutdownGrace: 10 seconds
`

let service: Service
beforeAll(async () => {
  writeLora(adapter)
  service = await startService(yaml)
}, 60_000)
afterAll(async () => {
  await service.stop()
  adapters[Symbol.dispose]()
})

const chat = (body: unknown, init: RequestInit = {}): Promise<Response> =>
  fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init
  })

const ask = (model: string, content: string, more: object = {}) => ({
  model,
  messages: [{ role: "user", content }],
  temperature: 0,
  ...more
})

interface Body {
  readonly choices: ReadonlyArray<{ readonly message: { readonly content: string } }>
  readonly error: { readonly message: string; readonly code: string | null; readonly param: string | null }
}

const json = async (response: Response): Promise<Body> => await response.json() as Body

const frames = (text: string): ReadonlyArray<string> =>
  text.split("\n\n").filter((frame) => frame !== "").map((frame) => frame.replace(/^data: /, ""))

const metric = async (line: string): Promise<number> => {
  const text = await (await fetch(`${service.url}/metrics`)).text()
  const found = text.split("\n").find((one) => one.startsWith(`${line} `))
  return found === undefined ? 0 : Number(found.split(" ").at(-1))
}

interface Health {
  readonly deployment: string
  readonly running: number
  readonly queued: number
  readonly lastFailure?: string
}

const health = async (deployment: string): Promise<Health | undefined> => {
  const report = await (await fetch(`${service.url}/health/ready`)).json() as {
    readonly deployments: ReadonlyArray<Health>
  }
  return report.deployments.find((one) => one.deployment === deployment)
}

const running = async (deployment: string): Promise<number | undefined> => (await health(deployment))?.running

describe("answers", () => {
  it("says that the capital of Japan is Tokyo", async () => {
    const body = await json(await chat(ask("tiny-chat", "What is the capital of Japan?")))
    assert.strictEqual(body.choices[0]?.message.content, "The capital of Japan is Tokyo.")
  })

  it("streams the same text, with a role first and [DONE] last", async () => {
    const response = await chat(ask("tiny-chat", "What is 7 + 5?", { stream: true }))
    assert.strictEqual(response.headers.get("content-type"), "text/event-stream; charset=utf-8")
    const all = frames(await response.text())
    assert.strictEqual(all.at(-1), "[DONE]")
    const deltas = all.slice(0, -1).map((frame) =>
      (JSON.parse(frame) as { choices: [{ delta: { role?: string; content?: string } }] }).choices[0].delta
    )
    assert.strictEqual(deltas[0]?.role, "assistant")
    assert.strictEqual(deltas.map(({ content }) => content ?? "").join(""), "7 + 5 = 12.")
  })

  it("resolves 100 concurrent requests", async () => {
    const bodies = await Promise.all(
      Array.from({ length: 100 }, async () => json(await chat(ask("tiny-chat", "What is the opposite of loud?"))))
    )
    for (const body of bodies) {
      assert.strictEqual(body.choices[0]?.message.content, "The opposite of loud is quiet.")
    }
  })

  it("describes itself", async () => {
    const openapi = await (await fetch(`${service.url}/openapi.json`)).json() as { paths: Record<string, unknown> }
    assert.includeMembers(Object.keys(openapi.paths), ["/v1/chat/completions", "/v1/models", "/health/live"])
    assert.deepStrictEqual(await (await fetch(`${service.url}/health/live`)).json(), { status: "live" })
    assert.strictEqual((await fetch(`${service.url}/health/ready`)).status, 200)
  })
})

describe("replicas that follow the load", () => {
  it("are shown by the command line and for operators, with the reason", async () => {
    const table = async () => (await invoke(["ps", "--url", service.admin])).stdout
    let shown = await table()
    // The first decision is made soon after the load.
    while (!/^tiny-chat#0 .* of 1-2/m.test(shown)) shown = await table()
    assert.match(shown, /^DEPLOYMENT +ENGINE +STATE +REPLICAS +RUNNING/)
    assert.match(shown, /^tiny-chat#0 +llama \(8 slots, 1 thread\) +ready +1 of 1-2 .*\d+ % of the slots used/m)
    const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
      readonly deployments: ReadonlyArray<{ readonly deployment: string; readonly scaling?: object }>
    }
    const first = deployments.find(({ deployment }) => deployment === "tiny-chat#0")
    assert.deepInclude(first?.scaling, { replicas: 1, minReplicas: 1, maxReplicas: 2 })
    assert.include(await (await fetch(`${service.url}/metrics`)).text(), "llm_replicas{deployment=\"tiny-chat#0\"")
  })
})

describe("LoRA adapters", () => {
  it("are listed for callers without their folders, and for operators", async () => {
    const { lora } = await (await fetch(`${service.url}/v1/models/adapted`)).json() as { readonly lora: unknown }
    assert.deepStrictEqual(lora, [{ file: "adapter.gguf", scale: 0.5 }, { file: "adapter.gguf", scale: 1 }])
    const plain = await (await fetch(`${service.url}/v1/models/tiny-chat`)).json() as object
    assert.notProperty(plain, "lora")
    const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
      readonly deployments: ReadonlyArray<{ readonly deployment: string; readonly lora?: unknown }>
    }
    const first = deployments.find(({ deployment }) => deployment === "adapted#0")
    assert.deepStrictEqual(first?.lora, [{ path: adapter, scale: 0.5 }])
    const { stdout } = await invoke(["ps", "--url", service.admin])
    assert.match(stdout, /adapted#0 +llama \+ adapter\.gguf x 0\.5 +cold/)
    assert.match(stdout, /adapted#1 +llama \+ adapter\.gguf +cold/)
  })

  it("are applied by an engine process", async () => {
    const answer = await json(await chat(ask("adapted", "What is the capital of Japan?", { temperature: 0 })))
    assert.strictEqual(answer.choices[0]?.message.content, "The capital of Japan is Tokyo.")
  })
})

describe("bad input", () => {
  const cases: ReadonlyArray<readonly [string, unknown, number, string | null, string | null]> = [
    ["not JSON", "{", 400, null, null],
    ["an array", "[]", 400, null, null],
    ["no messages", { model: "tiny-chat", messages: [] }, 400, null, "messages"],
    ["a wrong type", ask("tiny-chat", "Hello!", { temperature: "hot" }), 400, null, "temperature"],
    ["out of range", ask("tiny-chat", "Hello!", { top_p: 2 }), 400, null, "top_p"],
    ["an unsupported field", ask("tiny-chat", "Hello!", { functions: [{}] }), 400, null, "functions"],
    [
      "an answer to no call",
      {
        model: "tiny-chat",
        messages: [{ role: "tool", tool_call_id: "a", content: "sunny" }]
      },
      400,
      null,
      "messages[0].tool_call_id"
    ],
    ["an unknown model", ask("gpt-9", "Hello!"), 404, "model_not_found", "model"],
    ["a prompt past the window", ask("tiny-chat", "a ".repeat(700)), 400, "context_length_exceeded", "messages"],
    ["a large body", ask("tiny-chat", "a ".repeat(20_000)), 413, "request_too_large", null]
  ]
  for (const stream of [false, true]) {
    for (const [name, body, status, code, param] of cases) {
      it(`${name}, ${stream ? "streaming" : "buffered"}: ${status}`, async () => {
        const response = await chat(typeof body === "string" ? body : { ...body as object, stream })
        const { error } = await json(response)
        assert.deepStrictEqual(
          { status: response.status, code: error.code, param: error.param },
          { status, code, param }
        )
        assert.notMatch(error.message, /\n|node_modules|at .*:\d+/)
        assert.match(response.headers.get("x-request-id") ?? "", /^chatcmpl-\w{22}$/)
      })
    }
  }

  it("reports both numbers of a context overflow", async () => {
    const { error } = await json(await chat(ask("tiny-chat", "a ".repeat(700))))
    assert.match(error.message, /7\d\d tokens.*512 tokens/)
  })

  it("rejects an empty list of messages, and one that is far too long, with a short message", async () => {
    const wrong = { model: "tiny-chat", messages: Array.from({ length: 500 }, () => ({ role: "bot", content: 1 })) }
    const { error } = await json(await chat(wrong))
    assert.isBelow(error.message.length, 1000)
    assert.match(error.message, /and 990 more$/)
    const long = { model: "tiny-chat", messages: Array.from({ length: 10_001 }, () => 1) }
    assert.match((await json(await chat(long))).error.message, /`?messages`?: Expected at most 10000 elements/)
  })

  it("a compressed body: 400 with the reason, in each dialect's format", async () => {
    for (const path of ["/v1/chat/completions", "/v1/messages"]) {
      const response = await fetch(`${service.url}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json", "content-encoding": "gzip" },
        body: gzipSync(JSON.stringify({ model: "tiny-chat", max_tokens: 1, messages: [] }))
      })
      assert.strictEqual(response.status, 400)
      assert.match((await json(response)).error.message, /compressed.*without content-encoding/)
    }
  })

  it("a body that is not UTF-8: 400 with the reason, in each dialect's format, in one or several pieces", async () => {
    // é in Latin-1, an overlong "/", a surrogate, the half of a character.
    const wrong = ["e9", "c0af", "eda080", "e282"].map((hex) => Buffer.from(hex, "hex"))
    const message = (bytes: Uint8Array) =>
      Buffer.concat([
        Buffer.from("{\"model\":\"tiny-chat\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\""),
        bytes,
        Buffer.from("\"}]}")
      ])
    const send = (path: string, body: NonNullable<RequestInit["body"]>) =>
      fetch(`${service.url}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        duplex: "half"
      })
    for (const path of ["/v1/chat/completions", "/v1/messages"]) {
      for (const bytes of wrong) {
        const response = await send(path, message(bytes))
        assert.strictEqual(response.status, 400)
        assert.match((await json(response)).error.message, /not UTF-8/)
      }
    }
    // A character may be split over two pieces.
    const whole = message(Buffer.from("What color is snow? €"))
    const middle = whole.indexOf("€") + 1
    const pieces = ReadableStream.from([whole.subarray(0, middle), whole.subarray(middle)])
    assert.strictEqual((await send("/v1/chat/completions", pieces)).status, 200)
  })

  it("an unsupported method of a path: 405; HEAD is supported for every GET", async () => {
    const response = await fetch(`${service.url}/v1/chat/completions`)
    assert.strictEqual(response.status, 405)
    assert.strictEqual(response.headers.get("allow"), "POST")
    const load = await fetch(`${service.admin}/admin/models/tiny-chat/load`)
    assert.deepStrictEqual([load.status, load.headers.get("allow")], [405, "POST"])
    assert.strictEqual((await fetch(`${service.url}/v1/models/`, { method: "POST" })).status, 404)
    for (const path of ["/health/live", "/v1/models", "/metrics"]) {
      const head = await fetch(`${service.url}${path}`, { method: "HEAD" })
      assert.strictEqual(head.status, 200, path)
      assert.strictEqual(await head.text(), "")
    }
  })

  it("an unknown path: 404 in the dialect's format", async () => {
    const response = await fetch(`${service.url}/v1/nothing`)
    assert.strictEqual(response.status, 404)
    assert.strictEqual((await json(response)).error.code, "not_found")
    assert.match(response.headers.get("x-request-id") ?? "", /^req_\w{22}$/)
  })

  it.each([
    ["POST", "/v1/messages/batches", 404, "not_found_error"],
    ["GET", "/v1/messages", 405, "invalid_request_error"],
    ["PUT", "/v1/messages/count_tokens?beta=true", 405, "invalid_request_error"]
  ])("%s %s: %d in Anthropic's shape", async (method, path, status, type) => {
    const response = await fetch(`${service.url}${path}`, { method })
    assert.strictEqual(response.status, status)
    assert.strictEqual(response.headers.get("allow"), status === 405 ? "POST" : null)
    const sent = await response.json() as { type: string; error: { type: string }; request_id: string }
    assert.deepStrictEqual([sent.type, sent.error.type], ["error", type])
    assert.match(sent.request_id, /^req_\w{22}$/)
    assert.strictEqual(response.headers.get("request-id"), sent.request_id)
  })
})

describe("faults", () => {
  for (const stream of [false, true]) {
    it(`a crash before any content is a 503, ${stream ? "streaming" : "buffered"}`, async () => {
      const response = await chat(ask("fake/abort-early", "crash", { stream }))
      assert.strictEqual(response.status, 503)
      assert.strictEqual((await json(response)).error.code, "engine_crashed")
    })
  }

  it("an engine error in mid-stream is an error frame without [DONE]", async () => {
    const response = await chat(ask("fake/error", "Hello!", { stream: true }))
    assert.strictEqual(response.status, 200)
    const all = frames(await response.text())
    assert.strictEqual((JSON.parse(all.at(-1)!) as Body).error.code, "engine_failed")
    assert.notInclude(all, "[DONE]")
    assert.strictEqual(await metric("llm_errors_total{model=\"fake/error\"}"), 1)
    assert.strictEqual(await metric("llm_requests_total{model=\"fake/error\",success=\"false\"}"), 1)
  })

  it("an abort in native code fails only the requests of its engine", async () => {
    const [crashed, beside] = await Promise.all([
      chat(ask("fake/abort", "crash")),
      chat(ask("tiny-chat", "What color is snow?"))
    ])
    assert.strictEqual(crashed.status, 503)
    assert.strictEqual((await json(crashed)).error.code, "engine_crashed")
    assert.strictEqual((await json(beside)).choices[0]?.message.content, "Snow is white.")
    const after = await chat(ask("fake/abort", "Hello!"))
    assert.strictEqual(after.status, 200)
  })

  it("SIGKILL of every engine under load: the next engine gives buffered answers, a started stream ends with an error", async () => {
    const stream = chat(ask("fake/endless", "Hello!", { stream: true }))
    const body = (await stream).text()
    const inFlight = Array.from({ length: 8 }, () => chat(ask("fake/endless", "Hello!", { max_tokens: 50 })))
    await until(async () => (await health("fake/endless#0"))?.queued === 8 || undefined)
    for (const pid of service.engines()) process.kill(pid, "SIGKILL")
    const codes = await Promise.all(inFlight.map(async (response) => (await json(await response)).error?.code))
    assert.deepStrictEqual(codes.filter((code) => code !== undefined), [])
    assert.include(await body, "engine_crashed")
    assert.notInclude(await body, "[DONE]")
    // A request that reached a dead engine before its end was detected would count as in flight.
    await until(async () => /SIGKILL/.test((await health("tiny-chat#0"))?.lastFailure ?? "") ? true : undefined)
    const next = await json(await chat(ask("tiny-chat", "What is the capital of Japan?")))
    assert.strictEqual(next.choices[0]?.message.content, "The capital of Japan is Tokyo.")
  })
})

describe("a client that disconnects", () => {
  it("stops the generation, and its slot is free at once", async () => {
    const before = await metric("llm_tokens_generated_sum{model=\"fake/endless\"}")
    const body = JSON.stringify(ask("fake/endless", "Hello!", { stream: true }))
    const { hostname, port } = new URL(service.url)
    const socket = connect(Number(port), hostname)
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: ${hostname}\r\ncontent-length: ${body.length}\r\n\r\n${body}`
    )
    let received = ""
    for await (const chunk of socket) {
      received += String(chunk)
      if (received.split("\"content\":\"").length > 4) break
    }
    socket.destroy()
    // The complete answer would take ten minutes.
    await until(async () => await running("fake/endless#0") === 0 ? true : undefined)
    const tokens = await metric("llm_tokens_generated_sum{model=\"fake/endless\"}") - before
    assert.isAbove(tokens, 0)
    assert.isBelow(tokens, 20_000)
  })

  it("is removed from the queue", async () => {
    const first = new AbortController()
    const second = new AbortController()
    const calls = [first, second].map(({ signal }) =>
      chat(ask("fake/endless", "Hello!"), { signal }).then(() => "answered", () => "gone")
    )
    await until(async () => (await health("fake/endless#0"))?.queued === 1 || undefined)
    first.abort()
    second.abort()
    assert.deepStrictEqual(await Promise.all(calls), ["gone", "gone"])
    await until(async () => await running("fake/endless#0") === 0 ? true : undefined)
  })
})

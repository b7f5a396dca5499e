/** Fields that reach a provider unchanged, and fields that are rejected since no deployment supports them. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }

const openAiAnswer = JSON.stringify({
  choices: [{ index: 0, message: { role: "assistant", content: "A cat." }, finish_reason: "stop" }],
  usage: {
    prompt_tokens: 20,
    completion_tokens: 9,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: { reasoning_tokens: 6 }
  }
})

const ollamaAnswer = JSON.stringify({
  message: { role: "assistant", content: "A cat." },
  done: true,
  done_reason: "stop",
  prompt_eval_count: 3,
  eval_count: 2
})

const picture = Buffer.from("as good as a picture")
const pictures = createServer((_, response) => {
  response.writeHead(200, { "content-type": "image/png" }).end(picture)
})

let upstream: FaultServer
let service: Service
let pictureUrl: URL

const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname

beforeAll(async () => {
  upstream = await startFaultServer((_, { path }) => ({
    headers: json,
    pieces: [path === "/api/chat" ? ollamaAnswer : openAiAnswer]
  }))
  pictures.listen(0, "127.0.0.1")
  await once(pictures, "listening")
  pictureUrl = new URL(`http://127.0.0.1:${(pictures.address() as AddressInfo).port}/cat.png`)
  service = await startService(`
server: { media: { allowHosts: [127.0.0.1] } }
models:
  fake/blind:
    deployments: [{ engine: fake }]
  mixed:
    preload: false
    strategy: round-robin
    deployments:
      - { engine: llama, file: ${tinyChat} }
      - { provider: openai, model: gpt, baseUrl: "${upstream.url}", stream: false }
      - { provider: ollama, model: llava, baseUrl: "${upstream.url}", stream: false, abilities: [generate] }
  remotes:
    strategy: round-robin
    deployments:
      - { provider: openai, model: gpt, baseUrl: "${upstream.url}", stream: false }
      - { provider: ollama, model: llava, baseUrl: "${upstream.url}", stream: false, abilities: [generate] }
  toolless:
    deployments:
      - { provider: openai, model: gpt, baseUrl: "${upstream.url}", stream: false, abilities: [generate] }
  ollama:
    deployments: [{ provider: ollama, model: llava, baseUrl: "${upstream.url}", stream: false }]
`)
})

afterAll(async () => {
  await service.stop()
  await upstream.close()
  pictures.close()
})

interface Answer {
  readonly choices: ReadonlyArray<{ readonly message: { readonly content: string } }>
  readonly usage: object
  readonly error?: { readonly message: string; readonly param: string | null; readonly type: string }
}

const ask = async (model: string, fields: object) => {
  const messages = [{ role: "user", content: "What is the capital of Japan?" }]
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: json,
    body: JSON.stringify({ model, messages, temperature: 0, ...fields })
  })
  return { status: response.status, body: await response.json() as Answer }
}

const sentLast = () => upstream.seen.at(-1)?.body as Record<string, ReadonlyArray<Record<string, unknown>>>

const showing = (url: string) => ({
  messages: [{ role: "user", content: [{ type: "text", text: "What?" }, { type: "image_url", image_url: { url } }] }]
})

const data = `data:image/png;base64,${picture.toString("base64")}`

describe("images", () => {
  it("go to the deployment with image input, whichever is next", async () => {
    for (let turn = 0; turn < 4; turn++) {
      const { body, status } = await ask("mixed", showing(data))
      assert.deepStrictEqual([status, body.choices[0]?.message.content], [200, "A cat."])
      assert.deepStrictEqual(sentLast()["messages"], showing(data).messages)
    }
  })

  it("are rejected by the path of the image if no deployment has image input", async () => {
    const { body, status } = await ask("fake/blind", showing(data))
    assert.deepStrictEqual([status, body.error?.param], [400, "messages[0].content[1]"])
    assert.match(body.error?.message ?? "", /No deployment of "fake\/blind" .*image input/)
  })

  it("that are invalid are rejected by their path", async () => {
    for (const url of ["data:image/tiff;base64,AAAA", "data:image/png;base64,???", "ftp://example.com/cat.png"]) {
      const { body, status } = await ask("mixed", showing(url))
      assert.deepStrictEqual([status, body.error?.param], [400, "messages[0].content[1].image_url.url"], url)
    }
  })

  it("by URL are fetched for a provider that needs bytes, from public or allowed hosts", async () => {
    const { body, status } = await ask("ollama", showing(pictureUrl.href))
    assert.deepStrictEqual([status, body.choices[0]?.message.content], [200, "A cat."])
    assert.deepStrictEqual(sentLast()["messages"], [
      { role: "user", content: "What?", images: [picture.toString("base64")] }
    ])
    const asked = upstream.seen.length
    for (const model of ["ollama", "mixed"]) {
      const refused = await ask(model, showing(pictureUrl.href.replace("127.0.0.1", "localhost")))
      assert.deepStrictEqual(
        [refused.status, refused.body.error?.param],
        [400, "messages[0].content[1].image_url.url"]
      )
    }
    assert.strictEqual(upstream.seen.length, asked)
  })
})

describe("tools with tool_choice none", () => {
  const tools = [{ type: "function", function: { name: "f", strict: true, parameters: { type: "object" } } }]

  it("are removed for a model without tools, and kept for a model with tools", async () => {
    const { body, status } = await ask("toolless", { tools, tool_choice: "none" })
    assert.deepStrictEqual([status, body.choices?.[0]?.message.content], [200, "A cat."])
    assert.doesNotHaveAnyKeys(sentLast(), ["tools", "tool_choice"])
    assert.strictEqual((await ask("remotes", { tools, tool_choice: "none", store: true })).status, 200)
    assert.deepInclude<object>(sentLast(), { tools, tool_choice: "none" })
  })

  it("are rejected by name if they may be called", async () => {
    for (const tool_choice of ["auto", "required"]) {
      const { body, status } = await ask("toolless", { tools, tool_choice })
      assert.deepStrictEqual([status, body.error?.param], [400, "tools"])
    }
  })
})

describe("unknown fields", () => {
  const fields = {
    store: true,
    metadata: { a: "b" },
    reasoning_effort: "low",
    a_field_of_tomorrow: { deep: [1, { er: null }] },
    tools: [{ type: "function", function: { name: "f", strict: true, parameters: { type: "object" } } }]
  }

  it("reach a deployment of the caller's dialect unchanged", async () => {
    for (let turn = 0; turn < 3; turn++) {
      const { body, status } = await ask("remotes", fields)
      assert.strictEqual(status, 200, JSON.stringify(body))
      assert.deepInclude<object>(sentLast(), fields)
    }
  })

  it("reach one of a model with a local deployment only if the request names it, or has more that is remote", async () => {
    const sent = upstream.seen.length
    const { body, status } = await ask("mixed", fields)
    const expected = [400, "a_field_of_tomorrow", "invalid_request_error"]
    assert.deepStrictEqual([status, body.error?.param, body.error?.type], expected)
    assert.include(body.error?.message, "on this machine")
    assert.strictEqual(upstream.seen.length, sent)
    for (const more of [{ troupe: { deployments: ["mixed#1", "mixed#2"] } }, showing(data)]) {
      assert.strictEqual((await ask("mixed", { ...fields, ...more })).status, 200)
      assert.deepInclude<object>(sentLast(), fields)
    }
  })

  it("are rejected by name if no deployment has the dialect; hints are ignored", async () => {
    for (const model of ["fake/blind", "ollama"]) {
      const { body, status } = await ask(model, { prediction: {}, audio: {} })
      assert.deepStrictEqual([status, body.error?.param, body.error?.type], [
        400,
        "prediction",
        "invalid_request_error"
      ])
      assert.include(body.error?.message ?? "", "audio")
      const hints = {
        store: true,
        metadata: { a: "b" },
        service_tier: "flex",
        verbosity: "low",
        user: "ann",
        safety_identifier: "ann",
        prompt_cache_key: "k",
        repetition_penalty: 1.1,
        reasoning_effort: "low"
      }
      const hinted = await ask(model, hints)
      assert.strictEqual(hinted.status, 200, JSON.stringify(hinted.body))
    }
  })

  it("do not affect requests without them", async () => {
    const before = upstream.seen.length
    for (let turn = 0; turn < 3; turn++) assert.strictEqual((await ask("mixed", {})).status, 200)
    assert.strictEqual(upstream.seen.length - before, 2)
  })
})

describe("usage", () => {
  it("includes a provider's cached and reasoning tokens", async () => {
    const { body } = await ask("remotes", { store: true })
    assert.deepStrictEqual(body.usage, {
      prompt_tokens: 20,
      completion_tokens: 9,
      total_tokens: 29,
      prompt_tokens_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 6 }
    })
  })
})

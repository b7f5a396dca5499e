import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const yaml = `
models:
  fake/chain:
    preload: false
    policy: by-price
    deployments:
      - { engine: fake, reply: the first answers, quality: 0.9, fault: { kind: error, trigger: fail early } }
      - { engine: fake, reply: the second answers, quality: 0.8 }
  fake/cut:
    preload: false
    deployments:
      - { engine: fake, reply: one two three four, fault: { kind: error, afterTokens: 3 } }
  fake/stood-in:
    preload: false
    fallbacks: [tiny-chat]
    deployments:
      - { engine: fake, fault: { kind: error } }
  fake/narrow:
    preload: false
    contextFallbacks: [tiny-chat]
    deployments:
      - { engine: fake, contextSize: 10 }
  fake/broken:
    preload: false
    deployments:
      - { engine: fake, fault: { kind: error } }
  tiny-chat:
    deployments: [{ engine: llama, file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname} }]
policies:
  by-price: { strategy: quality, retries: 0 }
`

let service: Service

beforeAll(async () => {
  service = await startService(yaml)
})

afterAll(() => service.stop())

const ask = (model: string, content: string, stream = false) =>
  fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content }], temperature: 0, stream })
  })

const contentOf = async (response: Response): Promise<string | undefined> => {
  const body = await response.json() as {
    readonly choices?: ReadonlyArray<{ readonly message: { readonly content: string } }>
  }
  return body.choices?.[0]?.message.content
}

/** The content of an answer or of a complete stream. */
const streamed = async (response: Response): Promise<string> =>
  [...(await response.text()).matchAll(/"content":"([^"]*)"/g)].map(([, text]) => text).join("")

const japan = "What is the capital of Japan?"

describe("a failing deployment", () => {
  for (const stream of [false, true]) {
    const read = stream ? streamed : contentOf
    const how = stream ? "streaming" : "buffered"

    it(`is replaced by the model's next deployment before any content, ${how}`, async () => {
      assert.strictEqual(await read(await ask("fake/chain", "Hello", stream)), "the first answers")
      assert.strictEqual(await read(await ask("fake/chain", "fail early", stream)), "the second answers")
    })

    it(`is replaced by the fallback model, ${how}`, async () => {
      assert.strictEqual(await read(await ask("fake/stood-in", japan, stream)), "The capital of Japan is Tokyo.")
    })

    it(`whose window is too small is replaced by the context fallback, ${how}`, async () => {
      assert.strictEqual(await read(await ask("fake/narrow", japan, stream)), "The capital of Japan is Tokyo.")
    })
  }

  it("ends a started stream with an error, without text of another deployment", async () => {
    const text = await (await ask("fake/cut", "Hello", true)).text()
    assert.include(text, "engine_failed")
    assert.notInclude(text, "[DONE]")
    assert.notInclude(text, "four")
  })

  it("has an open circuit after 5 consecutive failures, with the time to wait", async () => {
    for (let index = 0; index < 5; index++) assert.strictEqual((await ask("fake/broken", "Hello")).status, 500)
    const refused = await ask("fake/broken", "Hello")
    assert.strictEqual(refused.status, 503)
    assert.isAbove(Number(refused.headers.get("retry-after")), 0)
    assert.include(await refused.text(), "its circuit is open after 5 consecutive failures")
  })
})

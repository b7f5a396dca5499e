import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { resume, startService, suspend, until } from "../support/Service.ts"

const yaml = `
memory:
  budget: 1 GiB
  hold: 200 millis
policies:
  once: { retries: 0 }
models:
  tiny-chat:
    pinned: true
    deployments:
      - engine: llama
        file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname}
        slots: 4
  fake/one:
    preload: false
    deployments: [{ engine: fake, reply: one, memory: 600 MiB, tokenDelayMs: 1 }]
  fake/two:
    preload: false
    deployments: [{ engine: fake, reply: two, memory: 600 MiB, tokenDelayMs: 1 }]
  fake/huge:
    preload: false
    deployments: [{ engine: fake, memory: 2 GiB }]
  fake/narrow:
    preload: false
    queueLimit: 2
    deployments: [{ engine: fake, slots: 1, reply: an answer of several tokens }]
  fake/hung:
    preload: false
    policy: once
    stallAfter: 5 seconds
    deployments:
      - engine: fake
        reply: fine
        fault: { kind: hang, trigger: please hang }
`

let service: Service

beforeAll(async () => {
  service = await startService(yaml)
})

afterAll(() => service.stop())

interface Answer {
  readonly status: number
  readonly retryAfter: string | null
  readonly body: {
    readonly choices?: ReadonlyArray<{ readonly message: { readonly content: string } }>
    readonly error?: { readonly code: string; readonly message: string }
  }
}

const ask = async (model: string, content = "Hello", caller = "someone"): Promise<Answer> => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${caller}` },
    body: JSON.stringify({ model, messages: [{ role: "user", content }], temperature: 0 })
  })
  return {
    status: response.status,
    retryAfter: response.headers.get("retry-after"),
    body: await response.json() as Answer["body"]
  }
}

const contentOf = ({ body }: Answer) => body.choices?.[0]?.message.content

describe("actors behind HTTP", () => {
  it("answer 200 callers of a model with 4 slots", async () => {
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, index) => ask("tiny-chat", `What is ${index % 10} + 5?`))
    )
    assert.deepStrictEqual(
      answers.map(contentOf),
      answers.map((_, index) => `${index % 10} + 5 = ${index % 10 + 5}.`)
    )
  })

  it("answer callers of two models that do not fit into memory together", async () => {
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, index) => ask(index % 2 === 0 ? "fake/one" : "fake/two"))
    )
    assert.deepStrictEqual(answers.map(contentOf), answers.map((_, index) => index % 2 === 0 ? "one" : "two"))
  })

  it("refuse a model that exceeds the memory, with the needed and the available memory", async () => {
    const { body, status } = await ask("fake/huge")
    assert.strictEqual(status, 503)
    assert.strictEqual(body.error?.code, "insufficient_memory")
    assert.match(body.error?.message ?? "", /needs 2048 MiB of memory, and at most \d+ MiB can be free/)
  })

  it("refuse a request beyond the queue limit with Retry-After, and accept the next after a slot is free", async () => {
    const before = service.engines()
    assert.strictEqual((await ask("fake/narrow")).status, 200)
    const engines = service.engines().filter((pid) => !before.includes(pid))
    suspend(engines)
    const refused: Array<Answer> = []
    const callers = ["other", ...Array.from({ length: 8 }, () => "flood")].map(async (caller) => {
      const answer = await ask("fake/narrow", "Hello", caller)
      if (answer.status !== 200) refused.push(answer)
      return answer
    })
    // One runs and two wait.
    await until(() => refused.length === callers.length - 3 || undefined)
    resume(engines)
    const [other] = await Promise.all(callers)
    assert.lengthOf(refused, callers.length - 3)
    for (const { body, retryAfter, status } of refused) {
      assert.strictEqual(status, 429)
      assert.strictEqual(body.error?.code, "queue_full")
      assert.isAtLeast(Number(retryAfter), 1)
    }
    assert.strictEqual(other!.status, 200)
  })

  it("end an engine that hangs, and answer with the next", async () => {
    const { body, status } = await ask("fake/hung", "please hang")
    assert.strictEqual(status, 503)
    assert.strictEqual(body.error?.code, "engine_hung")
    assert.strictEqual(contentOf(await ask("fake/hung")), "fine")
  })
})

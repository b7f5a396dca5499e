/** The events that tell the caller of a stream where its request waits. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const messages = [{ role: "user" as const, content: "Hello" }]

/** The request of each dialect. */
const dialects = {
  chat: { path: "/v1/chat/completions", body: { messages } },
  "several choices": { path: "/v1/chat/completions", body: { messages, n: 2 } },
  completions: { path: "/v1/completions", body: { prompt: "Hello" } },
  Responses: { path: "/v1/responses", body: { input: "Hello" } },
  Messages: { path: "/v1/messages", body: { messages, max_tokens: 5 } }
}
const cases = Object.entries(dialects).map(([name, dialect], index) => ({
  name,
  loading: `fake/loads-${index}`,
  ...dialect
}))

/** A load or a slot that is held ends when the test says so, by a caller who leaves. */
const yaml = `
server: { streamKeepAlive: false, shutdownGrace: false }
models:
${
  cases.map(({ loading }) =>
    `  ${loading}:
    preload: false
    deployments: [{ engine: fake, loadDelayMs: 1000000 }]`
  ).join("\n")
}
  fake/refused:
    preload: false
    queueLimit: 1
    deployments: [{ engine: fake, loadDelayMs: 1000000 }]
  fake/one:
    preload: false
    deployments: [{ engine: fake, slots: 1, tokenDelayMs: 20, reply: "${"one ".repeat(10_000)}", contextSize: 100000 }]
`

let service: Service
beforeAll(async () => {
  service = await startService(yaml)
}, 60_000)
afterAll(() => service.stop())

interface Asked {
  readonly path: string
  readonly body: object
}

const ask = ({ body, path }: Asked, model: string, { progress, signal }: { progress?: string; signal?: AbortSignal }) =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(progress === undefined ? {} : { "x-troupe-progress": progress })
    },
    body: JSON.stringify({ ...body, model, stream: true }),
    ...(signal === undefined ? {} : { signal })
  })

const readUntil = async (response: Response, isThere: (text: string) => boolean): Promise<string> => {
  let text = ""
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece
    if (isThere(text)) return text
  }
  return assert.fail(`The stream ended: ${text}`)
}

interface Progress {
  readonly type: string
  readonly model: string
  readonly deployment: string
  readonly state: string
  readonly progress: number | null
  readonly position: number
  readonly waitedMs: number
}

/** The data of the events; the text has no other frame. */
const eventsIn = (text: string): ReadonlyArray<Progress> =>
  text.split("\n\n").slice(0, -1).map((frame) => {
    assert.match(frame, /^event: troupe\.progress\ndata: /)
    return JSON.parse(frame.slice(frame.indexOf("{"))) as Progress
  })

const statusOf = async (id: string) => {
  const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
    readonly deployments: ReadonlyArray<{
      readonly deployment: string
      readonly queued: number
      readonly running: number
    }>
  }
  return deployments.find(({ deployment }) => deployment === id)
}

const isQueued = (id: string, count: number) =>
  until(async () => ((await statusOf(id))?.queued ?? 0) === count ? true : undefined)

/** Holds the slot of `fake/one` until it is told to stop. */
const holdSlot = async () => {
  const controller = new AbortController()
  const response = await ask(dialects.chat, "fake/one", { signal: controller.signal })
  return async () => {
    controller.abort()
    await response.text().catch(() => {})
  }
}

describe.concurrent.each(cases)("a stream of $name that asks", (dialect) => {
  it("is told of the load, with status 200 and nothing else", async () => {
    const controller = new AbortController()
    const response = await ask(dialect, dialect.loading, { progress: "true", signal: controller.signal })
    assert.strictEqual(response.status, 200)
    assert.match(response.headers.get("content-type")!, /^text\/event-stream/)
    const events = eventsIn(await readUntil(response, (text) => text.split("\n\n").length >= 3))
    const [first, second] = events as unknown as [Progress, Progress]
    const { position: _, waitedMs: __, ...rest } = first
    assert.deepStrictEqual(rest, {
      type: "troupe.progress",
      model: dialect.loading,
      deployment: `${dialect.loading}#0`,
      state: "loading",
      progress: null
    })
    assert.strictEqual(first.position, 1)
    assert.isAbove(second.waitedMs, first.waitedMs)
    controller.abort()
    await isQueued(`${dialect.loading}#0`, 0)
  })
})

describe("a stream in a queue", () => {
  it("is told its position, which falls, and then has its answer without events", async () => {
    const release = await holdSlot()
    const [first, second] = [new AbortController(), new AbortController()]
    const before = ask(dialects.chat, "fake/one", { signal: first.signal }).catch(() => {})
    await isQueued("fake/one#0", 1)
    const response = await ask(dialects.Messages, "fake/one", { progress: "true", signal: second.signal })
    let isNext = false
    const text = await readUntil(response, (text) => {
      if (!isNext && text.includes(`"position":2`)) first.abort()
      if (!isNext && text.includes(`"position":1`)) {
        isNext = true
        void release()
      }
      return text.includes("message_stop")
    })
    await before
    const [waited, answer] = [
      text.slice(0, text.indexOf("event: message_start")),
      text.slice(text.indexOf("event: message_start"))
    ]
    assert.deepStrictEqual([...new Set(eventsIn(waited).map(({ position }) => position))], [2, 1])
    assert.include(waited, `"state":"queued"`)
    assert.notInclude(answer, "troupe.progress")
    assert.include(answer, "one")
  })

  it("is ignored by the client of Anthropic, and is a chunk without choices for the one of OpenAI", async () => {
    const release = await holdSlot()
    const defaultHeaders = { "x-troupe-progress": "true" }
    const anthropic = new Anthropic({ baseURL: service.url, apiKey: "none", defaultHeaders, maxRetries: 0 })
    const openai = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", defaultHeaders, maxRetries: 0 })
    const text = anthropic.messages.stream({ model: "fake/one", messages, max_tokens: 5 }).finalText()
    await isQueued("fake/one#0", 1)
    const chunks = await openai.chat.completions.create({ model: "fake/one", messages, max_tokens: 5, stream: true })
    const types = new Set<unknown>()
    for await (const chunk of chunks) {
      if (types.size === 0) await release()
      types.add((chunk as { readonly type?: string }).type)
    }
    assert.deepStrictEqual([...types], ["troupe.progress", undefined])
    assert.include(await text, "one")
  })
})

describe("a request that does not ask", () => {
  it("has no events: false is as no header", async () => {
    const release = await holdSlot()
    const plain = ask({ path: "/v1/messages", body: dialects.Messages.body }, "fake/one", { progress: "false" })
    await isQueued("fake/one#0", 1)
    const asking = await ask(dialects.Messages, "fake/one", { progress: "true" })
    await readUntil(asking, (text) => text.includes("troupe.progress"))
    await release()
    assert.isTrue((await (await plain).text()).startsWith("event: message_start"))
  })

  it("is refused with another value", async () => {
    const response = await ask(dialects.chat, "fake/one", { progress: "yes" })
    assert.strictEqual(response.status, 400)
    assert.include(await response.text(), `x-troupe-progress: Expected true or false, not \\"yes\\"`)
  })

  it("has no events in Ollama's API, whose lines have no room for them", async () => {
    const release = await holdSlot()
    const waiting = ask({ path: "/api/chat", body: { messages, options: { num_predict: 3 } } }, "fake/one", {
      progress: "true"
    })
    await isQueued("fake/one#0", 1)
    const asking = await ask(dialects.Messages, "fake/one", { progress: "true" })
    await readUntil(asking, (text) => text.includes("troupe.progress"))
    await release()
    assert.notInclude(await (await waiting).text(), "progress")
  })
})

describe("a full queue", () => {
  it("has its own status, before any event", async () => {
    const controller = new AbortController()
    const waiting = ask(dialects.chat, "fake/refused", { signal: controller.signal }).catch(() => {})
    await isQueued("fake/refused#0", 1)
    for (const dialect of cases) {
      assert.strictEqual((await ask(dialect, "fake/refused", { progress: "true" })).status, 429)
    }
    controller.abort()
    await waiting
  })
})

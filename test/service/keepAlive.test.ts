/** Streams that wait: for a slot, for a load, or between two tokens. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const models = `
models:
  fake/slow:
    preload: false
    deployments: [{ engine: fake, tokenDelayMs: 300, reply: one one one one one one one one one one one }]
  fake/silent:
    preload: false
    deployments: [{ engine: fake, slots: 8, promptDelayMs: 10000 }]
  fake/one:
    preload: false
    deployments: [{ engine: fake, slots: 1, tokenDelayMs: 200, reply: one one one one one one one one one one one }]
  fake/broken:
    preload: false
    deployments: [{ engine: fake, loadDelayMs: 400, fault: { kind: load } }]
  fake/late:
    preload: false
    deployments: [{ engine: fake, promptDelayMs: 400, reply: late }]
policies: { default: { retries: 0 } }
`

let service: Service
let quiet: Service
beforeAll(async () => {
  service = await startService(`server: { streamKeepAlive: 50 millis, shutdownGrace: false }\n${models}`)
  quiet = await startService(`server: { streamKeepAlive: false, shutdownGrace: false }\n${models}`)
}, 60_000)
afterAll(() => Promise.all([service.stop(), quiet.stop()]))

const messages = [{ role: "user", content: "Hello" }]

/** The request of each dialect, and the frame without content. */
const dialects = {
  chat: { path: "/v1/chat/completions", body: { messages }, frame: ": keep-alive\n\n" },
  "several choices": { path: "/v1/chat/completions", body: { messages, n: 2 }, frame: ": keep-alive\n\n" },
  Responses: { path: "/v1/responses", body: { input: "Hello" }, frame: ": keep-alive\n\n" },
  Messages: {
    path: "/v1/messages",
    body: { messages, max_tokens: 100 },
    frame: "event: ping\ndata: {\"type\":\"ping\"}\n\n"
  }
}
const cases = Object.entries(dialects).map(([name, dialect]) => ({ name, ...dialect }))
type Case = typeof cases[number]

const ask = ({ body, path }: Pick<Case, "body" | "path">, model: string, init: RequestInit = {}, at = service) =>
  fetch(`${at.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, model, stream: true }),
    ...init
  })

/** Reads until the text has what is looked for, and leaves. */
const readUntil = async (response: Response, isThere: (text: string) => boolean): Promise<string> => {
  let text = ""
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece
    if (isThere(text)) return text
  }
  return assert.fail(`The stream ended: ${text}`)
}

const countOf = (text: string, piece: string): number => text.split(piece).length - 1

describe.concurrent.each(cases)("a stream of $name", (dialect) => {
  it("is kept alive before its first content", async () => {
    const response = await ask(dialect, "fake/silent")
    assert.strictEqual(response.status, 200)
    assert.match(response.headers.get("content-type")!, /^text\/event-stream/)
    const text = await readUntil(response, (text) => countOf(text, dialect.frame) === 3)
    assert.strictEqual(text, dialect.frame.repeat(3))
  })

  it("is kept alive between two pieces, with frames that are complete", async () => {
    const { frame } = dialect
    const isThere = (text: string) => text.includes("one") && text.endsWith(frame.repeat(2))
    const text = await readUntil(await ask(dialect, "fake/slow"), isThere)
    for (const { index } of text.matchAll(/event: ping|: keep-alive/g)) {
      assert.isTrue(index === 0 || text.slice(index - 2, index) === "\n\n")
    }
  })

  it("has its content after the frames without", async () => {
    const response = await ask(dialect, "fake/late")
    assert.isNotNull(response.headers.get("x-request-id"))
    const text = await response.text()
    assert.isTrue(text.startsWith(dialect.frame))
    assert.include(text, "lat")
  })

  it("ends with an error frame if it fails after them", async () => {
    const response = await ask(dialect, "fake/broken")
    assert.strictEqual(response.status, 200)
    const text = await response.text()
    assert.isTrue(text.startsWith(dialect.frame))
    assert.include(text, "could not be loaded")
    // A failed response is a complete stream.
    assert.strictEqual(text.includes("[DONE]"), dialect.path === "/v1/responses")
  })

  it("has the status of its failure if keep-alive is off", async () => {
    const response = await ask(dialect, "fake/broken", {}, quiet)
    assert.isAtLeast(response.status, 500)
    assert.include(await response.text(), "could not be loaded")
  })
})

describe("a stream of Ollama's API", () => {
  it("has no frames without content: its status tells the failure", async () => {
    const response = await ask({ path: "/api/chat", body: { messages } }, "fake/broken")
    assert.strictEqual(response.status, 503)
  })
})

describe("a caller who leaves", () => {
  it("leaves the queue, after frames without content too", async () => {
    const queued = async (): Promise<number> => {
      const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
        readonly deployments: ReadonlyArray<{ readonly deployment: string; readonly queued: number }>
      }
      return deployments.find(({ deployment }) => deployment === "fake/one#0")?.queued ?? 0
    }
    const left = async (controller: AbortController, response: Response) => {
      controller.abort()
      await response.text().catch(() => {})
    }
    const [first, second] = [new AbortController(), new AbortController()]
    const running = await ask(dialects.chat, "fake/one", { signal: first.signal })
    const waiting = await ask(dialects.chat, "fake/one", { signal: second.signal })
    await until(async () => await queued() === 1 ? true : undefined)
    await left(second, waiting)
    await until(async () => await queued() === 0 ? true : undefined)
    await left(first, running)
  })
})

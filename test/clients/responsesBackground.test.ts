/** Responses that are streamed in the background, with the `openai` package's client: read again, from an event on, and cancelled. */
import { assert } from "@effect/vitest"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import OpenAI from "openai"
import type { ResponseStreamEvent } from "openai/resources/responses/responses"
import { afterAll, beforeAll, describe, it } from "vitest"
import { checkEvents } from "../support/OpenResponses.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const folder = mkdtempSync(join(tmpdir(), "troupe-background-"))
const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname
const yaml = `
storage: { type: sqlite, folder: ${JSON.stringify(folder)} }
models:
  tiny-chat: { deployments: [{ engine: llama, file: ${tinyChat} }] }
  fake/endless: { deployments: [{ engine: fake, reply: "${"word ".repeat(2000)}", tokenDelayMs: 300, slots: 1 }] }
  fake/failing: { deployments: [{ engine: fake, reply: hi, fault: { kind: error } }] }
  fake/broken: { deployments: [{ engine: fake, reply: "one two three", fault: { kind: error, afterTokens: 2 } }] }
`

let service: Service
let client: OpenAI
const start = async () => {
  service = await startService(yaml)
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}
beforeAll(start, 60_000)
afterAll(async () => {
  await service.stop()
  rmSync(folder, { recursive: true, force: true })
})

type Events = ReadonlyArray<ResponseStreamEvent>

const eventsOf = async (stream: AsyncIterable<ResponseStreamEvent>): Promise<Events> => {
  const events: Array<ResponseStreamEvent> = []
  for await (const event of stream) events.push(event)
  return events
}

const question = { model: "tiny-chat", input: "What color is snow?", temperature: 0, background: true } as const

const endless = () => client.responses.create({ model: "fake/endless", input: "Hi", background: true, stream: true })

/** Reads events until the first text, and leaves. */
const begin = async () => {
  const events: Array<ResponseStreamEvent> = []
  for await (const event of await endless()) {
    events.push(event)
    if (event.type === "response.output_text.delta") break
  }
  const [created] = events
  if (created?.type !== "response.created") return assert.fail("The first event is not response.created.")
  return { id: created.response.id, last: events.at(-1)! }
}

const fails = async (call: PromiseLike<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> => {
  const error = await call.then(() => assert.fail("answered"), (cause: unknown) => cause)
  assert.instanceOf(error, OpenAI.APIError)
  return error
}

describe("a response that is streamed in the background", () => {
  it("is streamed to its end, and again from any event on, also after a restart", async () => {
    const events = await eventsOf(await client.responses.create({ ...question, stream: true }))
    assert.deepStrictEqual(events.slice(0, 3).map(({ type }) => type), [
      "response.created",
      "response.queued",
      "response.in_progress"
    ])
    const last = events.at(-1)!
    assert.strictEqual(last.type, "response.completed")
    checkEvents([events[0]!, ...events.slice(2)].map((event, index) => ({ ...event, sequence_number: index })))
    assert.deepStrictEqual(events.map((event) => event.sequence_number), [...events.keys()])
    const { id } = (last as Extract<ResponseStreamEvent, { type: "response.completed" }>).response
    const again = await client.responses.retrieve(id, { stream: true })
    assert.deepStrictEqual(await eventsOf(again), events)
    await service.stop()
    await start()
    for (const starting_after of [0, 2, 5, events.length - 2, events.length - 1]) {
      const rest = await eventsOf(await client.responses.retrieve(id, { stream: true, starting_after }))
      assert.deepStrictEqual(rest, events.slice(starting_after + 1))
    }
    const stored = await client.responses.retrieve(id)
    assert.strictEqual(stored.status, "completed")
    assert.include(stored.output_text, "white")
  }, 60_000)

  it("goes on without its client, and is cancelled while it runs", async () => {
    const { id, last } = await begin()
    const followed = client.responses.retrieve(id, { stream: true, starting_after: last.sequence_number })
    const following = eventsOf(await followed)
    assert.strictEqual((await client.responses.retrieve(id)).status, "in_progress")
    const cancelled = await client.responses.cancel(id)
    assert.strictEqual(cancelled.status, "cancelled")
    const numbers = (await following).map((event) => event.sequence_number)
    assert.deepStrictEqual(numbers, numbers.map((_, index) => last.sequence_number + 1 + index))
    assert.strictEqual((await client.responses.retrieve(id)).status, "cancelled")
    // The only slot is free again: the response would take ten minutes.
    const next = await begin()
    await client.responses.cancel(next.id)
  }, 60_000)

  it("is cancelled while it runs without a stream", async () => {
    const queued = await client.responses.create({ model: "fake/endless", input: "Hi", background: true })
    await until(async () => (await client.responses.retrieve(queued.id)).status === "in_progress" ? true : undefined)
    assert.strictEqual((await client.responses.cancel(queued.id)).status, "cancelled")
    assert.strictEqual((await client.responses.retrieve(queued.id)).status, "cancelled")
  }, 60_000)

  it("has the name of the model that answered", async () => {
    const fallbacks = { troupe: { fallbacks: ["tiny-chat"] } }
    const body = { ...question, ...fallbacks, model: "fake/failing", stream: true } as const
    const last = (await eventsOf(await client.responses.create(body))).at(-1)!
    if (last.type !== "response.completed") return assert.fail(JSON.stringify(last))
    assert.strictEqual(last.response.model, "tiny-chat")
    assert.strictEqual((await client.responses.retrieve(last.response.id)).model, "tiny-chat")
  })

  it("ends with its failure", async () => {
    const body = { model: "fake/broken", input: "Hi", background: true, stream: true } as const
    const stream = await client.responses.create(body)
    const types: Array<string> = []
    let id = ""
    const error = await fails((async () => {
      for await (const event of stream) {
        types.push(event.type)
        if (event.type === "response.created") ({ id } = event.response)
      }
    })())
    assert.isDefined(error)
    await until(async () => (await client.responses.retrieve(id)).status === "failed" ? true : undefined)
  })

  it("is refused from an event that is no number, and where there is no stream", async () => {
    const whole = await client.responses.create({ model: "tiny-chat", input: "Hi", temperature: 0 })
    const notStreamed = await fails(client.responses.retrieve(whole.id, { stream: true }))
    assert.strictEqual(notStreamed.status, 400)
    assert.strictEqual(notStreamed.param, "stream")
    const missing = await fails(client.responses.retrieve(`resp_${"0".repeat(22)}`, { stream: true }))
    assert.strictEqual(missing.status, 404)
    const wrong = { stream: true, starting_after: -5 } as const
    const { id } = await begin()
    assert.strictEqual((await fails(client.responses.retrieve(id, wrong))).param, "starting_after")
    const other = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "other", maxRetries: 0 })
    assert.strictEqual((await fails(other.responses.retrieve(id, { stream: true }))).status, 404)
    await client.responses.cancel(id)
  }, 60_000)
})

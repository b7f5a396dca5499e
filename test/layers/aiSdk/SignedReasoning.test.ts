/** Thinking with tools over `troupe/ai-sdk`: Anthropic refuses the second step without the signed blocks of the first one. */
import { assert } from "@effect/vitest"
import { generateText, isStepCount, jsonSchema, streamText, tool } from "ai"
import { once } from "node:events"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Readable } from "node:stream"
import { afterAll, beforeAll, describe, it } from "vitest"
import { createTroupe } from "../../../src/ai-sdk.ts"
import { Troupe } from "../../../src/index.ts"

type Block = Readonly<Record<string, unknown>>

interface Body {
  readonly stream?: boolean
  readonly messages: ReadonlyArray<{ readonly role: string; readonly content: ReadonlyArray<Block> }>
}

const signed: ReadonlyArray<Block> = [
  { type: "thinking", thinking: "I need the weather.", signature: "EqQBCgIYAhIM1gbcDa9GJwZA2b3h" },
  { type: "redacted_thinking", data: "EmwKAhgBEgy3va3pzix/LafPsn4a" },
  { type: "thinking", thinking: "", signature: "EqQBCgIYAhIMempty" }
]
const call: Block = { type: "tool_use", id: "toolu_1", name: "get_weather", input: { city: "Paris" } }
const first: ReadonlyArray<Block> = [...signed, { type: "text", text: "Let me look." }, call]
const second: ReadonlyArray<Block> = [{ type: "text", text: "It is sunny." }]

const messageOf = (content: ReadonlyArray<Block>) => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude",
  content,
  stop_reason: content === first ? "tool_use" : "end_turn",
  stop_sequence: null,
  usage: { input_tokens: 10, output_tokens: 8 }
})

/** The content of a block, as Anthropic streams it. */
const streamed = (block: Block): readonly [start: Block, ...deltas: ReadonlyArray<Block>] => {
  switch (block["type"]) {
    case "thinking": {
      const half = String(block["thinking"]).length / 2
      const pieces = [String(block["thinking"]).slice(0, half), String(block["thinking"]).slice(half)]
      return [
        { ...block, thinking: "", signature: "" },
        ...pieces.map((thinking) => ({ type: "thinking_delta", thinking })),
        { type: "signature_delta", signature: block["signature"] }
      ]
    }
    case "text":
      return [{ ...block, text: "" }, { type: "text_delta", text: block["text"] }]
    case "tool_use":
      return [{ ...block, input: {} }, { type: "input_json_delta", partial_json: JSON.stringify(block["input"]) }]
    default:
      return [block]
  }
}

const eventsOf = (content: ReadonlyArray<Block>): ReadonlyArray<Block> => {
  const { stop_reason, usage, ...message } = messageOf(content)
  return [
    { type: "message_start", message: { ...message, content: [], stop_reason: null, usage } },
    ...content.flatMap((block, index) => {
      const [start, ...deltas] = streamed(block)
      return [
        { type: "content_block_start", index, content_block: start },
        ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
        { type: "content_block_stop", index }
      ]
    }),
    { type: "message_delta", delta: { stop_reason }, usage },
    { type: "message_stop" }
  ]
}

const bodies: Array<Body> = []

/** Refuses a conversation without the signed blocks, unchanged and first, as Anthropic does. */
const answerRequest = async (request: IncomingMessage, response: ServerResponse) => {
  const text = await new Response(Readable.toWeb(request) as ReadableStream).text()
  const body = JSON.parse(text) as Body
  bodies.push(body)
  const earlier = body.messages.find(({ role }) => role === "assistant")
  const kept = earlier?.content.slice(0, signed.length)
  const isMaker = request.url?.startsWith("/other") === false
  if (isMaker && kept !== undefined && JSON.stringify(kept) !== JSON.stringify(signed)) {
    const message = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`."
    response.writeHead(400, { "content-type": "application/json" })
    return response.end(JSON.stringify({ type: "error", error: { type: "invalid_request_error", message } }))
  }
  const content = earlier === undefined ? first : second
  if (body.stream !== true) {
    response.setHeader("content-type", "application/json")
    return response.end(JSON.stringify(messageOf(content)))
  }
  response.setHeader("content-type", "text/event-stream")
  response.end(
    eventsOf(content).map((event) => `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`).join("")
  )
}
const provider = createServer((request, response) => void answerRequest(request, response))

let troupe: Troupe.Troupe
beforeAll(async () => {
  await once(provider.listen(0, "127.0.0.1"), "listening")
  const remote = {
    model: "claude-sonnet-4-5",
    baseUrl: `http://127.0.0.1:${(provider.address() as AddressInfo).port}`,
    key: "test",
    reasoning: true
  }
  troupe = Troupe.start({
    config: {
      models: {
        thinker: { deployments: [{ provider: "anthropic", ...remote }] },
        other: { deployments: [{ provider: "anthropic", ...remote, baseUrl: `${remote.baseUrl}/other` }] },
        cached: { deployments: [{ provider: "anthropic", ...remote }], cache: { when: "always", ttl: "1 minute" } },
        "tiny-chat": { deployments: [{ engine: "llama", file: "builtin:tiny-chat", threads: 1 }] }
      }
    }
  })
})
afterAll(async () => {
  await troupe.close()
  provider.close()
})

const stepsOf = (model: string) => ({
  model: createTroupe(troupe)(model),
  prompt: "What is the weather in Paris?",
  reasoning: "low" as const,
  maxRetries: 0,
  stopWhen: isStepCount(3),
  tools: {
    get_weather: tool({
      inputSchema: jsonSchema<{ readonly city: string }>({ type: "object", properties: { city: { type: "string" } } }),
      execute: () => "sunny"
    })
  }
})

const sent = () => bodies.at(-1)!.messages.find(({ role }) => role === "assistant")!.content

describe("signed reasoning", () => {
  it("is sent back, buffered and streamed, with its text for the reader", async () => {
    const { reasoningText, steps, text } = await generateText(stepsOf("thinker"))
    assert.deepStrictEqual([text, steps.length, reasoningText], ["It is sunny.", 2, undefined])
    assert.strictEqual(steps[0]!.reasoningText, "I need the weather.")
    assert.deepStrictEqual(sent(), first)

    const streaming = streamText(stepsOf("thinker"))
    assert.strictEqual(await streaming.text, "It is sunny.")
    assert.strictEqual((await streaming.steps)[0]!.reasoningText, "I need the weather.")
    assert.deepStrictEqual(sent(), first)
  })

  it("is sent back after an answer of the cache, whose blocks stay apart", async () => {
    await generateText({ ...stepsOf("cached"), temperature: 0 })
    const before = bodies.length
    for (const _ of [1, 2]) {
      const streaming = streamText({ ...stepsOf("cached"), temperature: 0 })
      assert.strictEqual(await streaming.text, "It is sunny.")
      const [step] = await streaming.steps
      const kept = step!.content.flatMap((part) =>
        part.type === "reasoning" ? [[part.text, part.providerMetadata]] : []
      )
      const { maker } = step!.content.find((part) => part.type === "reasoning")!.providerMetadata!["troupe"]!
      assert.match(maker as string, /^[0-9a-z]{5,7}$/)
      assert.deepStrictEqual(kept, [
        ["I need the weather.", { troupe: { signature: String(signed[0]!["signature"]), maker: maker! } }],
        ["", { troupe: { redactedData: String(signed[1]!["data"]), maker: maker! } }],
        ["", { troupe: { signature: String(signed[2]!["signature"]), maker: maker! } }]
      ])
    }
    assert.strictEqual(bodies.length, before)
  })

  it("of a conversation is left out for another host, which would reject it", async () => {
    const { messages } = (await generateText(stepsOf("thinker"))).steps[0]!.response
    const prompt = [{ role: "user" as const, content: "What is the weather in Paris?" }, ...messages]
    const { prompt: _, ...call } = stepsOf("thinker")
    await generateText({ ...call, messages: prompt })
    assert.deepStrictEqual(sent(), first)
    await generateText({ ...call, model: createTroupe(troupe)("other"), messages: prompt })
    assert.deepStrictEqual(sent(), first.slice(signed.length))
  })

  it("of a conversation is left out for a model of another dialect", async () => {
    const { messages } = (await generateText(stepsOf("thinker"))).steps[0]!.response
    const { reasoning: _, ...call } = stepsOf("thinker")
    const local = await generateText({ ...call, model: createTroupe(troupe)("tiny-chat"), prompt: messages })
    assert.notStrictEqual(local.text, "")
  })
})

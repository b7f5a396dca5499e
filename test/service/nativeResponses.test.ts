/** Requests of the Responses API at a provider with that API, by the unmodified client: its own items and events arrive. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import type { Response, ResponseStreamEvent } from "openai/resources/responses/responses"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Fields } from "../support/Answers.ts"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Answered } from "../support/ResponsesProvider.ts"
import { call, message, play, reasoning, refusal, search } from "../support/ResponsesProvider.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }

const chatOf = (text: string, stream: boolean): Play => {
  const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
  const chunk = (delta: Fields, finish_reason: string | null, more: Fields = {}) =>
    `data: ${
      JSON.stringify({
        id: "c",
        object: "chat.completion.chunk",
        choices: [{ index: 0, delta, finish_reason }],
        ...more
      })
    }\n\n`
  return stream
    ? { pieces: [chunk({ role: "assistant", content: text }, null), chunk({}, "stop", { usage }), "data: [DONE]\n\n"] }
    : {
      headers: json,
      pieces: [JSON.stringify({
        id: "c",
        object: "chat.completion",
        choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }],
        usage
      })]
    }
}

/** What the provider answers, and after how many events it cuts a stream. */
let answered: Answered
let cutAfter: number | undefined
let failure: Play | undefined
let upstream: FaultServer
let service: Service
/** Another service, whose provider is the first one. */
let chained: Service
let client: OpenAI

const answer = (_: number, { body, path }: Seen): Play => {
  const stream = (body as { readonly stream?: boolean }).stream === true
  if (path.endsWith("/chat/completions")) return chatOf(" world", stream)
  return failure ?? play(answered, stream, cutAfter)
}

const clientOf = ({ url }: Service) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 })

beforeAll(async () => {
  upstream = await startFaultServer(answer)
  const own = `provider: openai, model: gpt-5, key: "\${K}", responses: true, price: { input: 10, output: 100 }`
  service = await startService(
    `
storage: { type: memory }
circuits: { failures: 1000 }
guard: { rules: { email: redact } }
policies:
  default: { strategy: quality, retries: 0, continue: true }
models:
  own: { deployments: [{ ${own}, baseUrl: "${upstream.url}/own" }] }
  cached: { cache: { when: always }, deployments: [{ ${own}, baseUrl: "${upstream.url}/own" }] }
  azure:
    deployments:
      - { provider: azure-openai, model: gpt-5, key: "\${K}", responses: true, baseUrl: "${upstream.url}/azure" }
  chat: { deployments: [{ provider: openai, model: m, baseUrl: "${upstream.url}/chat" }] }
  fake/chat: { deployments: [{ engine: fake, reply: "Snow is white." }] }
  both:
    deployments:
      - { ${own}, baseUrl: "${upstream.url}/own", quality: 0.9 }
      - { provider: openai, model: m, baseUrl: "${upstream.url}/chat", quality: 0.1 }
`,
    { K: "key" }
  )
  const through = `provider: troupe, responses: true, baseUrl: "${service.url}/v1"`
  chained = await startService(`
storage: { type: memory }
models:
  own: { deployments: [{ ${through}, model: own }] }
  azure: { deployments: [{ ${through}, model: azure }] }
`)
  client = clientOf(service)
}, 60_000)

afterAll(async () => {
  await chained.stop()
  await service.stop()
  await upstream.close()
})

/** What the provider answers to the requests of a test. */
const at = async <A>(given: Answered, run: () => Promise<A>, cut?: number): Promise<A> => {
  answered = given
  cutAfter = cut
  failure = undefined
  return run()
}

/** The last request to the provider. */
const sent = () => upstream.seen.at(-1)!.body as Fields & { readonly input: ReadonlyArray<Fields> }

const eventsOf = async (stream: AsyncIterable<ResponseStreamEvent>): Promise<ReadonlyArray<ResponseStreamEvent>> => {
  const events: Array<ResponseStreamEvent> = []
  for await (const event of stream) events.push(event)
  return events
}

const responseIn = (events: ReadonlyArray<ResponseStreamEvent>): Response =>
  (events.at(-1) as ResponseStreamEvent & { readonly response: Response }).response

const whole: Answered = { output: [reasoning("secret"), search, message("White snow"), call] }
const tools = [
  { type: "web_search" as const },
  { type: "function" as const, name: "f", parameters: { type: "object", properties: {} }, strict: false }
]
const request = {
  model: "own",
  input: "What color is snow?",
  tools,
  include: ["web_search_call.action.sources" as const]
}

/** Without ids, which differ. */
const withoutIds = (response: Response) => response.output.map((item) => ({ ...item, id: "" }))

describe("a request of the Responses API", () => {
  it("goes to the provider's own endpoint, and its items come back with ids of this service", async () => {
    const response = await at(whole, () => client.responses.create({ ...request, metadata: { a: "b" } }))
    assert.match(upstream.seen.at(-1)!.path, /^\/own\/responses$/)
    assert.deepInclude(sent(), {
      model: "gpt-5",
      store: false,
      tools,
      metadata: { a: "b" },
      include: ["web_search_call.action.sources", "reasoning.encrypted_content"]
    })
    assert.deepStrictEqual(sent().input, [
      { type: "message", role: "user", content: [{ type: "input_text", text: "What color is snow?" }] }
    ])
    assert.deepStrictEqual(
      response.output.map(({ id }) => id?.replace(response.id.slice(5), "")),
      ["rs_0", "ws_1", "msg_2", "fc_3"]
    )
    const { action } = response.output[1] as unknown as Fields
    assert.deepStrictEqual(action, search["action"])
    assert.strictEqual(response.output_text, "White snow")
    assert.deepInclude(response as object, { status: "completed", store: true, tools: [tools[0], response.tools[1]] })
    assert.deepInclude(response.usage, { input_tokens: 100, output_tokens: 20 })
    assert.strictEqual(response.top_p, 0.98)
  })

  it("is streamed with the provider's events", async () => {
    const buffered = await at(whole, () => client.responses.create(request))
    const events = await at(whole, async () => eventsOf(await client.responses.create({ ...request, stream: true })))
    assert.deepStrictEqual(events.map((event) => event.sequence_number), events.map((_, index) => index))
    const types = events.map(({ type }) => type).filter((type, index, all) => type !== all[index - 1])
    assert.deepStrictEqual(types.filter((type) => type.includes("web_search")), [
      "response.web_search_call.in_progress",
      "response.web_search_call.searching",
      "response.web_search_call.completed"
    ])
    const response = responseIn(events)
    assert.deepStrictEqual(withoutIds(response), withoutIds(buffered))
    const ids = new Set(response.output.map(({ id }) => id))
    for (const event of events) if ("item_id" in event) assert.isTrue(ids.has(event.item_id))
    assert.deepStrictEqual(response.usage, buffered.usage)
    assert.strictEqual(events.filter(({ type }) => type === "response.created").length, 1)
    const { final } = await at(whole, async () => {
      const stream = client.responses.stream({ ...request, tools: [tools[0]!] })
      return { final: await stream.finalResponse() }
    })
    assert.strictEqual(final.output_text, "White snow")
  })

  it("continues a conversation that is stored here, with the reasoning of its provider", async () => {
    const first = await at(whole, () => client.responses.create(request))
    assert.notInclude(JSON.stringify(first), "\"secret\"")
    await at({ output: [message("Yes")] }, () =>
      client.responses.create({
        model: "own",
        previous_response_id: first.id,
        input: [{ type: "function_call_output", call_id: "call_1", output: "1" }]
      }))
    const [, thought, found, said, called, result] = sent().input
    assert.notProperty(sent(), "previous_response_id")
    assert.deepStrictEqual(thought, { ...reasoning("secret"), summary: thought!["summary"] })
    assert.deepInclude(found, { type: "web_search_call", id: first.output[1]!.id })
    assert.deepInclude(said, { type: "message", role: "assistant" })
    assert.deepInclude(called, { type: "function_call", call_id: "call_1", arguments: "{\"a\":1}" })
    assert.deepStrictEqual(result, { type: "function_call_output", call_id: "call_1", output: "1" })
  })

  it("continues a conversation that the caller keeps; reasoning of another host is left out", async () => {
    const first = await at(whole, () => client.responses.create({ ...request, store: false }))
    const input = [...first.output, { type: "function_call_output", call_id: "call_1", output: "1" }]
    const again = { model: "own", store: false, input: input as unknown as string }
    await at({ output: [message("Yes")] }, () => client.responses.create(again))
    assert.deepInclude(sent().input[0], { type: "reasoning", id: "rs_up1", encrypted_content: "secret" })
    const other = input.map((item) =>
      item.type === "reasoning" ? { ...item, encrypted_content: "troupe.other1.rs_x.secret" } : item
    )
    await at(
      { output: [message("Yes")] },
      () => client.responses.create({ ...again, input: other as unknown as string })
    )
    assert.notInclude(JSON.stringify(sent().input), "reasoning")
  })

  it("is incomplete, or a refusal, as the provider says", async () => {
    const cut = await at({ output: [message("White")], status: "incomplete" }, () => client.responses.create(request))
    assert.strictEqual(cut.status, "incomplete")
    assert.deepStrictEqual(cut.incomplete_details, { reason: "max_output_tokens" })
    for (const stream of [false, true]) {
      const response = await at({ output: [refusal] }, async () =>
        stream
          ? responseIn(await eventsOf(await client.responses.create({ ...request, stream })))
          : client.responses.create({ ...request, stream }))
      assert.deepInclude(response.output[0], { type: "message", status: "completed" })
      assert.include(JSON.stringify(response.output), "I cannot help with that.")
    }
  })

  it("fails with the provider's error", async () => {
    const error = { message: "The server had an error.", type: "server_error", code: null }
    await at(whole, async () => {
      failure = { status: 500, headers: json, pieces: [JSON.stringify({ error })] }
      const failed = await client.responses.create(request).then(() => undefined, (problem: unknown) => problem)
      assert.instanceOf(failed, OpenAI.InternalServerError)
      const [event] = [{
        type: "response.failed",
        response: { status: "failed", error: { code: "server_error", message: "It failed." } }
      }]
      failure = { pieces: [`event: response.failed\ndata: ${JSON.stringify(event)}\n\n`] }
      const limited = await client.responses.create({ ...request, stream: true }).then(
        () => undefined,
        (problem: unknown) => problem
      )
      assert.instanceOf(limited, OpenAI.APIError)
      assert.include((limited as Error).message, "It failed.")
    })
  })

  it("needs a deployment with the API for what has no translation", async () => {
    const failed = await client.responses.create({ ...request, model: "chat" }).then(
      () => undefined,
      (problem: unknown) => problem as InstanceType<typeof OpenAI.APIError>
    )
    assert.instanceOf(failed, OpenAI.BadRequestError)
    assert.strictEqual(failed.param, "tools[0].type")
    assert.include(failed.message, "Troupe does not have the tool \"web_search\"")
    await at(whole, async () => {
      failure = { status: 503, headers: json, pieces: ["{}"] }
      const before = upstream.seen.length
      const unavailable = await client.responses.create({ ...request, model: "both" }).then(
        () => undefined,
        (problem: unknown) => problem
      )
      assert.instanceOf(unavailable, OpenAI.APIError)
      assert.deepStrictEqual(upstream.seen.slice(before).map(({ path }) => path), ["/own/responses"])
    })
  })

  it("may have only items without translation, which are refused by name where no deployment has the API", async () => {
    const input = [{
      type: "mcp_approval_response" as const,
      approval_request_id: "mcpr_1",
      approve: true
    }]
    await at(whole, () => client.responses.create({ model: "own", input }))
    assert.deepInclude(sent().input[0], input[0])
    for (const item of [input[0], { type: "mesage", role: "user" }]) {
      const failed = await client.responses.create({ model: "chat", input: [item] as never }).catch((error: unknown) =>
        error
      )
      assert.instanceOf(failed, OpenAI.BadRequestError)
      assert.include(failed.message, `"${item!.type}"`)
    }
  })
})

describe("what create accepts of tools at the provider", () => {
  const items = [
    { role: "user" as const, content: "What color is snow?" },
    { ...search },
    { type: "mcp_approval_response" as const, approval_request_id: "mcpr_1", approve: true },
    { role: "user" as const, content: [{ type: "input_image" as const, detail: "auto" as const, file_id: "file_1" }] },
    { type: "message" as const, role: "assistant" as const, content: [{ type: "output_text" as const, text: "White" }] }
  ] as unknown as Array<OpenAI.Responses.ResponseInputItem>
  const known = [items[0]!, { role: "user" as const, content: "" }, items[4]!]

  it("is accepted for counts, which are those of what the model reads", async () => {
    const count = (input: typeof items, more = {}) =>
      client.responses.inputTokens.count({ model: "fake/chat", input, ...more })
    const { input_tokens: expected } = await count(known)
    assert.strictEqual((await count(items)).input_tokens, expected)
    const web = { tools: [{ type: "web_search" }, { type: "web_search_preview_2025_03_11" }], tool_choice: "auto" }
    assert.strictEqual((await count(items, web)).input_tokens, expected)
    assert.strictEqual((await count([items[1]!])).input_tokens, 0)
  })

  it("is accepted for compactions and conversations, which keep it", async () => {
    const compacted = await client.responses.compact({ model: "fake/chat", input: items })
    assert.strictEqual(compacted.output.at(-1)?.type, "compaction")
    const { id } = await client.conversations.create({ items: items.slice(0, 2) })
    await client.conversations.items.create(id, { items: items.slice(2) })
    const { data } = await client.conversations.items.list(id, { order: "asc" })
    assert.deepStrictEqual(data.map(({ type }) => type), [
      "message",
      "web_search_call",
      "mcp_approval_response",
      "message",
      "message"
    ])
    assert.deepInclude(data[1], { action: search["action"] as never })
    await at(
      { output: [message("Yes")] },
      () => client.responses.create({ model: "own", conversation: id, input: "Is it?" })
    )
    assert.deepStrictEqual(sent().input.map(({ type }) => type).slice(1, 3), [
      "web_search_call",
      "mcp_approval_response"
    ])
  })

  it.each<readonly [string, () => Promise<unknown>]>([
    ["counts", () => client.responses.inputTokens.count({ model: "fake/chat", input: [{ type: "mesage" }] as never })],
    [
      "tools of counts",
      () => client.responses.inputTokens.count({ model: "fake/chat", input: "Q", tools: [{ type: "mesage" }] as never })
    ],
    ["compactions", () => client.responses.compact({ model: "fake/chat", input: [{ type: "mesage" }] as never })],
    ["conversations", () => client.conversations.create({ items: [{ type: "mesage" }] as never })]
  ])("is rejected by name where OpenAI's reference does not have it: %s", async (_, ask) => {
    const failed = await ask().catch((error: unknown) => error)
    assert.instanceOf(failed, OpenAI.BadRequestError)
    assert.include(failed.message, `"mesage"`)
  })
})

describe("each provider with the Responses API", () => {
  const through = { "azure-openai": () => service, "azure-openai behind a troupe": () => chained }

  it.each(Object.entries(through))("%s gets the body at its own path, and its items come back", async (_, of) => {
    const answers = clientOf(of())
    const body = { ...request, model: "azure", max_tool_calls: 3 }
    const buffered = await at(whole, () => answers.responses.create(body))
    const { body: given, headers, path } = upstream.seen.at(-1)!
    assert.strictEqual(path, "/azure/openai/v1/responses")
    assert.strictEqual(headers["api-key"], "key")
    assert.notProperty(headers, "authorization")
    assert.deepInclude(given as object, { model: "gpt-5", store: false, tools, max_tool_calls: 3 })
    const events = await at(whole, async () => eventsOf(await answers.responses.create({ ...body, stream: true })))
    assert.strictEqual(upstream.seen.at(-1)!.path, path)
    assert.isTrue(events.some(({ type }) => type === "response.web_search_call.searching"))
    const streamed = responseIn(events)
    assert.deepStrictEqual(streamed.output.map(({ type }) => type), whole.output.map(({ type }) => type as never))
    // A service in between puts its own id of the item before the content.
    const items = (response: Response) => JSON.stringify(withoutIds(response)).replaceAll(/\brs_\w{20,}/g, "rs_")
    assert.deepStrictEqual(JSON.parse(items(streamed)), JSON.parse(items(buffered)))
    assert.deepStrictEqual(streamed.usage, buffered.usage)
  })

  it("a chained troupe sends the reasoning of a stored answer to the provider that made it", async () => {
    const answers = clientOf(chained)
    const first = await at(whole, () => answers.responses.create(request))
    assert.notInclude(JSON.stringify(first), "\"secret\"")
    await at({ output: [message("Yes")] }, () =>
      answers.responses.create({
        model: "own",
        previous_response_id: first.id,
        input: [{ type: "function_call_output", call_id: "call_1", output: "1" }]
      }))
    assert.notProperty(sent(), "previous_response_id")
    assert.deepInclude(sent().input[1], { type: "reasoning", encrypted_content: "secret" })
  })
})

describe("failover from a provider with the Responses API", () => {
  const plain = { model: "both", input: "What color is snow?" }

  it("translates for a deployment that has chats", async () => {
    const response = await at(whole, () => {
      failure = { status: 503, headers: json, pieces: ["{}"] }
      return client.responses.create(plain)
    })
    assert.strictEqual(response.output_text, " world")
    assert.match(upstream.seen.at(-1)!.path, /chat\/completions$/)
  })

  it("continues a text in the item that the provider has begun", async () => {
    const events = await at(
      { output: [message("Hello, you")] },
      async () => eventsOf(await client.responses.create({ ...plain, stream: true })),
      6
    )
    const response = responseIn(events)
    assert.strictEqual(response.status, "completed")
    assert.deepStrictEqual(response.output.length, 1)
    assert.match((response.output[0] as unknown as { content: [{ text: string }] }).content[0].text, /^Hello.* world$/)
    assert.deepStrictEqual(events.map((event) => event.sequence_number), events.map((_, index) => index))
  })
})

describe("answers of a provider's Responses API", () => {
  it("are cached, buffered and streamed", async () => {
    const body = { ...request, model: "cached", temperature: 0 }
    const first = await at(whole, () => client.responses.create(body))
    const before = upstream.seen.length
    const again = await client.responses.create(body)
    assert.deepStrictEqual(withoutIds(again), withoutIds(first))
    const streamed = responseIn(await eventsOf(await client.responses.create({ ...body, stream: true })))
    assert.deepStrictEqual(withoutIds(streamed), withoutIds(first))
    assert.strictEqual(upstream.seen.length, before)
    await at({ output: [message("Other")] }, () => client.responses.create({ ...body, max_tool_calls: 3 }))
    assert.strictEqual(upstream.seen.length, before + 1)
  })

  it("have the values of a redacted request again, which the provider has not seen", async () => {
    const redacted = {
      model: "own",
      input: [{ role: "user" as const, content: "Write to ann@example.com" }],
      instructions: "Of ann@example.com only",
      tools
    }
    const echo = { output: [search, message("Wrote to [EMAIL_1]")] }
    const buffered = await at(echo, () => client.responses.create(redacted))
    assert.notInclude(upstream.seen.at(-1)!.text, "ann@example.com")
    assert.strictEqual(buffered.output_text, "Wrote to ann@example.com")
    assert.strictEqual(buffered.output[0]!.type, "web_search_call")
    const streamed = await at(
      echo,
      async () => responseIn(await eventsOf(await client.responses.create({ ...redacted, stream: true })))
    )
    assert.include(JSON.stringify(streamed.output), "Wrote to ann@example.com")
  })
})

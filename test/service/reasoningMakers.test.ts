/**
 * Signed and encrypted reasoning in later requests of a conversation: what each scripted host is sent. A host rejects what another
 * one made, as Anthropic, OpenAI and OpenRouter do.
 */
import { assert } from "@effect/vitest"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { DatabaseSync } from "node:sqlite"
import { afterAll, beforeAll, beforeEach, describe, it } from "vitest"
import { Troupe } from "../../src/index.ts"
import type { Fields } from "../support/Answers.ts"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { message as messageItem, play } from "../support/ResponsesProvider.ts"
import { temporaryFolder } from "../support/Service.ts"

const json = { "content-type": "application/json" }
const sse = (events: ReadonlyArray<Fields>, end = ""): Play => ({
  pieces: [...events.map((event) => `data: ${JSON.stringify(event)}\n\n`), end]
})
const rejected = (body: Fields): Play => ({ status: 400, headers: json, pieces: [JSON.stringify(body)] })

/** Of each test: what one has learned is not known to the next. */
let round = 0

/** What a host signs with. */
const markOf = (host: string): string => `${host}-${round}-mark`

const messagesAnswer = (host: string, stream: boolean): Play => {
  const message = { id: "m", type: "message", role: "assistant", model: "up", stop_sequence: null }
  const usage = { input_tokens: 3, output_tokens: 2 }
  const blocks = [
    { type: "thinking", thinking: "Hm.", signature: markOf(host) },
    { type: "redacted_thinking", data: `${markOf(host)}-data` },
    { type: "text", text: "Hi" }
  ]
  if (!stream) {
    return { headers: json, pieces: [JSON.stringify({ ...message, content: blocks, stop_reason: "end_turn", usage })] }
  }
  const delta = (index: number, delta: Fields) => ({ type: "content_block_delta", index, delta })
  return sse([
    { type: "message_start", message: { ...message, content: [], stop_reason: null, usage } },
    { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "", signature: "" } },
    delta(0, { type: "thinking_delta", thinking: "Hm." }),
    delta(0, { type: "signature_delta", signature: markOf(host) }),
    { type: "content_block_stop", index: 0 },
    { type: "content_block_start", index: 1, content_block: blocks[1] },
    { type: "content_block_stop", index: 1 },
    { type: "content_block_start", index: 2, content_block: { type: "text", text: "" } },
    delta(2, { type: "text_delta", text: "Hi" }),
    { type: "content_block_stop", index: 2 },
    { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 2 } },
    { type: "message_stop" }
  ])
}

const detail = (host: string): Fields => ({
  type: "reasoning.text",
  text: "Hm.",
  signature: markOf(host),
  format: "anthropic-claude-v1",
  index: 0
})

const chatAnswer = (host: string, stream: boolean): Play => {
  const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
  const thought = { reasoning: "Hm.", reasoning_details: [detail(host)] }
  if (stream) {
    return sse([
      { id: "c", choices: [{ index: 0, delta: { role: "assistant", content: "", ...thought } }] },
      { id: "c", choices: [{ index: 0, delta: { content: "Hi" } }] },
      { id: "c", choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage }
    ], "data: [DONE]\n\n")
  }
  const message = { role: "assistant", content: "Hi", ...thought }
  return {
    headers: json,
    pieces: [JSON.stringify({ id: "c", choices: [{ index: 0, message, finish_reason: "stop" }], usage })]
  }
}

const responsesAnswer = (host: string, stream: boolean): Play =>
  play({
    output: [
      {
        id: `rs_${host}`,
        type: "reasoning",
        summary: [{ type: "summary_text", text: "Hm." }],
        encrypted_content: markOf(host)
      },
      messageItem("Hi")
    ]
  }, stream)

const hosts = ["ada", "bob"]

const apis = ["messages", "chat", "responses", "gate"]

/** The text of a request, with what its encoded contents have. */
const readable = (text: string): string =>
  text +
  [...text.matchAll(/"encrypted_content":"([\w-]+)"/g)]
    .map(([, content]) => Buffer.from(content!, "base64url").toString("utf8")).join("")

/** Of each request since: whether it has the reasoning. */
const sentSince = (from: number): ReadonlyArray<boolean> =>
  upstream.seen.slice(from).map(({ text }) => readable(text).includes("-mark"))

/** Ada and Bob have every API, each with its own rejection of what the other has made. */
const answer = (_: number, { body, path, text: sent }: Seen): Play => {
  const text = readable(sent)
  const [, host = "", ...rest] = path.split("/")
  const stream = (body as Fields)["stream"] === true
  const isForeign = text.includes("-mark") && text.replaceAll(markOf(host), "").includes("-mark")
  const invalid = "messages.1.content.0: Invalid `signature` in `thinking` block"
  if (rest.at(-1) === "messages") {
    return isForeign
      ? rejected({ type: "error", error: { type: "invalid_request_error", message: invalid } })
      : messagesAnswer(host, stream)
  }
  if (rest.at(-1) === "responses") {
    return isForeign
      ? rejected({
        error: {
          message: "The encrypted content gAAA...DQ== could not be verified.",
          type: "invalid_request_error",
          param: null,
          code: "invalid_encrypted_content"
        }
      })
      : responsesAnswer(host, stream)
  }
  const raw = JSON.stringify({ type: "error", error: { type: "invalid_request_error", message: invalid } })
  return isForeign
    ? rejected({ error: { message: "Provider returned error", code: 400, metadata: { raw, provider_name: "Azure" } } })
    : chatAnswer(host, stream)
}

let upstream: FaultServer
let troupe: Troupe.Troupe
let gate: { readonly url: string; readonly close: () => Promise<unknown> }
/** Has passed on no answer of the first. */
let restarted: Troupe.Troupe

const key = "admin-key-0123456789"
const headers = { ...json, authorization: `Bearer ${key}` }

/** @param storage left out, none */
const start = (gateUrl: string, storage?: Fields): Troupe.Troupe => {
  const at = (host: string, provider: string, more: Fields = {}) => ({
    fallbacks: [],
    deployments: [{ provider, model: "up", key: "key-0123456789", baseUrl: `${upstream.url}/${host}`, ...more }]
  })
  const models = Object.fromEntries(hosts.flatMap((host) => [
    [`messages-${host}`, at(host, "anthropic")],
    [`chat-${host}`, at(host, "openai", { thoughts: "reasoning" })],
    [`responses-${host}`, at(host, "openai", { responses: true })],
    [
      `gate-${host}`,
      { deployments: [{ provider: "troupe", model: `messages-${host}`, key, baseUrl: `${gateUrl}/${host}/v1` }] }
    ]
  ]))
  const plain = { deployments: [{ provider: "openai", model: "up", key: "k", baseUrl: `${upstream.url}/eve/plain` }] }
  const policies = { default: { retries: 0 } }
  const keys = { admin: { key, admin: true } }
  const config = { keys, limits: { default: false }, policies, models: { ...models, plain }, storage }
  return Troupe.start({ config: config as never })
}

/** Another instance of this service: the host is the first part of the path. */
const startGate = async () => {
  const behind = start("http://127.0.0.1:9")
  const server = createServer((request, response) => {
    const parts: Array<Buffer> = []
    request.on("data", (part: Buffer) => parts.push(part)).on("end", () => {
      const url = `http://localhost${request.url!.replace(/^\/\w+/, "")}`
      const given = new Request(url, { method: "POST", headers, body: Buffer.concat(parts) })
      void behind.handler(given).then(async (answer) =>
        response.writeHead(answer.status, { "content-type": answer.headers.get("content-type")! })
          .end(await answer.text())
      )
    })
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => Promise.all([behind.close(), new Promise((resolve) => server.close(resolve))])
  }
}

beforeAll(async () => {
  upstream = await startFaultServer(answer)
  gate = await startGate()
  troupe = start(gate.url)
  restarted = start(gate.url)
})

beforeEach(() => {
  round++
})

afterAll(async () => {
  await Promise.all([troupe.close(), restarted.close()])
  await gate.close()
  await upstream.close()
})

/** A form of reasoning between a caller and a provider. */
interface Form {
  readonly path: string
  /** The models of its hosts begin with it. */
  readonly api: string
  readonly body: Fields
  /** The fields of the next request, with what the caller got in the first answer. */
  readonly next: (given: string) => Fields
  /** What no deployment of this service has made. */
  readonly unknown: string
  /** The maker is in what the caller keeps: a restart does not lose it, and nothing is unknown. */
  readonly names: boolean
}

const question = { role: "user", content: "Q" }

/** The last text of a field, as the caller got it. */
const lastOf = (text: string, field: string): string =>
  [...text.matchAll(new RegExp(String.raw`"${field}":\s*"([^"]+)"`, "g"))].at(-1)?.[1] ??
    assert.fail(`no ${field} in ${text}`)

const chatNext = (details: ReadonlyArray<Fields>): Fields => ({
  messages: [question, { role: "assistant", content: "Hi", reasoning_details: details }, question]
})

const itemsNext = (encrypted: string): Fields => ({
  store: false,
  input: [
    { role: "user", content: "Q" },
    { id: "rs_1", type: "reasoning", summary: [], encrypted_content: encrypted },
    { type: "message", role: "assistant", content: [{ type: "output_text", text: "Hi", annotations: [] }] },
    { role: "user", content: "Q" }
  ]
})

const blocks = (mark: string, data: string): Fields => ({
  max_tokens: 100,
  messages: [
    question,
    {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "Hm.", signature: mark },
        { type: "redacted_thinking", data },
        { type: "text", text: "Hi" }
      ]
    },
    question
  ]
})

const ownForms: Readonly<Record<string, Form>> = {
  "Anthropic's own blocks": {
    path: "/v1/messages",
    api: "messages",
    body: { max_tokens: 100, messages: [question] },
    next: (given) => blocks(lastOf(given, "signature"), lastOf(given, "data")),
    unknown: `"signature":"new-mark" "data":"new-mark-data"`,
    names: false
  },
  "Anthropic's blocks for OpenAI's callers": {
    path: "/v1/chat/completions",
    api: "messages",
    body: { messages: [question] },
    next: (given) => {
      const id = /"id":"(troupe_[\w-]+)"/.exec(given)![1]
      const format = "anthropic-claude-v1"
      return chatNext([
        { type: "reasoning.text", text: "Hm.", signature: markOf("ada"), id, format },
        { type: "reasoning.encrypted", data: lastOf(given, "data"), id, format }
      ])
    },
    unknown: `"id":"troupe_none" "data":"new-mark-data"`,
    names: true
  },
  "Anthropic's blocks for Responses' callers": {
    path: "/v1/responses",
    api: "messages",
    body: { input: "Q", store: false, include: ["reasoning.encrypted_content"] },
    next: (given) => itemsNext(lastOf(given, "encrypted_content")),
    unknown: `"encrypted_content":"${
      Buffer.from(JSON.stringify({
        troupe: 1,
        reasoning: [{ type: "redacted_thinking", data: "new-mark", maker: "none" }]
      })).toString("base64url")
    }"`,
    names: true
  },
  "OpenRouter's details": {
    path: "/v1/chat/completions",
    api: "chat",
    body: { messages: [question] },
    next: (given) => chatNext([{ ...detail(""), signature: lastOf(given, "signature") }]),
    unknown: `"signature":"new-mark"`,
    names: false
  },
  "encrypted items of Responses": {
    path: "/v1/responses",
    api: "responses",
    body: { input: "Q", store: false, include: ["reasoning.encrypted_content"] },
    next: (given) => itemsNext(lastOf(given, "encrypted_content")),
    unknown: `"encrypted_content":"new-mark"`,
    names: true
  }
}

/** The same answers by another Troupe in front of the hosts, which names their makers. */
const forms: Readonly<Record<string, Form>> = {
  ...ownForms,
  ...Object.fromEntries(
    Object.entries(ownForms).filter(([, { api }]) => api === "messages").map(([name, form]) => [
      `${name}, callers of another Troupe`,
      { ...form, api: "gate", names: true }
    ])
  )
}

const post = async (to: Troupe.Troupe, { path }: Form, model: string, stream: boolean, body: Fields) => {
  const from = upstream.seen.length
  const response = await to.handler(
    new Request(`http://localhost${path}`, {
      method: "POST",
      headers,
      body: JSON.stringify({ ...body, model, ...(stream ? { stream } : {}) })
    })
  )
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  assert.include(text, "Hi")
  return { text, sent: sentSince(from), decision: response.headers.get("x-troupe-decision") }
}

/** What the record of a request says. */
const recordIn = async (to: Troupe.Troupe, id: string | null) => {
  const response = await to.handler(new Request(`http://localhost/admin/decisions/${id}`, { headers }))
  return await response.json() as { readonly attempts: ReadonlyArray<Fields>; readonly makersUnavailable?: boolean }
}

const droppedIn = async (to: Troupe.Troupe, id: string | null): Promise<ReadonlyArray<boolean>> =>
  (await recordIn(to, id)).attempts.map((attempt) => attempt["reasoningDropped"] === true)

describe("signed or encrypted reasoning of an earlier answer", () => {
  for (const [name, form] of Object.entries(forms)) {
    for (const stream of [false, true]) {
      const how = stream ? "streamed" : "buffered"
      const { api, names, next, unknown } = form
      /** The next request to a model. @returns whether each request had the reasoning, and whether the record says it was lost */
      const ask = async (to: Troupe.Troupe, model: string, body: Fields) => {
        const { decision, sent } = await post(to, form, model, stream, body)
        return [sent, await droppedIn(to, decision)]
      }

      it(`goes to its maker and to no other: ${name}, ${how}`, async () => {
        const first = await post(troupe, form, `${api}-ada`, stream, form.body)
        const body = next(first.text)
        assert.deepStrictEqual(await ask(troupe, `${api}-ada`, body), [[true], [false]], "its maker")
        assert.deepStrictEqual(await ask(troupe, `${api}-bob`, body), [[false], [true]], "another host")
        const others = ["plain", ...apis.flatMap((other) => other === api ? [] : [`${other}-bob`])]
        for (const other of others) {
          assert.deepStrictEqual((await ask(troupe, other, body))[0], [false], other)
        }
      })

      it(`goes where it is accepted, if its maker is not known: ${name}, ${how}`, async () => {
        const first = await post(troupe, form, `${api}-ada`, stream, form.body)
        // What is not known, and what is known to be of another service.
        const rejected = [[true, false], [false, true]]
        const expected = name.includes("callers") ? [[false], [true]] : rejected
        assert.deepStrictEqual(await ask(troupe, `${api}-bob`, next(unknown)), expected, "of another service")
        const body = next(first.text)
        const other = names ? [[false], [true]] : rejected
        assert.deepStrictEqual(await ask(restarted, `${api}-bob`, body), other, "another host, restarted")
        assert.deepStrictEqual(await ask(restarted, `${api}-ada`, body), [[true], [false]], "its maker, restarted")
      })
    }
  }

  it("goes to its maker and to no other from stored responses", async () => {
    const form = forms["Anthropic's blocks for Responses' callers"]!
    const { text } = await post(troupe, form, "messages-ada", false, { input: "Q" })
    const { id } = JSON.parse(text) as { readonly id: string }
    const ask = async (model: string) =>
      (await post(troupe, form, model, false, { input: "Q", previous_response_id: id })).sent
    assert.deepStrictEqual(await ask("messages-ada"), [true])
    assert.deepStrictEqual(await ask("responses-bob"), [false])
  })
})

describe("signed reasoning of services that share a store", () => {
  const inProvidersForm = Object.values(ownForms).filter(({ names }) => !names)

  it("goes to no other host, wherever and whenever it was answered, unless the store is lost", async () => {
    using folder = temporaryFolder()
    const storage = { type: "sqlite", folder: folder.path }
    const one = start(gate.url, storage)
    const other = start(gate.url, storage)
    const asked: Array<{ readonly round: number; readonly form: Form; readonly body: Fields }> = []
    for (const form of inProvidersForm) {
      for (const stream of [false, true]) {
        round++
        const { text } = await post(one, form, `${form.api}-ada`, stream, form.body)
        asked.push({ round, form, body: form.next(text) })
      }
    }
    // The other one has migrated the database, and has not read these rows.
    await other.handler(new Request("http://localhost/v1/models", { headers }))
    await one.close()
    const again = start(gate.url, storage)
    const expectKept = async (to: Troupe.Troupe) => {
      for (const { body, form, round: then } of asked) {
        round = then
        const atBob = await post(to, form, `${form.api}-bob`, false, body)
        assert.deepStrictEqual(atBob.sent, [false], "another host")
        assert.deepStrictEqual(await droppedIn(to, atBob.decision), [true])
        const atAda = await post(to, form, `${form.api}-ada`, true, body)
        assert.deepStrictEqual(atAda.sent, [true], "its maker")
        const record = await recordIn(to, atAda.decision)
        assert.notProperty(record.attempts[0], "reasoningDropped")
        assert.notProperty(record, "makersUnavailable")
      }
    }
    await expectKept(other)
    await expectKept(again)
    await Promise.all([other.close(), again.close()])

    const lost = start(gate.url, storage)
    const database = new DatabaseSync(`${folder.path}/troupe.sqlite`)
    await lost.handler(new Request("http://localhost/v1/models", { headers }))
    database.exec("DROP TABLE troupe_makers")
    database.close()
    const { body, form, round: then } = asked[0]!
    round = then
    for (const time of ["first", "next"]) {
      const { decision, sent } = await post(lost, form, `${form.api}-bob`, false, body)
      assert.deepStrictEqual(sent, [true, false], time)
      const { attempts, makersUnavailable } = await recordIn(lost, decision)
      assert.deepStrictEqual(attempts.map(({ reasoningDropped }) => reasoningDropped), [undefined, true], time)
      assert.isTrue(makersUnavailable, time)
    }
    // Nothing is asked for a request without a signature, or with one that this process knows.
    const plain = await post(lost, form, `${form.api}-ada`, false, form.body)
    assert.notProperty(await recordIn(lost, plain.decision), "makersUnavailable")
    const known = await post(lost, form, `${form.api}-bob`, false, form.next(plain.text))
    assert.deepStrictEqual(known.sent, [false])
    assert.notProperty(await recordIn(lost, known.decision), "makersUnavailable")
    await lost.close()
  })
})

/** What a service puts out beside its answers: no key, no prompt and nothing of a header or a query, at any level of the log. */
import { assert } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Logger, References, Tracer } from "effect"
import { HttpServer } from "effect/http"
import { readdirSync, readFileSync } from "node:fs"
import { request as httpRequest } from "node:http"
import { join } from "node:path"
import { describe, it } from "vitest"
import * as App from "../../src/App.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import type { FaultServer, Play } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { temporaryFolder } from "../support/Service.ts"

/** Keys: in no output at all. */
const keys = {
  provider: "sk-provider-aB3dE5gH7jK9mN1pQ3rS5",
  virtual: "virtual-key-of-the-team-7c41",
  admin: "virtual-key-of-the-admin-19e0",
  narrow: "virtual-key-of-few-models-2b6e",
  few: "virtual-key-of-few-requests-3a90",
  unknown: "key-that-nobody-has-5d2f",
  token: "token-in-an-x-api-key-88aa"
}

/** What callers write: in their own answers and errors only. */
const decisions = "/admin/decisions?limit=1000"

const texts = {
  prompt: "the-quiet-phrase-of-the-prompt",
  email: "alice.secret@example.com",
  card: "4111 1111 1111 1111",
  phone: "+49 171 5550199",
  apiKey: "ghp_aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3bC5",
  tool: "tool-argument-quiet",
  field: "field_name_quiet",
  header: "header-value-quiet",
  cookie: "cookie-value-quiet",
  query: "query-value-quiet",
  path: "path-part-quiet",
  model: "model-name-quiet",
  origin: "origin-quiet.example",
  host: "host-quiet.example",
  answer: "the-quiet-phrase-of-the-answer"
}

/** The label of a key's user: in usage and budgets, not in logs, spans and metrics. */
const user = "bob.personal@example.com"

const prompt = `${Object.values(texts).join(", ")}; DROP TABLE x`
const echo = `Wrong: ${prompt} with ${keys.provider}`
const json = { "content-type": "application/json" }
const call = {
  index: 0,
  id: "t",
  type: "function",
  function: { name: "f", arguments: JSON.stringify({ a: texts.tool }) }
}

const completion = (message: object) =>
  JSON.stringify({
    id: "c",
    object: "chat.completion",
    created: 1,
    model: "up",
    choices: [{ index: 0, message, finish_reason: "stop" }],
    usage: { prompt_tokens: 30, completion_tokens: 20, total_tokens: 50 }
  })

const chunk = (delta: object) =>
  `data: ${
    JSON.stringify({
      id: "c",
      object: "chat.completion.chunk",
      created: 1,
      model: "up",
      choices: [{ index: 0, delta }]
    })
  }\n\n`

const failing = (status: number): Play => ({
  status,
  headers: json,
  pieces: [JSON.stringify({ error: { message: echo, type: echo, code: echo, param: echo } })]
})

/** What a provider answers, by the model that it is asked for. */
const plays: Readonly<Record<string, Play>> = {
  fine: { headers: json, pieces: [completion({ role: "assistant", content: texts.answer, tool_calls: [call] })] },
  streamed: {
    headers: { "content-type": "text/event-stream" },
    pieces: [chunk({ role: "assistant", content: texts.answer }), chunk({ tool_calls: [call] }), "data: [DONE]\n\n"]
  },
  cut: {
    headers: { "content-type": "text/event-stream" },
    pieces: [chunk({ content: texts.answer }), `data: {"error":{"message":${JSON.stringify(echo)}}}\n\n`]
  },
  garbled: { headers: json, pieces: [`{"choices": ${echo}`] },
  page: { headers: { "content-type": "text/html" }, pieces: [`<html>${echo}</html>`] },
  vectors: {
    headers: json,
    pieces: [JSON.stringify({ data: [{ index: 0, embedding: [1] }], usage: { prompt_tokens: 1 } })]
  },
  f400: failing(400),
  f401: failing(401),
  f403: failing(403),
  f404: failing(404),
  f429: failing(429),
  f500: failing(500),
  f529: failing(529)
}

const configOf = (upstream: string, folder: string): SettingsFile.Config => ({
  server: { port: 0, shutdownGrace: "1 second", admin: { socket: join(folder, "admin.sock") } },
  storage: { type: "sqlite", folder },
  limits: {
    default: false,
    shadow: { by: ["user"], requestsPerHour: 1, mode: "shadow" }
  },
  budgets: {
    people: { by: ["user"], period: "day", tokens: 90_000 },
    shadow: { by: ["user"], period: "day", tokens: 9, mode: "shadow" }
  },
  keys: {
    team: { key: keys.virtual, user, budgets: [{ period: "day", tokens: 9_000 }] },
    narrow: { key: keys.narrow, models: ["none"] },
    few: { key: keys.few, limits: { requestsPerHour: 1 } },
    operator: { key: keys.admin, admin: true }
  },
  models: Object.fromEntries(
    Object.keys(plays).map((name) => [name, {
      deployments: [{ provider: "openai", model: name, baseUrl: upstream, key: keys.provider }]
    }])
  ) as never
})

interface Ask {
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly method?: string
}

const send = (port: number, { body, headers = {}, method = body === undefined ? "GET" : "POST", path }: Ask) =>
  new Promise<string>((resolve, reject) => {
    const options = {
      host: "127.0.0.1",
      port,
      path,
      method,
      headers: {
        authorization: `Bearer ${keys.virtual}`,
        "x-quiet": texts.header,
        cookie: `session=${texts.cookie}`,
        ...(body === undefined ? {} : json),
        ...headers
      }
    }
    httpRequest(options, (response) => {
      response.setEncoding("utf8").toArray().then((chunks) => resolve(chunks.join("")), () => resolve(""))
    }).on("error", reject).end(typeof body === "string" ? body : JSON.stringify(body))
  })

const messages = [
  { role: "system", content: prompt },
  { role: "user", content: prompt },
  { role: "assistant", content: "", tool_calls: [call] },
  { role: "tool", tool_call_id: "t", content: prompt }
]

const chat = { messages, stop: [texts.prompt], user: texts.email, metadata: { a: texts.prompt } }
const tools = [{
  type: "function",
  function: { name: "f", description: texts.tool, parameters: { type: "object", properties: { [texts.field]: {} } } }
}]

const asks: ReadonlyArray<Ask> = [
  ...Object.keys(plays).flatMap((model): ReadonlyArray<Ask> => [
    { path: "/v1/chat/completions", body: { model, ...chat, tools } },
    { path: `/v1/chat/completions?api_key=${texts.query}`, body: { model, ...chat, stream: true } },
    {
      path: "/v1/messages",
      body: { model, messages: [{ role: "user", content: prompt }], max_tokens: 9, system: prompt }
    },
    {
      path: "/v1/messages",
      body: { model, messages: [{ role: "user", content: prompt }], max_tokens: 9, stream: true }
    },
    { path: "/v1/embeddings", body: { model, input: [prompt], user: texts.email } }
  ]),
  ...["/v1/rerank", "/v1/classify", "/v1/tokenize", "/v1/messages/count_tokens"].map((path) => ({
    path,
    body: { model: "fine", query: prompt, documents: [prompt], input: prompt, prompt }
  })),
  // Requests that are wrong.
  { path: "/v1/chat/completions", body: { model: texts.model, ...chat } },
  { path: "/v1/chat/completions", body: { model: "fine", ...chat, temperature: prompt } },
  { path: "/v1/chat/completions", body: { model: "fine", ...chat, [texts.field]: prompt, temprature: prompt } },
  { path: "/v1/chat/completions", body: { model: "fine", messages: [{ role: prompt, content: [{ type: prompt }] }] } },
  { path: "/v1/chat/completions", body: { model: "fine", ...chat, response_format: { type: prompt } } },
  {
    path: "/v1/chat/completions",
    body: { model: "fine", ...chat, troupe: { fallbacks: [texts.model], [texts.field]: 1 } }
  },
  { path: "/v1/chat/completions", body: `{"model":"fine","messages":[{"content":"${prompt}` },
  { path: "/v1/chat/completions", body: { model: "fine", ...chat }, headers: { "x-troupe-strategy": texts.header } },
  { path: "/v1/chat/completions", body: prompt, headers: { "content-type": texts.header } },
  { path: `/v1/models/${texts.path}?key=${texts.query}` },
  { path: `/${texts.path}?key=${texts.query}` },
  // Callers without a key, pages, and names of other hosts.
  { path: "/v1/models", headers: { authorization: `Bearer ${keys.unknown}` } },
  { path: "/v1/models", headers: { authorization: `Basic ${keys.unknown}`, "x-api-key": keys.token } },
  { path: "/v1/chat/completions", body: { model: "fine", ...chat }, headers: { origin: `https://${texts.origin}` } },
  { path: "/v1/models", headers: { host: texts.host } },
  { path: "/v1/models", headers: { host: texts.host, origin: `http://${texts.host}` } },
  {
    path: "/v1/chat/completions",
    body: { model: "fine", ...chat },
    headers: { authorization: `Bearer ${keys.narrow}` }
  },
  ...Array.from({ length: 2 }, () => ({
    path: "/v1/chat/completions",
    body: { model: "fine", ...chat },
    headers: { authorization: `Bearer ${keys.few}` }
  })),
  { path: "/admin/decisions" },
  // Administration.
  { path: `/admin/decisions?limit=${texts.query}` },
  { path: `/admin/decisions/${texts.path}`, headers: { authorization: `Bearer ${keys.admin}` } },
  { path: "/admin/usage", headers: { authorization: `Bearer ${keys.unknown}` } },
  { path: "/admin/route", body: { model: "fine", prompt }, headers: { authorization: `Bearer ${keys.admin}` } },
  { path: `/admin/usage?by=${texts.query}`, headers: { authorization: `Bearer ${keys.admin}` } },
  { path: `/admin/deployments/${texts.path}/load`, method: "POST", headers: { authorization: `Bearer ${keys.admin}` } }
]

const reports = [
  "/metrics",
  decisions,
  "/admin/usage?by=model",
  "/admin/deployments",
  "/admin/circuits"
]
const aboutCallers = ["/admin/keys", "/admin/budgets", "/admin/usage?by=user"]

/** A span with all that an exporter sends. */
const textOfSpan = ({ attributes, events, name, status }: Tracer.NativeSpan): string => {
  const failure = status._tag === "Ended" && Exit.isFailure(status.exit) ? Cause.pretty(status.exit.cause) : ""
  return JSON.stringify([name, [...attributes], events.map(([name, , attributes]) => [name, attributes]), failure])
}

interface Outputs {
  readonly logs: Array<string>
  readonly spans: Array<Tracer.NativeSpan>
}

const observed = (isTraced: boolean, { logs, spans }: Outputs) => {
  const formats = [Logger.formatJson, Logger.formatLogFmt, Logger.formatSimple]
  const logger = Logger.make<unknown, void>((options) => {
    for (const format of formats) logs.push(format.log(options))
  })
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return Layer.mergeAll(
    Logger.layer([logger]),
    Layer.succeed(References.MinimumLogLevel, "All"),
    isTraced ? Layer.succeed(Tracer.Tracer, tracer) : Layer.empty
  )
}

/** All outputs of a service after these requests, by name. */
const outputsOf = async (upstream: FaultServer, folder: string, isTraced: boolean) => {
  const outputs: Outputs = { logs: [], spans: [] }
  const errors: Array<string> = []
  const found = new Map<string, string>()
  const service = App.service.pipe(
    Layer.provide(SettingsFile.layer({ config: configOf(upstream.url, folder) })),
    Layer.provide(observed(isTraced, outputs))
  )
  await Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const port = "port" in address ? address.port : 0
    yield* Effect.promise(async () => {
      for (const ask of asks) errors.push(await send(port, ask))
      for (const path of [...reports, ...aboutCallers]) {
        found.set(path, await send(port, { path, headers: { authorization: `Bearer ${keys.admin}` } }))
      }
    })
  }).pipe(Effect.provide(service), Effect.scoped, Effect.runPromise)
  found.set("logs", outputs.logs.join("\n"))
  found.set("spans", outputs.spans.map(textOfSpan).join("\n"))
  for (const file of readdirSync(folder)) {
    if (!file.endsWith(".sock")) found.set(`file ${file}`, readFileSync(join(folder, file), "latin1"))
  }
  return { found, errors: errors.join("\n") }
}

/** The outputs that have one of these texts. */
const leaks = (found: Readonly<Record<string, string>>, secrets: ReadonlyArray<string>) =>
  Object.entries(found).flatMap(([name, output]) =>
    secrets.flatMap((secret) => {
      const at = output.indexOf(secret)
      return at < 0 ? [] : [`${name}: ...${output.slice(Math.max(0, at - 120), at + secret.length)}`]
    })
  )

describe.concurrent.each([[false], [true]])("with a tracer: %s", (isTraced) => {
  it("no output of the service has a key, a text or a name of a caller", { timeout: 60_000 }, async () => {
    const upstream = await startFaultServer((_, { body }) => {
      const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
      return plays[stream === true && model === "fine" ? "streamed" : model]!
    })
    using folder = temporaryFolder()
    const { errors, found } = await outputsOf(upstream, folder.path, isTraced)
    await upstream.close()
    const { spans = "", [decisions]: records = "", ...others } = Object.fromEntries(found)
    assert.deepStrictEqual(leaks(others, [...Object.values(keys), ...Object.values(texts)]), [])
    // The record of a refused request says which model it named.
    const { model: _model, ...inRecords } = texts
    assert.deepStrictEqual(leaks({ records }, [...Object.values(keys), ...Object.values(inRecords)]), [])
    // The path and the host of a request are its span's own.
    const { host: _, path: __, ...inSpans } = texts
    assert.deepStrictEqual(leaks({ spans }, [...Object.values(keys), ...Object.values(inSpans)]), [])
    assert.deepStrictEqual(leaks({ spans, logs: others["logs"]!, metrics: others["/metrics"]! }, [user]), [])
    assert.deepStrictEqual(leaks({ errors }, Object.values(keys)), [])
    // What is searched is there.
    for (const text of ["rule sql", "user of key", "Budget", "Limit"]) assert.include(found.get("logs"), text)
    for (const rule of ["sql", "email", "origin", "host", "key", "access", "admin", "limit"]) {
      assert.match(found.get("/metrics")!, new RegExp(`llm_security_events_total\\{[^}]*rule="${rule}"`))
    }
    assert.include(found.get("logs"), "Refused a request from a loopback address: no valid API key.")
    assert.include(found.get("logs"), "Refused a request of key settings/narrow: an API key that does not allow it.")
    assert.include(records, "f529")
    assert.include(found.get("/admin/usage?by=user"), user)
    assert.strictEqual(found.get("spans") !== "", isTraced)
    assert.isTrue([...found.keys()].some((name) => name.startsWith("file ")))
  })
})

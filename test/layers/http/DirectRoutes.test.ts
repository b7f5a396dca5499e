/**
 * A request that starts without the router gets the response that the router's request gets: the same raw text over a
 * socket, for ordinary and odd requests.
 */
import { assert } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Layer, Logger, Scope, Stream, Tracer } from "effect"
import { HttpServer } from "effect/http"
import { connect } from "node:net"
import { gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { NodeExchange } from "../../../src/layers/http/NodeServer.ts"
import * as Server from "../../../src/layers/http/Server.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import { deliverOpened } from "../../../src/services/inference/Inference.ts"
import type { ByteBudget } from "../../../src/services/limits/RequestLimits.ts"
import { RequestBytes } from "../../../src/services/limits/RequestLimits.ts"
import { httpServices } from "../../support/HttpServices.ts"
import { until } from "../../support/Service.ts"

const maxBodyBytes = 10_000

const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
const text: Event = { type: "text", text: "short", tokens: 1 }
const finish: Event = { type: "finish", reason: "stop", usage }
const overloaded = InferenceError.make(
  new InferenceError.QueueFull({ deployment: "m#0", limit: 8, retryAfterMs: 2500 })
)
const broken = InferenceError.make(new InferenceError.EngineFailed({ deployment: "m#0", detail: "Out of memory." }))
const refused = InferenceError.make(new InferenceError.ContentRefused({ deployment: "m#0", detail: "No." }))

/** How a request fails before its first event, by the name of the model. */
const failures: Readonly<Record<string, Effect.Effect<never, InferenceError.InferenceError>>> = {
  overloaded: Effect.fail(overloaded),
  broken: Effect.fail(broken),
  refused: Effect.fail(refused),
  dies: Effect.die(new Error("a defect")),
  waits: Effect.never
}

/** The events of an answer by the name of its model. */
const answers: Readonly<Record<string, Stream.Stream<Event, InferenceError.InferenceError>>> = {
  answers: Stream.make(text, finish),
  "ends early": Stream.concat(Stream.make(text), Stream.fail(broken)),
  "dies early": Stream.concat(Stream.make(text), Stream.die(new Error("a defect"))),
  "is refused early": Stream.concat(Stream.make(text), Stream.fail(refused)),
  pauses: Stream.concat(Stream.make(text), Stream.never)
}

const by = ({ model }: Request) => ({ deployment: `${model}#0`, attempts: 1, decision: "dec-1" })

/** An `Inference` that records what it is asked, from which way, and how that ends. */
const inferenceOf = (seen: Array<string>): Partial<Inference["Service"]> => {
  const record = <A>(request: Request, effect: Effect.Effect<A, InferenceError.InferenceError>) =>
    Effect.withFiber<A, InferenceError.InferenceError>((fiber) => {
      const way = Context.getOption(fiber.context, NodeExchange)._tag === "Some" ? "direct" : "routed"
      seen.push(`${way} ${request.model}`)
      return Effect.onInterrupt(effect, () => Effect.sync(() => seen.push(`interrupted ${request.model}`)))
    })
  const open = (request: Request) =>
    failures[request.model] ?? Effect.succeed({ ...by(request), events: answers[request.model]! })
  return {
    open: (request) => record(request, open(request)),
    deliver: (request, sink) => record(request, deliverOpened(sink, open(request))),
    generate: (request) =>
      record(
        request,
        Effect.as(failures[request.model] ?? Stream.runDrain(answers[request.model]!), {
          ...by(request),
          text: "short",
          toolCalls: [],
          finishReason: "stop" as const,
          usage
        })
      )
  }
}

interface Running {
  readonly port: number
  readonly budget: ByteBudget
  readonly seen: Array<string>
}

/** Spans of another tracer begin in Effect's server: with one, all requests go to the router. */
const otherTracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })

const start = (scope: Scope.Scope, tracer: Tracer.Tracer, bodyTimeout: Duration.Duration) => {
  const seen: Array<string> = []
  const server = {
    admin: { socket: false as const },
    maxBodyBytes,
    maxRequestMemory: 4 * maxBodyBytes,
    bodyTimeout,
    shutdownGrace: Duration.millis(1),
    cors: { origins: ["https://app.example"] }
  }
  const layer = Server.make(Server.dialects).pipe(
    Layer.provide([httpServices({ inference: inferenceOf(seen), server }), Logger.layer([])]),
    Layer.provide(Layer.succeed(Tracer.Tracer, tracer))
  )
  return Effect.map(Layer.buildWithScope(layer, scope), (context): Running => {
    const { address } = Context.get(context, HttpServer.HttpServer)
    return { seen, port: "port" in address ? address.port : 0, budget: Context.get(context, RequestBytes) }
  })
}

/** Servers with the same settings; the requests to one go to the router. */
interface Pair {
  readonly direct: Running
  readonly routed: Running
}

const startPair = (scope: Scope.Scope, bodyTimeout: Duration.Duration): Promise<Pair> =>
  Effect.runPromise(Effect.all({
    direct: start(scope, Tracer.nativeTracer, bodyTimeout),
    routed: start(scope, otherTracer, bodyTimeout)
  }))

const scope = Scope.makeUnsafe()
let patient: Pair
/** Of bodies that stop: any other body could be late too, on a busy machine. */
let impatient: Pair
beforeAll(async () => {
  patient = await startPair(scope, Duration.minutes(10))
  impatient = await startPair(scope, Duration.millis(50))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type Header = readonly [name: string, value: string]

const headOf = (line: string, headers: ReadonlyArray<Header>) =>
  `${
    [`${line} HTTP/1.1`, "Host: localhost", ...headers.map(([name, value]) => `${name}: ${value}`)].join("\r\n")
  }\r\n\r\n`

const paths = ["/v1/chat/completions", "/v1/messages"] as const

const bodyOf = (model: string, more: object = {}) =>
  JSON.stringify({ model, max_tokens: 5, messages: [{ role: "user", content: "Hello" }], ...more })

const close: Header = ["Connection", "close"]
const lengthOf = (body: string): Header => ["Content-Length", String(Buffer.byteLength(body))]

const post = (path: string, body: string, ...headers: ReadonlyArray<Header>) =>
  headOf(`POST ${path}`, [lengthOf(body), ...headers]) + body

const chunksOf = (...parts: ReadonlyArray<string>) =>
  [...parts, ""].map((part) => `${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`).join("")

/** What a client does with its socket. */
interface Client {
  readonly send: (bytes: string | Uint8Array) => void
  readonly end: () => void
  readonly destroy: () => void
  /** Waits until the server holds bytes of a body. */
  readonly held: () => Promise<unknown>
  readonly received: (pattern: RegExp) => Promise<unknown>
  /** Waits until the model has been asked. */
  readonly asked: () => Promise<unknown>
}

type Conversation = (client: Client) => void | Promise<void>

const converse = async ({ budget, port, seen }: Running, act: Conversation) => {
  seen.length = 0
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true })
  let received = ""
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()))
  socket.setEncoding("latin1").on("error", () => {})
  socket.on("data", (some: string) => (received += some)).on("end", () => socket.end())
  await act({
    send: (bytes) => void socket.write(bytes),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
    held: () => until(() => budget.used > 0 ? true : undefined),
    received: (pattern) => until(() => pattern.test(received) ? true : undefined),
    asked: () => until(() => seen.length > 0 ? true : undefined)
  })
  await closed
  await until(() => budget.used === 0 ? true : undefined)
  return received
}

/** Without what differs from request to request. */
const normalized = (received: string) =>
  received
    .replace(/Date: [^\r]+/g, "Date")
    .replace(/(chatcmpl-|req_|msg_)\w{22}/g, "$1id")
    .replace(/"created":\d+/g, "\"created\":0")

const said = (...parts: ReadonlyArray<string | Uint8Array>): Conversation => ({ send }) => parts.forEach(send)

const json: Header = ["Content-Type", "application/json"]

/** Conversations by name; the way on the server with both, and what its first line has. */
const conversationsOf = (path: string): Record<string, readonly [way: string, status: number, act: Conversation]> => {
  const ask = (...headers: ReadonlyArray<Header>) => post(path, bodyOf("answers"), json, ...headers)
  const asking = (model: string, more: object = {}) => said(post(path, bodyOf(model, more), json, close))
  const refusedStatus = path === "/v1/messages" ? 200 : 400
  const chunked: Header = ["Transfer-Encoding", "chunked"]
  const long = bodyOf("answers", { metadata: { user_id: "x".repeat(maxBodyBytes) } })
  return {
    "an answer": ["direct", 200, asking("answers")],
    "a stream": ["direct", 200, asking("answers", { stream: true })],
    "a full queue": ["direct", 429, asking("overloaded")],
    "a full queue of a stream": ["direct", 429, asking("overloaded", { stream: true })],
    "an engine that fails": ["direct", 500, asking("broken")],
    "a refusal": ["direct", refusedStatus, asking("refused")],
    "a refusal of a stream": ["direct", refusedStatus, asking("refused", { stream: true })],
    "a defect": ["direct", 500, asking("dies")],
    "a defect of a stream": ["direct", 500, asking("dies", { stream: true })],
    "a stream that fails": ["direct", 200, asking("ends early", { stream: true })],
    "a stream with a defect": ["direct", 200, asking("dies early", { stream: true })],
    "a stream that is refused": ["direct", 200, asking("is refused early", { stream: true })],
    "an invalid field": ["", 400, asking("answers", { temperature: "hot" })],
    "an invalid routing header": ["", 400, said(ask(["X-Troupe-Timeout-Ms", "soon"], close))],
    "a hop count": ["direct", 200, said(ask(["X-Troupe-Hops", "1"], close))],
    "too many hops": ["", 400, said(ask(["X-Troupe-Hops", "8"], close))],
    "no JSON": ["", 400, said(post(path, "{", json, close))],
    "no body": ["", 400, said(headOf(`POST ${path}`, [["Content-Length", "0"], close]))],
    "no length": ["", 400, said(headOf(`POST ${path}`, [close]))],
    "no UTF-8": ["", 400, said(headOf(`POST ${path}`, [["Content-Length", "2"], close]), Uint8Array.of(0xff, 0xff))],
    "another content type": ["direct", 200, said(post(path, bodyOf("answers"), ["Content-Type", "text/plain"], close))],
    "no content type": ["direct", 200, said(post(path, bodyOf("answers"), close))],
    "a compressed body": ["", 400, ({ send }) => {
      const bytes = gzipSync(bodyOf("answers"))
      send(headOf(`POST ${path}`, [["Content-Length", String(bytes.length)], ["Content-Encoding", "gzip"], close]))
      send(bytes)
    }],
    "a compressed answer accepted": ["direct", 200, said(ask(["Accept-Encoding", "gzip, br"], close))],
    "a body that is too large": ["", 413, said(post(path, long, json, close))],
    "a body announced too large": ["", 413, said(headOf(`POST ${path}`, [["Content-Length", "10001"]]))],
    "a chunked body that is too large": [
      "",
      413,
      said(headOf(`POST ${path}`, [chunked, close]), chunksOf(long.slice(0, 9_000), long.slice(9_000)))
    ],
    "a chunked body": ["direct", 200, said(headOf(`POST ${path}`, [chunked, close]), chunksOf(bodyOf("answers")))],
    "a chunked body in several pieces": ["direct", 200, async ({ held, send }) => {
      const body = bodyOf("answers")
      send(headOf(`POST ${path}`, [chunked, close]))
      send(chunksOf(body.slice(0, 10)).slice(0, -"0\r\n\r\n".length))
      await held()
      send(chunksOf(body.slice(10)))
    }],
    "a body after its headers": ["direct", 200, async ({ held, send }) => {
      const request = ask(close)
      send(request.slice(0, -5))
      await held()
      send(request.slice(-5))
    }],
    "a malformed chunk": ["", 400, said(headOf(`POST ${path}`, [chunked, close]), "xyz\r\n")],
    "a client that expects 100": ["routed", 100, async ({ received, send }) => {
      send(headOf(`POST ${path}`, [lengthOf(bodyOf("answers")), ["Expect", "100-continue"], close]))
      await received(/100 Continue/)
      send(bodyOf("answers"))
    }],
    "another expectation": ["", 417, said(ask(["Expect", "a miracle"], close))],
    "a query": ["routed", 200, said(post(`${path}?beta=true`, bodyOf("answers"), json, close))],
    "a query twice": ["", 400, said(post(`${path}?a=1&a=2`, bodyOf("answers"), json, close))],
    "a trailing slash": ["routed", 200, said(post(`${path}/`, bodyOf("answers"), json, close))],
    "capitals": ["routed", 200, said(post(path.toUpperCase(), bodyOf("answers"), json, close))],
    "a percent-encoded path": ["routed", 200, said(post(path.replace("v1", "v%31"), bodyOf("answers"), json, close))],
    "an absolute target": ["routed", 200, said(post(`http://localhost${path}`, bodyOf("answers"), json, close))],
    GET: ["", 405, said(headOf(`GET ${path}`, [close]))],
    HEAD: ["", 405, said(headOf(`HEAD ${path}`, [close]))],
    OPTIONS: ["", 204, said(headOf(`OPTIONS ${path}`, [close]))],
    PUT: ["", 405, said(headOf(`PUT ${path}`, [["Content-Length", "0"], close]))],
    "a preflight": [
      "",
      204,
      said(headOf(`OPTIONS ${path}`, [
        ["Origin", "https://app.example"],
        ["Access-Control-Request-Method", "POST"],
        close
      ]))
    ],
    "a listed origin": ["direct", 200, said(ask(["Origin", "https://app.example"], close))],
    "another origin": ["", 403, said(ask(["Origin", "https://other.example"], close))],
    "another host": [
      "",
      403,
      said(ask(close).replace("Host: localhost", "Host: other.example"))
    ],
    "no host": ["", 400, said(ask(close).replace("Host: localhost\r\n", ""))],
    "HTTP/1.0": ["direct", 200, said(ask().replace("HTTP/1.1", "HTTP/1.0"))],
    "a stream of HTTP/1.0": [
      "direct",
      200,
      said(post(path, bodyOf("answers", { stream: true })).replace("HTTP/1.1", "HTTP/1.0"))
    ],
    "two authorizations": [
      "direct",
      200,
      said(ask(["Authorization", "Bearer one"], ["Authorization", "Bearer two"], close))
    ],
    "two lengths": ["", 400, said(ask(["Content-Length", "5"], close))],
    "a length and chunks": ["", 400, said(ask(chunked, close))],
    "odd headers": ["direct", 200, said(ask(["__proto__", "1"], ["constructor", "2"], ["Cookie", "a=1"], close))],
    "an upgrade": ["direct", 200, said(ask(["Connection", "Upgrade"], ["Upgrade", "h2c"], close))],
    "two requests in one packet": ["direct", 200, said(ask() + ask(close))],
    "a failure and an answer in one packet": ["direct", 400, said(post(path, "{", json) + ask(close))],
    "a stream and an answer in one packet": [
      "direct",
      200,
      said(post(path, bodyOf("answers", { stream: true }), json) + ask(close))
    ],
    "requests of both ways in one packet": [
      "direct",
      200,
      said(`${ask()}${post(`${path}?beta=true`, bodyOf("answers"))}${ask(close)}`)
    ],
    "a second request on the connection": ["direct", 200, async ({ received, send }) => {
      send(ask())
      await received(/short/)
      send(ask(close))
    }],
    "a client that ends its side": ["direct", 200, ({ end, send }) => {
      send(ask())
      end()
    }],
    "a client that leaves in its upload": ["", 0, async ({ destroy, held, send }) => {
      send(ask().slice(0, -5))
      await held()
      destroy()
    }],
    "a client that leaves while it waits": ["direct", 0, async ({ asked, destroy, send }) => {
      send(post(path, bodyOf("waits"), json))
      await asked()
      destroy()
    }],
    "a client that leaves a stream before its first event": ["direct", 0, async ({ asked, destroy, send }) => {
      send(post(path, bodyOf("waits", { stream: true }), json))
      await asked()
      destroy()
    }],
    "a client that leaves in a stream": ["direct", 200, async ({ destroy, received, send }) => {
      send(post(path, bodyOf("pauses", { stream: true }), json))
      await received(/short/)
      destroy()
    }]
  }
}

/** Several choices are a request each. */
const choices: Record<string, readonly [way: string, status: number, act: Conversation]> = Object.fromEntries(
  ["answers", "overloaded", "ends early", "dies"].flatMap((model) =>
    [true, false].map((stream) => {
      const body = bodyOf(model, { stream, n: 2, max_tokens: undefined })
      const isStarted = model === "answers" || stream && model === "ends early"
      const status = isStarted ? 200 : model === "overloaded" ? 429 : 500
      return [
        `two choices: ${model}${stream ? ", as a stream" : ""}`,
        [stream ? "routed" : "direct", status, said(post("/v1/chat/completions", body, json, close))]
      ] as const
    })
  )
)

/** Checks that both servers send the same response, with this status. */
const expectSame = async ({ direct, routed }: Pair, status: number, act: Conversation) => {
  const received = await converse(direct, act)
  const expected = await converse(routed, act)
  await until(() => direct.seen.length === routed.seen.length ? true : undefined)
  assert.strictEqual(normalized(received), normalized(expected))
  assert.strictEqual(Number(received.split(" ", 2)[1] ?? 0), status)
  assert.deepStrictEqual(direct.seen.map((one) => one.replace(/^direct/, "routed")), routed.seen)
}

describe.each(paths)("a request at %s", (path) => {
  const conversations = { ...conversationsOf(path), ...(path === "/v1/chat/completions" ? choices : {}) }
  it.each(Object.entries(conversations))("gets the router's response: %s", async (_, [way, status, act]) => {
    await expectSame(patient, status, act)
    assert.strictEqual(patient.direct.seen[0]?.split(" ")[0] ?? "", way)
  })

  it("gets the router's response: a body that stops", async () => {
    await expectSame(impatient, 408, said(post(path, bodyOf("answers"), json).slice(0, -5)))
    assert.isEmpty(impatient.direct.seen)
  })
})

describe("a request that the end of the grace interrupts", () => {
  it("gets the error of its dialect, with and without the router", async () => {
    const own = Scope.makeUnsafe()
    const { direct, routed } = await startPair(own, Duration.minutes(10))
    const ask = ({ port }: Running, path: string) =>
      fetch(`http://127.0.0.1:${port}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "waits", max_tokens: 5, messages: [{ role: "user", content: "Hello" }] })
      })
    const asked = [direct, routed].flatMap((one) =>
      ["/v1/chat/completions", "/v1/messages"].map((path) => ask(one, path))
    )
    await until(() => direct.seen.length + routed.seen.length === 4 ? true : undefined)
    await Effect.runPromise(Scope.close(own, Exit.void))
    for (const response of await Promise.all(asked)) {
      assert.deepStrictEqual([response.status >= 503, response.headers.get("retry-after")], [true, "1"])
      const { error } = await response.json() as { readonly error: { readonly message: string } }
      assert.strictEqual(error.message, "The service is shutting down. Try again.")
    }
  })
})

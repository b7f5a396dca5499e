/** Faults of a provider, and the reason that each is reported with. */
import { assert, describe, it, vi } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Logger, Redacted, Scope, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { createServer } from "node:net"
import { setImmediate } from "node:timers/promises"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import type { Play } from "../../support/FaultServer.ts"
import type { EngineAt } from "./support.ts"
import { drivers, fixture, generation, json, outcome, secret, served, textOf } from "./support.ts"

const { stream, buffered } = fixture("openai").text
const pieces = stream
const body = [JSON.stringify(buffered)]

type Expected = Readonly<Record<string, unknown>>
type Case = readonly [name: string, play: Play, expected: Expected, over?: Partial<RemoteDeployment>]

const day = Duration.days(1)

/** One limit that is short, so that no other can be the reason. */
const limit = (name: string, ms: number) => ({
  timeouts: { firstByte: day, firstToken: day, stall: day, total: day, [name]: Duration.millis(ms) }
})
const timeout = (phase: string, afterMs: number): Expected => ({ _tag: "UpstreamTimeout", phase, afterMs })
const failed = (kind: string): Expected => ({ _tag: "UpstreamFailed", kind })

/** Refusals are the same, however the answer was to come. */
const refusals: ReadonlyArray<Case> = [
  ["a key that is refused", { status: 401, headers: json, pieces: [`{"error":{"message":"Bad key ${secret}"}}`] }, {
    _tag: "AuthenticationFailed",
    status: 401
  }],
  ["a key that may not", { status: 403, pieces: ["no"] }, { _tag: "AuthenticationFailed", status: 403 }],
  ["429 with seconds", { status: 429, headers: { "retry-after": "7" }, pieces: ["slow down"] }, {
    _tag: "RateLimited",
    retryAfterMs: 7000
  }],
  ["429 with nothing", { status: 429, pieces: [] }, { _tag: "RateLimited", retryAfterMs: undefined }],
  ["500", { status: 500, headers: { "content-type": "text/html" }, pieces: ["<html>Internal error</html>"] }, {
    ...failed("status"),
    status: 500
  }],
  ["503 with a time to come back", { status: 503, headers: { "retry-after": "2" }, pieces: ["busy"] }, {
    ...failed("status"),
    status: 503,
    retryAfterMs: 2000
  }],
  ["an endless refusal", { status: 500, pieces: ["x".repeat(1000)], fault: { kind: "flood", after: 1 } }, {
    ...failed("status"),
    status: 500
  }],
  ["a redirect", { status: 302, headers: { location: "http://127.0.0.1:1/v1" }, pieces: [] }, failed("redirect")],
  [
    "a body of another type",
    { headers: { "content-type": "text/html" }, pieces: ["<html>Hello</html>"] },
    failed(
      "malformed"
    )
  ],
  [
    "a body that is compressed unasked",
    { headers: { "content-encoding": "gzip" }, pieces: ["x"] },
    failed(
      "malformed"
    )
  ],
  ["a connection that is reset before an answer", { silent: "reset", pieces: [] }, failed("network")]
]

const beforeContent: ReadonlyArray<Case> = [
  ["no headers", { silent: "stall", pieces: [] }, timeout("first_byte", 50), limit("firstByte", 50)],
  ["no content", { pieces, fault: { kind: "stall", after: 1 } }, timeout("first_token", 50), limit("firstToken", 50)],
  [
    "no content, and signs of life for ever",
    {
      pieces: [": ping\n\n"],
      fault: { kind: "trickle", after: 0 }
    },
    timeout("total", 80),
    limit("total", 80)
  ],
  ["a connection that is cut", { pieces, fault: { kind: "cut", after: 1 } }, failed("cut")],
  ["a connection that is reset", { pieces, fault: { kind: "reset", after: 1 } }, failed("cut")],
  ["an end without an answer", { pieces: [] }, failed("cut")],
  ["nothing but the end's mark", { pieces: pieces.slice(-1) }, failed("cut")],
  ["an answer without content", { pieces: [pieces[0]!, ...pieces.slice(3)] }, failed("empty")],
  ["garbage", { pieces: ["data: {\"choices\":[\n\n"] }, failed("malformed")],
  ["what is no text", { pieces: [Uint8Array.of(100, 97, 255, 254)] }, failed("malformed")],
  [
    "an event that does not end",
    {
      pieces: ["data: ", "x".repeat(500)],
      fault: { kind: "flood", after: 1 }
    },
    failed("too_large"),
    { maxResponseBytes: 5000 }
  ],
  [
    "comments without end",
    { pieces: [`: ${"x".repeat(500)}\n`], fault: { kind: "flood", after: 0 } },
    failed(
      "too_large"
    ),
    { maxResponseBytes: 5000 }
  ],
  ["an error in the stream", {
    pieces: ["data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n"]
  }, failed("status")],
  [
    "a limit in the stream",
    { pieces: ["data: {\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n"] },
    {
      _tag: "RateLimited"
    }
  ],
  ["a filter in the stream", {
    pieces: [
      "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n",
      pieces.at(-1)!
    ]
  }, { _tag: "ContentRefused" }]
]

/** Once "Grüße " has come. */
const afterContent: ReadonlyArray<Case> = [
  ["nothing more", { pieces, fault: { kind: "stall", after: 2 } }, timeout("stall", 50), limit("stall", 50)],
  [
    "signs of life for ever",
    {
      pieces: [pieces[0]!, pieces[1]!, ": ping\n\n"],
      fault: { kind: "trickle", after: 2 }
    },
    timeout("total", 500),
    limit("total", 500)
  ],
  ["a connection that is cut", { pieces, fault: { kind: "cut", after: 2 } }, failed("cut")],
  ["a connection that is reset", { pieces, fault: { kind: "reset", after: 2 } }, failed("cut")],
  ["an early end in good order", { pieces, fault: { kind: "end", after: 2 } }, failed("cut")],
  [
    "a flood",
    { pieces: [pieces[0]!, pieces[1]!, `: ${"x".repeat(500)}\n`], fault: { kind: "flood", after: 2 } },
    failed(
      "too_large"
    ),
    { maxResponseBytes: 5000 }
  ],
  [
    "garbage",
    { pieces: [pieces[0]!, pieces[1]!, "data: {\n\n"], fault: { kind: "trickle", after: 2 } },
    failed(
      "malformed"
    )
  ],
  ["an error in the stream", {
    pieces: [pieces[0]!, pieces[1]!, "data: {\"error\":{\"message\":\"overloaded\"}}\n\n"],
    fault: { kind: "trickle", after: 2 }
  }, failed("status")]
]

const bufferedBefore: ReadonlyArray<Case> = [
  ["no headers", { silent: "stall", pieces: [] }, timeout("total", 50), limit("total", 50)],
  [
    "no body",
    { headers: json, pieces: body, fault: { kind: "stall", after: 0 } },
    timeout("total", 50),
    limit(
      "total",
      50
    )
  ],
  ["a connection that is cut", { headers: json, pieces: body, fault: { kind: "cut", after: 0 } }, failed("cut")],
  ["no body at all", { headers: json, pieces: [] }, failed("cut")],
  ["white space alone", { headers: json, pieces: [" \n"] }, failed("cut")],
  ["an early end in good order", { headers: json, pieces: ["{\"choices\":"] }, failed("cut")],
  ["an early end within a string", { headers: json, pieces: ["{\"a\":\"}\\\""] }, failed("cut")],
  [
    "an early end within a character",
    { headers: json, pieces: [Buffer.from("{\"a\":\"ü").subarray(0, -1)] },
    failed("cut")
  ],
  ["a word", { headers: json, pieces: ["OK"] }, failed("malformed")],
  ["a complete object that is not JSON", { headers: json, pieces: ["{\"choices\":[}]} {"] }, failed("malformed")],
  [
    "bytes that are not UTF-8",
    { headers: json, pieces: [Uint8Array.of(123, 255, 254, 34, 34, 125)] },
    failed("malformed")
  ],
  ["JSON that is no answer", { headers: json, pieces: ["[]"] }, failed("malformed")],
  ["an answer without content", {
    headers: json,
    pieces: [`{"choices":[{"index":0,"message":{"content":""},"finish_reason":"stop"}]}`]
  }, failed("empty")],
  ["an answer without its end", {
    headers: json,
    pieces: [`{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":null}]}`]
  }, failed("cut")],
  [
    "an error with a status of success",
    { headers: json, pieces: [`{"error":{"message":"overloaded"}}`] },
    failed(
      "status"
    )
  ],
  [
    "an endless body",
    { headers: json, pieces: [" ".repeat(500)], fault: { kind: "flood", after: 0 } },
    failed(
      "too_large"
    ),
    { maxResponseBytes: 5000 }
  ]
]

/** Errors as JSON in responses that are labelled otherwise. */
const mislabelled: ReadonlyArray<Case> = ["text/event-stream", "text/plain", "text/html; charset=utf-8"].flatMap(
  (type): ReadonlyArray<Case> => {
    const headers = { "content-type": type }
    const quota = { error: { message: `No credit left for ${secret}`, type: "x", code: "insufficient_quota" } }
    return [
      [`a used-up quota as ${type}`, { headers, pieces: [JSON.stringify(quota, null, 2)], bytesAtATime: 30 }, {
        _tag: "AuthenticationFailed",
        quota: true
      }],
      [
        `a rate limit of Gemini as ${type}`,
        {
          headers,
          pieces: ["[{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"message\":\"x\"}}]\n"]
        },
        { _tag: "RateLimited" },
        { provider: "gemini" }
      ],
      [
        `an error of Anthropic as ${type}`,
        {
          headers,
          pieces: ["{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n"]
        },
        { ...failed("status"), status: 529 },
        { provider: "anthropic" }
      ],
      [
        `JSON that is no error as ${type}`,
        { headers, pieces: ["{\"a\":1}"] },
        failed(
          type === "text/event-stream" ? "cut" : "malformed"
        )
      ],
      [`an error that is too long as ${type}`, {
        headers,
        pieces: [JSON.stringify({ error: { code: "insufficient_quota", message: "x".repeat(70_000) } })]
      }, failed(type === "text/event-stream" ? "cut" : "malformed")]
    ]
  }
)

const halves = [body[0]!.slice(0, 100), body[0]!.slice(100)]
const bufferedAfter: ReadonlyArray<Case> = [
  [
    "nothing more",
    { headers: json, pieces: halves, fault: { kind: "stall", after: 1 } },
    timeout("stall", 50),
    limit(
      "stall",
      50
    )
  ],
  ["a connection that is cut", { headers: json, pieces: halves, fault: { kind: "cut", after: 1 } }, failed("cut")],
  ["a connection that is reset", { headers: json, pieces: halves, fault: { kind: "reset", after: 1 } }, failed("cut")],
  [
    "an early end in good order",
    { headers: json, pieces: halves, fault: { kind: "end", after: 1 } },
    failed("cut")
  ]
]

const pick = (reason: object, expected: Expected): Expected =>
  Object.fromEntries(Object.keys(expected).map((name) => [name, (reason as Expected)[name]]))

/** Lets the clock go on until a limit has been reached, in steps that the network has time to follow. */
const tick: Effect.Effect<never> = Effect.forever(Effect.andThen(
  Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2))),
  TestClock.adjust(Duration.millis(50))
))

const expectFault = (
  engineAt: EngineAt,
  [, play, expected, over]: Case,
  text: string,
  more: Partial<RemoteDeployment> = {}
) =>
  Effect.gen(function*() {
    const server = yield* served(() => ({ gated: text !== "", ...play }))
    const engine = yield* engineAt(server.url, { ...over, ...more })
    const begun = yield* Deferred.make<void>()
    const running = yield* Effect.forkChild(outcome(engine, generation, () => {
      server.release()
      Deferred.doneUnsafe(begun, Effect.void)
    }))
    yield* Effect.promise(() => server.came(0))
    if (text !== "") yield* Deferred.await(begun)
    const clock = expected["_tag"] === "UpstreamTimeout" ? tick : Effect.never
    const { events, reason } = yield* Effect.raceFirst(Fiber.join(running), clock)
    assert.isDefined(reason, "a failure")
    assert.deepStrictEqual(pick(reason, expected), expected)
    assert.notInclude(reason.message, secret)
    assert.strictEqual(textOf(events), text)
    assert.isFalse(events.some(({ type }) => type === "finish"))
    assert.strictEqual(server.seen.length, 1)
    // A connection that did not end by itself is closed at once.
    if (play.silent === "stall" || /stall|flood|trickle/.test(play.fault?.kind ?? "")) {
      yield* Effect.promise(() => server.left(0))
    }
  })

for (const [name, engineAt] of drivers) {
  describe(`RemoteEngine${name}`, () => {
    describe("with a stream, before its first content", () => {
      for (const one of [...refusals, ...beforeContent, ...mislabelled]) {
        it.effect(one[0], () => expectFault(engineAt, one, ""))
      }
    })

    describe("with a stream, after its first content", () => {
      for (const one of afterContent) it.effect(one[0], () => expectFault(engineAt, one, "Grüße "))
    })

    describe("with a buffered answer", () => {
      const over = { stream: false }
      for (const one of [...refusals, ...bufferedBefore]) it.effect(one[0], () => expectFault(engineAt, one, "", over))
      for (const one of bufferedAfter) {
        it.effect(`${one[0]} after its first bytes`, () => expectFault(engineAt, one, "", over))
      }
    })

    describe("requests a streamed or a buffered answer", () => {
      const cases: ReadonlyArray<readonly [string, Partial<RemoteDeployment>, ReadonlyArray<boolean>]> = [
        ["as requested", {}, [true, false]],
        ["streamed always", { stream: true }, [true, true]],
        ["buffered always", { stream: false }, [false, false]],
        ["streamed if the time between pieces is limited", { timeouts: { stall: Duration.seconds(1) } }, [true, true]],
        ["as requested if only the total time is limited", { timeouts: { total: Duration.seconds(1) } }, [true, false]]
      ]
      for (const [name, over, streams] of cases) {
        it.live(name, () =>
          Effect.gen(function*() {
            const { text: { answer: { text }, stream, buffered } } = fixture("openai")
            const asked: Array<boolean> = []
            const server = yield* served((_, { body }) => {
              const isStream = (body as { readonly stream?: boolean }).stream === true
              asked.push(isStream)
              return isStream ? { pieces: stream } : { headers: json, pieces: [JSON.stringify(buffered)] }
            })
            const engine = yield* engineAt(server.url, over)
            for (const one of [generation, { ...generation, buffered: true }]) {
              assert.strictEqual(textOf((yield* outcome(engine, one)).events), text)
            }
            assert.deepStrictEqual(asked, streams)
          }))
      }
    })

    it.live("names the address of a 404 without its secrets, and the settings to check", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({
          status: 404,
          headers: json,
          pieces: ["{\"error\":{\"message\":\"Gone.\"}}"]
        }))
        const baseUrl = server.url.replace("//", "//user:pass@") + "/wrong"
        const { reason } = yield* outcome(yield* engineAt(baseUrl, { provider: "gemini", model: "m" }))
        assert.deepInclude(reason, { _tag: "UpstreamFailed", status: 404 })
        assert.include(reason?.message, `${server.url}/wrong/`)
        assert.include(reason?.message, "Check `provider`, `model` and `baseUrl`")
        assert.notMatch(reason!.message, /user|pass|\?|sk-/)
      }))

    it.live("reads Retry-After as a date", () =>
      Effect.gen(function*() {
        const date = new Date(Date.now() + 3_600_000).toUTCString()
        const server = yield* served(() => ({ status: 429, headers: { "retry-after": date }, pieces: [] }))
        const { reason } = yield* outcome(yield* engineAt(server.url))
        assert.strictEqual(reason?._tag, "RateLimited")
        if (reason?._tag !== "RateLimited") return
        assert.isAbove(reason.retryAfterMs!, 3_000_000)
        assert.isAtMost(reason.retryAfterMs!, 3_600_000)
      }))

    it.live("reports a host that does not exist", () =>
      Effect.gen(function*() {
        const server = yield* Effect.scoped(served(() => ({ pieces: [] })))
        const { reason } = yield* outcome(yield* engineAt(server.url))
        assert.deepInclude(reason, failed("network"))
        assert.include(reason!.message, "ECONNREFUSED")
      }))

    it.live("reports a host whose TLS handshake takes too long", () =>
      Effect.gen(function*() {
        const silent = createServer()
        yield* Effect.acquireRelease(
          Effect.promise(() => once(silent.listen(0, "127.0.0.1"), "listening")),
          () => Effect.sync(() => silent.close())
        )
        silent.on("connection", (socket) => {
          socket.on("error", () => {})
        })
        const { port } = silent.address() as AddressInfo
        const engine = yield* engineAt(`https://127.0.0.1:${port}`, limit("connect", 50))
        assert.deepInclude((yield* outcome(engine)).reason, timeout("connect", 50))
      }))

    it.live("does not treat a slow answer as a fault", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({ pieces, bytesAtATime: 1 }))
        const { events, reason } = yield* outcome(yield* engineAt(server.url))
        assert.isUndefined(reason)
        assert.strictEqual(textOf(events), "Grüße aus 東京 🎌")
      }))

    it.live("closes the connection when the caller is interrupted, before the answer and in its middle", () =>
      Effect.gen(function*() {
        const server = yield* served((index) =>
          index === 0 ? { silent: "stall", pieces: [] } : { pieces, fault: { kind: "stall", after: 2 } }
        )
        const engine = yield* engineAt(server.url)
        const waiting = yield* Effect.forkChild(outcome(engine))
        yield* Effect.promise(() => server.came(0))
        yield* Fiber.interrupt(waiting)
        yield* Effect.promise(() => server.left(0))
        const begun = yield* Deferred.make<void>()
        const reading = yield* Effect.forkChild(
          outcome(engine, generation, () => Deferred.doneUnsafe(begun, Effect.void))
        )
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(reading)
        yield* Effect.promise(() => server.left(1))
      }))

    it.live("closes the connection when the consumer stops reading, and holds the slot until then", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({ pieces, fault: { kind: "stall", after: 2 } }))
        const engine = yield* engineAt(server.url)
        let held = 0
        const hold = () => {
          held++
          return () => {
            held--
          }
        }
        yield* Stream.runForEach(
          Stream.take(engine.generate(generation, hold), 1),
          () => Effect.sync(() => assert.strictEqual(held, 1))
        )
        assert.strictEqual(held, 0)
        yield* Effect.promise(() => server.left(0))
      }))

    it.live("fails running requests when it is stopped, and rejects new ones", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({ pieces, fault: { kind: "stall", after: 2 } }))
        const engine = yield* engineAt(server.url)
        const begun = yield* Deferred.make<void>()
        const running = yield* Effect.forkChild(
          outcome(engine, generation, () => Deferred.doneUnsafe(begun, Effect.void))
        )
        yield* Deferred.await(begun)
        yield* engine.stop
        const { events, reason } = yield* Fiber.join(running)
        assert.strictEqual(reason?._tag, "EngineStopped")
        assert.strictEqual(textOf(events), "Grüße ")
        assert.isTrue(engine.isOver?.())
        assert.strictEqual((yield* outcome(engine)).reason?._tag, "EngineStopped")
        assert.strictEqual(server.seen.length, 1)
      }))

    it.live("reads a socket only as fast as its stream is read", () =>
      Effect.gen(function*() {
        const piece = `data: {"choices":[{"index":0,"delta":{"content":"${"x".repeat(10_000)}"}}]}\n\n`
        const server = yield* served(() => ({ pieces: [piece], fault: { kind: "flood", after: 0 } }))
        const engine = yield* engineAt(server.url, { maxResponseBytes: 2 ** 40 })
        const begun = yield* Deferred.make<void>()
        const reading = yield* Effect.forkChild(
          Stream.runForEach(
            engine.generate(generation),
            () => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
          )
        )
        yield* Deferred.await(begun)
        yield* Effect.promise(() => server.blocked(0))
        yield* Fiber.interrupt(reading)
        yield* Effect.promise(() => server.left(0))
      }))

    it.live("reuses its connections", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({ pieces }))
        const engine = yield* engineAt(server.url)
        for (let index = 0; index < 20; index++) assert.isUndefined((yield* outcome(engine)).reason)
        // A connection that is still in use when the next request starts has another opened beside it.
        assert.isAtMost(server.connections(), 3)
      }))

    it.live("keeps an unused connection for a minute, or for `timeouts.idle`", () =>
      Effect.gen(function*() {
        const text = JSON.stringify(buffered)
        const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}`
        // The server keeps the connection, and announces no time.
        const fault = { kind: "stall", after: 1 } as const
        const server = yield* served(() => ({ raw: true, pieces: [`${head}\r\n\r\n${text}`], fault }))
        const timers = vi.spyOn(globalThis, "setTimeout")
        yield* Effect.addFinalizer(() => Effect.sync(() => timers.mockRestore()))
        const usual = yield* engineAt(server.url, { stream: false })
        assert.isUndefined((yield* outcome(usual)).reason)
        const idleTimes = () => timers.mock.calls.filter(([{ name }]) => name === "onParserTimeout").map(([, ms]) => ms)
        // The connection is idle some turns after the answer.
        while (idleTimes().length === 0) yield* Effect.promise(() => setImmediate())
        assert.deepStrictEqual(idleTimes(), [60_000])
        const short = yield* engineAt(server.url, { stream: false, timeouts: { idle: Duration.millis(20) } })
        assert.isUndefined((yield* outcome(short)).reason)
        yield* Effect.promise(() => server.closed(1))
        assert.isUndefined((yield* outcome(short)).reason)
        assert.strictEqual(server.connections(), 3)
      }))

    it.live("shows no key in an error, a log or a span", () =>
      Effect.gen(function*() {
        const shown: Array<string> = []
        const logger = Logger.make(({ message }) => {
          shown.push(JSON.stringify(message))
        })
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            const end = span.end.bind(span)
            span.end = (time, exit) => {
              shown.push(JSON.stringify([span.name, [...span.attributes], exit]))
              end(time, exit)
            }
            return span
          }
        })
        const echo = JSON.stringify({ error: { message: `Wrong: Bearer ${secret}, my-own-header-secret` } })
        const statuses = [400, 401, 403, 404, 429, 500]
        const server = yield* served((index) =>
          index < statuses.length
            ? { status: statuses[index]!, headers: json, pieces: [echo] }
            : { pieces: [`data: ${echo}\n\n`] }
        )
        const run = Effect.gen(function*() {
          for (let index = 0; index <= statuses.length; index++) {
            // Each an engine of its own: a refused key is not used again.
            const engine = yield* engineAt(server.url, { headers: { "x-own": Redacted.make("my-own-header-secret") } })
            shown.push(JSON.stringify(engine.describe))
            const { reason } = yield* outcome(engine)
            assert.isDefined(reason)
            shown.push(JSON.stringify(reason), reason.message, String(reason), reason.stack ?? "")
          }
        })
        yield* run.pipe(
          Effect.withSpan("test"),
          Effect.provideService(Tracer.Tracer, tracer),
          Effect.provide(Logger.layer([logger]))
        )
        assert.strictEqual(server.seen.length, statuses.length + 1)
        assert.isTrue(server.seen.every(({ headers }) => headers.authorization === `Bearer ${secret}`))
        assert.isTrue(server.seen.every(({ headers }) => headers["x-own"] === "my-own-header-secret"))
        assert.isAbove(shown.length, 30)
        for (const text of shown) {
          assert.notInclude(text, secret)
          assert.notInclude(text, "my-own-header-secret")
        }
      }))

    it.live("ends with its scope", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({ pieces, fault: { kind: "stall", after: 2 } }))
        const scope = yield* Scope.make()
        const engine = yield* Scope.provide(engineAt(server.url), scope)
        const running = yield* Effect.forkChild(outcome(engine))
        yield* Effect.promise(() => server.came(0))
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))
        assert.strictEqual((yield* Fiber.join(running)).reason?._tag, "EngineStopped")
        yield* Effect.promise(() => server.left(0))
      }))
  })
}

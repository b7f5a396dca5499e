/** What a deployment with several keys does when its provider limits or refuses some. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import type { Play, Seen } from "../../support/FaultServer.ts"
import { engineAt, fixture, generation, json, outcome, served } from "./support.ts"

const { stream: pieces } = fixture("openai").text

const options = {
  keys: [{ key: Redacted.make("key-one") }, { key: Redacted.make("key-two") }]
} as const

const keyOf = ({ headers }: Seen) => headers.authorization?.replace("Bearer ", "")

describe("several keys", () => {
  for (const [status, tag] of [[401, "AuthenticationFailed"], [429, "RateLimited"]] as const) {
    it.effect(`uses another key within the request on ${status}, and fails if none is left`, () =>
      Effect.gen(function*() {
        const bad = new Set(["key-one"])
        const server = yield* served((_, request) =>
          bad.has(keyOf(request)!) ? { status, headers: { "retry-after": "30" }, pieces: [] } : { pieces }
        )
        const engine = yield* engineAt(server.url, options)
        for (let index = 0; index < 20; index++) assert.isUndefined((yield* outcome(engine)).reason)
        // Only the first request that draws it tries the bad one: it rests.
        assert.isAtMost(server.seen.filter((one) => keyOf(one) === "key-one").length, 1)
        bad.add("key-two")
        assert.strictEqual((yield* outcome(engine)).reason?._tag, tag)
        const before = server.seen.length
        assert.strictEqual((yield* outcome(engine)).reason?._tag, tag)
        // Every key rests: the provider is not asked.
        assert.strictEqual(server.seen.length, before)
        bad.clear()
        yield* TestClock.adjust(Duration.minutes(2))
        assert.isUndefined((yield* outcome(engine)).reason)
      }))
  }

  for (const buffered of [false, true]) {
    it.effect(`puts a key in cooldown for an error within an answer, ${buffered ? "buffered" : "streamed"}`, () =>
      Effect.gen(function*() {
        const error = JSON.stringify({ error: { message: "Slow down.", code: "rate_limit_exceeded" } })
        const server = yield* served((index) => {
          if (index > 0) return { pieces }
          return buffered
            ? { headers: json, pieces: [error] }
            : { pieces: [pieces[0]!, pieces[1]!, `data: ${error}\n\n`] }
        })
        const engine = yield* engineAt(server.url, { key: Redacted.make("key-one") })
        assert.strictEqual((yield* outcome(engine, { ...generation, buffered })).reason?._tag, "RateLimited")
        assert.strictEqual((yield* outcome(engine)).reason?._tag, "RateLimited")
        assert.lengthOf(server.seen, 1)
        yield* TestClock.adjust(Duration.minutes(2))
        assert.isUndefined((yield* outcome(engine)).reason)
      }))
  }

  it.effect("keeps a refusal when an earlier request succeeds", () =>
    Effect.gen(function*() {
      const late = Promise.withResolvers<Play>()
      const server = yield* served((index) => index === 0 ? late.promise : { status: 401, pieces: [] })
      const engine = yield* engineAt(server.url, { key: Redacted.make("key-one") })
      const early = yield* Effect.forkChild(outcome(engine))
      yield* Effect.promise(() => server.came(0))
      assert.strictEqual((yield* outcome(engine)).reason?._tag, "AuthenticationFailed")
      late.resolve({ pieces })
      assert.isUndefined((yield* Fiber.join(early)).reason)
      assert.strictEqual((yield* outcome(engine)).reason?._tag, "AuthenticationFailed")
      assert.lengthOf(server.seen, 2)
    }))

  it.effect("is in cooldown for a minute when its quota is used up, and the error names the quota", () =>
    Effect.gen(function*() {
      const body = JSON.stringify({ error: { message: "No.", code: "insufficient_quota" } })
      const server = yield* served(() => ({
        status: 429,
        headers: { "content-type": "application/json" },
        pieces: [body]
      }))
      const engine = yield* engineAt(server.url, { key: Redacted.make("key-one") })
      for (let index = 0; index < 3; index++) {
        const { reason } = yield* outcome(engine)
        assert.strictEqual(reason?._tag, "AuthenticationFailed")
        assert.include(reason!.message, "The provider's quota is used up")
        yield* TestClock.adjust(Duration.seconds(20))
      }
      assert.lengthOf(server.seen, 1)
      yield* outcome(engine)
      assert.lengthOf(server.seen, 2)
    }))

  it.effect("is sent without the line break that a secret file ends with", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ pieces }))
      for (const around of ["\n", "\r\n", "\uFEFF", " "]) {
        const engine = yield* engineAt(server.url, {
          key: Redacted.make(`${around}key-one${around}`),
          headers: { "x-more": Redacted.make(`more${around}`) }
        })
        assert.isUndefined((yield* outcome(engine)).reason)
        assert.deepInclude(server.seen.at(-1)!.headers, { authorization: "Bearer key-one", "x-more": "more" })
      }
    }))

  it.effect("that cannot be sent refuses the start, and is not shown", () =>
    Effect.gen(function*() {
      for (
        const [name, over] of [
          ["key", { key: Redacted.make("hidden\nkey") }],
          ["headers.x-more", { headers: { "x-more": Redacted.make("hidden\0") } }]
        ] as const
      ) {
        const { reason } = yield* Effect.flip(engineAt("http://127.0.0.1:9", over))
        assert.strictEqual(reason._tag, "ModelLoadFailed")
        assert.include(reason.message, `${name} does not fit an HTTP header`)
        assert.notInclude(reason.message, "hidden")
      }
    }))

  it.effect("does not count other failures against a key", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ status: 500, pieces: [] }))
      const engine = yield* engineAt(server.url, options)
      for (let index = 1; index <= 5; index++) {
        assert.strictEqual((yield* outcome(engine)).reason?._tag, "UpstreamFailed")
        assert.strictEqual(server.seen.length, index)
      }
    }))
})

describe("a probe of a rejected key", () => {
  /** The answers to the first request, which is rejected, to the probe, and to all that follow. */
  const probed = Effect.fnUntraced(function*(probe: Play) {
    const server = yield* served((index) => [{ status: 401, pieces: [] }, probe][index] ?? { pieces })
    const engine = yield* engineAt(server.url, { key: Redacted.make("key-one") })
    assert.strictEqual((yield* outcome(engine)).reason?._tag, "AuthenticationFailed")
    yield* TestClock.adjust("1 second")
    return { engine, server, reason: (yield* outcome(engine)).reason }
  })

  for (const status of [400, 404, 405, 409, 413, 422]) {
    it.effect(`treats status ${status} as accepting the key`, () =>
      Effect.gen(function*() {
        const { engine, reason, server } = yield* probed({ status, headers: json, pieces: ["{}"] })
        assert.notStrictEqual(reason?._tag, "AuthenticationFailed")
        assert.isUndefined((yield* outcome(engine)).reason)
        assert.lengthOf(server.seen, 3)
      }))
  }

  const inconclusive: Readonly<Record<string, Play>> = {
    "status 500": { status: 500, pieces: [] },
    "status 503": { status: 503, pieces: [] },
    "status 529": { status: 529, pieces: [] },
    "a reset connection": { pieces: [], silent: "reset" }
  }
  for (const [name, play] of Object.entries(inconclusive)) {
    it.effect(`is reported as it ended, and the next request probes at once: ${name}`, () =>
      Effect.gen(function*() {
        const { engine, reason, server } = yield* probed(play)
        assert.strictEqual(reason?._tag, "UpstreamFailed")
        assert.isUndefined((yield* outcome(engine)).reason)
        assert.lengthOf(server.seen, 3)
      }))
  }

  it.effect("that is rate-limited is not used for the provider's Retry-After, and then is", () =>
    Effect.gen(function*() {
      const { engine, reason, server } = yield* probed({ status: 429, headers: { "retry-after": "30" }, pieces: [] })
      assert.strictEqual(reason?._tag, "RateLimited")
      const next = (yield* outcome(engine)).reason
      assert.deepInclude(next, { _tag: "RateLimited", retryAfterMs: 30_000, cached: true })
      assert.include(next?.message, "was not called")
      assert.include(next?.message, "30 s")
      assert.lengthOf(server.seen, 2)
      yield* TestClock.adjust("30 seconds")
      assert.isUndefined((yield* outcome(engine)).reason)
    }))

  it.effect("is announced by the rejection that is given without a call", () =>
    Effect.gen(function*() {
      const { engine, reason, server } = yield* probed({ status: 401, pieces: [] })
      assert.notInclude(reason?.message, "not called")
      const next = (yield* outcome(engine)).reason
      assert.deepInclude(next, { _tag: "AuthenticationFailed", retryAfterMs: 2_000 })
      assert.include(next?.message, "The provider was not called; the key is tried again in 2 s.")
      assert.lengthOf(server.seen, 2)
    }))
})

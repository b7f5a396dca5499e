/** What a deployment with several keys does when its provider limits or refuses some. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import type { Seen } from "../../support/FaultServer.ts"
import { engineAt, fixture, outcome, served } from "./support.ts"

const { stream: pieces } = fixture("openai").text

const options = {
  keys: [{ key: Redacted.make("key-one") }, { key: Redacted.make("key-two") }]
} as const

const keyOf = ({ headers }: Seen) => headers.authorization?.replace("Bearer ", "")

describe("several keys", () => {
  for (const [status, tag] of [[401, "AuthenticationFailed"], [429, "RateLimited"]] as const) {
    it.effect(`takes another key within the request on ${status}, and fails where none is left`, () =>
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

  it.effect("does not blame a key for what is not its fault", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({ status: 500, pieces: [] }))
      const engine = yield* engineAt(server.url, options)
      for (let index = 1; index <= 5; index++) {
        assert.strictEqual((yield* outcome(engine)).reason?._tag, "UpstreamFailed")
        assert.strictEqual(server.seen.length, index)
      }
    }))
})

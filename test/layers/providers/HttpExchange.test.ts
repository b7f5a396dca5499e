/** Exchanges that a receiver follows, with a dispatcher whose response the test plays. */
import type * as Undici from "@effect/platform-node/Undici"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { RemoteDeployment } from "../../../src/domain/RemoteDeployment.ts"
import * as DeploymentKeys from "../../../src/layers/providers/DeploymentKeys.ts"
import * as HttpExchange from "../../../src/layers/providers/HttpExchange.ts"

const stall = Duration.seconds(2)

const options: RemoteDeployment = {
  engine: "remote",
  provider: "openai",
  model: "m",
  key: Redacted.make("sk-key"),
  maxResponseBytes: 1_000,
  timeouts: { stall }
}

type Handler = Undici.Dispatcher.DispatchHandler

const controller = {
  abort: () => {},
  pause: () => {},
  resume: () => {}
} as unknown as Undici.Dispatcher.DispatchController

/** A streamed exchange whose dispatcher is the test, and what its receiver got. */
const opened = Effect.gen(function*() {
  let handler!: Handler
  const dispatcher = {
    dispatch: (_: unknown, given: Handler) => {
      handler = given
      return true
    }
  } as unknown as Undici.Dispatcher
  const exchange = yield* HttpExchange.make({
    target: { deployment: "a#0", model: "a", options },
    dialect: openAi,
    dispatcher,
    keys: DeploymentKeys.make(options, yield* DeploymentKeys.sources),
    baseUrl: "http://127.0.0.1:1/v1"
  })
  const got: Array<string> = []
  const started = exchange.start({ path: "/chat/completions", body: {} }, "sse", 0, {
    data: (piece) => got.push(Buffer.from(piece).toString()),
    end: () => got.push("end"),
    failed: (reason) => got.push(reason._tag),
    rest: () => got.push("rest")
  })!
  handler.onRequestStart!(controller, {})
  const head = (status: number) => handler.onResponseStart!(controller, status, { "content-type": "text/event-stream" })
  const data = (text: string) => handler.onResponseData!(controller, Buffer.from(text))
  return { data, got, handler, head, started }
})

/** The same after its first content. */
const streaming = Effect.map(opened, (exchange) => {
  exchange.head(200)
  exchange.started.content()
  return exchange
})

const endings = {
  "the end of the answer": ["end", ({ handler }) => handler.onResponseEnd!(controller, {})],
  "a broken connection": ["UpstreamFailed", ({ handler }) => handler.onResponseError!(controller, new Error("cut"))],
  "a refusal": ["rest", ({ head }) => head(500)],
  "a body that is too large": ["UpstreamFailed", ({ data }) => data("x".repeat(1_001))]
} as const satisfies Record<string, readonly [got: string, arrive: (at: Effect.Success<typeof opened>) => void]>

describe("a receiver", () => {
  for (const [name, [expected, arrive]] of Object.entries(endings)) {
    it.effect(`gets ${name} when the dispatcher is not parsing`, () =>
      Effect.gen(function*() {
        const exchange = yield* opened
        if (expected !== "rest") exchange.head(200)
        arrive(exchange)
        assert.deepStrictEqual(exchange.got, [])
        yield* Effect.yieldNow
        assert.strictEqual(exchange.got.at(-1), expected)
      }))

    it.effect(`gets nothing of ${name} once it is closed`, () =>
      Effect.gen(function*() {
        const exchange = yield* opened
        if (expected !== "rest") exchange.head(200)
        arrive(exchange)
        exchange.started.close()
        yield* Effect.yieldNow
        assert.deepStrictEqual(exchange.got, [])
      }))
  }
})

const pieces: Readonly<Record<string, ReadonlyArray<string>>> = {
  "no piece": [],
  "a comment": [": still here\n\n"],
  "a part of an event": ["data: {\"choi"],
  "several pieces": [": one\n\n", "data: {", ": two\n\n"]
}

describe("a receiver that pauses an exchange", () => {
  for (const [name, late] of Object.entries(pieces)) {
    it.effect(`is no stall of the provider, with ${name} after the pause`, () =>
      Effect.gen(function*() {
        const { data, got, started } = yield* streaming
        started.pause()
        for (const piece of late) data(piece)
        yield* TestClock.adjust(Duration.times(stall, 10))
        assert.strictEqual(got.join(""), late.join(""))
        started.resume()
        yield* TestClock.adjust(stall)
        assert.strictEqual(got.join(""), `${late.join("")}UpstreamTimeout`)
      }))
  }
})

describe("a receiver that leaves the rest of a body to an effect", () => {
  it.effect("loses nothing that arrives before the effect begins", () =>
    Effect.gen(function*() {
      const { data, got, started } = yield* streaming
      data("data: one\n\n")
      const rest = started.rest()
      data("data: two\n\n")
      yield* Effect.yieldNow
      const { pull } = yield* rest
      assert.strictEqual(new TextDecoder().decode(yield* pull), "data: one\n\ndata: two\n\n")
      assert.deepStrictEqual(got, [])
    }))
})

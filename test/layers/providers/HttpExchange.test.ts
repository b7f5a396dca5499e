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
  timeouts: { stall }
}

type Handler = Undici.Dispatcher.DispatchHandler

const controller = {
  abort: () => {},
  pause: () => {},
  resume: () => {}
} as unknown as Undici.Dispatcher.DispatchController

/** A streamed exchange after its first content, and what its receiver got. */
const streaming = Effect.gen(function*() {
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
  handler.onResponseStart!(controller, 200, { "content-type": "text/event-stream" })
  started.content()
  got.length = 0
  const data = (text: string) => handler.onResponseData!(controller, Buffer.from(text))
  return { data, got, started }
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

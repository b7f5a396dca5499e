/** How the frames of an answer are written to Node's response. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { describe, it } from "vitest"
import type { AnswerSink, Event, Request } from "../../../src/domain/Inference.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import * as ServerSentEvents from "../../../src/layers/http/ServerSentEvents.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import { exchange, head } from "../../support/RawHttp.ts"

type Deliver = (sink: AnswerSink) => Effect.Effect<void, InferenceError>

const by = { deployment: "m#0", attempts: 1, decision: "dec-1" }

const words = (...texts: ReadonlyArray<string>): ReadonlyArray<Event> =>
  texts.map((text) => ({ type: "text", text, tokens: 1 }))

const frames: ServerSentEvents.AnswerFrames = {
  events: (events) => events.map((event) => event.type === "text" ? event.text : "").join(""),
  end: () => "end",
  refuse: () => undefined,
  error: () => "error",
  defect: () => "defect"
}

const nextTurn = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** The chunks of the response; `ended` is called when the effect has ended. */
const chunksOf = async (deliver: Deliver, ended: (end: () => void) => void = () => {}) => {
  const server = createServer((_, response) => {
    const inference = { deliver: (_: Request, sink: AnswerSink) => deliver(sink) } as Inference["Service"]
    const call = { id: "id", headers: {}, response }
    const respond = ServerSentEvents.respondOne(inference, {} as Request, call, frames)
    Effect.runFork(Effect.scoped(respond)).addObserver(() => ended(() => response.end()))
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  const received = await exchange(`http://127.0.0.1:${port}`, [head("GET", "/")])
  await new Promise((resolve) => server.close(resolve))
  const lines = received.slice(received.indexOf("\r\n\r\n") + 4).split("\r\n")
  return lines.filter((_, index) => index % 2 === 1).filter((text) => text !== "")
}

const send = (sink: AnswerSink, ...texts: ReadonlyArray<string>) => Effect.sync(() => sink.events(words(...texts)))
const begin = (sink: AnswerSink) => Effect.sync(() => sink.begin(by))

describe("an answer on Node's response", () => {
  it("has one chunk for the events of one turn and its end", async () => {
    const chunks = await chunksOf((sink) =>
      Effect.all([begin(sink), send(sink, "a", "b"), send(sink, ""), send(sink, "c")], { discard: true })
    )
    assert.deepStrictEqual(chunks, ["abcend"])
  })

  it("has a chunk for each turn", async () => {
    const chunks = await chunksOf((sink) =>
      Effect.all([begin(sink), send(sink, "a"), send(sink, "b"), nextTurn, send(sink, "c"), nextTurn], {
        discard: true
      })
    )
    assert.deepStrictEqual(chunks, ["ab", "c", "end"])
  })

  it("does not keep many characters until the end of the turn, and reports a reader that cannot take them", async () => {
    const text = "x".repeat(1024 * 1024)
    const chunks = await chunksOf((sink) =>
      Effect.andThen(
        Effect.sync(() => {
          sink.begin(by)
          assert.isTrue(sink.events(words("a")))
          assert.isFalse(sink.events(words(text)))
        }),
        Effect.callback<void>((resume) => {
          sink.whenDrained(() => resume(Effect.void))
        })
      )
    )
    assert.deepStrictEqual(chunks, [`a${text}`, "end"])
  })

  it("gets nothing after an interrupted request has been ended", async () => {
    const chunks = await chunksOf(
      (sink) => Effect.all([begin(sink), send(sink, "a"), Effect.interrupt], { discard: true }),
      (end) => end()
    )
    assert.deepStrictEqual(chunks, [])
  })
})

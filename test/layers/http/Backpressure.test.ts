import { assert, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { HttpServer } from "effect/http"
import { connect } from "node:net"
import { describe } from "vitest"
import type { Event } from "../../../src/domain/Inference.ts"
import * as Server from "../../../src/layers/http/Server.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import { deliverOpened } from "../../../src/services/inference/Inference.ts"
import { httpServices } from "../../support/HttpServices.ts"
import { until } from "../../support/Service.ts"

const kibibyte = "x".repeat(1024)

/** More than the buffers of two local sockets, KiB. */
const bound = 32 * 1024

/** An `Inference` with endless answers; `sent` counts their events, 1 KiB each. */
const setup = () => {
  const state = { sent: 0 }
  const event = Effect.sync((): Event => {
    state.sent++
    return { type: "text", text: kibibyte, tokens: 1 }
  })
  const short: Stream.Stream<Event> = Stream.make(
    { type: "text", text: "short", tokens: 1 },
    { type: "finish", reason: "stop", usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 } }
  )
  const inference: Partial<Inference["Service"]> = {
    deliver: ({ model }, sink) =>
      deliverOpened(
        sink,
        Effect.succeed({
          deployment: `${model}#0`,
          attempts: 1,
          decision: "dec-1",
          events: model === "endless" ? Stream.forever(Stream.fromEffect(event)) : short
        })
      )
  }
  return { state, layer: Server.layer.pipe(Layer.provide(httpServices({ inference }))) }
}

const requestOf = (model: string): string => {
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "Hello" }] })
  return [
    "POST /v1/chat/completions HTTP/1.1",
    "host: localhost",
    "content-type: application/json",
    `content-length: ${body.length}`,
    "",
    body
  ].join("\r\n")
}

/** The count once it has stopped growing. */
const settled = async (count: () => number): Promise<number> => {
  let before = -1
  let same = 0
  return await until(() => {
    same = count() === before ? same + 1 : 0
    before = count()
    return before > 0 && same >= 50 ? before : undefined
  })
}

describe("a client that stops reading", () => {
  it.live("stops its own stream within a bound, and no other stream", () => {
    const { layer, state } = setup()
    return Effect.gen(function*() {
      const { address } = yield* HttpServer.HttpServer
      const port = "port" in address ? address.port : 0
      const socket = connect(port, "127.0.0.1")
      socket.write(requestOf("endless"))
      socket.pause()
      const sent = yield* Effect.promise(() => settled(() => state.sent))
      assert.isBelow(sent, bound)
      const other = yield* Effect.promise(() =>
        fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ model: "other", stream: true, messages: [{ role: "user", content: "Hello" }] })
        }).then((response) => response.text())
      )
      assert.include(other, "short")
      assert.strictEqual(state.sent, sent)
      socket.destroy()
    }).pipe(Effect.provide(layer))
  })
})

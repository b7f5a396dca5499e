/** The memory of all requests together: limited, and released however a request ends. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Stream } from "effect"
import { HttpServer } from "effect/http"
import * as fc from "fast-check"
import type { Socket } from "node:net"
import { connect } from "node:net"
import type { Event } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as Server from "../../../src/layers/http/Server.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import { deliverOpened } from "../../../src/services/inference/Inference.ts"
import type { ByteBudget } from "../../../src/services/limits/RequestLimits.ts"
import { RequestBytes } from "../../../src/services/limits/RequestLimits.ts"
import { httpServices } from "../../support/HttpServices.ts"
import { head, last } from "../../support/RawHttp.ts"
import { until } from "../../support/Service.ts"

/** Bytes of every body, except those that are rejected for their size. */
const size = 4_000
const limit = 3 * size

/** The outcome of a request by the name of the model. */
const outcomes = {
  answers: Stream.make<ReadonlyArray<Event>>(
    { type: "text", text: "short", tokens: 1 },
    { type: "finish", reason: "stop", usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 } }
  ),
  fails: Stream.fail(InferenceError.make(new InferenceError.InvalidRequest({ detail: "no" }))),
  dies: Stream.die(new Error("a defect")),
  waits: Stream.never,
  streams: Stream.concat(Stream.make<ReadonlyArray<Event>>({ type: "text", text: "first", tokens: 1 }), Stream.never)
}

type Outcome = keyof typeof outcomes

const inference: Partial<Inference["Service"]> = {
  deliver: ({ model }, sink) =>
    deliverOpened(
      sink,
      Effect.succeed({ deployment: `${model}#0`, attempts: 1, decision: "dec-1", events: outcomes[model as Outcome] })
    )
}

const layerOf = () => {
  const server = { admin: { socket: false as const }, maxRequestMemory: limit, maxBodyBytes: 2 * limit }
  return Server.layer.pipe(Layer.provide([httpServices({ inference, server }), Logger.layer([])]))
}

const bodyOf = (model: Outcome): string => {
  const body = JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "" }] })
  return body.replace("\"content\":\"\"", `"content":"${"x".repeat(size - body.length)}"`)
}

/** A request over a raw socket, and its result. */
const open = (port: number, ...parts: ReadonlyArray<string>) => {
  const socket: Socket = connect(port, "127.0.0.1")
  const state = { received: "", isClosed: false }
  socket.setEncoding("utf8").on("data", (text: string) => {
    state.received += text
  }).on("error", () => {}).on("close", () => {
    state.isClosed = true
  })
  for (const part of parts) socket.write(part)
  return { socket, state, closed: () => until(() => state.isClosed ? state.received : undefined) }
}

const post = (length: number, path = "/v1/chat/completions") => head("POST", path, { "content-length": length })

const chunked = (text: string) =>
  `${head("POST", "/v1/chat/completions", { "transfer-encoding": "chunked" })}${
    text.length.toString(16)
  }\r\n${text}\r\n`

const used = (budget: ByteBudget, bytes: number) => until(() => budget.used === bytes ? true : undefined)

/** Ways in which a request ends. */
const leave = {
  answered: async (port) => void await open(port, post(size), bodyOf("answers")).closed(),
  failed: async (port) => void await open(port, post(size), bodyOf("fails")).closed(),
  died: async (port) => void await open(port, post(size), bodyOf("dies")).closed(),
  "not JSON": async (port) => void await open(port, post(size), "[".repeat(size)).closed(),
  "too large": async (port) => void await open(port, post(3 * limit), bodyOf("answers")).closed(),
  "hangs up in its upload": async (port, budget) => {
    const { socket } = open(port, post(size), bodyOf("waits").slice(0, size / 2))
    await until(() => budget.used > 0 ? true : undefined)
    socket.destroy()
  },
  "hangs up in a chunked upload": async (port, budget) => {
    const { socket } = open(port, chunked("x".repeat(size / 2)))
    await until(() => budget.used > 0 ? true : undefined)
    socket.destroy()
  },
  "hangs up while it waits": async (port, budget) => {
    const { socket } = open(port, post(size), bodyOf("waits"))
    await until(() => budget.used > 0 ? true : undefined)
    socket.destroy()
  },
  "hangs up in its stream": async (port) => {
    const { socket, state } = open(port, post(size), bodyOf("streams"))
    // Or it was rejected because of the other requests.
    await until(() => state.received === "" ? undefined : true)
    socket.destroy()
  }
} satisfies Record<string, (port: number, budget: ByteBudget) => Promise<void>>

const withServer = (use: (port: number, budget: ByteBudget) => Promise<void>) =>
  Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const budget = yield* RequestBytes
    yield* Effect.promise(() => use("port" in address ? address.port : 0, budget))
  }).pipe(Effect.provide(layerOf()))

describe("the memory of requests", () => {
  it.live("is released completely after any schedule of requests, however they end", () =>
    withServer((port, budget) =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.constantFrom(...Object.values(leave)), { minLength: 1, maxLength: 8 }),
          async (schedule) => {
            await Promise.all(schedule.map((one) => one(port, budget)))
            await used(budget, 0)
          }
        ),
        { numRuns: 30 }
      )
    ))

  it.live("limits a body by its announced length before it arrives, in the dialect's format", () =>
    withServer(async (port, budget) => {
      const { socket } = open(port, post(size), bodyOf("waits"))
      const second = open(port, post(size), bodyOf("waits"))
      await until(() => budget.used >= 2 * size ? true : undefined)
      const left = budget.left
      for (const [path, status] of [["/v1/chat/completions", 503], ["/v1/messages", 529]] as const) {
        const received = await open(port, post(left + 1, path)).closed()
        assert.strictEqual(last(received).status, status)
        assert.include(received, "retry-after: 1")
      }
      socket.destroy()
      second.socket.destroy()
      await used(budget, 0)
      const answered = await open(port, post(size), bodyOf("answers")).closed()
      assert.include(answered, "short")
    }))

  it.live("counts a body without an announced length as it arrives", () =>
    withServer(async (port, budget) => {
      const received = await open(port, chunked("x".repeat(limit + 1))).closed()
      assert.strictEqual(last(received).status, 413)
      const { socket } = open(port, post(size), bodyOf("waits"))
      await until(() => budget.used >= size ? true : undefined)
      const beside = await open(port, chunked("x".repeat(budget.left + 1))).closed()
      assert.strictEqual(last(beside).status, 503)
      socket.destroy()
      await used(budget, 0)
    }))

  it.live("counts the memory of a body's parsed values", () =>
    withServer(async (port, budget) => {
      const body = `[${Array.from({ length: 600 }, () => "1").join(",")}]`
      const received = await open(port, post(body.length), body).closed()
      assert.strictEqual(last(received).status, 503)
      await used(budget, 0)
    }))
})

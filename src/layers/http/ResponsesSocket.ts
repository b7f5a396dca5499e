/**
 * WebSocket mode of the Responses dialect: `response.create` messages of one connection, each answered by the events of a
 * streamed response, in their order.
 *
 * **Details**
 *
 * A message is a request as one by HTTP: with the same checks, limits, budgets and errors, and with the key of the
 * connection, which is looked up again for each. The connection keeps its latest response, so that the next message can
 * continue it with `store: false` too. The end of the connection ends the response that it gets.
 *
 * Source: OpenAI's guide "WebSocket mode", and Open Responses.
 */
import { Effect, Queue, Stream } from "effect"
import type { HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import { CloseEvent } from "effect/socket/Socket"
import type { Reader, Writer } from "effect/socket/Socket"
import type { IncomingMessage } from "node:http"
import type { Item } from "../../dialects/responses/Items.ts"
import type { Fields } from "../../dialects/shared/Json.ts"
import { isObject, parse } from "../../dialects/shared/Json.ts"
import type { Identity } from "../../domain/Identity.ts"
import { Unauthenticated } from "../../domain/InferenceError.ts"
import { Readiness, untilLeaving } from "../../services/health/Readiness.ts"
import type { ByteBudget } from "../../services/limits/RequestLimits.ts"
import * as Authentication from "./Authentication.ts"
import type { Conventions, ErrorResponse, HttpProblem, RequestHeaders } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import * as RequestBody from "./RequestBody.ts"

/** The response that the next message can continue. */
interface Latest {
  readonly id: string
  /** Of its conversation, with its own output. */
  readonly items: ReadonlyArray<Item>
  /** Whether it is stored. */
  readonly isStored: boolean
}

/** What a connection keeps between its messages. */
export interface Connection {
  latest: Latest | undefined
  /** Whether the current message only prepares a conversation: `generate: false`. */
  isWarmUp: boolean
}

/** Messages that wait for the end of a response. */
const mostWaiting = 64

const noUpgrade: HttpProblem = {
  status: 426,
  code: "upgrade_required",
  message: "GET /v1/responses opens a WebSocket. Send Upgrade: websocket, or POST a request.",
  headers: { upgrade: "websocket" }
}

const lateUpgrade: HttpProblem = {
  status: 400,
  code: "upgrade_not_supported",
  message:
    "No WebSocket begins on a connection with earlier requests that are not answered yet, or on a server without " +
    "upgrades. Open another connection, or POST the request."
}

const wrongMessage: HttpProblem = {
  status: 400,
  code: "invalid_message",
  message: "Expected a JSON object with type: \"response.create\" and the fields of POST /v1/responses."
}

const tooManyMessages = new CloseEvent(1008, `More than ${mostWaiting} messages wait.`)

/** The code of a server that goes away. */
const stopped = new CloseEvent(1001, "The service is shutting down.")

/** The code of a restart: a client that connects again gets the new process. */
const replaced = new CloseEvent(1012, "The service restarts. Connect again.")

const { encodeProblem, encodeReason } = OpenAiRoutes.dialect

const errorEvent = ({ body, status }: Pick<ErrorResponse, "body" | "status">): string =>
  JSON.stringify({ type: "error", status, ...body as object })

const textOf = (data: Uint8Array | string): string => typeof data === "string" ? data : Buffer.from(data).toString()

const wrongGenerate: HttpProblem = {
  status: 400,
  code: "invalid_message",
  message: "generate: Expected true, or false to prepare a conversation without an answer."
}

/** The body of a request, without the fields of a message alone; or why the message is no request. */
const requestOf = (text: string): { readonly body: Fields; readonly isWarmUp: boolean } | HttpProblem => {
  const json = parse(text)
  if (!isObject(json) || json["type"] !== "response.create") return wrongMessage
  const { background: _, generate = true, type: __, ...body } = json
  if (typeof generate !== "boolean" && generate !== null) return wrongGenerate
  return { body: { ...body, stream: true }, isWarmUp: generate === false }
}

/** Takes the data of complete events out of a text of server-sent events, without comments, and returns what is left. */
export const dataOf = (text: string): { readonly events: ReadonlyArray<string>; readonly rest: string } => {
  const frames = text.split("\n\n")
  const rest = frames.pop()!
  const data = frames.flatMap((frame) => {
    const start = frame.indexOf("data: ")
    return start < 0 ? [] : [frame.slice(start + 6)]
  })
  return { events: data.filter((one) => one !== "[DONE]"), rest }
}

/** A message that waits, with the bytes that it holds; undefined for one that the memory for requests had no room for. */
type Waiting = { readonly text: string; readonly bytes: number } | undefined

interface Parts {
  readonly authentication: Authentication.Authentication
  readonly readiness: Readiness["Service"]
  readonly handler: Endpoint.MessageHandler
  readonly connection: Connection
  readonly request: HttpServerRequest.HttpServerRequest
  /** Of the bodies of all requests. */
  readonly budget: ByteBudget
  /** Of a message that it had no room for. */
  readonly overloaded: HttpProblem
}

/** One connection. */
class ResponsesSocket {
  readonly #parts: Parts
  readonly #writer: Writer
  readonly #secret = { secret: undefined, hash: "" }
  #isAnswering = false
  /** Bytes of the messages that wait. */
  #held = 0

  constructor(parts: Parts, writer: Writer) {
    this.#parts = parts
    this.#writer = writer
  }

  /** Answers the messages until the connection ends. */
  readonly run = Effect.fnUntraced(function*(this: ResponsesSocket, { pull }: Reader) {
    const messages = yield* Queue.dropping<Waiting>(mostWaiting)
    const reading = Effect.forever(
      Effect.flatMap(
        pull,
        (data) => Effect.forEach(data, (one) => this.#offer(messages, textOf(one)), { discard: true })
      )
    )
    const answering = Effect.forever(Effect.flatMap(Queue.take(messages), (waiting) => this.#next(waiting)))
    const { readiness } = this.#parts
    const left = Effect.suspend(() => this.#writer.write(readiness.status === "stopping" ? stopped : replaced))
    const stopping = untilLeaving(readiness, () => !this.#isAnswering).pipe(
      Effect.andThen(left),
      Effect.andThen(Effect.never)
    )
    return yield* Effect.ensuring(
      Effect.raceAllFirst([reading, answering, stopping]),
      Effect.sync(() => this.#release(this.#held))
    )
  })

  #offer(messages: Queue.Queue<Waiting>, text: string) {
    return Effect.suspend(() =>
      Effect.flatMap(
        Queue.offer(messages, this.#hold(text)),
        (isTaken) => isTaken ? Effect.void : this.#writer.write(tooManyMessages)
      )
    )
  }

  #hold(text: string): Waiting {
    const bytes = Buffer.byteLength(text)
    if (!this.#parts.budget.take(bytes)) return undefined
    this.#held += bytes
    return { text, bytes }
  }

  #release(bytes: number): void {
    this.#parts.budget.giveBack(bytes)
    this.#held -= bytes
  }

  /** The handler of a message holds its bytes itself. */
  #next(waiting: Waiting) {
    if (waiting === undefined) return this.#writer.write(errorEvent(encodeProblem(this.#parts.overloaded, "")))
    this.#release(waiting.bytes)
    return this.#answer(waiting.text)
  }

  #answer(text: string) {
    const request = requestOf(text)
    if ("status" in request) return this.#writer.write(errorEvent(encodeProblem(request, "")))
    const identity = this.#identity()
    if (typeof identity === "string") {
      const error = encodeReason(new Unauthenticated({ problem: identity }), "")
      return this.#writer.write(errorEvent(error))
    }
    const { connection, handler, request: { headers } } = this.#parts
    const { body, isWarmUp } = request
    connection.isWarmUp = isWarmUp
    const message = { headers: headers as RequestHeaders, identity, bytes: Buffer.from(JSON.stringify(body)) }
    this.#isAnswering = true
    return Effect.scoped(Effect.flatMap(handler(message), (response) => this.#send(response, body))).pipe(
      Effect.ensuring(Effect.sync(() => {
        this.#isAnswering = false
      }))
    )
  }

  /** The key may have been revoked since the connection began. */
  #identity(): Identity | undefined | Unauthenticated["problem"] {
    const { authentication, request } = this.#parts
    return authentication.isRequired ? authentication.identify(request.headers, this.#secret) : undefined
  }

  #send({ body, status }: HttpServerResponse.HttpServerResponse, { previous_response_id: previous }: Fields) {
    const { connection } = this.#parts
    if (status !== 200) {
      if (connection.latest?.id === previous) connection.latest = undefined
      const error = body._tag === "Uint8Array" ? parse(Buffer.from(body.body).toString()) : {}
      return this.#writer.write(errorEvent({ status, body: error }))
    }
    if (body._tag === "Uint8Array") return this.#write(dataOf(Buffer.from(body.body).toString()).events)
    if (body._tag !== "Stream") return Effect.void
    const decoder = new TextDecoder()
    let rest = ""
    return Stream.runForEach(body.stream, (bytes) => {
      const data = dataOf(rest + decoder.decode(bytes, { stream: true }))
      rest = data.rest
      return this.#write(data.events)
    })
  }

  /** Waits while the client reads more slowly than the model writes. */
  #write(events: ReadonlyArray<string>) {
    const { socket } = this.#parts.request.source as IncomingMessage
    const written = Effect.forEach(events, (data) => this.#writer.write(data), { discard: true })
    return Effect.andThen(
      written,
      Effect.callback<void>((resume) => {
        if (!socket.writableNeedDrain) return resume(Effect.void)
        const onDrain = () => resume(Effect.void)
        socket.once("drain", onDrain)
        return Effect.sync(() => socket.off("drain", onDrain))
      })
    )
  }
}

/** @param handlerOf makes the handler of the messages of one connection */
export const make = Effect.fnUntraced(
  function*({ idHeaders }: Conventions, handlerOf: (connection: Connection) => Endpoint.MessageHandler) {
    const authentication = yield* Authentication.make
    const readiness = yield* Readiness
    const limits = yield* RequestBody.limits
    const { overloaded } = RequestBody.problemsOf(limits)
    const shared = { authentication, readiness, budget: limits.budget, overloaded }
    return Effect.gen(function*() {
      const request = yield* HttpServerRequest.HttpServerRequest
      const id = yield* Endpoint.makeId("req_")
      if (request.headers["upgrade"]?.toLowerCase() !== "websocket") {
        return respondError(encodeProblem(noUpgrade, id), idHeaders(id))
      }
      if ((request.source as { readonly upgrade?: boolean }).upgrade !== true) {
        return respondError(encodeProblem(lateUpgrade, id), idHeaders(id))
      }
      const connection: Connection = { latest: undefined, isWarmUp: false }
      const parts: Parts = { ...shared, connection, request, handler: handlerOf(connection) }
      const opened = Effect.gen(function*() {
        const socket = yield* request.upgrade
        const writer = yield* socket.writer
        return yield* new ResponsesSocket(parts, writer).run(yield* socket.reader)
      })
      // The connection has ended, which ends its request.
      return yield* Effect.as(Effect.ignore(Effect.scoped(opened)), Endpoint.written)
    })
  }
)

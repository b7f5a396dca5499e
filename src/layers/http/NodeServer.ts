/**
 * Node's HTTP server, and what it decides before the router: limits of time and connections, the pace of arrivals,
 * expectations, cross-origin requests, and malformed request targets.
 *
 * **Details**
 *
 * Errors at this point are written directly to Node's response: rejected requests can arrive in floods, and the router
 * cannot handle malformed targets.
 *
 * **Gotchas**
 *
 * Requests are delayed in `emit`, since a listener cannot keep an event from the other listeners.
 */
import type { Fiber, Scope } from "effect"
import { Context, Duration, Effect, Exit, Layer, Option, Result } from "effect"
import type { HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import { ClientAbort } from "effect/http/HttpServerError"
import type { IncomingMessage } from "node:http"
import { Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { requestIdOf } from "../../dialects/shared/CallerRequest.ts"
import * as Caller from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { ByteBudget, Hold } from "../../services/limits/RequestLimits.ts"
import { ArrivalPacer } from "../../services/limits/RequestLimits.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import type { Authentication } from "./Authentication.ts"
import * as Cors from "./Cors.ts"
import type { Dialect, ErrorResponse, HttpProblem } from "./Dialect.ts"
import { stopping } from "./Dialect.ts"
import type { Arrived, EarlyRefusals } from "./EarlyRefusals.ts"
import { canonicalTarget, mayDiffer } from "./RequestTarget.ts"
import * as SocketUpgrades from "./SocketUpgrades.ts"

export interface Options {
  readonly settings: Resolved["server"]
  /** The allowed methods of a path, as `GET, POST`; undefined for a path that does not exist. */
  readonly methodsOf: (path: string) => string | undefined
  /** Selects the dialect of a request by its path and its headers. */
  readonly dialectOf: (path: string, headers: IncomingMessage["headers"]) => Dialect
  readonly authentication: Authentication
  /** Records requests that are refused here; left out, none are. */
  readonly refusals?: EarlyRefusals["Service"]
  /** Makes the id of a response. */
  readonly makeId: () => string
  /** Where `POST` requests of a path start without the router. */
  readonly directRoutes: ReadonlyMap<string, DirectRoute>
  /** The streams that are kept alive; undefined: none is. */
  readonly streams: OpenStreams | undefined
}

/** See `KeptStreams`. */
export interface OpenStreams {
  /** Time without a frame after which a stream is kept alive, ms. */
  readonly afterMs: number
  readonly remove: (stream: never) => void
}

/** Node's message and its response, with the bytes that the request holds until its response. */
export interface Exchange {
  readonly message: IncomingMessage
  readonly response: ServerResponse
  readonly hold: Hold
}

/** The exchange that a fiber answers; requests of the router have `HttpServerRequest` instead. */
export class NodeExchange extends Context.Service<NodeExchange, Exchange>()("troupe/layers/http/NodeExchange") {}

/** Reads the id of the request that the fiber answers. */
export const layerRequestId = Layer.succeed(Caller.RequestId, (context: Context.Context<never>) => {
  const exchange = Context.getOption(context, NodeExchange)
  if (Option.isSome(exchange)) return requestIdOf(exchange.value.message)
  const request = Option.getOrUndefined(Context.getOption(context, HttpServerRequest.HttpServerRequest))
  return requestIdOf(request?.source)
})

/** A response that Effect's server makes and sends, in a scope that closes after it. */
export class Unsent {
  readonly response: Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>

  constructor(response: Unsent["response"]) {
    this.response = response
  }
}

/** Answers the exchange of its fiber. */
export type DirectHandler = Effect.Effect<HttpServerResponse.HttpServerResponse | Unsent, never, NodeExchange>

/** See `DirectRoutes`. */
export interface DirectRoute {
  readonly handler: DirectHandler
  /** Of the handler, without `NodeExchange`. */
  readonly services: Context.Context<never>
  readonly budget: ByteBudget
  /** The requests of the route whose fibers wait. */
  readonly running: Array<DirectRequest>
  /** Sends a response with Effect's server. */
  readonly send: (request: DirectRequest, response: Unsent["response"]) => void
}

const settled = Promise.resolve()

const leftOf = (answer: HttpServerResponse.HttpServerResponse | Unsent): Unsent["response"] =>
  answer instanceof Unsent ? answer.response : Effect.succeed(answer)

/** A request that starts without the router. */
export class DirectRequest implements Exchange {
  readonly message: IncomingMessage
  readonly response: ServerResponse
  readonly hold: Hold
  fiber!: Fiber.Fiber<HttpServerResponse.HttpServerResponse | Unsent>
  readonly #route: DirectRoute
  /** The index in `running`. */
  #place = 0

  private constructor(route: DirectRoute, message: IncomingMessage, response: ServerResponse) {
    this.message = message
    this.response = response
    this.hold = route.budget.hold()
    this.#route = route
  }

  static start(route: DirectRoute, message: IncomingMessage, response: ServerResponse): void {
    const request = new DirectRequest(route, message, response)
    // Most bodies arrive with their headers, and are read by the parser before the next microtask.
    void settled.then(() => request.#begin())
  }

  #begin(): void {
    const { response } = this
    if (response.destroyed) return
    const { handler, running, services } = this.#route
    const fiber = Effect.runForkWith(Context.add(services, NodeExchange, this))(handler)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.#endAtOnce(exit)
    this.fiber = fiber
    this.#place = running.push(this) - 1
    fiber.addObserver((ended) => {
      this.#remove()
      this.#end(ended)
    })
    response.on("close", () => {
      if (!response.writableEnded) fiber.interruptUnsafe(undefined, ClientAbort.annotation)
    })
  }

  #remove(): void {
    const { running } = this.#route
    const last = running.pop()!
    if (last === this) return
    running[this.#place] = last
    last.#place = this.#place
  }

  /** Effect's server closes the connection of a message that is not complete; it is once the parser has returned. */
  #endAtOnce(exit: Exit.Exit<HttpServerResponse.HttpServerResponse | Unsent>): void {
    if (this.message.complete || this.response.writableEnded) this.#end(exit)
    else setImmediate(() => this.#end(exit))
  }

  #end(exit: Exit.Exit<HttpServerResponse.HttpServerResponse | Unsent>): void {
    const { hold, response } = this
    if (response.writableEnded || response.destroyed) return hold.release()
    this.#route.send(this, Exit.isSuccess(exit) ? leftOf(exit.value) : Effect.failCause(exit.cause))
  }
}

const overloaded: HttpProblem = {
  status: 503,
  code: "overloaded",
  message: "Too many requests arrive at once. Try again.",
  headers: { "retry-after": "1" }
}

const unknownExpectation: HttpProblem = {
  status: 417,
  code: "expectation_failed",
  message: "The only supported expectation is Expect: 100-continue. Send the request without Expect."
}

const wrongTarget = (message: string): HttpProblem => ({ status: 400, code: "invalid_target", message })

/** How often connections are checked for late headers, ms: a quarter of the limit. */
const checkInterval = (headersTimeout: number): number => Math.max(10, Math.min(5_000, headersTimeout / 4))

/** The most that a rejected request may still send before its connection is closed, bytes. */
const maxDiscardedBytes = 256 * 1024

const discardBody = (request: IncomingMessage): void => {
  let bytes = 0
  request.on("error", () => {})
  request.on("data", (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > maxDiscardedBytes) request.socket.destroy()
  })
}

const errorText = ({ body, headers, status }: ErrorResponse, id: string) => {
  const text = JSON.stringify(body)
  return {
    status,
    text,
    headers: {
      ...headers,
      "content-type": "application/json",
      "content-length": String(Buffer.byteLength(text)),
      "request-id": id,
      "x-request-id": id
    }
  }
}

const writeError = (request: IncomingMessage, response: ServerResponse, error: ErrorResponse, id: string): void => {
  const { headers, text } = errorText(error, id)
  response.writeHead(error.status, headers)
  response.end(text)
  discardBody(request)
}

const stoppedOf = ({ dialectOf, makeId }: Pick<Options, "dialectOf" | "makeId">, { headers, url }: IncomingMessage) => {
  const id = makeId()
  return errorText(dialectOf(url ?? "", headers).encodeProblem(stopping, id), id)
}

/** The open streams of the server of a response; undefined for a response of another server, and if none is kept alive. */
export const streamsOf = (response: ServerResponse): OpenStreams | undefined =>
  (response as { readonly streams?: OpenStreams }).streams

/** What the responses of a server read and count. */
interface State {
  isClosing: boolean
  /** Undefined where nothing asks for it. */
  tally: { answers: number; failures: number } | undefined
}

/** Whether Effect's server answers a request that it has interrupted: with a status alone. */
const isInterrupted = (response: ServerResponse, status: number, headers: object = {}): boolean =>
  status === 503 && !response.headersSent && !("content-type" in headers) && !response.hasHeader("content-type")

/**
 * Responses that close their connections once the server closes: clients would keep idle ones open for seconds. Those to
 * requests that the stop interrupts have the error of their dialect.
 *
 * @param stopped the response to a request while the server stops
 */
const makeResponse = (
  state: State,
  streams: OpenStreams | undefined,
  stopped: (
    request: IncomingMessage
  ) => { readonly status: number; readonly headers: Record<string, string>; readonly text: string }
) =>
  class extends ServerResponse {
    get streams(): OpenStreams | undefined {
      return streams
    }

    override writeHead(...args: Array<never>): this {
      const [status, headers] = args as unknown as [status: number, headers?: object]
      if (state.isClosing) {
        this.shouldKeepAlive = false
        if (isInterrupted(this, status, headers)) return this.#complete()
      }
      return super.writeHead(...args as unknown as [status: number])
    }

    #complete(): this {
      const { headers, status, text } = stopped(this.req)
      const end = super.end.bind(this) as (text: string, done?: () => void) => this
      this.end = (...given: ReadonlyArray<unknown>) =>
        end(text, given.find((one) => typeof one === "function") as (() => void) | undefined)
      return super.writeHead(status, headers)
    }

    /** Called by Node when the response has been written. */
    override detachSocket(socket: Socket): void {
      super.detachSocket(socket)
      if (state.tally !== undefined) {
        state.tally.answers++
        if (this.statusCode >= 500) state.tally.failures++
      }
      if (state.isClosing) socket.destroySoon()
    }
  }

export class NodeServer extends Server {
  readonly #options: Options
  readonly #state: State
  /** Open connections, where they are counted. */
  #connections = 0
  /** Called when no connection is open. */
  readonly #onEmpty: Array<() => void> = []
  readonly #pacer = new ArrivalPacer({
    ...Defaults.turns.arrivals,
    now: () => performance.now(),
    nextTurn: (run) => setImmediate(run)
  })

  /** Paces the rejections: thousands of them take time, too. */
  readonly #rejections = new ArrivalPacer({
    ...Defaults.turns.refusals,
    now: () => performance.now(),
    nextTurn: (run) => setImmediate(run)
  })

  readonly #upgrades: SocketUpgrades.Host = {
    offer: (start) => this.#pacer.offer(start),
    offerRejection: (reject) => this.#rejections.offer(reject),
    isAccepted: (request, response) => this.#isAccepted(request, response),
    reject: (request, response, problem) => this.#reject(request, response, problem),
    overloaded,
    upgrade: (...upgrade) => super.emit("upgrade", ...upgrade)
  }

  constructor(options: Options) {
    const headersTimeout = Duration.toMillis(options.settings.headersTimeout)
    const state: State = { isClosing: false, tally: undefined }
    // The time of a whole upload is not limited: `RequestBody` limits the pauses in it.
    super({
      headersTimeout,
      requestTimeout: 0,
      connectionsCheckingInterval: checkInterval(headersTimeout),
      shouldUpgradeCallback: SocketUpgrades.startsSocket,
      ServerResponse: makeResponse(
        state,
        options.streams,
        (request) => stoppedOf(options, request)
      ) as typeof ServerResponse
    })
    this.#state = state
    this.#options = options
    this.maxConnections = options.settings.maxConnections
    this.on(
      "checkExpectation",
      (request: IncomingMessage, response: ServerResponse) => this.#reject(request, response, unknownExpectation)
    )
  }

  /** Closes idle connections now, and the others after their responses. */
  override close(callback?: (error?: Error) => void): this {
    this.#state.isClosing = true
    // Node waits for the connections that it has accepted by itself.
    return super.close((error) => this.#whenEmpty(() => callback?.(error)))
  }

  /** Counts connections and answers from now on, so that connections can be adopted and drained. */
  countConnections(): void {
    this.#state.tally = { answers: 0, failures: 0 }
    this.on("connection", (socket: Socket) => {
      this.#connections++
      socket.once("close", () => {
        this.#connections--
        if (this.#connections === 0) { for (const run of this.#onEmpty.splice(0)) run() }
      })
    })
  }

  /** The answers since `countConnections`. */
  get tally(): { readonly answers: number; readonly failures: number } {
    return { answers: 0, failures: 0, ...this.#state.tally }
  }

  /** Takes a connection that another server has accepted. */
  adopt(connection: Socket): void {
    connection.allowHalfOpen = true
    connection.setNoDelay(true)
    this.emit("connection", connection)
  }

  /**
   * Closes each connection after its next answer; idle ones after the time that clients know. The server goes on to accept.
   *
   * @param onEmpty called when no connection is open
   */
  drain(onEmpty: () => void): void {
    this.#state.isClosing = true
    this.#whenEmpty(onEmpty)
  }

  #whenEmpty(run: () => void): void {
    if (this.#connections === 0) run()
    else this.#onEmpty.push(run)
  }

  override emit(event: string, ...args: Array<unknown>): boolean {
    if (event === "upgrade") {
      SocketUpgrades.handle(this.#upgrades, args as SocketUpgrades.Upgrade)
      return true
    }
    if (event !== "request" && event !== "checkContinue") return super.emit(event, ...args)
    const [request, response] = args as [IncomingMessage, ServerResponse]
    const started = this.#pacer.offer(() => {
      if (!response.destroyed && this.#isAccepted(request, response)) this.#start(event, request, response)
    })
    if (!started) this.#rejections.offer(() => this.#reject(request, response, overloaded))
    return true
  }

  /** Handles a request of another listener, at once. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isAccepted(request, response)) super.emit("request", request, response)
  }

  #start(event: string, request: IncomingMessage, response: ServerResponse): void {
    const isDirect = event === "request" && request.method === "POST"
    const route = isDirect ? this.#options.directRoutes.get(request.url!) : undefined
    if (route === undefined) super.emit(event, request, response)
    else DirectRequest.start(route, request, response)
  }

  #reject(request: IncomingMessage, response: ServerResponse, problem: HttpProblem): void {
    if (response.destroyed) return
    const { dialectOf, makeId, refusals } = this.#options
    const id = makeId()
    const error = dialectOf(request.url ?? "", request.headers).encodeProblem(problem, id)
    refusals?.noteArrived(request as Arrived, id, problem, error.status)
    writeError(request, response, error, id)
  }

  /** Answers a request that no handler may have, and returns false. */
  #isAccepted(request: IncomingMessage, response: ServerResponse): boolean {
    if (mayDiffer.test(request.url!)) {
      const target = canonicalTarget(request.url!)
      if (Result.isFailure(target)) {
        this.#reject(request, response, wrongTarget(target.failure))
        return false
      }
      request.url = target.success
    }
    // Node omits the body of the response by itself: it read the method before this change.
    if (request.method === "HEAD") request.method = "GET"
    const { origin, "sec-fetch-site": site } = request.headers
    const isFromProgram = origin === undefined && site === undefined && request.method !== "OPTIONS"
    return (isFromProgram || this.#isAllowed(request, response)) && this.#isAuthenticated(request, response)
  }

  #isAuthenticated(request: IncomingMessage, response: ServerResponse): boolean {
    const { authentication, dialectOf, makeId, refusals } = this.#options
    const { knownHost, state } = authentication
    if (!state.areRequired && request.headers.host === knownHost) return true
    const reason = authentication.refusalOf(request)
    if (reason === undefined) return true
    const id = makeId()
    const { encodeReason, idHeaders } = dialectOf(request.url!, request.headers)
    const error = encodeReason(reason, id)
    refusals?.noteArrived(request as Arrived, id, reason, error.status)
    writeError(request, response, { ...error, headers: { ...error.headers, ...idHeaders(id) } }, id)
    return false
  }

  #isAllowed(request: IncomingMessage, response: ServerResponse): boolean {
    const path = request.url!.split("?")[0]!
    const answer = Cors.answer({
      origins: this.#options.settings.cors?.origins ?? [],
      bound: this.#options.settings.host,
      method: request.method!,
      path,
      headers: request.headers,
      methods: this.#options.methodsOf(path)
    })
    if (answer._tag === "Refuse") {
      this.#options.authentication.notePage(request, answer.problem)
      this.#reject(request, response, answer.problem)
      return false
    }
    if (answer._tag === "Empty") {
      response.writeHead(204, answer.headers).end()
      return false
    }
    for (const [name, value] of Object.entries(answer.headers)) response.setHeader(name, value)
    return true
  }
}

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
import { Duration, Result } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Server } from "node:http"
import * as Defaults from "../../domain/Defaults.ts"
import { ArrivalPacer } from "../../services/limits/ArrivalPacer.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import * as Cors from "./Cors.ts"
import type { Dialect, ErrorResponse, HttpProblem } from "./Dialect.ts"
import * as RequestTarget from "./RequestTarget.ts"

export interface Options {
  readonly settings: Resolved["server"]
  /** The allowed methods of a path, as `GET, POST`; undefined for a path that does not exist. */
  readonly methodsOf: (path: string) => string | undefined
  /** The dialect that encodes errors at a path. */
  readonly dialectOf: (path: string) => Dialect
  /** Makes the id of a response. */
  readonly makeId: () => string
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

const writeError = (
  request: IncomingMessage,
  response: ServerResponse,
  { body, headers, status }: ErrorResponse,
  id: string
): void => {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "request-id": id,
    "x-request-id": id
  })
  response.end(text)
  discardBody(request)
}

export class NodeServer extends Server {
  readonly #options: Options
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

  constructor(options: Options) {
    const headersTimeout = Duration.toMillis(options.settings.headersTimeout)
    // The time of a whole upload is not limited: `RequestBody` limits the pauses in it.
    super({ headersTimeout, requestTimeout: 0, connectionsCheckingInterval: checkInterval(headersTimeout) })
    this.#options = options
    this.maxConnections = options.settings.maxConnections
    this.on(
      "checkExpectation",
      (request: IncomingMessage, response: ServerResponse) => this.#reject(request, response, unknownExpectation)
    )
  }

  override emit(event: string, ...args: Array<unknown>): boolean {
    if (event !== "request" && event !== "checkContinue") return super.emit(event, ...args)
    const [request, response] = args as [IncomingMessage, ServerResponse]
    const started = this.#pacer.offer(() => {
      if (!response.destroyed && this.#isForRouter(request, response)) super.emit(event, request, response)
    })
    if (!started) this.#rejections.offer(() => this.#reject(request, response, overloaded))
    return true
  }

  /** Handles a request of another listener, at once. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isForRouter(request, response)) super.emit("request", request, response)
  }

  #reject(request: IncomingMessage, response: ServerResponse, problem: HttpProblem): void {
    if (response.destroyed) return
    const { dialectOf, makeId } = this.#options
    const id = makeId()
    writeError(request, response, dialectOf(request.url ?? "").encodeProblem(problem, id), id)
  }

  /** Answers a request that the router does not handle, and returns false. */
  #isForRouter(request: IncomingMessage, response: ServerResponse): boolean {
    const target = RequestTarget.canonical(request.url!)
    if (Result.isFailure(target)) {
      this.#reject(request, response, wrongTarget(target.failure))
      return false
    }
    request.url = target.success
    // Node omits the body of the response by itself: it read the method before this change.
    if (request.method === "HEAD") request.method = "GET"
    const { origin, "sec-fetch-site": site } = request.headers
    const isFromProgram = origin === undefined && site === undefined && request.method !== "OPTIONS"
    return isFromProgram || this.#isAllowed(request, response)
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

/**
 * Node's HTTP server with what is decided before the router: limits of time and connections, the pace of arrivals,
 * expectations, cross-origin requests, and targets that are not well formed.
 *
 * **Gotchas**
 *
 * Requests are held back by `emit`, since listeners cannot keep an event from one another.
 */
import { Duration, Result } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import { Server } from "node:http"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"
import * as Policies from "../../domain/Defaults.ts"
import { ArrivalPacer } from "../../services/limits/ArrivalPacer.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import * as Cors from "./Cors.ts"
import * as EarlyAnswer from "./EarlyAnswer.ts"
import * as RequestTarget from "./RequestTarget.ts"

export interface Options {
  readonly settings: Resolved["server"]
  /** Of a path, as `GET, POST`; undefined where there is no such path. */
  readonly methodsOf: (path: string) => string | undefined
  /** Of an answer. */
  readonly makeId: () => string
}

const overloaded: Trouble = {
  status: 503,
  code: "overloaded",
  message: "Too many requests arrive at once. Try again.",
  headers: { "retry-after": "1" }
}

const unknownExpectation: Trouble = {
  status: 417,
  code: "expectation_failed",
  message: "The only expectation that can be met is Expect: 100-continue. Send the request without Expect."
}

const wrongTarget = (message: string): Trouble => ({ status: 400, code: "invalid_target", message })

/** How often connections are looked at for late headers, ms: as exact as the limit needs, and no more. */
const checkInterval = (headersTimeout: number): number => Math.max(10, Math.min(5_000, headersTimeout / 4))

export class NodeServer extends Server {
  readonly #options: Options
  readonly #pacer = new ArrivalPacer({
    ...Policies.turns.arrivals,
    now: () => performance.now(),
    nextTurn: (run) => setImmediate(run)
  })

  /** Answering thousands takes its time, too. */
  readonly #refusals = new ArrivalPacer({
    ...Policies.turns.refusals,
    now: () => performance.now(),
    nextTurn: (run) => setImmediate(run)
  })

  constructor(options: Options) {
    const headersTimeout = Duration.toMillis(options.settings.headersTimeout)
    // The time of a whole upload is not limited: `RequestBody` limits its pauses.
    super({ headersTimeout, requestTimeout: 0, connectionsCheckingInterval: checkInterval(headersTimeout) })
    this.#options = options
    this.maxConnections = options.settings.maxConnections
    this.on(
      "checkExpectation",
      (request: IncomingMessage, response: ServerResponse) => this.#refuse(request, response, unknownExpectation)
    )
  }

  override emit(event: string, ...args: Array<unknown>): boolean {
    if (event !== "request" && event !== "checkContinue") return super.emit(event, ...args)
    const [request, response] = args as [IncomingMessage, ServerResponse]
    const started = this.#pacer.offer(() => {
      if (!response.destroyed && this.#isForRouter(request, response)) super.emit(event, request, response)
    })
    if (!started) this.#refusals.offer(() => this.#refuse(request, response, overloaded))
    return true
  }

  /** Handles a request of another listener, at once. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isForRouter(request, response)) super.emit("request", request, response)
  }

  #refuse(request: IncomingMessage, response: ServerResponse, trouble: Trouble): void {
    if (response.destroyed) return
    EarlyAnswer.send(request, response, trouble, this.#options.makeId())
  }

  /** Answers what does not need the router. */
  #isForRouter(request: IncomingMessage, response: ServerResponse): boolean {
    const target = RequestTarget.canonical(request.url!)
    if (Result.isFailure(target)) {
      this.#refuse(request, response, wrongTarget(target.failure))
      return false
    }
    request.url = target.success
    // Node leaves the body out by itself, having seen the method before this.
    if (request.method === "HEAD") request.method = "GET"
    const { origin, "sec-fetch-site": site } = request.headers
    const isOfProgram = origin === undefined && site === undefined && request.method !== "OPTIONS"
    return isOfProgram || this.#isAllowed(request, response)
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
      this.#refuse(request, response, answer.trouble)
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

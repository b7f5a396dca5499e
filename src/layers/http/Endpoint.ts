/**
 * What all endpoints of all dialects share: request ids, decoding, response headers and shutdown.
 *
 * **Details**
 *
 * An endpoint defines how to answer a parsed body. `EndpointFailure` has the responses to requests without an answer.
 */
import { toServerResponse } from "@effect/platform-node/NodeHttpServerRequest"
import type { Fiber } from "effect"
import { Clock, Context, Effect, Random, Result, Scope, Tracer } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { ServerResponse } from "node:http"
import { IncomingMessage } from "node:http"
import type { CallerIdentity } from "../../dialects/shared/CallerRequest.ts"
import { identityOf, setRequestId } from "../../dialects/shared/CallerRequest.ts"
import * as CacheControl from "../../domain/CacheControl.ts"
import * as Caller from "../../domain/Caller.ts"
import type { PolicyUse } from "../../domain/GuardRule.ts"
import type { Identity } from "../../domain/Identity.ts"
import type { AnsweredBy } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as RoutingOptions from "../../domain/RoutingOptions.ts"
import * as TraceContext from "../../domain/TraceContext.ts"
import { Readiness } from "../../services/health/Readiness.ts"
import { Models } from "../../services/models/Models.ts"
import { namesIn, Registry, ServedNames } from "../../services/models/Registry.ts"
import type { Waits } from "../../services/models/Waits.ts"
import { progressHeader, RequestWaits } from "../../services/models/Waits.ts"
import type { Operation } from "../../services/observability/Metrics.ts"
import { ServiceTracing } from "../../services/observability/RequestSpans.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"
import * as Authentication from "./Authentication.ts"
import type { Conventions, ErrorResponse, HttpProblem, RequestHeaders } from "./Dialect.ts"
import { stopping } from "./Dialect.ts"
import * as DirectRoutes from "./DirectRoutes.ts"
import * as EarlyRefusals from "./EarlyRefusals.ts"
import type { FailedRequest, Failure } from "./EndpointFailure.ts"
import * as EndpointFailure from "./EndpointFailure.ts"
import { errorHeaders, respondFailure } from "./EndpointFailure.ts"
import * as LimitHeaders from "./LimitHeaders.ts"
import type { DirectHandler } from "./NodeServer.ts"
import { NodeExchange, Unsent } from "./NodeServer.ts"
import type { Peers } from "./Peers.ts"
import { PeerProcesses } from "./Peers.ts"
import type { Replays } from "./Replays.ts"
import { RequestReplays } from "./Replays.ts"
import * as RequestBody from "./RequestBody.ts"
import * as RequestIds from "./RequestIds.ts"
import * as WaitEvents from "./WaitEvents.ts"

/** One request. */
export interface Call<Decoded> {
  /** The id of the response, and of every log line about the request. */
  readonly id: string
  /** The headers of the response with the id. */
  readonly headers: Readonly<Record<string, string>>
  /** Node's response, which an answer is written to; undefined for a web handler. */
  readonly response: ServerResponse | undefined
  /** Seconds since 1970. */
  readonly created: number
  /** The model that an answer of this deployment names; undefined, the one in the request. */
  readonly servedModel: (deployment: string) => string | undefined
  /** Where the request waits, if its caller asks to see it. */
  readonly waits?: Waits | undefined
  readonly body: Decoded
}

export interface Endpoint<Decoded> {
  /** The prefix of its request ids. */
  readonly idPrefix: string
  /** Of a request that is refused; default `chat`. `false`: its requests are not for a model, and are not recorded. */
  readonly operation?: Operation | false
  /** The body with the registry's names of models, for who may use them and where they are; left out, the body has them. */
  readonly canonical?: (json: unknown) => unknown
  /**
   * @param exact the same JSON with its inexact numbers as `ExactNumber`
   * @param text what the body was parsed from; left out if headers add to the body
   */
  readonly decode: (
    json: unknown,
    caller: CallerIdentity,
    exact: unknown,
    text?: string
  ) => Result.Result<Decoded, InferenceError.InvalidRequest>
  readonly answer: (
    call: Call<Decoded>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError, Scope.Scope>
  /** Whether the answer uses the scope of the request; left out, no answer does. */
  readonly isScoped?: (body: Decoded) => boolean
  /** Encodes an error with the field names of the endpoint. */
  readonly encodeError: (reason: InferenceError.Reason, id: string) => ErrorResponse
}

type RandomNumbers = typeof Random.Random.Service

const lettersOf = (count: number, random: RandomNumbers): string =>
  Math.floor(random.nextDoubleUnsafe() * 36 ** count).toString(36).padStart(count, "0")

/** In parts: V8 formats numbers of more than 31 bits many times more slowly. */
const idOf = (prefix: string, random: RandomNumbers): string =>
  prefix + lettersOf(6, random) + lettersOf(5, random) + lettersOf(6, random) + lettersOf(5, random)

export const makeId = (prefix: string): Effect.Effect<string> => Random.Random.useSync((random) => idOf(prefix, random))

/** Response headers that describe how a request was routed. */
export type RoutingHeaders = Readonly<Record<string, string>>

/** Percent-encodes what a header cannot hold: a model may have any name. */
const encodeValue = (text: string): string =>
  /^[\x21-\x24\x26-\x7e]*$/.test(text)
    ? text
    : text.toWellFormed().replace(/[^\x21-\x24\x26-\x7e]+/g, encodeURIComponent)

/** What the input policy changed: no change of a request is silent. */
const policyHeaders = ({ dropped, redacted }: PolicyUse): RoutingHeaders => ({
  ...(redacted === undefined ? {} : { "x-troupe-redacted": redacted.join(", ") }),
  ...(dropped === undefined ? {} : { "x-troupe-dropped": dropped.map(encodeValue).join(", ") })
})

/** The deployment, the attempts, the id of the decision record, and what cache, limits and input policy did. */
export const answerHeaders = (
  { admitted, attempts, cache, decision, deployment, policy }: AnsweredBy
): Record<string, string> => {
  const headers: Record<string, string> = {
    "x-troupe-deployment": encodeValue(deployment),
    "x-troupe-attempts": String(attempts),
    "x-troupe-decision": decision
  }
  if (cache !== undefined) Object.assign(headers, CacheControl.headersOf(cache))
  if (admitted !== undefined) LimitHeaders.addLimits(headers, admitted)
  if (policy !== undefined) Object.assign(headers, policyHeaders(policy))
  return headers
}

/** Those of a complete answer: with its cost. Choices that were generated one by one cost together. */
export const completeHeaders = (first: AnsweredBy, others: ReadonlyArray<AnsweredBy> = []): RoutingHeaders => {
  const headers = answerHeaders(first)
  if (first.admitted !== undefined) LimitHeaders.addCost(headers, first, others)
  return headers
}

/** What a response belongs to. */
export type Responding = Pick<Call<unknown>, "headers" | "id" | "response" | "waits">

/** The response was written to Node's. */
export const written = HttpServerResponse.empty()

/** Writes the head of a response. Node takes a flat list of names and values as it is. */
export const writeHead = (
  response: ServerResponse,
  fixed: ReadonlyArray<string>,
  ...others: ReadonlyArray<RoutingHeaders>
) => {
  const list = [...fixed]
  for (const headers of others) {
    for (const name in headers) list.push(name, headers[name]!)
  }
  response.writeHead(200, list)
}

/** A JSON response with these headers. */
export const respondJson = (call: Responding, body: unknown, headers: RoutingHeaders) =>
  respondText(call, JSON.stringify(body), headers)

/**
 * A JSON response with these headers.
 *
 * @param text JSON
 */
export const respondText = ({ headers: idHeaders, response }: Responding, text: string, headers: RoutingHeaders) => {
  if (response === undefined) {
    return HttpServerResponse.text(text, {
      contentType: "application/json",
      headers: { ...headers, ...idHeaders }
    })
  }
  if (response.destroyed) return written
  const length = String(Buffer.byteLength(text))
  writeHead(response, ["content-type", "application/json", "content-length", length], headers, idHeaders)
  response.end(text)
  return written
}

/**
 * Answers a refusal of a provider with the dialect's body for it; other errors stay.
 *
 * @param encode undefined if the dialect has no body for this refusal
 */
export const respondRefusal = (call: Responding, encode: (reason: InferenceError.ContentRefused) => unknown) =>
(
  error: InferenceError.InferenceError
): Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError> => {
  const body = error.reason._tag === "ContentRefused" ? encode(error.reason) : undefined
  return body === undefined ? Effect.fail(error) : Effect.succeed(respondJson(call, body, errorHeaders(error)))
}

/** Most requests come from a client. */
const hopsOf = (headers: RequestHeaders): Result.Result<number, InferenceError.InvalidRequest> =>
  headers[Caller.hopHeader] === undefined ? Result.succeed(0) : Caller.hopsOf(headers)

/** Whether the body or a header sets options of the routing. */
const hasRoutingOptions = (json: unknown, headers: RequestHeaders): boolean => {
  if ((json as { readonly troupe?: unknown } | null)?.troupe !== undefined) return true
  for (const name of RoutingOptions.headerNames) {
    if (headers[name] !== undefined) return true
  }
  return false
}

type Response = HttpServerResponse.HttpServerResponse
/** `Unsent` only for a request that has no scope. */
type Answered = Effect.Effect<Response | Unsent, Failure, Scope.Scope>
type Responded = Effect.Effect<Response | Unsent, never, Scope.Scope>

/** A message of a WebSocket cannot be passed on, as a request can. */
const elsewhere: HttpProblem = {
  status: 501,
  code: "not_supported",
  message: "This connection is with a process that runs no local models (server.processes). POST the request instead."
}

/** What the requests of a dialect share. */
interface DialectParts {
  /** The own name of the model that a name or an alias selects. */
  readonly nameOf: (name: string) => string
  readonly refusals: EarlyRefusals.EarlyRefusals["Service"]
  readonly conventions: Conventions
  readonly bodyProblems: ReturnType<typeof RequestBody.problemsOf>
  readonly peers: Peers | undefined
  readonly servedModel: Call<unknown>["servedModel"]
  readonly loadingOf: FailedRequest["loadingOf"]
  /** Whether the service has a tracing of its own. */
  readonly isTraced: boolean
  /** Whether log entries get the ids of their request as annotations: see `RequestIds`. Undefined: none get them. */
  readonly annotates: ((arrival: Arrival) => boolean) | undefined
  /** Keeps bodies; undefined: none is kept. */
  readonly replays: Replays | undefined
}

/** What a request has, however it arrived. */
interface Arrival {
  readonly id: string
  readonly headers: RequestHeaders
  /** Node's response; undefined for a web handler. */
  readonly response: ServerResponse | undefined
  /** Whether the request has a scope that closes after its response. */
  readonly hasScope: boolean
  /** Who calls; undefined without keys. */
  readonly identity: Identity | undefined
  /** Node's message or a web request; undefined for a message of a connection. */
  readonly source: object | undefined
}

/** A request at an endpoint, until its response. */
class EndpointRequest<Decoded> {
  readonly #parts: DialectParts
  readonly #endpoint: Endpoint<Decoded>
  readonly #arrival: Arrival
  readonly #created: number
  #hops = 0
  #waits: Waits | undefined
  /** As the body names it. */
  #model: unknown
  #hasBegun = false
  /** Names headers in place of the fields that they stand for. */
  #renamePath: FailedRequest["renamePath"]

  /** @param created seconds since 1970 */
  constructor(parts: DialectParts, endpoint: Endpoint<Decoded>, arrival: Arrival, created: number) {
    this.#parts = parts
    this.#endpoint = endpoint
    this.#arrival = arrival
    this.#created = created
  }

  /** Decodes the body and answers it. */
  respond(body: Effect.Effect<RequestBody.Text, Failure>): Responded {
    return this.#settled(Effect.flatMapEager(body, (text) => this.#answerBody(text)))
  }

  /** Does not throw: a body that has been read is answered before `catchCause`. */
  #answerBody(body: RequestBody.Text): Answered {
    try {
      return RequestBody.isLarge(body) ? this.#answerLarge(body) : this.#answerText(body)
    } catch (defect) {
      return Effect.die(defect)
    }
  }

  #settled(answered: Answered): Responded {
    return Effect.catchCause(answered, (cause) => {
      const { encodeError } = this.#endpoint
      return respondFailure({
        ...this.#parts,
        encodeError,
        id: this.#arrival.id,
        identity: this.#arrival.identity,
        renamePath: this.#renamePath,
        refused: this.#refused,
        hasBegun: this.#hasBegun
      }, cause)
    })
  }

  readonly #refused: FailedRequest["refused"] = (error, answer) => {
    const { operation = "chat" } = this.#endpoint
    if (operation === false) return
    const named = this.#canonical({ model: this.#model }) as { readonly model?: unknown }
    const model = typeof named.model === "string" ? named.model : ""
    this.#parts.refusals.note({ ...this.#arrival, operation, model, error, answer })
  }

  /** The response to a request that no model may have. */
  refuse(problem: HttpProblem): Response {
    const { conventions } = this.#parts
    return EndpointFailure.refuse({ conventions, id: this.#arrival.id, refused: this.#refused }, problem)
  }

  #answerText(body: RequestBody.Text): Answered {
    const json = RequestBody.parse(body.text)
    if (Result.isFailure(json)) return Effect.fail(json.failure)
    const passed = this.#passed(json.success, body.text)
    if (passed !== undefined) return passed
    this.#keep(body.text)
    const decoded = this.#decode(json.success, RequestBody.exactOf(body, json.success), body.text)
    return Result.isFailure(decoded) ? Effect.fail(decoded.failure) : this.#answer(decoded.success)
  }

  /** As `answerText`; between the steps the event loop runs other work. */
  #answerLarge(body: RequestBody.Text): Answered {
    return Effect.gen({ self: this }, function*() {
      yield* RequestBody.nextTurn
      const json = yield* Effect.fromResult(RequestBody.parse(body.text))
      const passed = this.#passed(json, body.text)
      if (passed !== undefined) return yield* passed
      this.#keep(body.text)
      if (body.isInexact) yield* RequestBody.nextTurn
      const exact = RequestBody.exactOf(body, json)
      yield* RequestBody.nextTurn
      return yield* this.#answer(yield* Effect.fromResult(this.#decode(json, exact, body.text)))
    })
  }

  /** The answer of the process that has to give it; undefined if this one has to. */
  #passed(json: unknown, text: string): Answered | undefined {
    const { peers } = this.#parts
    const { headers, response } = this.#arrival
    this.#model = (json as { readonly model?: unknown } | null)?.model
    if (peers === undefined || !peers.isForFirst(this.#canonical(json), headers)) return undefined
    if (response === undefined) return Effect.succeed(this.refuse(elsewhere))
    return Effect.withFiber((fiber) =>
      peers.pass(response, {
        text,
        address: fiber.getRef(Caller.CallerAddress)(fiber.context),
        onCut: (error) => this.#refused(error, EarlyRefusals.answerTo(error.reason, response.statusCode))
      })
    )
  }

  #keep(text: string): void {
    const { headers, id, source } = this.#arrival
    if (source !== undefined) this.#parts.replays?.keep(id, source, headers, text)
  }

  /** Reads what headers alone say; returns what is wrong with them. */
  #readHeaders(): InferenceError.InvalidRequest | undefined {
    const { headers } = this.#arrival
    const hops = hopsOf(headers)
    if (Result.isFailure(hops)) return hops.failure
    this.#hops = hops.success
    if (headers[progressHeader] === undefined) return undefined
    const waits = WaitEvents.ofHeaders(headers)
    if (Result.isFailure(waits)) return waits.failure
    this.#waits = waits.success
    return undefined
  }

  /**
   * Decodes a body with the routing options of the headers. This is the only place that reads the caller's key.
   *
   * @param exact the same JSON with its inexact numbers as `ExactNumber`; undefined if it has none
   * @param text what the body was parsed from
   */
  #decode(json: unknown, exact: unknown, text: string): Result.Result<Decoded, Failure> {
    const { headers, identity } = this.#arrival
    const refused = this.#readHeaders()
    if (refused !== undefined) return Result.fail(refused)
    let joined = json
    if (hasRoutingOptions(json, headers)) {
      const result = RoutingOptions.join(json, headers)
      if (Result.isFailure(result)) return Result.fail(new InferenceError.InvalidRequest(result.failure))
      joined = result.success
      this.#renamePath = (text) => RoutingOptions.named(text, json, headers)
    }
    const caller = identity === undefined
      ? { key: this.#parts.conventions.keyOf(headers), headers }
      : { headers, identity }
    const passed = joined === json ? RequestBody.passedText(text) : undefined
    const body = this.#endpoint.decode(joined, caller, exact ?? joined, passed)
    if (identity === undefined || Result.isFailure(body)) return body
    const forbidden = Authentication.modelRefusal(identity, this.#canonical(joined), this.#parts.nameOf)
    return forbidden === undefined ? body : Result.fail(InferenceError.make(forbidden))
  }

  #canonical(json: unknown): unknown {
    return this.#endpoint.canonical?.(json) ?? json
  }

  #answer(body: Decoded): Answered {
    const { hasScope, id, response } = this.#arrival
    const headers = this.#parts.conventions.idHeaders(id)
    const { servedModel } = this.#parts
    const waits = this.#waits
    this.#hasBegun = true
    const answered = this.#endpoint.answer({ id, headers, response, created: this.#created, servedModel, waits, body })
    const seen = waits === undefined ? answered : Effect.provideService(answered, RequestWaits, waits)
    const counted = this.#hops === 0 ? seen : Effect.provideService(seen, Caller.HopCount, this.#hops)
    const named = this.#parts.annotates?.(this.#arrival) === true
      ? Effect.annotateLogs(counted, RequestIds.idsOf(id, this.#arrival.headers["x-request-id"]))
      : counted
    const traced = this.#parts.isTraced ? this.#traced(named) : named
    if (hasScope || this.#endpoint.isScoped?.(body) !== true) return traced
    return Effect.succeed(new Unsent(this.#settled(traced) as Unsent["response"]))
  }

  /** The answer with its spans below the caller's, if there is one. */
  #traced(answered: Answered): Answered {
    const caller = TraceContext.callerOf(this.#arrival.headers)
    return caller === undefined ? answered : Effect.provideService(answered, Tracer.ParentSpan, caller)
  }
}

/** A request whose body is a message of a connection, and whose response is written to that connection. */
export interface Message {
  readonly headers: RequestHeaders
  readonly identity: Identity | undefined
  readonly bytes: Buffer
  /** Of a request that is answered like a message: gets the id of the response. */
  readonly named?: object
}

/** The handlers of an endpoint. */
export interface Handlers {
  readonly routed: Effect.Effect<Response, never, HttpServerRequest.HttpServerRequest | Scope.Scope>
  /** For a request that starts without the router. */
  readonly direct: DirectHandler
  /** For a request that is sent again; left out where none can be. */
  readonly message?: MessageHandler
  /** What the requests of the path are recorded as; default `false`, not at all. */
  readonly operation?: Operation | false
}

/** The names of models in answers, as the settings say; undefined stands for the requested one. */
const makeServedModel = Effect.gen(function*() {
  let { answerModel } = yield* Settings
  const changes = yield* SettingsChanges
  changes.follow((next) => {
    answerModel = next.answerModel
  })
  const names = new ServedNames(yield* Registry)
  return (deployment: string) => answerModel === "requested" ? undefined : names.nameOf(deployment)
})

const makeParts = (conventions: Conventions, limits: RequestBody.Limits) =>
  Effect.gen(function*() {
    const parts: DialectParts = {
      conventions,
      bodyProblems: RequestBody.problemsOf(limits),
      peers: yield* PeerProcesses,
      loadingOf: (yield* Models).loading,
      nameOf: namesIn(yield* Registry),
      refusals: yield* EarlyRefusals.EarlyRefusals,
      servedModel: yield* makeServedModel,
      isTraced: (yield* ServiceTracing) !== undefined,
      annotates: yield* RequestIds.annotates,
      replays: yield* RequestReplays
    }
    return parts
  })
/** Answers a message. The body of the response is to be read in the same scope. */
export type MessageHandler = (message: Message) => Effect.Effect<Response, never, Scope.Scope>

/** Makes the function that answers a request, however it arrived. */
const makeRespond = (parts: DialectParts, readiness: Readiness["Service"]) =>
<Decoded>(
  endpoint: Endpoint<Decoded>,
  fiber: Fiber.Fiber<unknown, unknown>,
  { headers, identity, response, hasScope, source }: Omit<Arrival, "id">,
  named: object | undefined,
  read: () => Effect.Effect<RequestBody.Text, Failure>
): Responded => {
  const id = idOf(endpoint.idPrefix, fiber.getRef(Random.Random))
  if (named !== undefined) setRequestId(named, id)
  const created = Math.floor(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() / 1000)
  const arrival = { id, headers, identity, response, hasScope, source }
  const request = new EndpointRequest(parts, endpoint, arrival, created)
  return readiness.status === "stopping" ? Effect.succeed(request.refuse(stopping)) : request.respond(read())
}

/** Makes the handlers of messages without a request of HTTP. */
const makeOfMessage =
  (respond: ReturnType<typeof makeRespond>, limits: Effect.Success<typeof RequestBody.limits>) =>
  <Decoded>(endpoint: Endpoint<Decoded>): MessageHandler =>
  ({ bytes, headers, identity, named }) =>
    Effect.withFiber<Response | Unsent, never, Scope.Scope>((fiber) => {
      const hold = limits.budget.hold()
      const arrival = { headers, identity, response: undefined, hasScope: true, source: undefined }
      return Effect.andThen(
        Effect.addFinalizer(() => Effect.sync(() => hold.release())),
        respond(endpoint, fiber, arrival, named, () => RequestBody.ofBytes(bytes, limits, hold))
      )
    }) as ReturnType<MessageHandler>

/** Makes handlers for the endpoints of a dialect. */
const make = Effect.fnUntraced(function*(conventions: Conventions) {
  const limits = yield* RequestBody.limits
  const readiness = yield* Readiness
  const parts = yield* makeParts(conventions, limits)

  const respond = makeRespond(parts, readiness)

  const routed = <Decoded>(endpoint: Endpoint<Decoded>) =>
    Effect.withFiber<Response | Unsent, never, HttpServerRequest.HttpServerRequest | Scope.Scope>((fiber) => {
      const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
      const { headers, source } = request
      const hold = limits.budget.hold()
      const identity = identityOf(source)
      const message = source instanceof IncomingMessage ? source : undefined
      const response = message && toServerResponse(request) as ServerResponse
      // The scope closes after the response, or when the client disconnects.
      return Effect.flatMap(
        Scope.addFinalizer(Context.getUnsafe(fiber.context, Scope.Scope), Effect.sync(() => hold.release())),
        () =>
          respond(
            endpoint,
            fiber,
            { headers, identity, response, hasScope: true, source },
            source,
            () =>
              message === undefined
                ? RequestBody.ofWeb(request, hold)
                : RequestBody.ofNode(message, response!, limits, hold)
          )
      )
    })

  const direct = <Decoded>(endpoint: Endpoint<Decoded>) =>
    Effect.withFiber<Response | Unsent, never, Scope.Scope>((fiber) => {
      const { hold, message, response } = Context.getUnsafe(fiber.context, NodeExchange)
      const headers = message.headers as RequestHeaders
      const identity = identityOf(message)
      return respond(
        endpoint,
        fiber,
        { headers, identity, response, hasScope: false, source: message },
        message,
        () => RequestBody.ofNode(message, response, limits, hold)
      )
    })

  const ofMessage = makeOfMessage(respond, limits)

  const handle = <Decoded>(endpoint: Endpoint<Decoded>): Handlers => ({
    routed: routed(endpoint) as Handlers["routed"],
    // A request without a scope uses none: see `isScoped`.
    direct: direct(endpoint) as unknown as DirectHandler,
    operation: endpoint.operation ?? "chat",
    ...(parts.replays === undefined ? {} : { message: ofMessage(endpoint) })
  })
  return { handle, ofMessage, replays: parts.replays, operations: parts.refusals.operations }
})

/** Method and path of an endpoint, as the description has them. */
interface Route {
  readonly method: Parameters<HttpRouter.HttpRouter["add"]>[0]
  readonly path: HttpRouter.PathInput
}

/**
 * The routes of a dialect.
 *
 * @param handlersOf makes the handlers of each endpoint in the group
 */
export const layer = <Name extends string, R>(
  conventions: Conventions,
  { endpoints }: { readonly endpoints: Readonly<Record<Name, Route>> },
  handlersOf: (
    handle: <Decoded>(endpoint: Endpoint<Decoded>) => Handlers,
    ofMessage: <Decoded>(endpoint: Endpoint<Decoded>) => MessageHandler
  ) => Effect.Effect<Readonly<Record<Name, Handlers>>, never, R>
) =>
  HttpRouter.use(Effect.fnUntraced(function*(router) {
    const { handle, ofMessage, operations, replays } = yield* make(conventions)
    const handlers = yield* handlersOf(handle, ofMessage)
    for (const name of Object.keys(endpoints) as Array<Name>) {
      const { method, path } = endpoints[name]
      const { direct, message, operation = false, routed } = handlers[name]
      yield* router.add(method, path, routed)
      if (method !== "POST" || path.includes(":")) continue
      if (operation !== false) operations.set(path, operation)
      yield* DirectRoutes.add(path, direct)
      if (message !== undefined) replays?.handlers.set(path, message)
    }
  }))

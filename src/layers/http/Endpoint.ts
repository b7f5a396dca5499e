/**
 * What all endpoints of all dialects share: request ids, limits, decoding, response headers, errors, defects and shutdown.
 *
 * **Details**
 *
 * An endpoint defines how to answer a parsed body, and its dialect defines the shape of errors. Every failure becomes a
 * response in that shape here. Every response has the id that the log has.
 */
import { toServerResponse } from "@effect/platform-node/NodeHttpServerRequest"
import type { Fiber } from "effect"
import { Cause, Clock, Context, Effect, Layer, Option, Random, Result, Scope } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { ServerResponse } from "node:http"
import { IncomingMessage } from "node:http"
import type { CallerIdentity } from "../../dialects/shared/CallerRequest.ts"
import * as Caller from "../../domain/Caller.ts"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { AnsweredBy } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as RoutingOptions from "../../domain/RoutingOptions.ts"
import { Readiness } from "../../services/health/Readiness.ts"
import { cachedResponses } from "../../services/routing/DecisionRecord.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { Conventions, ErrorResponse, HttpProblem } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import * as RequestBody from "./RequestBody.ts"

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
  readonly body: Decoded
}

export interface Endpoint<Decoded> {
  /** The prefix of its request ids. */
  readonly idPrefix: string
  /** @param exact the same JSON with its inexact numbers as `ExactNumber` */
  readonly decode: (
    json: unknown,
    caller: CallerIdentity,
    exact: unknown
  ) => Result.Result<Decoded, InferenceError.InvalidRequest>
  readonly answer: (
    call: Call<Decoded>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError, Scope.Scope>
  /** Encodes an error with the field names of the endpoint. */
  readonly encodeError: (reason: InferenceError.Reason, id: string) => ErrorResponse
}

/** The response to a defect. */
export const internalError: HttpProblem = {
  status: 500,
  code: "internal_error",
  message: "The service failed with an internal error. Its log has the details."
}

const stopping: HttpProblem = {
  status: 503,
  code: "shutting_down",
  message: "The service is shutting down. Try again.",
  headers: { "retry-after": "1", connection: "close" }
}

/** Letters of each part of an id: V8 formats numbers of more than 31 bits many times more slowly. */
const idParts = [6, 5, 6, 5]

const idOf = (prefix: string, random: typeof Random.Random.Service): string => {
  const part = (letters: number) => Math.floor(random.nextDoubleUnsafe() * 36 ** letters)
  return idParts.reduce((id, letters) => id + part(letters).toString(36).padStart(letters, "0"), prefix)
}

export const makeId = (prefix: string): Effect.Effect<string> => Random.Random.useSync((random) => idOf(prefix, random))

const byteOrderMark = "\ufeff"

/** Some editors write a byte order mark at the beginning of a text. */
const withoutMark = (text: string): string => text.startsWith(byteOrderMark) ? text.slice(1) : text

/** Parses a body as JSON. */
export const parse = (text: string): Result.Result<unknown, InferenceError.InvalidRequest> => {
  try {
    return Result.succeed(JSON.parse(withoutMark(text)) as unknown)
  } catch (cause) {
    const detail = `The body is not JSON: ${(cause as SyntaxError).message}`
    return Result.fail(new InferenceError.InvalidRequest({ detail }))
  }
}

/** Renames paths in the text of an error. */
type PathRenamer = (text: string) => string

/** What a request has read from its headers, for its errors. */
interface RequestNames {
  /** Names headers in place of the fields that they stand for. */
  renamePath?: PathRenamer
}

const renameReason = ({ renamePath }: RequestNames, reason: InferenceError.Reason): InferenceError.Reason =>
  renamePath === undefined || reason._tag !== "InvalidRequest" || reason.path === undefined
    ? reason
    : reason.renamed(renamePath, renamePath(reason.detail))

/** Response headers that describe how a request was routed. */
export type RoutingHeaders = Readonly<Record<string, string>>

/** The names of all of them. */
export const routingHeaderNames = [
  "x-troupe-attempts",
  "x-troupe-cache",
  "x-troupe-decision",
  "x-troupe-deployment"
] as const

/** Percent-encodes what a header cannot hold: a model may have any name. */
const encodeValue = (text: string): string => text.toWellFormed().replace(/[^\x21-\x24\x26-\x7e]+/g, encodeURIComponent)

/** The deployment, the number of attempts, the id of the decision record, and whether the answer came from the cache. */
export const answerHeaders = ({ attempts, decision, deployment }: AnsweredBy): RoutingHeaders => ({
  "x-troupe-deployment": encodeValue(deployment),
  "x-troupe-attempts": String(attempts),
  "x-troupe-decision": decision,
  ...(deployment === cachedResponses ? { "x-troupe-cache": "hit" } : {})
})

/** The number of attempts and the id of the decision record; none for a request that was not routed. */
export const errorHeaders = (
  { attempts, decision, started = attempts?.length ?? 1 }: InferenceError.InferenceError
): RoutingHeaders =>
  decision === undefined ? {} : { "x-troupe-attempts": String(started), "x-troupe-decision": decision }

/** The ids of a request in log entries: its own, and that of its decision record if it was routed. */
export const logName = (id: string, { "x-troupe-decision": decision }: RoutingHeaders): string =>
  decision === undefined ? id : `${id} (${decision})`

/** What a response belongs to. */
export type Responding = Pick<Call<unknown>, "headers" | "id" | "response">

/** The response was written to Node's. */
export const written = HttpServerResponse.empty()

/** A JSON response with these headers. */
export const respondJson = ({ headers: idHeaders, response }: Responding, body: unknown, headers: RoutingHeaders) => {
  if (response === undefined) return HttpServerResponse.jsonUnsafe(body, { headers: { ...headers, ...idHeaders } })
  if (response.destroyed) return written
  const text = JSON.stringify(body)
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...headers,
    ...idHeaders
  })
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

/** The address of a caller, by which callers share a model fairly. */
export const layerCallerAddress = Layer.effect(
  Caller.CallerAddress,
  Effect.map(Settings, ({ server }) => {
    const trustedProxies = Caller.trustedProxiesOf(server.trustedProxies)
    return (context: Context.Context<never>) => {
      const request = Context.getOption(context, HttpServerRequest.HttpServerRequest)
      if (Option.isNone(request)) return ""
      const { headers, remoteAddress } = request.value
      return Caller.addressOf(Option.getOrElse(remoteAddress, () => ""), headers["x-forwarded-for"], trustedProxies)
    }
  })
)

/** A request whose body is being decoded. */
interface Incoming<Decoded> {
  readonly conventions: Conventions
  readonly endpoint: Endpoint<Decoded>
  readonly names: RequestNames
  readonly request: HttpServerRequest.HttpServerRequest
}

interface DecodedRequest<Decoded> {
  readonly body: Decoded
  readonly hops: number
}

type Headers = Readonly<Record<string, string | undefined>>

/** Most requests come from a client. */
const hopsOf = (headers: Headers): Result.Result<number, InferenceError.InvalidRequest> =>
  headers[Caller.hopHeader] === undefined ? Result.succeed(0) : Caller.hopsOf(headers)

/** Whether the body or a header sets options of the routing. */
const hasRoutingOptions = (json: unknown, headers: Headers): boolean =>
  (json as { readonly troupe?: unknown } | null)?.troupe !== undefined ||
  RoutingOptions.headerNames.some((name) => headers[name] !== undefined)

/**
 * Decodes a body with the routing options of the headers.
 *
 * @param exact the same JSON with its inexact numbers as `ExactNumber`; undefined if it has none
 */
const decode = <Decoded>(
  { conventions, endpoint, names, request: { headers } }: Incoming<Decoded>,
  json: unknown,
  exact: unknown
): Result.Result<DecodedRequest<Decoded>, InferenceError.InvalidRequest> => {
  const hops = hopsOf(headers)
  if (Result.isFailure(hops)) return Result.fail(hops.failure)
  let joined = json
  if (hasRoutingOptions(json, headers)) {
    const result = RoutingOptions.join(json, headers)
    if (Result.isFailure(result)) return Result.fail(new InferenceError.InvalidRequest(result.failure))
    joined = result.success
    names.renamePath = (text) => RoutingOptions.named(text, json, headers)
  }
  const caller = { key: conventions.keyOf(headers), headers }
  const body = endpoint.decode(joined, caller, exact ?? joined)
  return Result.isFailure(body)
    ? Result.fail(body.failure)
    : Result.succeed({ body: body.success, hops: hops.success })
}

/** The JSON of a body with its inexact numbers; undefined if it has none. */
const exactOf = ({ isInexact, text }: RequestBody.Text, json: unknown): unknown =>
  isInexact ? ExactNumber.parseInexact(withoutMark(text), json) : undefined

type Failure = InferenceError.InferenceError | InferenceError.InvalidRequest | RequestBody.BodyReadError
type Answered = Effect.Effect<HttpServerResponse.HttpServerResponse, Failure, Scope.Scope>

/** Decodes a body and answers it. */
const answerText = <Decoded>(
  incoming: Incoming<Decoded>,
  body: RequestBody.Text,
  answer: (decoded: DecodedRequest<Decoded>) => Answered
): Answered => {
  const json = parse(body.text)
  if (Result.isFailure(json)) return Effect.fail(json.failure)
  const decoded = decode(incoming, json.success, exactOf(body, json.success))
  return Result.isFailure(decoded) ? Effect.fail(decoded.failure) : answer(decoded.success)
}

/** As `answerText`; between the steps the event loop runs other work. */
const answerLarge = <Decoded>(
  incoming: Incoming<Decoded>,
  body: RequestBody.Text,
  answer: (decoded: DecodedRequest<Decoded>) => Answered
): Answered =>
  Effect.gen(function*() {
    yield* RequestBody.nextTurn
    const json = yield* Effect.fromResult(parse(body.text))
    if (body.isInexact) yield* RequestBody.nextTurn
    const exact = exactOf(body, json)
    yield* RequestBody.nextTurn
    return yield* answer(yield* Effect.fromResult(decode(incoming, json, exact)))
  })

/** Node's response to a request; undefined for a web handler. */
const nodeResponseOf = (request: HttpServerRequest.HttpServerRequest): ServerResponse | undefined =>
  request.source instanceof IncomingMessage ? toServerResponse(request) as ServerResponse : undefined

/** What the handlers of a dialect share. */
interface HandlerParts {
  readonly conventions: Conventions
  readonly limits: RequestBody.Limits
  readonly bodyProblems: ReturnType<typeof RequestBody.problemsOf>
  readonly readiness: Readiness["Service"]
}

/** Reads, decodes and answers a request. */
const handle = <Decoded>(
  { conventions, limits }: HandlerParts,
  endpoint: Endpoint<Decoded>,
  { fiber, id, names }: {
    readonly fiber: Fiber.Fiber<unknown, unknown>
    readonly id: string
    readonly names: RequestNames
  }
): Answered => {
  const { context } = fiber
  const request = Context.getUnsafe(context, HttpServerRequest.HttpServerRequest)
  const hold = limits.budget.hold()
  const incoming: Incoming<Decoded> = { conventions, endpoint, names, request }
  const answer = ({ body, hops }: DecodedRequest<Decoded>): Answered => {
    const answered = endpoint.answer({
      id,
      headers: conventions.idHeaders(id),
      response: nodeResponseOf(request),
      created: Math.floor(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() / 1000),
      body
    })
    return hops === 0 ? answered : Effect.provideService(answered, Caller.HopCount, hops)
  }
  // The scope of the request closes after the response, or when the client disconnects.
  return Effect.flatMap(
    Scope.addFinalizer(Context.getUnsafe(context, Scope.Scope), Effect.sync(hold.release)),
    () =>
      Effect.flatMap(
        RequestBody.text(request, limits, hold),
        (body) => (RequestBody.isLarge(body) ? answerLarge : answerText)(incoming, body, answer)
      )
  )
}

/** The response to a failure before an answer. */
const makeRefuse = ({ bodyProblems, conventions }: HandlerParts) => {
  const respond = (problem: HttpProblem, id: string) =>
    respondError(conventions.encodeProblem(problem, id), conventions.idHeaders(id))

  const fail = <Decoded>(
    { encodeError }: Endpoint<Decoded>,
    id: string,
    reason: InferenceError.Reason,
    headers: RoutingHeaders
  ) => {
    const error = encodeError(reason, id)
    // A caller's own mistakes are not logged.
    const log = error.status >= 500 ? Effect.logWarning(`${logName(id, headers)}: ${reason.message}`) : Effect.void
    return Effect.as(log, respondError(error, { ...headers, ...conventions.idHeaders(id) }))
  }

  const refuse = <Decoded>(
    endpoint: Endpoint<Decoded>,
    id: string,
    names: RequestNames,
    cause: Cause.Cause<Failure>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
    const found = Cause.findErrorOption(cause)
    if (Option.isNone(found)) {
      return isCancellation(cause)
        ? Effect.failCause(cause as Cause.Cause<never>)
        : Effect.as(Effect.logError(`${id} failed with a defect.`, Cause.squash(cause)), respond(internalError, id))
    }
    const error = found.value
    switch (error._tag) {
      case "BodyReadError":
        return Effect.succeed(respond(bodyProblems[error.kind], id))
      case "InvalidRequest":
        return fail(endpoint, id, renameReason(names, error), {})
      case "InferenceError":
        return fail(endpoint, id, renameReason(names, error.reason), errorHeaders(error))
    }
  }
  return { respond, refuse }
}

/** Makes handlers for the endpoints of a dialect. */
const make = Effect.fnUntraced(function*(conventions: Conventions) {
  const limits = yield* RequestBody.limits
  const readiness = yield* Readiness
  const parts: HandlerParts = { conventions, limits, bodyProblems: RequestBody.problemsOf(limits), readiness }
  const { refuse, respond } = makeRefuse(parts)

  return <Decoded>(endpoint: Endpoint<Decoded>): Handler =>
    Effect.withFiber((fiber) => {
      const id = idOf(endpoint.idPrefix, fiber.getRef(Random.Random))
      if (readiness.status === "stopping") return Effect.succeed(respond(stopping, id))
      const names: RequestNames = {}
      return Effect.matchCauseEffect(handle(parts, endpoint, { fiber, id, names }), {
        onSuccess: Effect.succeed,
        onFailure: (cause) => refuse(endpoint, id, names, cause)
      })
    })
})

type Handler = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  never,
  HttpServerRequest.HttpServerRequest | Scope.Scope
>

/** Method and path of an endpoint, as the description has them. */
interface Route {
  readonly method: Parameters<HttpRouter.HttpRouter["add"]>[0]
  readonly path: HttpRouter.PathInput
}

/**
 * The routes of a dialect.
 *
 * @param handlersOf makes the handler of each endpoint in the group
 */
export const layer = <Name extends string, R>(
  conventions: Conventions,
  { endpoints }: { readonly endpoints: Readonly<Record<Name, Route>> },
  handlersOf: (
    handle: <Decoded>(endpoint: Endpoint<Decoded>) => Handler
  ) => Effect.Effect<Readonly<Record<Name, Handler>>, never, R>
) =>
  HttpRouter.use(Effect.fnUntraced(function*(router) {
    const handlers = yield* handlersOf(yield* make(conventions))
    for (const name of Object.keys(endpoints) as Array<Name>) {
      yield* router.add(endpoints[name].method, endpoints[name].path, handlers[name])
    }
  }))

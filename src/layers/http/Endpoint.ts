/**
 * What every endpoint of every dialect does alike: ids, limits, errors, defects and the end of the service.
 *
 * **Details**
 *
 * An endpoint says what to answer to a parsed body, and its dialect what errors look like; whatever goes wrong becomes an
 * answer in that shape here. Every response has the id that the log has.
 */
import { Clock, Duration, Effect, Random, Result, Scope } from "effect"
import type { Headers } from "effect/http"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Caller } from "../../dialects/shared/CallerIdentity.ts"
import type { Failure, Trouble } from "../../dialects/shared/HttpProblem.ts"
import * as Hops from "../../domain/HopLimit.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Overrides from "../../domain/RoutingOptions.ts"
import { Readiness } from "../../services/models/Readiness.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as Intake from "./Intake.ts"
import * as RequestBody from "./RequestBody.ts"
import * as Telling from "./RoutingHeaders.ts"

/** One request. */
export interface Call<Decoded> {
  /** Of the answer, and in every log line about it. */
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly body: Decoded
}

/** How a family of clients is spoken to. */
export interface Dialect {
  readonly failure: (trouble: Trouble, id: string) => Failure
  /** The response with the request's id where the family's clients look for it. */
  readonly identify: (
    response: HttpServerResponse.HttpServerResponse,
    id: string
  ) => HttpServerResponse.HttpServerResponse
  /** What the caller shows to be let in. */
  readonly keyOf: (headers: Headers.Headers) => string | undefined
}

/** What makes one endpoint another than the others. */
export interface Endpoint<Decoded> {
  /** In front of its ids. */
  readonly idPrefix: string
  readonly decode: (json: unknown, caller: Caller) => Result.Result<Decoded, InferenceError.InvalidRequest>
  readonly answer: (
    call: Call<Decoded>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError, Scope.Scope>
  /** How the dialect tells of it, with the endpoint's own names for what is wrong. */
  readonly failure: (reason: InferenceError.Reason, id: string) => Failure
}

export const respondError = ({ body, headers, status }: Failure) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers })

/** A defect. */
export const broken: Trouble = {
  status: 500,
  code: "internal_error",
  message: "Something went wrong in the service itself; its log says what."
}

const stopping: Trouble = {
  status: 503,
  code: "shutting_down",
  message: "The service is shutting down. Try again.",
  headers: { "retry-after": "1", connection: "close" }
}

const tooLarge = (maxBodyBytes: number): Trouble => ({
  status: 413,
  code: "request_too_large",
  message: `The request body is larger than ${maxBodyBytes} bytes. Shorten it.`,
  // The rest of it is not read.
  headers: { connection: "close" }
})

const encoded: Trouble = {
  status: 400,
  code: null,
  message: "The request body is compressed, which is not supported. Send it without content-encoding.",
  // None of it is read.
  headers: { connection: "close" }
}

const unreadable: Trouble = {
  status: 400,
  code: null,
  message: "The request body could not be read to its end."
}

const late = (bodyTimeout: Duration.Duration): Trouble => ({
  status: 408,
  code: "request_timeout",
  message: `No byte of the request body came for ${Duration.format(bodyTimeout)}. Send the request again.`,
  // The rest of it is not read.
  headers: { connection: "close" }
})

const full: Trouble = {
  status: 503,
  code: "overloaded",
  message: "The requests that the service works for hold as much memory as they may. Try again.",
  // The rest of the body is not read.
  headers: { "retry-after": "1", connection: "close" }
}

const notUtf8: Trouble = {
  status: 400,
  code: null,
  message: "The request body is not UTF-8, which JSON is. Encode it so."
}

/** By why there is no text of the body. */
const unreadTroubles = (
  maxBodyBytes: number,
  bodyTimeout: Duration.Duration
): Readonly<Record<RequestBody.Unread["why"], Trouble>> => ({
  "too-large": tooLarge(maxBodyBytes),
  late: late(bodyTimeout),
  full,
  encoded,
  unreadable,
  notUtf8
})

/** Letters of each part of an id: V8 is many times as slow to write numbers of more than 31 bits. */
const idParts = [6, 5, 6, 5]

export const makeId = (prefix: string): Effect.Effect<string> =>
  Random.Random.useSync((random) => {
    const part = (letters: number) => Math.floor(random.nextDoubleUnsafe() * 36 ** letters)
    return idParts.reduce((id, letters) => id + part(letters).toString(36).padStart(letters, "0"), prefix)
  })

const byteOrderMark = "\ufeff"

/** A body that is JSON. */
export const parse = (text: string): Result.Result<unknown, InferenceError.InvalidRequest> =>
  Result.try({
    try: () => JSON.parse(text.startsWith(byteOrderMark) ? text.slice(1) : text) as unknown,
    catch: (cause) =>
      new InferenceError.InvalidRequest({ detail: `The body is not JSON: ${(cause as SyntaxError).message}` })
  })

/** What a reason is to whoever asked. */
type Naming = (reason: InferenceError.Reason) => InferenceError.Reason

/** Wishes by the names of the headers that said them. */
const inHeaders = (json: unknown, headers: Headers.Headers): Naming => (reason) =>
  reason._tag !== "InvalidRequest" || reason.path === undefined ? reason : new InferenceError.InvalidRequest({
    path: Overrides.named(reason.path, json, headers),
    detail: Overrides.named(reason.detail, json, headers)
  })

/** A request as it is asked. */
interface Asked<Decoded> {
  readonly body: Decoded
  readonly hops: number
}

/** What a request asks for: its body, and the wishes of its headers. */
const ask = <Decoded>(
  { keyOf }: Dialect,
  { decode }: Endpoint<Decoded>,
  { headers }: HttpServerRequest.HttpServerRequest,
  json: unknown,
  tellAs: (naming: Naming) => void
): Result.Result<Asked<Decoded>, InferenceError.InvalidRequest> =>
  Result.flatMap(Hops.fromHeaders(headers), (hops) => {
    const joined = Overrides.join(json, headers)
    if (Result.isFailure(joined)) return Result.fail(new InferenceError.InvalidRequest(joined.failure))
    if (joined.success !== json) tellAs(inHeaders(json, headers))
    return Result.map(decode(joined.success, { key: keyOf(headers), headers }), (body) => ({ body, hops }))
  })

/** Parses and decodes the body. A large one leaves the event loop to others between the steps. */
const receive = <Decoded>(
  dialect: Dialect,
  endpoint: Endpoint<Decoded>,
  request: HttpServerRequest.HttpServerRequest,
  body: RequestBody.Text,
  tellAs: (naming: Naming) => void
): Effect.Effect<Asked<Decoded>, InferenceError.InvalidRequest> => {
  const decoded = (json: unknown) => ask(dialect, endpoint, request, json, tellAs)
  if (!Intake.isLarge(body)) return Effect.fromResult(Result.flatMap(parse(body.text), decoded))
  return Effect.flatMap(
    Intake.nextTurn,
    () =>
      Effect.flatMap(
        Effect.fromResult(parse(body.text)),
        (json) => Effect.flatMap(Intake.nextTurn, () => Effect.fromResult(decoded(json)))
      )
  )
}

/** Reads and decodes the request, and answers it. */
const handle = <Decoded>(
  dialect: Dialect,
  endpoint: Endpoint<Decoded>,
  id: string,
  limits: RequestBody.Limits,
  tellAs: (naming: Naming) => void
) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    const hold = limits.budget.hold()
    const received = Effect.flatMap(
      RequestBody.text(request, limits, hold),
      (text) => receive(dialect, endpoint, request, text, tellAs)
    )
    const handled = Effect.flatMap(received, ({ body, hops }) => {
      const answered = Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => endpoint.answer({ id, created: Math.floor(now / 1000), body })
      )
      return hops === 0 ? answered : Effect.provideService(answered, Hops.Hops, hops)
    })
    // The request's scope ends with its answer, or when the client hangs up.
    return Effect.flatMap(Effect.scope, (scope) =>
      Effect.flatMap(Scope.addFinalizer(scope, Effect.sync(hold.release)), () => handled))
  })

/** Makes handlers of a dialect's endpoints. */
export const make = Effect.fnUntraced(function*(dialect: Dialect) {
  const readiness = yield* Readiness
  const { server } = yield* Settings

  const limits = yield* Intake.make
  const unread = unreadTroubles(limits.maxBytes, server.bodyTimeout)

  const respond = (trouble: Trouble, id: string) => respondError(dialect.failure(trouble, id))

  const settled = <Decoded>(endpoint: Endpoint<Decoded>, id: string) => {
    let named: Naming = (reason) => reason
    const fail = (reason: InferenceError.Reason, headers: Failure["headers"] = {}) => {
      const failure = endpoint.failure(named(reason), id)
      // The caller's own mistakes are told to the caller only.
      const log = failure.status >= 500 ? Effect.logWarning(`${id}: ${reason.message}`) : Effect.void
      return Effect.as(log, respondError({ ...failure, headers: { ...failure.headers, ...headers } }))
    }
    const tellAs = (naming: Naming): void => {
      named = naming
    }
    return handle(dialect, endpoint, id, limits, tellAs).pipe(
      Effect.catchTags({
        InvalidRequest: (reason) => fail(reason),
        InferenceError: (error) => fail(error.reason, Telling.ofError(error)),
        Unread: ({ why }) => Effect.succeed(respond(unread[why], id))
      }),
      Effect.catchDefect((defect) =>
        Effect.as(Effect.logError(`${id} ended in a defect.`, defect), respond(broken, id))
      )
    )
  }

  return <Decoded>(endpoint: Endpoint<Decoded>) =>
    Effect.flatMap(makeId(endpoint.idPrefix), (id) =>
      Effect.map(
        Effect.suspend(() =>
          readiness.stage === "stopping" ? Effect.succeed(respond(stopping, id)) : settled(endpoint, id)
        ),
        (response) => dialect.identify(response, id)
      ))
})

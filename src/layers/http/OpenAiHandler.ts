/**
 * What every endpoint of the OpenAI dialect does alike: ids, limits, errors, defects and the end of the service.
 *
 * **Details**
 *
 * An endpoint says what to answer to a parsed body; whatever goes wrong becomes an answer in the dialect's shape here.
 * Every response has the id that the log has.
 */
import { Clock, Effect, Predicate, Random, Result } from "effect"
import type { Scope } from "effect"
import type { HttpServerError } from "effect/http"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import * as InferenceError from "../../services/InferenceError.ts"
import { Readiness } from "../../services/Readiness.ts"
import { Settings } from "../../services/Settings.ts"
import * as OpenAiError from "./OpenAiError.ts"
import type { Fields } from "./OpenAiFields.ts"
import { bearerTokenOf } from "./OpenAiStanding.ts"

/** One request. */
export interface Call<Decoded> {
  /** Of the answer, and in every log line about it. */
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly body: Decoded
}

/** What makes one endpoint another than the others. */
export interface Endpoint<Decoded> {
  /** In front of its ids. */
  readonly idPrefix: string
  readonly fields: Fields
  readonly decode: (
    json: unknown,
    bearerToken: string | undefined
  ) => Result.Result<Decoded, InferenceError.InvalidRequest>
  readonly answer: (
    call: Call<Decoded>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError, Scope.Scope>
}

export const respondError = ({ body, headers, status }: OpenAiError.OpenAiError) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers })

/** The answer to a defect. */
export const broken = OpenAiError.make("Something went wrong in the service itself; its log says what.", {
  status: 500,
  type: "server_error",
  code: "internal_error"
})

const stopping = OpenAiError.make("The service is shutting down. Try again.", {
  status: 503,
  type: "server_error",
  code: "shutting_down",
  headers: { "retry-after": "1", connection: "close" }
})

const tooLarge = (maxBodyBytes: number) =>
  OpenAiError.make(`The request body is larger than ${maxBodyBytes} bytes. Shorten it.`, {
    status: 413,
    type: "invalid_request_error",
    code: "request_too_large"
  })

const unreadable = OpenAiError.make("The request body could not be read to its end.", {
  status: 400,
  type: "invalid_request_error",
  code: null
})

const isTooLarge = ({ reason }: HttpServerError.HttpServerError) => Predicate.isTagged(reason.cause, "MaxBytesError")

const idPart = Effect.map(
  Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER),
  (number) => number.toString(36).padStart(11, "0")
)

const makeId = (prefix: string) => Effect.zipWith(idPart, idPart, (one, two) => `${prefix}-${one}${two}`)

const parse = (text: string): Result.Result<unknown, InferenceError.InvalidRequest> =>
  Result.try({
    try: () => JSON.parse(text) as unknown,
    catch: (cause) =>
      new InferenceError.InvalidRequest({ detail: `The body is not JSON: ${(cause as SyntaxError).message}` })
  })

/** Reads and decodes the request, and answers it. */
const handle = <Decoded>({ answer, decode }: Endpoint<Decoded>, id: string) =>
  Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const json = yield* Effect.fromResult(parse(yield* request.text))
    const body = yield* Effect.fromResult(decode(json, bearerTokenOf(request.headers["authorization"])))
    const created = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    return yield* answer({ id, created, body })
  })

/** Makes handlers of endpoints. */
export const make = Effect.gen(function*() {
  const readiness = yield* Readiness
  const { server } = yield* Settings

  const refuse = (id: string, fields: Fields) => (reason: InferenceError.Reason) => {
    const error = OpenAiError.fromReason(reason, fields)
    // The caller's own mistakes are told to the caller only.
    const log = error.status >= 500 ? Effect.logWarning(`${id}: ${reason.message}`) : Effect.void
    return Effect.as(log, respondError(error))
  }

  const settled = <Decoded>(endpoint: Endpoint<Decoded>, id: string) => {
    const fail = refuse(id, endpoint.fields)
    return handle(endpoint, id).pipe(
      Effect.catchTags({
        InvalidRequest: fail,
        InferenceError: ({ reason }) => fail(reason),
        HttpServerError: (error) =>
          Effect.succeed(respondError(isTooLarge(error) ? tooLarge(server.maxBodyBytes) : unreadable))
      }),
      Effect.catchDefect((defect) =>
        Effect.as(Effect.logError(`${id} ended in a defect.`, defect), respondError(broken))
      )
    )
  }

  return <Decoded>(endpoint: Endpoint<Decoded>) => () =>
    Effect.flatMap(makeId(endpoint.idPrefix), (id) =>
      Effect.map(
        Effect.suspend(() =>
          readiness.stage === "stopping" ? Effect.succeed(respondError(stopping)) : settled(endpoint, id)
        ),
        (response) => HttpServerResponse.setHeader(response, "x-request-id", id)
      ))
})

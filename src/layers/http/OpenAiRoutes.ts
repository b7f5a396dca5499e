/**
 * Handlers of the OpenAI dialect.
 *
 * **Details**
 *
 * The status of an answer is chosen when its first content is there: until then every failure is an ordinary error
 * response, streaming or not. Afterwards a failure is an error frame in the stream, which then has no `[DONE]`.
 */
import { Array as Arr, Clock, Effect, Predicate, Pull, Random, Result, Stream } from "effect"
import type { HttpServerError } from "effect/http"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Api } from "../../services/Api.ts"
import { Inference } from "../../services/Inference.ts"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Model } from "../../services/Model.ts"
import { Readiness } from "../../services/Readiness.ts"
import { Registry } from "../../services/Registry.ts"
import { Settings } from "../../services/Settings.ts"
import type { ChatCall, Envelope } from "./OpenAiChat.ts"
import * as OpenAiChat from "./OpenAiChat.ts"
import * as OpenAiError from "./OpenAiError.ts"

const respondError = ({ body, headers, status }: OpenAiError.OpenAiError) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers })

const encoder = new TextEncoder()

const readJson = Effect.gen(function*() {
  const request = yield* HttpServerRequest.HttpServerRequest
  const text = yield* request.text
  return yield* Effect.try({
    try: () => JSON.parse(text) as unknown,
    catch: (cause) =>
      InferenceError.make(
        new InferenceError.InvalidRequest({ detail: `The body is not JSON: ${(cause as SyntaxError).message}` })
      )
  })
})

const idPart = Effect.map(
  Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER),
  (number) => number.toString(36).padStart(11, "0")
)

const makeId = Effect.zipWith(idPart, idPart, (one, two) => `chatcmpl-${one}${two}`)

const makeEnvelope = (id: string, { includeUsage, model }: ChatCall): Effect.Effect<Envelope> =>
  Effect.map(Clock.currentTimeMillis, (now) => ({ id, created: Math.floor(now / 1000), model, includeUsage }))

/** Frames until the last event; the first pull fails where the request fails before any content. */
const frames = (inference: Inference["Service"], { requests }: ChatCall, envelope: Envelope) => {
  const encode = OpenAiChat.makeFrameEncoder(envelope)
  const choice = (index: number) =>
    inference.stream(requests[index]!).pipe(
      Stream.mapArray((events) => Arr.of(encode.events(index, events)))
    )
  const choices = requests.length === 1
    ? choice(0)
    : Stream.mergeAll(requests.map((_, index) => choice(index)), { concurrency: "unbounded" })
  return Stream.concat(choices, Stream.sync(encode.end))
}

const broken = OpenAiError.make("Something went wrong in the service itself; its log says what.", {
  status: 500,
  type: "server_error",
  code: "internal_error"
})

const streamAnswer = Effect.fnUntraced(function*(inference: Inference["Service"], id: string, call: ChatCall) {
  const envelope = yield* makeEnvelope(id, call)
  const pull = yield* Stream.toPull(frames(inference, call, envelope))
  const first = yield* Pull.catchDone(pull, () => Effect.succeed([] as ReadonlyArray<string>))
  const rest = Stream.fromPull(Effect.succeed(pull)).pipe(
    Stream.catchTag("InferenceError", (error) =>
      Stream.fromEffect(Effect.as(
        Effect.logWarning(`${envelope.id}: ${error.message}`),
        OpenAiChat.encodeError(OpenAiError.fromReason(error.reason).body)
      ))),
    Stream.catchDefect((defect) =>
      Stream.fromEffect(Effect.as(
        Effect.logError(`${envelope.id} ended in a defect.`, defect),
        OpenAiChat.encodeError(broken.body)
      ))
    )
  )
  const bytes = Stream.concat(Stream.fromArray(first), rest).pipe(
    Stream.mapArray((texts) => Arr.of(encoder.encode(texts.join(""))))
  )
  return HttpServerResponse.stream(bytes, {
    contentType: "text/event-stream; charset=utf-8",
    headers: { "cache-control": "no-cache" }
  })
})

const wholeAnswer = Effect.fnUntraced(function*(inference: Inference["Service"], id: string, call: ChatCall) {
  const envelope = yield* makeEnvelope(id, call)
  const answers = yield* Effect.forEach(call.requests, inference.generate, { concurrency: "unbounded" })
  return HttpServerResponse.jsonUnsafe(OpenAiChat.encodeAnswers(envelope, answers))
})

const stopping = OpenAiError.make("The service is shutting down. Try again.", {
  status: 503,
  type: "server_error",
  code: "shutting_down",
  headers: { "retry-after": "1", connection: "close" }
})

const tooLarge = (maxBodyBytes: number) =>
  OpenAiError.make(`The request body is larger than ${maxBodyBytes} bytes. Shorten the messages.`, {
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

const makeChat = Effect.gen(function*() {
  const inference = yield* Inference
  const readiness = yield* Readiness
  const { server } = yield* Settings

  const answer = Effect.fnUntraced(
    function*(id: string) {
      if (readiness.stage === "stopping") return respondError(stopping)
      const call = OpenAiChat.decode(yield* readJson)
      if (Result.isFailure(call)) return respondError(OpenAiError.fromReason(call.failure))
      return yield* call.success.stream
        ? streamAnswer(inference, id, call.success)
        : wholeAnswer(inference, id, call.success)
    },
    (effect, id) =>
      Effect.catchTags(effect, {
        InferenceError: ({ reason }) => {
          const error = OpenAiError.fromReason(reason)
          // The caller's own mistakes are told to the caller only.
          const log = error.status >= 500 ? Effect.logWarning(`${id}: ${reason.message}`) : Effect.void
          return Effect.as(log, respondError(error))
        },
        HttpServerError: (error) =>
          Effect.succeed(respondError(isTooLarge(error) ? tooLarge(server.maxBodyBytes) : unreadable))
      }),
    (effect, id) =>
      Effect.catchDefect(
        effect,
        (defect) => Effect.as(Effect.logError(`${id} ended in a defect.`, defect), respondError(broken))
      )
  )
  // Every response has the id that the log has.
  return () =>
    Effect.flatMap(
      makeId,
      (id) => Effect.map(answer(id), (response) => HttpServerResponse.setHeader(response, "x-request-id", id))
    )
})

/** A model as `GET /v1/models` tells of it. */
const modelOf = (created: number) => ({ name }: Model) => ({
  id: name,
  object: "model" as const,
  created,
  owned_by: "troupe"
})

export const layer = HttpApiBuilder.group(
  Api,
  "openai",
  Effect.fn(function*(handlers) {
    const registry = yield* Registry
    const chat = yield* makeChat
    const started = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    return handlers.handleRaw("chatCompletions", chat).handle(
      "models",
      () => Effect.map(registry.models, (models) => ({ object: "list" as const, data: models.map(modelOf(started)) }))
    ).handle("model", ({ params }) =>
      Effect.mapBoth(registry.find(params.model), {
        onSuccess: modelOf(started),
        onFailure: ({ reason }) => OpenAiError.fromReason(reason).body
      }))
  })
)

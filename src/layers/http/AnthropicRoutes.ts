/**
 * The routes of the Anthropic dialect.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, also for a stream (`ServerSentEvents`). A later
 * failure is an `error` event in the stream, which then has no `message_stop`.
 */
import { DateTime, Effect } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import type { Decoded, MessagesCall } from "../../dialects/anthropic/DecodeRequest.ts"
import * as DecodeRequest from "../../dialects/anthropic/DecodeRequest.ts"
import type { Envelope } from "../../dialects/anthropic/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/anthropic/EncodeAnswer.ts"
import * as EncodeError from "../../dialects/anthropic/EncodeError.ts"
import * as EncodeStream from "../../dialects/anthropic/EncodeStream.ts"
import * as Schema from "../../dialects/anthropic/Schema.ts"
import { bearerTokenOf } from "../../dialects/shared/CallerRequest.ts"
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import type { CountRequest, Request } from "../../domain/Inference.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import type { ModelCard } from "../../domain/ModelCard.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { events } from "./Api.ts"
import type { Conventions, Dialect, HttpProblem } from "./Dialect.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import { internalError } from "./EndpointFailure.ts"
import type { AnswerFrames, FailureFrames } from "./ServerSentEvents.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"

const error = (status: number, description: string) =>
  Schema.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

const errors = [
  error(
    400,
    "The request is invalid, or its prompt exceeds the context window (`invalid_request_error`; then the message begins " +
      "with `prompt is too long`)"
  ),
  error(404, "Unknown model (`not_found_error`)"),
  error(413, "The body is larger than `server.maxBodyBytes` (`request_too_large`)"),
  error(
    429,
    "Too many requests wait, or a provider's rate limit is reached (`rate_limit_error`); `Retry-After` has the time to " +
      "wait"
  ),
  error(500, "The engine or the provider failed, or the model could not be loaded (`api_error`)"),
  error(504, "The provider's answer exceeded a time limit (`timeout_error`)"),
  error(529, "No deployment is available (`overloaded_error`); `Retry-After` has the time to wait")
] as const

const group = HttpApiGroup.make("anthropic").add(
  HttpApiEndpoint.post("messages", "/v1/messages", {
    payload: Schema.MessagesRequest,
    success: [Schema.Message, events(Schema.StreamEvent)],
    error: errors
  }).annotateMerge(OpenApi.annotations({
    title: "Create a message",
    description:
      "With `stream: true` the answer is a stream of server-sent events, which ends with `message_stop`. A " +
      "failure after the first event is an `error` event, and no `message_stop` follows."
  })),
  HttpApiEndpoint.post("countTokens", "/v1/messages/count_tokens", {
    payload: Schema.CountTokensRequest,
    success: Schema.TokenCount,
    error: errors
  }).annotateMerge(OpenApi.annotations({ title: "Count the tokens of a message's prompt" }))
)

/** Anthropic's statuses have no 503: a service that cannot answer now is overloaded. */
const encodeProblem = ({ code, headers, message, status }: HttpProblem, id: string): EncodeError.AnthropicError =>
  EncodeError.make(status === 503 ? 529 : status, message, id, headers, code ?? ErrorCatalog.withoutCode)

const encodeError = EncodeError.fromReason

/** The error with the path of the field in the body. */
const relocate = (decoded: Decoded<Pick<Request, "source">>) => (error: InferenceError): InferenceError => {
  const { attempts, decision, refusal, started } = error
  const reason = DecodeRequest.relocate(error.reason, decoded)
  return reason === error.reason ? error : new InferenceError({
    reason,
    ...(attempts === undefined ? {} : { attempts }),
    ...(decision === undefined ? {} : { decision }),
    ...(refusal === undefined ? {} : { refusal }),
    ...(started === undefined ? {} : { started })
  })
}

/** @param deployment that has answered; left out, a stream names it */
const envelopeOf = (
  { body: { parallelToolUse, request, thinking }, id, servedModel }: Call<MessagesCall>,
  deployment?: string
): Envelope => ({
  id,
  model: (deployment === undefined ? undefined : servedModel(deployment)) ?? request.model,
  servedModel,
  parallelToolUse,
  thinking
})

interface Services {
  readonly inference: Inference["Service"]
}

const failureFramesOf = ({ body, id }: Call<MessagesCall>): FailureFrames => ({
  error: (reason) => EncodeStream.encodeError(encodeError(DecodeRequest.relocate(reason, body), id).body),
  defect: () => EncodeStream.encodeError(encodeProblem(internalError, id).body),
  keepAlive: EncodeStream.ping
})

const respondStream = ({ inference }: Services, call: Call<MessagesCall>) => {
  const encoder = EncodeStream.makeFrameEncoder(envelopeOf(call))
  const frames: AnswerFrames = {
    ...failureFramesOf(call),
    ...encoder,
    begin: ({ deployment }) => encoder.begin(deployment)
  }
  return Effect.mapError(ServerSentEvents.respondOne(inference, call.body.request, call, frames), relocate(call.body))
}

const respondBuffered = ({ inference }: Services, call: Call<MessagesCall>) => {
  return inference.generate(call.body.request).pipe(
    Effect.flatMap((answer) =>
      Effect.map(
        Effect.fromResult(EncodeAnswer.encodeText(envelopeOf(call, answer.deployment), answer)),
        (text) => Endpoint.respondText(call, text, Endpoint.completeHeaders(answer))
      )
    ),
    Effect.mapError(relocate(call.body)),
    Effect.catch(
      Endpoint.respondRefusal(call, (reason) => EncodeAnswer.encodeRefusal(envelopeOf(call, reason.deployment), reason))
    )
  )
}

const idPrefix = "req_"

const messages = (services: Services): Endpoint.Endpoint<MessagesCall> => ({
  idPrefix,
  encodeError,
  decode: DecodeRequest.decode,
  answer: (call) => (call.body.stream ? respondStream : respondBuffered)(services, call)
})

const countTokens = ({ inference }: Services): Endpoint.Endpoint<Decoded<CountRequest>> => ({
  idPrefix,
  operation: "tokenize",
  encodeError,
  decode: DecodeRequest.decodeCount,
  answer: ({ body, ...call }) =>
    Effect.mapBoth(inference.count(body.request), {
      onSuccess: (found) =>
        Endpoint.respondJson(call, { input_tokens: found.promptTokens }, Endpoint.answerHeaders(found)),
      onFailure: relocate(body)
    })
})

const modelOf = ({ contextWindow, maxOutput, name }: ModelCard, startedAt: number): Schema.Model => ({
  type: "model",
  id: name,
  display_name: name,
  created_at: DateTime.formatIso(DateTime.makeUnsafe(startedAt)),
  lifecycle: "active",
  capabilities: null,
  deprecated_at: null,
  line: null,
  max_input_tokens: contextWindow ?? null,
  max_tokens: maxOutput ?? null,
  retires_at: null
})

const apiKeyOf = (value: string | undefined): string | undefined => value?.trim() || undefined

const conventions: Conventions = {
  encodeProblem,
  idHeaders: (id) => ({ "request-id": id, "x-request-id": id }),
  keyOf: (headers) => apiKeyOf(headers["x-api-key"]) ?? bearerTokenOf(headers["authorization"])
}

export const dialect: Dialect = {
  ...conventions,
  group,
  clientHeader: "anthropic-version",
  encodeReason: encodeError,
  models: {
    listSchema: Schema.ModelList,
    modelSchema: Schema.Model,
    list: (models, startedAt) => ({
      data: models.map((model) => modelOf(model, startedAt)),
      has_more: false,
      first_id: models[0]?.name ?? null,
      last_id: models.at(-1)?.name ?? null
    }),
    model: modelOf
  },
  layer: Endpoint.layer(conventions, group, (handle) =>
    Effect.map(Inference, (inference) => ({
      messages: handle(messages({ inference })),
      countTokens: handle(countTokens({ inference }))
    })))
}

/** Handlers of the Anthropic dialect. */
import { Array as Arr, Effect, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import type { Asked, MessagesCall } from "../../dialects/anthropic/DecodeRequest.ts"
import * as AnthropicMessages from "../../dialects/anthropic/DecodeRequest.ts"
import type { Envelope } from "../../dialects/anthropic/EncodeAnswer.ts"
import * as AnthropicFrames from "../../dialects/anthropic/EncodeAnswer.ts"
import * as AnthropicError from "../../dialects/anthropic/EncodeError.ts"
import type { CountRequest, Request } from "../../domain/Inference.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import { Inference } from "../../services/inference/Inference.ts"
import * as AnthropicHandler from "./AnthropicHandler.ts"
import { Api } from "./Api.ts"
import type { Call, Endpoint } from "./Endpoint.ts"
import * as Handler from "./Endpoint.ts"
import * as Telling from "./RoutingHeaders.ts"
import type { Endings } from "./ServerSentEvents.ts"
import * as EventStream from "./ServerSentEvents.ts"

const shared = { idPrefix: "req_", failure: AnthropicError.fromReason } as const

type Headers = Readonly<Record<string, string>>

const respond = (body: unknown, headers: Headers) => HttpServerResponse.jsonUnsafe(body, { headers })

/** The error with the body's own path for what is wrong. */
const located = (asked: Asked<Pick<Request, "extra">>) => (error: InferenceError): InferenceError => {
  const { attempts, decision } = error
  const reason = AnthropicMessages.relocate(error.reason, asked)
  return reason === error.reason ? error : new InferenceError({
    reason,
    ...(attempts === undefined ? {} : { attempts }),
    ...(decision === undefined ? {} : { decision })
  })
}

const envelopeOf = ({ body: { parallelToolUse, request }, id }: Call<MessagesCall>): Envelope => ({
  id,
  model: request.model,
  parallelToolUse
})

const wholeAnswer = (inference: Inference["Service"], call: Call<MessagesCall>) => {
  const envelope = envelopeOf(call)
  return inference.generate(call.body.request).pipe(
    Effect.flatMap((answer) =>
      Effect.map(
        Effect.fromResult(AnthropicFrames.encodeAnswer(envelope, answer)),
        (message) => respond(message, Telling.ofAnswer(answer))
      )
    ),
    Effect.catchTag("InferenceError", (error) =>
      error.reason._tag === "ContentRefused"
        ? Effect.succeed(respond(AnthropicFrames.encodeRefusal(envelope, error.reason), Telling.ofError(error)))
        : Effect.fail(located(call.body)(error)))
  )
}

/** Frames until the last event; the first pull fails where the request fails before any content. */
const frames = (inference: Inference["Service"], call: Call<MessagesCall>, told: (headers: Headers) => void) => {
  const encode = AnthropicFrames.makeFrameEncoder(envelopeOf(call))
  const begun = Effect.map(inference.open(call.body.request), ({ events, ...by }) => {
    told(Telling.ofAnswer(by))
    return Stream.mapArray(events, (some) => Arr.of(encode.events(some)))
  })
  return Stream.unwrap(begun).pipe(
    Stream.concat(Stream.sync(encode.end)),
    Stream.catchTag("InferenceError", (error) => {
      if (error.reason._tag !== "ContentRefused") return Stream.fail(located(call.body)(error))
      told(Telling.ofError(error))
      return Stream.succeed(encode.refuse(error.reason))
    })
  )
}

const streamAnswer = (inference: Inference["Service"], call: Call<MessagesCall>) => {
  let headers: Headers = {}
  const all = frames(inference, call, (told) => {
    headers = told
  })
  const endings: Endings = {
    failed: (reason) => AnthropicFrames.encodeError(AnthropicError.fromReason(reason, call.id).body),
    broken: () => AnthropicFrames.encodeError(AnthropicHandler.failure(Handler.broken, call.id).body)
  }
  return EventStream.respond(call.id, all, endings, () => headers)
}

const messages = (inference: Inference["Service"]): Endpoint<MessagesCall> => ({
  ...shared,
  decode: AnthropicMessages.decode,
  answer: (call) => call.body.stream ? streamAnswer(inference, call) : wholeAnswer(inference, call)
})

const countTokens = (inference: Inference["Service"]): Endpoint<Asked<CountRequest>> => ({
  ...shared,
  decode: AnthropicMessages.decodeCount,
  answer: ({ body }) =>
    Effect.mapBoth(inference.count(body.request), {
      onSuccess: (found) => respond({ input_tokens: found.promptTokens }, Telling.ofAnswer(found)),
      onFailure: located(body)
    })
})

const { endpoints } = Api.groups.anthropic

export const layer = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const inference = yield* Inference
  const handler = yield* Handler.make(AnthropicHandler.dialect)
  const { countTokens: counting, messages: asking } = endpoints
  yield* router.add(asking.method, asking.path, handler(messages(inference)))
  yield* router.add(counting.method, counting.path, handler(countTokens(inference)))
}))

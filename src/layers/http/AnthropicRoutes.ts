/** Handlers of the Anthropic dialect. */
import { Array as Arr, Effect, Stream } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Api } from "../../services/Api.ts"
import type { CountRequest, Request } from "../../services/Inference.ts"
import { Inference } from "../../services/Inference.ts"
import { InferenceError } from "../../services/InferenceError.ts"
import * as AnthropicError from "./AnthropicError.ts"
import type { Envelope } from "./AnthropicFrames.ts"
import * as AnthropicFrames from "./AnthropicFrames.ts"
import * as AnthropicHandler from "./AnthropicHandler.ts"
import type { Asked, MessagesCall } from "./AnthropicMessages.ts"
import * as AnthropicMessages from "./AnthropicMessages.ts"
import type { Endings } from "./EventStream.ts"
import * as EventStream from "./EventStream.ts"
import type { Call, Endpoint } from "./Handler.ts"
import * as Handler from "./Handler.ts"
import * as Telling from "./Telling.ts"

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

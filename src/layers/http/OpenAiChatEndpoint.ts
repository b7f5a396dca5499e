/**
 * How a chat completion is answered, whole and streamed.
 *
 * **Details**
 *
 * The status of an answer is chosen when its first content is there: until then every failure is an ordinary error
 * response, streaming or not. Afterwards a failure is an error frame in the stream, which then has no `[DONE]`.
 */
import { Array as Arr, Effect, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Inference } from "../../services/Inference.ts"
import type { ChatCall } from "./OpenAiChat.ts"
import * as OpenAiChat from "./OpenAiChat.ts"
import * as OpenAiError from "./OpenAiError.ts"
import * as OpenAiFields from "./OpenAiFields.ts"
import type { Envelope } from "./OpenAiFrames.ts"
import * as OpenAiFrames from "./OpenAiFrames.ts"
import type { Call, Endpoint } from "./OpenAiHandler.ts"
import { broken } from "./OpenAiHandler.ts"

const encoder = new TextEncoder()

const envelopeOf = ({ body: { includeUsage, model, parallelToolCalls }, created, id }: Call<ChatCall>): Envelope => ({
  id,
  created,
  model,
  includeUsage,
  parallelToolCalls
})

/** Frames until the last event; the first pull fails where the request fails before any content. */
const frames = (inference: Inference["Service"], { requests }: ChatCall, envelope: Envelope) => {
  const encode = OpenAiFrames.makeFrameEncoder(envelope)
  const choice = (index: number) =>
    inference.stream(requests[index]!).pipe(
      Stream.mapArray((events) => Arr.of(encode.events(index, events)))
    )
  const choices = requests.length === 1
    ? choice(0)
    : Stream.mergeAll(requests.map((_, index) => choice(index)), { concurrency: "unbounded" })
  return Stream.concat(choices, Stream.sync(encode.end))
}

const streamAnswer = Effect.fnUntraced(function*(inference: Inference["Service"], call: Call<ChatCall>) {
  const { id } = call
  const pull = yield* Stream.toPull(frames(inference, call.body, envelopeOf(call)))
  const first = yield* Pull.catchDone(pull, () => Effect.succeed([] as ReadonlyArray<string>))
  const rest = Stream.fromPull(Effect.succeed(pull)).pipe(
    Stream.catchTag("InferenceError", (error) =>
      Stream.fromEffect(Effect.as(
        Effect.logWarning(`${id}: ${error.message}`),
        OpenAiFrames.encodeError(OpenAiError.fromReason(error.reason, OpenAiFields.chat).body)
      ))),
    Stream.catchDefect((defect) =>
      Stream.fromEffect(Effect.as(
        Effect.logError(`${id} ended in a defect.`, defect),
        OpenAiFrames.encodeError(broken.body)
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

const wholeAnswer = Effect.fnUntraced(function*(inference: Inference["Service"], call: Call<ChatCall>) {
  const answers = yield* Effect.forEach(call.body.requests, inference.generate, { concurrency: "unbounded" })
  return HttpServerResponse.jsonUnsafe(OpenAiFrames.encodeAnswers(envelopeOf(call), answers))
})

export const make = (inference: Inference["Service"]): Endpoint<ChatCall> => ({
  idPrefix: "chatcmpl",
  fields: OpenAiFields.chat,
  decode: OpenAiChat.decode,
  answer: (call) => call.body.stream ? streamAnswer(inference, call) : wholeAnswer(inference, call)
})

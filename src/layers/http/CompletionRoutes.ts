/**
 * `POST /v1/completions` of the OpenAI dialect: texts that a model continues, without a chat template.
 *
 * **Details**
 *
 * Each prompt and each choice is a request of its own, at most `Defaults.choicesAtOnce` at a time. If one fails, the whole
 * request fails.
 */
import { Array as Arr, Effect, Stream } from "effect"
import type { CompletionCall, CompletionChoice } from "../../dialects/openai/DecodeCompletion.ts"
import { decode } from "../../dialects/openai/DecodeCompletion.ts"
import type { Envelope } from "../../dialects/openai/EncodeCompletion.ts"
import { encodeAnswers, FrameEncoder } from "../../dialects/openai/EncodeCompletion.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { ErrorResponse } from "./Dialect.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import type { FailureFrames } from "./ServerSentEvents.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"

type Service = Inference["Service"]

const envelopeOf = (
  { body: { choices, includeUsage, model, n }, created, id, servedModel }: Call<CompletionCall>
): Envelope => ({
  id,
  created,
  model,
  servedModel,
  includeUsage,
  n,
  echoes: choices.map(({ echo }) => echo)
})

const respondBuffered = (inference: Service, call: Call<CompletionCall>) =>
  Effect.map(
    Effect.forEach(call.body.choices, ({ request }) => inference.generate(request), {
      concurrency: Defaults.choicesAtOnce
    }),
    (answers) =>
      Endpoint.respondJson(
        call,
        encodeAnswers(envelopeOf(call), answers),
        Endpoint.completeHeaders(answers[0], answers.slice(1))
      )
  )

/** The frames of several choices, as they arrive. */
const framesOf = (
  inference: Service,
  choices: ReadonlyArray<CompletionChoice>,
  encoder: FrameEncoder,
  setHeaders: (headers: Endpoint.RoutingHeaders) => void
): Stream.Stream<string, InferenceError> => {
  let isOpened = false
  const framesOfChoice = ({ request }: CompletionChoice, index: number) =>
    Stream.unwrap(Effect.map(inference.open(request), ({ events, ...by }) => {
      if (!isOpened) setHeaders(Endpoint.answerHeaders(by))
      encoder.begin(by.deployment)
      isOpened = true
      return Stream.mapArray(events, (some) => Arr.of(encoder.events(index, some)))
    }))
  const merged = Stream.mergeAll(choices.map(framesOfChoice), { concurrency: Defaults.choicesAtOnce })
  return Stream.concat(merged, Stream.sync(() => encoder.end()))
}

const respondStream = (inference: Service, call: Call<CompletionCall>, failures: FailureFrames) => {
  const { choices } = call.body
  const encoder = new FrameEncoder(envelopeOf(call))
  if (choices.length > 1) {
    return ServerSentEvents.respond(call, failures, (setHeaders) => framesOf(inference, choices, encoder, setHeaders))
  }
  return ServerSentEvents.respondOne(inference, choices[0].request, call, {
    ...failures,
    begin: ({ deployment }) => encoder.begin(deployment),
    events: (events: ReadonlyArray<Event>) => encoder.events(0, events),
    end: () => encoder.end(),
    refuse: () => undefined
  })
}

/**
 * The endpoint.
 *
 * @param encodeError with the names of its fields
 * @param failures the last frames of a stream that fails
 */
export const completions = (
  inference: Service,
  encodeError: (reason: Reason) => ErrorResponse,
  failures: FailureFrames
): Endpoint.Endpoint<CompletionCall> => ({
  idPrefix: "cmpl-",
  encodeError,
  decode,
  isScoped: ({ choices, stream }) => stream && choices.length > 1,
  answer: (call) => call.body.stream ? respondStream(inference, call, failures) : respondBuffered(inference, call)
})

/**
 * How a chat completion is answered, whole and streamed.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, streaming or not (`EventStream`). Afterwards a
 * failure is an error frame in the stream, which then has no `[DONE]`.
 */
import { Array as Arr, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { ChatCall } from "../../dialects/openai/DecodeRequest.ts"
import * as OpenAiChat from "../../dialects/openai/DecodeRequest.ts"
import type { Envelope } from "../../dialects/openai/EncodeAnswer.ts"
import * as OpenAiFrames from "../../dialects/openai/EncodeAnswer.ts"
import * as OpenAiFields from "../../dialects/openai/FieldNames.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { By } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { dialectOf } from "../../domain/Source.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { Registry } from "../../services/models/Registry.ts"
import type { Call, Endpoint } from "./Endpoint.ts"
import { broken } from "./Endpoint.ts"
import * as OpenAiHandler from "./OpenAiHandler.ts"
import * as Telling from "./RoutingHeaders.ts"
import type { Endings } from "./ServerSentEvents.ts"
import * as EventStream from "./ServerSentEvents.ts"

const envelopeOf = ({ body: { includeUsage, model, parallelToolCalls }, created, id }: Call<ChatCall>): Envelope => ({
  id,
  created,
  model,
  includeUsage,
  parallelToolCalls
})

/** Frames until the last event; the first pull fails where the request fails before any content. */
const frames = (
  inference: Inference["Service"],
  { requests }: ChatCall,
  envelope: Envelope,
  begun: (by: By) => void
) => {
  const encode = OpenAiFrames.makeFrameEncoder(envelope, requests.length)
  const choice = (index: number) =>
    Stream.unwrap(Effect.map(inference.open(requests[index]!), ({ events, ...by }) => {
      begun(by)
      return Stream.mapArray(events, (some) => Arr.of(encode.events(index, some)))
    }))
  const choices = requests.length === 1
    ? choice(0)
    : Stream.mergeAll(requests.map((_, index) => choice(index)), { concurrency: Policies.choicesAtOnce })
  return Stream.concat(choices, Stream.sync(encode.end)).pipe(
    Stream.catchTag("InferenceError", (error) => {
      const refused = requests.length === 1 && error.reason._tag === "ContentRefused"
        ? encode.refuse(error.reason)
        : undefined
      return refused === undefined ? Stream.fail(error) : Stream.succeed(refused)
    })
  )
}

const failure = OpenAiHandler.failureOf(OpenAiFields.chat)

const endings: Endings = {
  failed: (reason) => OpenAiFrames.encodeError(failure(reason).body),
  broken: () => OpenAiFrames.encodeError(OpenAiHandler.failure(broken).body)
}

const streamAnswer = (inference: Inference["Service"], call: Call<ChatCall>) => {
  let first: By | undefined
  const all = frames(inference, call.body, envelopeOf(call), (by) => {
    first ??= by
  })
  return EventStream.respond(call.id, all, endings, () => first === undefined ? {} : Telling.ofAnswer(first))
}

/** A refusal that a provider has sent as an answer is one. */
const refusedAnswer = (call: Call<ChatCall>) => (error: InferenceError) => {
  const body = call.body.requests.length === 1 && error.reason._tag === "ContentRefused"
    ? OpenAiFrames.encodeRefusal(envelopeOf(call), error.reason)
    : undefined
  return body === undefined
    ? Effect.fail(error)
    : Effect.succeed(HttpServerResponse.jsonUnsafe(body, { headers: Telling.ofError(error) }))
}

const answers = (inference: Inference["Service"], { requests }: ChatCall) =>
  requests.length === 1
    ? Effect.map(inference.generate(requests[0]), (answer) => [answer])
    : Effect.forEach(requests, inference.generate, { concurrency: Policies.choicesAtOnce })

const wholeAnswer = (inference: Inference["Service"], call: Call<ChatCall>) =>
  answers(inference, call.body).pipe(
    Effect.map((answers) =>
      HttpServerResponse.jsonUnsafe(OpenAiFrames.encodeAnswers(envelopeOf(call), answers), {
        headers: Telling.ofAnswer(answers[0]!)
      })
    ),
    Effect.catchTag("InferenceError", refusedAnswer(call))
  )

const isOpenAi = ({ options }: Deployment): boolean => dialectOf(options) === "openai"

/** All choices in one call, where every deployment of the model takes several. */
const gathered = (registry: Registry["Service"], call: Call<ChatCall>): Effect.Effect<Call<ChatCall>> => {
  const { model, together } = call.body
  return together === undefined ? Effect.succeed(call) : Effect.match(registry.find(model), {
    // The request says so itself.
    onFailure: () => call,
    onSuccess: ({ deployments }) =>
      deployments.every(isOpenAi) ? { ...call, body: { ...call.body, requests: [together] } } : call
  })
}

export const make = (inference: Inference["Service"], registry: Registry["Service"]): Endpoint<ChatCall> => ({
  idPrefix: "chatcmpl-",
  failure,
  decode: OpenAiChat.decode,
  answer: (call) =>
    Effect.flatMap(
      gathered(registry, call),
      (all) => all.body.stream ? streamAnswer(inference, all) : wholeAnswer(inference, all)
    )
})

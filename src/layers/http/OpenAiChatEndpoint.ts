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
import type { Answer, By, Opened, Request } from "../../domain/Inference.ts"
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

type Services = readonly [inference: Inference["Service"], registry: Registry["Service"]]

const isOpenAi = ({ options }: Deployment): boolean => dialectOf(options) === "openai"

/** Whether the deployment of this id answers with all choices that it is asked for. */
const takesSeveral = (registry: Registry["Service"], id: string): Effect.Effect<boolean> =>
  Effect.sync(() =>
    registry.models().some(({ deployments }) => deployments.some((one) => one.id === id && isOpenAi(one)))
  )

/**
 * Frames until the last event; the first pull fails where the request fails before any content.
 *
 * @param together all choices in one request; left out, each is a request
 */
const frames = (
  [inference, registry]: Services,
  requests: ChatCall["requests"],
  together: Request | undefined,
  envelope: Envelope,
  begun: (by: By) => void
) => {
  let isOne = together !== undefined || requests.length === 1
  let encode = OpenAiFrames.makeFrameEncoder(envelope, isOne ? 1 : requests.length)
  const framesOf = (index: number, { events, ...by }: Opened) => {
    begun(by)
    return Stream.mapArray(events, (some) => Arr.of(encode.events(index, some)))
  }
  const choice = (request: Request, index: number) =>
    Stream.unwrap(Effect.map(inference.open(request), (opened) => framesOf(index, opened)))
  const merged = Stream.mergeAll({ concurrency: Policies.choicesAtOnce })
  /** The other choices are asked for where the deployment that answers takes one at a time. */
  const gathered = (request: Request) =>
    Stream.unwrap(Effect.gen(function*() {
      const opened = yield* inference.open(request)
      isOne = yield* takesSeveral(registry, opened.deployment)
      if (isOne) return framesOf(0, opened)
      encode = OpenAiFrames.makeFrameEncoder(envelope, requests.length)
      const others = requests.slice(1).map((other, index) => choice(other, index + 1))
      return merged([framesOf(0, opened), ...others])
    }))
  const single = requests.length === 1 ? choice(requests[0], 0) : merged(requests.map(choice))
  return Stream.concat(together === undefined ? single : gathered(together), Stream.sync(() => encode.end())).pipe(
    Stream.catchTag("InferenceError", (error) => {
      const refused = isOne && error.reason._tag === "ContentRefused" ? encode.refuse(error.reason) : undefined
      return refused === undefined ? Stream.fail(error) : Stream.succeed(refused)
    })
  )
}

const failure = OpenAiHandler.failureOf(OpenAiFields.chat)

const endings: Endings = {
  failed: (reason) => OpenAiFrames.encodeError(failure(reason).body),
  broken: () => OpenAiFrames.encodeError(OpenAiHandler.failure(broken).body)
}

const streamAnswer = (services: Services, call: Call<ChatCall>, together: Request | undefined) => {
  let first: By | undefined
  const all = frames(services, call.body.requests, together, envelopeOf(call), (by) => {
    first ??= by
  })
  return EventStream.respond(call.id, all, endings, () => first === undefined ? {} : Telling.ofAnswer(first))
}

/** A refusal that a provider has sent as an answer is one. */
const refusedAnswer = (call: Call<ChatCall>) => (error: InferenceError) => {
  const body = error.reason._tag === "ContentRefused"
    ? OpenAiFrames.encodeRefusal(envelopeOf(call), error.reason)
    : undefined
  return body === undefined
    ? Effect.fail(error)
    : Effect.succeed(HttpServerResponse.jsonUnsafe(body, { headers: Telling.ofError(error) }))
}

const wholeAnswer = ([inference]: Services, call: Call<ChatCall>, together: Request | undefined) => {
  const respond = (answers: Arr.NonEmptyReadonlyArray<Answer>) =>
    HttpServerResponse.jsonUnsafe(OpenAiFrames.encodeAnswers(envelopeOf(call), answers), {
      headers: Telling.ofAnswer(answers[0])
    })
  const each = (requests: ReadonlyArray<Request>) =>
    Effect.forEach(requests, inference.generate, { concurrency: Policies.choicesAtOnce })
  const { requests: [single, ...others] } = call.body
  const first = together ?? single
  if (together === undefined && others.length > 0) {
    return Effect.map(each(call.body.requests), (answers) => respond(answers as [Answer, ...Array<Answer>]))
  }
  return Effect.matchEffect(inference.generate(first), {
    onFailure: refusedAnswer(call),
    onSuccess: (answer) =>
      // A provider of the dialect has answered with all choices.
      others.length === 0 || answer.native !== undefined
        ? Effect.succeed(respond([answer]))
        : Effect.map(each(others), (rest) => respond([answer, ...rest]))
  })
}

/** All choices in one request, where every deployment of the model takes several; undefined, one request a choice. */
const gathered = (registry: Registry["Service"], { model, together }: ChatCall): Effect.Effect<Request | undefined> =>
  together === undefined ? Effect.succeed(undefined) : Effect.match(Effect.fromResult(registry.find(model)), {
    // The request says so itself.
    onFailure: () => undefined,
    onSuccess: ({ deployments }) => deployments.every(isOpenAi) ? together : undefined
  })

export const make = (inference: Inference["Service"], registry: Registry["Service"]): Endpoint<ChatCall> => ({
  idPrefix: "chatcmpl-",
  failure,
  decode: OpenAiChat.decode,
  answer: (call) =>
    Effect.flatMap(
      gathered(registry, call.body),
      (together) => (call.body.stream ? streamAnswer : wholeAnswer)([inference, registry], call, together)
    )
})

/**
 * The routes of the OpenAI dialect.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, also for a stream (`ServerSentEvents`). A later
 * failure is an error frame in the stream, which then has no `[DONE]`.
 */
import { Array as Arr, Effect, Result, Stream } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import * as CompletionSchema from "../../dialects/openai/CompletionSchema.ts"
import type { ChatCall } from "../../dialects/openai/DecodeRequest.ts"
import * as DecodeRequest from "../../dialects/openai/DecodeRequest.ts"
import type { Envelope } from "../../dialects/openai/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/openai/EncodeAnswer.ts"
import * as EncodeError from "../../dialects/openai/EncodeError.ts"
import * as EncodeStream from "../../dialects/openai/EncodeStream.ts"
import * as FieldNames from "../../dialects/openai/FieldNames.ts"
import * as Models from "../../dialects/openai/Models.ts"
import * as Schema from "../../dialects/openai/Schema.ts"
import type { EmbedCall, RerankCall } from "../../dialects/openai/Tasks.ts"
import * as Tasks from "../../dialects/openai/Tasks.ts"
import * as TaskSchema from "../../dialects/openai/TaskSchema.ts"
import { bearerTokenOf } from "../../dialects/shared/CallerRequest.ts"
import type { ErrorNames } from "../../dialects/shared/FieldNames.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type {
  Answer,
  AnsweredBy,
  ClassifyRequest,
  Event,
  OpenedAnswer,
  Request,
  TokenizeRequest
} from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { dialectOf } from "../../domain/Source.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { deploymentOfWildcard, Registry } from "../../services/models/Registry.ts"
import { error, events, unavailable } from "./Api.ts"
import { completions } from "./CompletionRoutes.ts"
import type { Conventions, Dialect, HttpProblem } from "./Dialect.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import { errorHeaders, internalError } from "./EndpointFailure.ts"
import type { FailureFrames } from "./ServerSentEvents.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"

const errors = [
  error(400, "The request is invalid, or its prompt exceeds the context window (`context_length_exceeded`)"),
  error(404, "Unknown model (`model_not_found`)"),
  error(413, "The body is larger than `server.maxBodyBytes`"),
  error(
    429,
    "Too many requests wait (`queue_full`), or memory is too low for requests of low priority (`overloaded`); " +
      "`Retry-After` has the time to wait"
  ),
  error(500, "The engine failed (`engine_failed`)"),
  unavailable
] as const

const title = (text: string) => OpenApi.annotations({ title: text })

const group = HttpApiGroup.make("openai").add(
  HttpApiEndpoint.post("chatCompletions", "/v1/chat/completions", {
    payload: Schema.ChatRequest,
    success: [Schema.ChatCompletion, events(Schema.ChatChunk)],
    error: errors
  }).annotateMerge(OpenApi.annotations({
    title: "Create a chat completion",
    description:
      "With `stream: true` the answer is a stream of server-sent events whose data are `ChatChunk`s, and which " +
      "ends with `data: [DONE]`. A failure after the first event is an event that holds an error, and no `[DONE]` follows."
  })),
  HttpApiEndpoint.post("completions", "/v1/completions", {
    payload: CompletionSchema.CompletionRequest,
    success: [CompletionSchema.Completion, events(CompletionSchema.Completion)],
    error: errors
  }).annotateMerge(OpenApi.annotations({
    title: "Continue a text, without a chat template",
    description: "With `stream: true` the answer is a stream of server-sent events, which ends with `data: [DONE]`."
  })),
  HttpApiEndpoint.post("embeddings", "/v1/embeddings", {
    payload: TaskSchema.EmbeddingRequest,
    success: TaskSchema.EmbeddingList,
    error: errors
  }).annotateMerge(title("Create embeddings of unit length")),
  HttpApiEndpoint.post("rerank", "/v1/rerank", {
    payload: TaskSchema.RerankRequest,
    success: TaskSchema.RerankList,
    error: errors
  }).annotateMerge(title("Rank documents by relevance to a query")),
  HttpApiEndpoint.post("classify", "/v1/classify", {
    payload: TaskSchema.ClassifyRequest,
    success: TaskSchema.ClassifyList,
    error: errors
  }).annotateMerge(title("Classify texts with the labels of the model")),
  HttpApiEndpoint.post("tokenize", "/v1/tokenize", {
    payload: TaskSchema.TokenizeRequest,
    success: TaskSchema.TokenList,
    error: errors
  }).annotateMerge(title("Tokenize a text or a conversation"))
)

const encodeProblem = ({ code, headers, message, status }: HttpProblem): EncodeError.OpenAiError =>
  EncodeError.make(message, {
    status,
    type: status >= 500 ? "server_error" : "invalid_request_error",
    code,
    ...(headers === undefined ? {} : { headers })
  })

/** Encodes errors of an endpoint with these field names. */
const encodeErrorWith = (names: ErrorNames) => (reason: Reason): EncodeError.OpenAiError =>
  EncodeError.fromReason(reason, names)

const encodeError = encodeErrorWith(FieldNames.chatErrors)

/** @param deployment that has answered; left out, a stream names it */
const envelopeOf = (
  { body: { includeUsage, model, parallelToolCalls }, created, id, servedModel }: Call<ChatCall>,
  deployment?: string
): Envelope => ({
  id,
  created,
  model: (deployment === undefined ? undefined : servedModel(deployment)) ?? model,
  servedModel,
  includeUsage,
  parallelToolCalls
})

interface Services {
  readonly inference: Inference["Service"]
  readonly registry: Registry["Service"]
}

const isOpenAi = ({ options }: Deployment): boolean => dialectOf(options) === "openai"

const isOpenAiWildcard = (deployment: Deployment | undefined): boolean =>
  deployment !== undefined && isOpenAi(deployment)

/** Whether the deployment of this id returns all choices of one request. */
const returnsAllChoices = (registry: Registry["Service"], id: string): boolean =>
  registry.models().some(({ deployments }) => deployments.some((one) => one.id === id && isOpenAi(one))) ||
  isOpenAiWildcard(deploymentOfWildcard(registry, id))

/**
 * Frames until the last event. The first pull fails if the request fails before any content.
 *
 * @param together all choices in one request; left out, each choice is a request
 * @param setHeaders called before the first frame, with the headers of the choice that is opened first, or of a refusal
 */
const framesOf = (
  { inference, registry }: Services,
  call: Call<ChatCall>,
  together: Request | undefined,
  setHeaders: (headers: Endpoint.RoutingHeaders) => void
) => {
  const { requests } = call.body
  const envelope = envelopeOf(call)
  let isOpened = false
  let isOne = together !== undefined || requests.length === 1
  let encoder = EncodeStream.makeFrameEncoder(envelope, isOne ? 1 : requests.length)
  const framesOfChoice = (index: number, { events, ...by }: OpenedAnswer) => {
    if (!isOpened) setHeaders(Endpoint.answerHeaders(by))
    isOpened = true
    encoder.begin(index, by.deployment)
    return Stream.mapArray(events, (some) => Arr.of(encoder.events(index, some)))
  }
  const choice = (request: Request, index: number) =>
    Stream.unwrap(Effect.map(inference.open(request), (opened) => framesOfChoice(index, opened)))
  const merged = Stream.mergeAll({ concurrency: Defaults.choicesAtOnce })
  /** Requests the other choices if the deployment that answers returns one at a time. */
  const allChoices = (request: Request) =>
    Stream.unwrap(Effect.gen(function*() {
      const opened = yield* inference.open(request)
      isOne = returnsAllChoices(registry, opened.deployment)
      if (isOne) return framesOfChoice(0, opened)
      encoder = EncodeStream.makeFrameEncoder(envelope, requests.length)
      const others = requests.slice(1).map((other, index) => choice(other, index + 1))
      return merged([framesOfChoice(0, opened), ...others])
    }))
  const separate = requests.length === 1 ? choice(requests[0], 0) : merged(requests.map(choice))
  return Stream.concat(together === undefined ? separate : allChoices(together), Stream.sync(() => encoder.end())).pipe(
    Stream.catchTag("InferenceError", (error) => {
      const refused = isOne && error.reason._tag === "ContentRefused" ? encoder.refuse(error.reason) : undefined
      if (refused === undefined) return Stream.fail(error)
      if (!isOpened) setHeaders(errorHeaders(error))
      return Stream.succeed(refused)
    })
  )
}

/** @param names of the endpoint's fields */
const failureFramesWith = (names: ErrorNames): FailureFrames => ({
  error: (reason) => EncodeStream.encodeError(EncodeError.fromReason(reason, names).body),
  defect: () => EncodeStream.encodeError(encodeProblem(internalError).body)
})

const failureFrames = failureFramesWith(FieldNames.chatErrors)

const respondStream = (services: Services, call: Call<ChatCall>, together: Request | undefined) => {
  const { requests } = call.body
  if (requests.length === 1) {
    const encoder = EncodeStream.makeFrameEncoder(envelopeOf(call))
    const frames = {
      ...failureFrames,
      ...encoder,
      begin: ({ deployment }: AnsweredBy) => encoder.begin(0, deployment),
      events: (events: ReadonlyArray<Event>) => encoder.events(0, events)
    }
    return ServerSentEvents.respondOne(services.inference, requests[0], call, frames)
  }
  return ServerSentEvents.respond(call, failureFrames, (setHeaders) => framesOf(services, call, together, setHeaders))
}

/** @param answers one a choice, or one with all choices */
const respondAnswers = (call: Call<ChatCall>, answers: Arr.NonEmptyReadonlyArray<Answer>) =>
  Endpoint.respondText(
    call,
    EncodeAnswer.encodeText(envelopeOf(call, answers[0].deployment), answers),
    Endpoint.completeHeaders(answers[0], answers.slice(1))
  )

const respondBuffered = ({ inference }: Services, call: Call<ChatCall>, together: Request | undefined) => {
  const { requests } = call.body
  const each = (some: ReadonlyArray<Request>) =>
    Effect.forEach(some, inference.generate, { concurrency: Defaults.choicesAtOnce })
  if (together === undefined && requests.length > 1) {
    return Effect.map(each(requests), (answers) => respondAnswers(call, answers as [Answer, ...Array<Answer>]))
  }
  return Effect.matchEffect(inference.generate(together ?? requests[0]), {
    onFailure: Endpoint.respondRefusal(
      call,
      (reason) => EncodeAnswer.encodeRefusal(envelopeOf(call, reason.deployment), reason)
    ),
    onSuccess: (answer) =>
      // A native answer has all choices.
      requests.length === 1 || answer.native !== undefined
        ? Effect.succeed(respondAnswers(call, [answer]))
        : Effect.map(each(requests.slice(1)), (rest) => respondAnswers(call, [answer, ...rest]))
  })
}

/** The request for all choices, if every deployment of the model returns several; undefined, one request a choice. */
const togetherOf = (registry: Registry["Service"], { model, together }: ChatCall): Request | undefined =>
  together !== undefined && Result.match(registry.find(model), {
      // The request itself fails with the error.
      onFailure: () => false,
      onSuccess: ({ deployments }) => deployments.every(isOpenAi)
    })
    ? together
    : undefined

const chat = (services: Services): Endpoint.Endpoint<ChatCall> => ({
  idPrefix: "chatcmpl-",
  encodeError,
  decode: DecodeRequest.decode,
  isScoped: ({ requests, stream }) => stream && requests.length > 1,
  answer: (call) =>
    Effect.suspend(() => {
      const together = togetherOf(services.registry, call.body)
      return (call.body.stream ? respondStream : respondBuffered)(services, call, together)
    })
})

/** A call whose answer names the model that has answered. */
const named = <C extends { readonly request: { readonly model: string } }>(
  body: C,
  { servedModel }: Pick<Call<unknown>, "servedModel">,
  { deployment }: AnsweredBy
): C => {
  const model = servedModel(deployment)
  return model === undefined ? body : { ...body, request: { ...body.request, model } }
}

const respond = (call: Endpoint.Responding, body: unknown, by: AnsweredBy) =>
  Endpoint.respondJson(call, body, Endpoint.completeHeaders(by))

const embeddings = ({ inference }: Services): Endpoint.Endpoint<EmbedCall> => ({
  idPrefix: "embd-",
  operation: "embeddings",
  encodeError: encodeErrorWith(FieldNames.textErrors),
  decode: Tasks.decodeEmbedding,
  answer: ({ body, ...call }) =>
    inference.embed(body.request).pipe(
      Effect.flatMap((found) =>
        Effect.map(
          Effect.fromResult(Tasks.encodeEmbeddings(named(body, call, found), found)),
          (encoded) => respond(call, encoded, found)
        )
      ),
      Effect.mapError((error) => error._tag === "InvalidRequest" ? InferenceError.make(error) : error)
    )
})

const rerank = ({ inference }: Services): Endpoint.Endpoint<RerankCall> => ({
  idPrefix: "rerank-",
  operation: "rerank",
  encodeError: Tasks.encodeRerankError,
  decode: Tasks.decodeRerank,
  answer: ({ body, ...call }) =>
    Effect.map(
      inference.rerank(body.request),
      (ranking) => respond(call, Tasks.encodeRerank(call.id, named(body, call, ranking), ranking), ranking)
    )
})

const classify = ({ inference }: Services): Endpoint.Endpoint<ClassifyRequest> => ({
  idPrefix: "classify-",
  operation: "classify",
  encodeError: encodeErrorWith(FieldNames.textErrors),
  decode: Tasks.decodeClassify,
  answer: ({ body, ...call }) =>
    Effect.map(
      inference.classify(body),
      (found) =>
        respond(
          call,
          Tasks.encodeClassifications(call.id, call.servedModel(found.deployment) ?? body.model, found),
          found
        )
    )
})

const tokenize = ({ inference }: Services): Endpoint.Endpoint<TokenizeRequest> => ({
  idPrefix: "tokenize-",
  operation: "tokenize",
  encodeError: encodeErrorWith(FieldNames.tokenizeErrors),
  decode: Tasks.decodeTokenize,
  answer: ({ body, ...call }) =>
    Effect.map(inference.tokenize(body), (found) => respond(call, Tasks.encodeTokens(found.tokens), found))
})

const conventions: Conventions = {
  encodeProblem,
  idHeaders: (id) => ({ "x-request-id": id }),
  keyOf: (headers) => bearerTokenOf(headers["authorization"])
}

export const dialect: Dialect = {
  ...conventions,
  group,
  encodeReason: encodeError,
  models: {
    listSchema: Models.ModelList,
    modelSchema: Models.Model,
    list: Models.encodeList,
    model: Models.encode
  },
  layer: Endpoint.layer(
    conventions,
    group,
    (handle) =>
      Effect.map(Effect.all({ inference: Inference, registry: Registry }), (services) => ({
        chatCompletions: handle(chat(services)),
        completions: handle(completions(
          services.inference,
          encodeErrorWith(FieldNames.completionErrors),
          failureFramesWith(FieldNames.completionErrors)
        )),
        embeddings: handle(embeddings(services)),
        rerank: handle(rerank(services)),
        classify: handle(classify(services)),
        tokenize: handle(tokenize(services))
      }))
  )
}

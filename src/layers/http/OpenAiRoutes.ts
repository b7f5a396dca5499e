/** Handlers of the OpenAI dialect. */
import { Clock, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Api } from "../../services/Api.ts"
import type { By, ClassifyRequest, TokenizeRequest } from "../../services/Inference.ts"
import { Inference } from "../../services/Inference.ts"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Model } from "../../services/Model.ts"
import { Registry } from "../../services/Registry.ts"
import type { Endpoint } from "./Handler.ts"
import * as Handler from "./Handler.ts"
import * as OpenAiChatEndpoint from "./OpenAiChatEndpoint.ts"
import * as OpenAiError from "./OpenAiError.ts"
import * as OpenAiFields from "./OpenAiFields.ts"
import * as OpenAiHandler from "./OpenAiHandler.ts"
import type { EmbedCall, RerankCall } from "./OpenAiTasks.ts"
import * as OpenAiTasks from "./OpenAiTasks.ts"
import * as Telling from "./Telling.ts"

const respond = (body: unknown, by?: By) =>
  HttpServerResponse.jsonUnsafe(body, by === undefined ? {} : { headers: Telling.ofAnswer(by) })

const embeddings = (inference: Inference["Service"]): Endpoint<EmbedCall> => ({
  idPrefix: "embd-",
  failure: OpenAiHandler.failureOf(OpenAiFields.texts),
  decode: OpenAiTasks.decodeEmbedding,
  answer: ({ body }) =>
    inference.embed(body.request).pipe(
      Effect.flatMap((found) =>
        Effect.map(Effect.fromResult(OpenAiTasks.encodeEmbeddings(body, found)), (encoded) => respond(encoded, found))
      ),
      Effect.mapError((error) => error._tag === "InvalidRequest" ? InferenceError.make(error) : error)
    )
})

const rerank = (inference: Inference["Service"]): Endpoint<RerankCall> => ({
  idPrefix: "rerank-",
  failure: OpenAiHandler.failureOf(OpenAiFields.rerank),
  decode: OpenAiTasks.decodeRerank,
  answer: ({ body, id }) =>
    Effect.map(
      inference.rerank(body.request),
      (ranking) => respond(OpenAiTasks.encodeRerank(id, body, ranking), ranking)
    )
})

const classify = (inference: Inference["Service"]): Endpoint<ClassifyRequest> => ({
  idPrefix: "classify-",
  failure: OpenAiHandler.failureOf(OpenAiFields.texts),
  decode: OpenAiTasks.decodeClassify,
  answer: ({ body, id }) =>
    Effect.map(
      inference.classify(body),
      (found) => respond(OpenAiTasks.encodeClassifications(id, body.model, found), found)
    )
})

const tokenize = (inference: Inference["Service"]): Endpoint<TokenizeRequest> => ({
  idPrefix: "tokenize-",
  failure: OpenAiHandler.failureOf(OpenAiFields.tokenize),
  decode: OpenAiTasks.decodeTokenize,
  answer: ({ body }) => Effect.map(inference.tokenize(body), (tokens) => respond(OpenAiTasks.encodeTokens(tokens)))
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
    const inference = yield* Inference
    const handler = yield* Handler.make(OpenAiHandler.dialect)
    const started = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    return handlers
      .handleRaw("chatCompletions", handler(OpenAiChatEndpoint.make(inference)))
      .handleRaw("embeddings", handler(embeddings(inference)))
      .handleRaw("rerank", handler(rerank(inference)))
      .handleRaw("classify", handler(classify(inference)))
      .handleRaw("tokenize", handler(tokenize(inference)))
      .handle(
        "models",
        () => Effect.map(registry.models, (models) => ({ object: "list" as const, data: models.map(modelOf(started)) }))
      )
      .handle("model", ({ params }) =>
        Effect.mapBoth(registry.find(params.model), {
          onSuccess: modelOf(started),
          onFailure: ({ reason }) => OpenAiError.fromReason(reason, OpenAiFields.chat).body
        }))
  })
)

/** Handlers of the OpenAI dialect. */
import { Effect } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import * as OpenAiFields from "../../dialects/openai/FieldNames.ts"
import type { EmbedCall, RerankCall } from "../../dialects/openai/Tasks.ts"
import * as OpenAiTasks from "../../dialects/openai/Tasks.ts"
import type { By, ClassifyRequest, TokenizeRequest } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { Registry } from "../../services/models/Registry.ts"
import { Api } from "./Api.ts"
import type { Endpoint } from "./Endpoint.ts"
import * as Handler from "./Endpoint.ts"
import * as OpenAiChatEndpoint from "./OpenAiChatEndpoint.ts"
import * as OpenAiHandler from "./OpenAiHandler.ts"
import * as Telling from "./RoutingHeaders.ts"

const respond = (body: unknown, by: By) => HttpServerResponse.jsonUnsafe(body, { headers: Telling.ofAnswer(by) })

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
  answer: ({ body }) =>
    Effect.map(inference.tokenize(body), (found) => respond(OpenAiTasks.encodeTokens(found.tokens), found))
})

const { endpoints } = Api.groups.openai

type Place = (typeof endpoints)[keyof typeof endpoints]

export const layer = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const inference = yield* Inference
  const handler = yield* Handler.make(OpenAiHandler.dialect)
  const add = <Decoded>({ method, path }: Place, endpoint: Endpoint<Decoded>) =>
    router.add(method, path, handler(endpoint))
  yield* add(endpoints.chatCompletions, OpenAiChatEndpoint.make(inference, yield* Registry))
  yield* add(endpoints.embeddings, embeddings(inference))
  yield* add(endpoints.rerank, rerank(inference))
  yield* add(endpoints.classify, classify(inference))
  yield* add(endpoints.tokenize, tokenize(inference))
}))

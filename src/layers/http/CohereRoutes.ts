/** The routes of Cohere's API: `POST /v2/rerank`, with errors in its shape. */
import { Effect } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import * as Rerank from "../../dialects/cohere/Rerank.ts"
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import { Inference } from "../../services/inference/Inference.ts"
import type { Conventions, Dialect } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"

const error = (status: number, description: string) =>
  Rerank.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

const group = HttpApiGroup.make("cohere").add(
  HttpApiEndpoint.post("rerankByCohere", "/v2/rerank", {
    payload: Rerank.Request,
    success: Rerank.Ranking,
    error: [
      error(400, "The request is invalid, or a document exceeds the context window"),
      error(404, "Unknown model"),
      error(429, "Too many requests wait, or a limit is reached; `Retry-After` has the time to wait"),
      error(503, "No deployment is available")
    ]
  }).annotateMerge(OpenApi.annotations({ title: "Rank documents by relevance to a query, as Cohere's API" }))
)

const conventions: Conventions = {
  encodeProblem: ({ code, headers, message, status }, id) =>
    Rerank.make(message, status, id, ErrorCatalog.pathOf(code ?? ErrorCatalog.withoutCode), headers),
  idHeaders: OpenAiRoutes.dialect.idHeaders,
  keyOf: OpenAiRoutes.dialect.keyOf
}

const rerank = (inference: Inference["Service"]): Endpoint.Endpoint<Rerank.Call> => ({
  idPrefix: "rerank-",
  operation: "rerank",
  encodeError: Rerank.fromReason,
  decode: Rerank.decode,
  answer: ({ body, ...call }) =>
    Effect.map(
      inference.rerank(body.request),
      (found) => Endpoint.respondJson(call, Rerank.encode(call.id, body, found), Endpoint.completeHeaders(found))
    )
})

export const dialect: Dialect = {
  ...conventions,
  group,
  encodeReason: Rerank.fromReason,
  models: OpenAiRoutes.dialect.models,
  layer: Endpoint.layer(
    conventions,
    group,
    (handle) => Effect.map(Inference, (inference) => ({ rerankByCohere: handle(rerank(inference)) }))
  )
}

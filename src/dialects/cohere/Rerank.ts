/**
 * Cohere's `POST /v2/rerank`: its schemas, decoding and encoding. Pure.
 *
 * **Details**
 *
 * Source: Cohere's API reference, "Rerank", version 2.
 *
 * **Gotchas**
 *
 * `max_tokens_per_doc` would cut longer documents. It has no effect here: a document that exceeds the window is refused. So
 * does Cohere's `priority`, a number.
 */
import { Result, Schema } from "effect"
import type { Reranking, RerankRequest } from "../../domain/Inference.ts"
import type { InvalidRequest, Reason } from "../../domain/InferenceError.ts"
import { decoderOf, wholeNumber } from "../../domain/Problem.ts"
import * as OpenAiError from "../openai/EncodeError.ts"
import * as FieldNames from "../openai/FieldNames.ts"
import { closed, rerankMeta } from "../openai/Tasks.ts"
import { RerankMeta } from "../openai/TaskSchema.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { callerOf, decodeBody } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import { always, placeOf } from "../shared/FieldNames.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"

/** Cohere's own limit is 1,000. */
export const mostDocuments = 10_000

export const Request = Schema.Struct({
  model: Schema.NonEmptyString,
  query: Schema.NonEmptyString,
  documents: Schema.NonEmptyArray(Schema.String),
  /** The most results; default all. */
  top_n: Schema.optionalKey(wholeNumber(1)),
  /** Accepted without effect. */
  max_tokens_per_doc: Schema.optionalKey(wholeNumber(1)),
  /** Accepted without effect. */
  priority: Schema.optionalKey(Schema.Finite)
}).annotate({ identifier: "CohereRerankRequest" })
export type Request = typeof Request.Type

export const Ranking = Schema.Struct({
  id: Schema.String,
  /** Best first. */
  results: Schema.Array(Schema.Struct({
    /** The index of the document in the request. */
    index: Schema.Int,
    /** From 0 to 1. */
    relevance_score: Schema.Finite
  })),
  meta: RerankMeta
}).annotate({ identifier: "CohereRanking" })
export type Ranking = typeof Ranking.Type

/** The body of every error. */
export const ErrorBody = Schema.Struct({
  id: Schema.String,
  message: Schema.String,
  /** The path of the explanation of the error at this service. */
  doc_url: Schema.String
}).annotate({ identifier: "CohereError" })

const fields: BodyFields = {
  ...placeOf(Request, { optional: { return_documents: always } }),
  aliases: { docs: "documents", passages: "documents", texts: "documents", top_k: "top_n" }
}

const shape: Shape<Request> = {
  suggest: UnknownFields.makeSuggest(fields, true),
  decode: decoderOf(Request),
  most: [["documents", mostDocuments]],
  problems: () => []
}

/** A decoded request, and the number of its results. */
export interface Call {
  readonly request: RerankRequest
  readonly topN: number | undefined
}

const knownOnly = closed(fields, "rerank")

export const decode = (json: unknown, caller: CallerIdentity = {}): Result.Result<Call, InvalidRequest> =>
  Result.map(
    Result.flatMap(decodeBody(json, shape), knownOnly(json)),
    ({ documents, model, query, top_n }) => ({
      request: { model, query, documents, ...callerOf({}, caller) },
      topN: top_n
    })
  )

export const encode = (id: string, { request, topN }: Call, { promptTokens, scores }: Reranking): Ranking => ({
  id,
  results: scores
    .map((relevance_score, index) => ({ index, relevance_score }))
    .sort((one, other) => other.relevance_score - one.relevance_score)
    .slice(0, topN),
  meta: rerankMeta("2", request.documents.length, promptTokens)
})

/** An error with the statuses of OpenAI's dialect. */
export interface CohereError {
  readonly status: number
  readonly body: typeof ErrorBody.Type
  readonly headers: Readonly<Record<string, string>>
}

/** @param docUrl the path of the explanation of the error */
export const make = (
  message: string,
  status: number,
  id: string,
  docUrl: string,
  headers: Readonly<Record<string, string>> = {}
): CohereError => ({ status, headers, body: { id, message, doc_url: docUrl } })

export const fromReason = (reason: Reason, id: string): CohereError => {
  const { body, headers, status } = OpenAiError.fromReason(reason, FieldNames.rerankErrors)
  return make(body.error.message, status, id, body.error.doc_url, headers)
}

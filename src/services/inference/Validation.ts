/** Requests as they must be, whoever made them. */
import type { Schema } from "effect"
import { Effect, Result } from "effect"
import * as Decoder from "../../domain/Decoder.ts"
import {
  ClassifyRequest,
  CountRequest,
  EmbedRequest,
  Request as RequestSchema,
  RerankRequest,
  TokenizeRequest
} from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make } from "../../domain/InferenceError.ts"
import * as Problems from "../../domain/Problem.ts"

/**
 * The request with only what a request has. Types cannot tell a temperature of 9, nor stop a program without them.
 */
const checker = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const decode = Decoder.make(schema)
  return (request: S["Type"]): Effect.Effect<S["Type"], InferenceError> => {
    const decoded = decode(request)
    if (Result.isSuccess(decoded)) return Effect.succeed(decoded.success)
    const [first, ...others] = Problems.fromSchemaError(decoded.failure)
    const detail = Problems.summary(first!, others)
    return Effect.fail(make(new InvalidRequest({ detail, ...(first!.path === "" ? {} : { path: first!.path }) })))
  }
}

export const check = {
  chat: checker(RequestSchema),
  embeddings: checker(EmbedRequest),
  rerank: checker(RerankRequest),
  classify: checker(ClassifyRequest),
  tokenize: checker(TokenizeRequest),
  count: checker(CountRequest)
}

/** Validates requests of programs without type checks, and values that types cannot express. */
import type { Schema } from "effect"
import { Effect, Result } from "effect"
import type { Identity } from "../../domain/Identity.ts"
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
import { nearestName } from "../../domain/NearestName.ts"
import * as Problem from "../../domain/Problem.ts"
import { RoutingOptions } from "../../domain/RoutingOptions.ts"

const invalid = (path: string, detail: string): InferenceError =>
  make(new InvalidRequest({ detail, ...(path === "" ? {} : { path }) }))

/** An error for the first field whose name resembles a known one. Other unknown fields are ignored. */
const misspelt = (given: object, names: ReadonlyArray<string>, path = ""): InferenceError | undefined => {
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue
    const nearest = nearestName(name, names)
    if (nearest !== undefined) return invalid(`${path}${name}`, Problem.noSuchField(name, names))
  }
  return undefined
}

const routeNames = Object.keys(RoutingOptions.fields)

interface Identified {
  readonly identity?: Identity | undefined
}

/** The decoded request with the identity that was given: all requests with a key share one. */
const withIdentity = <R extends Identified>(decoded: R, { identity }: Identified): R =>
  identity === undefined ? decoded : { ...decoded, identity }

/** Checks a request and returns it without unknown fields. */
const validator = <S extends Schema.ConstraintDecoder<Identified> & { readonly fields: object }>(schema: S) => {
  const decode = Problem.decoderOf(schema)
  const names = Object.keys(schema.fields)
  const misspeltIn = (request: object & { readonly route?: object | undefined }): InferenceError | undefined =>
    misspelt(request, names) ??
      (request.route === undefined ? undefined : misspelt(request.route, routeNames, "route."))
  return (request: S["Type"]): Effect.Effect<S["Type"], InferenceError> => {
    const decoded = decode(request)
    if (Result.isSuccess(decoded)) {
      const problem = misspeltIn(request)
      return problem === undefined ? Effect.succeed(withIdentity(decoded.success, request)) : Effect.fail(problem)
    }
    const [first, ...others] = Problem.fromSchemaError(decoded.failure)
    return Effect.fail(invalid(first!.path, Problem.summary(first!, others)))
  }
}

export const chat = validator(RequestSchema)
export const embeddings = validator(EmbedRequest)
export const rerank = validator(RerankRequest)
export const classify = validator(ClassifyRequest)
export const tokenize = validator(TokenizeRequest)
export const count = validator(CountRequest)

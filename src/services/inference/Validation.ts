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
import { firstImage } from "../../domain/Message.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Problems from "../../domain/Problem.ts"
import { RoutingOptions } from "../../domain/RoutingOptions.ts"

const invalid = (path: string, detail: string): InferenceError =>
  make(new InvalidRequest({ detail, ...(path === "" ? {} : { path }) }))

/** The first field whose name is near to one that exists. Fields with other names are left out, not refused. */
const misspelt = (given: object, names: ReadonlyArray<string>, path = ""): InferenceError | undefined => {
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue
    const nearest = nearestName(name, names)
    if (nearest !== undefined) return invalid(`${path}${name}`, Problems.noSuchField(name, names))
  }
  return undefined
}

const routeNames = Object.keys(RoutingOptions.fields)

type Given = Partial<Pick<typeof RequestSchema.Type, "messages" | "source">> & {
  readonly input?: string | Pick<typeof CountRequest.Type["input"], "messages"> | undefined
}

/** A dialect has checked its fields when it decoded them. Images are checked here only. */
const isChecked = ({ input, messages, source }: Given): boolean =>
  source?.isChecked === true &&
  firstImage(messages ?? (typeof input === "object" ? input.messages : [])) === undefined

/**
 * The request with only what a request has. Types cannot tell a temperature of 9, nor stop a program without them, which
 * may misspell an option.
 */
const checker = <S extends Schema.ConstraintDecoder<unknown> & { readonly fields: object }>(schema: S) => {
  const decode = Decoder.make(schema)
  const names = Object.keys(schema.fields)
  const misspeltIn = (request: object & { readonly route?: object | undefined }): InferenceError | undefined =>
    misspelt(request, names) ??
      (request.route === undefined ? undefined : misspelt(request.route, routeNames, "route."))
  return (request: S["Type"]): Effect.Effect<S["Type"], InferenceError> => {
    if (isChecked(request as Given)) return Effect.succeed(request)
    const decoded = decode(request)
    if (Result.isSuccess(decoded)) {
      const wrong = misspeltIn(request as object)
      return wrong === undefined ? Effect.succeed(decoded.success) : Effect.fail(wrong)
    }
    const [first, ...others] = Problems.fromSchemaError(decoded.failure)
    return Effect.fail(invalid(first!.path, Problems.summary(first!, others)))
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

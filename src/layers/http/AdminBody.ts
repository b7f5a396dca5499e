/**
 * The body of a request to `/admin`, decoded by a schema.
 *
 * **Details**
 *
 * A field that does not exist is a problem, as a wrong value is: the error names every problem with its path. Bodies of
 * administration are decoded here and not by `HttpApi`, so that their errors have the shape of all others.
 *
 * **Example**
 *
 * ```ts
 * const rotation = AdminBody.as(Schema.Struct({ overlapMs: Schema.Finite }))
 * const handler = Effect.flatMap(rotation, ({ overlapMs }) => rotate(overlapMs))
 * ```
 */
import { Effect, Result, Schema } from "effect"
import { HttpServerRequest } from "effect/http"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import { parse } from "./RequestBody.ts"

/**
 * A field that is wrong.
 *
 * @param path of the field; empty for the whole body
 */
export const wrong = (path: string, detail: string) => failure(new InvalidRequest({ path, detail }))

/** The body of a request as the schema decodes it. */
export const as = <A>(schema: Schema.Decoder<A>) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "all", onExcessProperty: "error" })
  return Effect.gen(function*() {
    const { text } = yield* HttpServerRequest.HttpServerRequest
    const body = yield* Effect.mapError(
      text,
      () => wrong("", "The request body ended before it was complete. Send it again.")
    )
    const json = yield* Effect.fromResult(Result.mapError(parse(body), failure))
    return yield* Effect.fromResult(Result.mapError(decode(json), (error) => {
      const [first, ...others] = Problem.fromSchemaError(error)
      return wrong(first!.path, Problem.summary(first!, others))
    }))
  })
}

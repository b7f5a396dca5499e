/** A minimal dialect of the HTTP interface: a codec and a routes file. */
import { Effect, Result, Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import type { Request } from "../../src/domain/Inference.ts"
import { InvalidRequest } from "../../src/domain/InferenceError.ts"
import type { Conventions, Dialect } from "../../src/layers/http/Dialect.ts"
import * as Endpoint from "../../src/layers/http/Endpoint.ts"
import { Inference } from "../../src/services/inference/Inference.ts"

const Question = Schema.Struct({ model: Schema.String, text: Schema.String })

const decode = (json: unknown): Result.Result<Request, InvalidRequest> =>
  Result.mapBoth(Schema.decodeUnknownResult(Question)(json), {
    onSuccess: ({ model, text }) => ({ model, messages: [{ role: "user" as const, content: text }] }),
    onFailure: () => new InvalidRequest({ detail: "`model` and `text` are required" })
  })

const group = HttpApiGroup.make("plain").add(
  HttpApiEndpoint.post("ask", "/plain/ask", { payload: Question, success: Schema.Struct({ text: Schema.String }) })
)

const encode = (status: number, problem: string, id: string) => ({ status, body: { problem, id }, headers: {} })

const conventions: Conventions = {
  encodeProblem: ({ message, status }, id) => encode(status, message, id),
  idHeaders: (id) => ({ "x-plain-id": id }),
  keyOf: (headers) => headers["x-plain-key"]
}

const ask = (inference: Inference["Service"]): Endpoint.Endpoint<Request> => ({
  idPrefix: "plain-",
  decode,
  encodeError: (reason, id) => encode(reason._tag === "InvalidRequest" ? 400 : 500, reason.message, id),
  answer: ({ body, ...call }) =>
    Effect.map(
      inference.generate(body),
      (answer) => Endpoint.respondJson(call, { text: answer.text }, Endpoint.answerHeaders(answer))
    )
})

export const dialect: Dialect = {
  ...conventions,
  group,
  clientHeader: "x-plain-version",
  encodeReason: (reason, id) => encode(404, reason.message, id),
  models: {
    listSchema: Schema.Struct({ names: Schema.Array(Schema.String) }),
    modelSchema: Schema.Struct({ name: Schema.String }),
    list: (models) => ({ names: models.map(({ name }) => name) }),
    model: ({ name }) => ({ name })
  },
  layer: Endpoint.layer(
    conventions,
    group,
    (handle) => Effect.map(Inference, (inference) => ({ ask: handle(ask(inference)) }))
  )
}

/** The HTTP interface as a description, from which `GET /openapi.json` is made. Handlers are in `layers/http`. */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import * as OpenAi from "./OpenAi.ts"
import { Report } from "./Readiness.ts"

const error = (status: number, description: string) =>
  OpenAi.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

const chat = HttpApiEndpoint.post("chatCompletions", "/v1/chat/completions", {
  payload: OpenAi.ChatRequest,
  success: [OpenAi.ChatCompletion, HttpApiSchema.StreamSse({ data: OpenAi.ChatChunk })],
  error: [
    error(400, "The request is wrong, or its prompt does not fit the context window (`context_length_exceeded`)"),
    error(404, "No such model (`model_not_found`)"),
    error(413, "The body is larger than `server.maxBodyBytes`"),
    error(500, "The engine failed (`engine_failed`)"),
    error(503, "The engine crashed and is being restarted (`engine_crashed`), or could not be loaded")
  ]
}).annotateMerge(OpenApi.annotations({
  title: "Create a chat completion",
  description: "With `stream: true` the answer comes as server-sent events that end with `data: [DONE]`."
}))

const OpenAiGroup = HttpApiGroup.make("openai").add(
  chat,
  HttpApiEndpoint.get("models", "/v1/models", { success: OpenAi.ModelList }),
  HttpApiEndpoint.get("model", "/v1/models/:model", {
    params: { model: Schema.String },
    success: OpenAi.Model,
    error: error(404, "No such model (`model_not_found`)")
  })
)

const HealthGroup = HttpApiGroup.make("health").add(
  HttpApiEndpoint.get("live", "/health/live", { success: Schema.Struct({ status: Schema.Literal("live") }) }),
  HttpApiEndpoint.get("ready", "/health/ready", {
    success: Report,
    error: Report.pipe(HttpApiSchema.status(503))
  })
)

export class Api extends HttpApi.make("troupe")
  .add(OpenAiGroup)
  .add(HealthGroup)
  .annotateMerge(OpenApi.annotations({
    title: "Troupe",
    version: "0.1.0",
    description: "An actor runtime for language models. `GET /metrics` is in Prometheus's text format."
  }))
{}

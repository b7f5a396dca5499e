/** The HTTP interface as a description, from which `GET /openapi.json` is made. Handlers are in `layers/http`. */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import * as Anthropic from "../../dialects/anthropic/Schema.ts"
import * as OpenAi from "../../dialects/openai/Schema.ts"
import * as OpenAiTasks from "../../dialects/openai/TaskSchema.ts"
import { keptDecisions } from "../../domain/Defaults.ts"
import { Report } from "../../services/models/Readiness.ts"
import { Record } from "../../services/routing/DecisionRecord.ts"
import { Explanation, Question } from "../../services/routing/Explanation.ts"
import * as Admin from "./AdminSchema.ts"

const error = (status: number, description: string) =>
  OpenAi.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

/** Of every endpoint that a model answers. */
const errors = [
  error(400, "The request is wrong, or what it gives does not fit the context window (`context_length_exceeded`)"),
  error(404, "No such model (`model_not_found`)"),
  error(413, "The body is larger than `server.maxBodyBytes`"),
  error(
    429,
    "Too many requests wait (`queue_full`), or memory is short for those of low priority (`overloaded`); `Retry-After` " +
      "says when to try again"
  ),
  error(500, "The engine failed (`engine_failed`)"),
  error(
    503,
    "The engine crashed or hung and is being restarted (`engine_crashed`, `engine_hung`), did so too often " +
      "(`deployment_down`), or could not be loaded (`model_load_failed`, `engine_missing`, `insufficient_memory`)"
  )
] as const

/** Server-sent events that hold this as JSON each. The handler writes them, so only their shape is told here. */
const events = <S extends Schema.Top>(schema: S) =>
  schema.pipe(HttpApiSchema.asJson({ contentType: "text/event-stream" }))

const chat = HttpApiEndpoint.post("chatCompletions", "/v1/chat/completions", {
  payload: OpenAi.ChatRequest,
  success: [OpenAi.ChatCompletion, events(OpenAi.ChatChunk)],
  error: errors
}).annotateMerge(OpenApi.annotations({
  title: "Create a chat completion",
  description:
    "With `stream: true` the answer comes as server-sent events whose data are `ChatChunk`s, and which end " +
    "with `data: [DONE]`. A failure after the first of them is an event that holds an error, and no `[DONE]` follows."
}))

const embeddings = HttpApiEndpoint.post("embeddings", "/v1/embeddings", {
  payload: OpenAiTasks.EmbeddingRequest,
  success: OpenAiTasks.EmbeddingList,
  error: errors
}).annotateMerge(OpenApi.annotations({ title: "Turn texts into vectors of unit length" }))

const rerank = HttpApiEndpoint.post("rerank", "/v1/rerank", {
  payload: OpenAiTasks.RerankRequest,
  success: OpenAiTasks.RerankList,
  error: errors
}).annotateMerge(OpenApi.annotations({ title: "Order documents by how well they answer a query" }))

const classify = HttpApiEndpoint.post("classify", "/v1/classify", {
  payload: OpenAiTasks.ClassifyRequest,
  success: OpenAiTasks.ClassifyList,
  error: errors
}).annotateMerge(OpenApi.annotations({ title: "Give texts the labels of a model that has labels" }))

const tokenize = HttpApiEndpoint.post("tokenize", "/v1/tokenize", {
  payload: OpenAiTasks.TokenizeRequest,
  success: OpenAiTasks.TokenList,
  error: errors
}).annotateMerge(OpenApi.annotations({ title: "Turn a text or a conversation into tokens" }))

const OpenAiGroup = HttpApiGroup.make("openai").add(
  chat,
  embeddings,
  rerank,
  classify,
  tokenize
)

const anthropicError = (status: number, description: string) =>
  Anthropic.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

const anthropicErrors = [
  anthropicError(
    400,
    "The request is wrong, or what it gives does not fit the context window (`invalid_request_error`, whose message " +
      "begins with `prompt is too long` then)"
  ),
  anthropicError(404, "No such model (`not_found_error`)"),
  anthropicError(413, "The body is larger than `server.maxBodyBytes` (`request_too_large`)"),
  anthropicError(
    429,
    "Too many requests wait, or a provider takes no more (`rate_limit_error`); `Retry-After` says when to try again"
  ),
  anthropicError(500, "The engine or the provider failed, or the model could not be loaded (`api_error`)"),
  anthropicError(504, "The provider took too long (`timeout_error`)"),
  anthropicError(529, "Nobody can answer for now (`overloaded_error`); `Retry-After` says when to try again")
] as const

const AnthropicGroup = HttpApiGroup.make("anthropic").add(
  HttpApiEndpoint.post("messages", "/v1/messages", {
    payload: Anthropic.MessagesRequest,
    success: [Anthropic.Message, events(Anthropic.StreamEvent)],
    error: anthropicErrors
  }).annotateMerge(OpenApi.annotations({
    title: "Create a message",
    description:
      "With `stream: true` the answer comes as server-sent events, which end with `message_stop`. A failure " +
      "after the first of them is an `error` event, and no `message_stop` follows."
  })),
  HttpApiEndpoint.post("countTokens", "/v1/messages/count_tokens", {
    payload: Anthropic.CountTokensRequest,
    success: Anthropic.TokenCount,
    error: anthropicErrors
  }).annotateMerge(OpenApi.annotations({ title: "Count the tokens of a message's prompt" }))
)

const ModelGroup = HttpApiGroup.make("models").add(
  HttpApiEndpoint.get("models", "/v1/models", { success: [OpenAi.ModelList, Anthropic.ModelList] }).annotateMerge(
    OpenApi.annotations({
      title: "List the models",
      description: "In Anthropic's shape where the header `anthropic-version` is there."
    })
  ),
  HttpApiEndpoint.get("model", "/v1/models/:model", {
    params: { model: Schema.String },
    success: [OpenAi.Model, Anthropic.Model],
    error: [
      error(404, "No such model (`model_not_found`)"),
      anthropicError(404, "No such model (`not_found_error`), in Anthropic's shape")
    ]
  })
)

const HealthGroup = HttpApiGroup.make("health").add(
  HttpApiEndpoint.get("live", "/health/live", { success: Schema.Struct({ status: Schema.Literal("live") }) }),
  HttpApiEndpoint.get("ready", "/health/ready", {
    success: Report,
    error: Report.pipe(HttpApiSchema.status(503))
  })
)

/** Of every endpoint of administration. */
const closed = [
  error(401, "Administration needs the token of `server.admin.token` (`unauthorized`)"),
  error(
    403,
    "Administration answers local programs only, and on the port of the models only GET requests (`forbidden`)"
  )
] as const

const wrong = error(400, "The request is wrong")

const AdminGroup = HttpApiGroup.make("admin").add(
  HttpApiEndpoint.get("deployments", "/admin/deployments", { success: Admin.Deployments, error: closed })
    .annotateMerge(
      OpenApi.annotations({ title: "What every deployment does now" })
    ),
  HttpApiEndpoint.post("act", "/admin/models/:model/:action", {
    params: { model: Schema.String, action: Admin.ActionName },
    success: Admin.Deployments,
    error: [
      ...closed,
      error(404, "No such model (`model_not_found`), or no such action (`not_found`)"),
      ...errors.slice(-1)
    ]
  }).annotateMerge(OpenApi.annotations({
    title: "Load, unload or reload a model",
    description: "`load` tries at once where a deployment is down. `unload` lets what runs end. `reload` loads the " +
      "deployment again beside itself, with a changed file for example, and moves over without failing a request."
  })),
  HttpApiEndpoint.get("events", "/admin/events", { success: events(Admin.Event), error: closed }).annotateMerge(
    OpenApi.annotations({
      title: "Watch the deployments' states",
      description: "Server-sent events, one for each change from now on."
    })
  ),
  HttpApiEndpoint.get("circuits", "/admin/circuits", { success: Admin.Circuits, error: closed }).annotateMerge(
    OpenApi.annotations({ title: "Which deployments may be called now, of those that have been" })
  ),
  HttpApiEndpoint.post("resetCircuit", "/admin/circuits/:deployment/reset", {
    params: { deployment: Schema.String },
    success: Admin.Circuits,
    error: [...closed, error(404, "No such deployment (`deployment_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Close a deployment's circuit",
    description:
      "Calls reach the deployment again at once; earlier failures do not count any more. A successful `load` or " +
      "`reload` of its model does the same."
  })),
  HttpApiEndpoint.get("circuitEvents", "/admin/circuits/events", {
    success: events(Admin.CircuitEvent),
    error: closed
  }).annotateMerge(OpenApi.annotations({
    title: "Watch the deployments' circuits",
    description: "Server-sent events, one for each change from now on."
  })),
  HttpApiEndpoint.get("decisions", "/admin/decisions", {
    query: { limit: Schema.optionalKey(Schema.NumberFromString) },
    success: Admin.Decisions,
    error: [...closed, wrong]
  }).annotateMerge(OpenApi.annotations({
    title: "How the latest requests were routed, and what came of them",
    description:
      `The latest first: 20, or as many as \`limit\` says, of the ${keptDecisions} that are kept. They have ` +
      "nothing of what was asked or answered."
  })),
  HttpApiEndpoint.get("decision", "/admin/decisions/:id", {
    params: { id: Schema.String },
    success: Record,
    error: [...closed, error(404, "There is no such record, or none any more (`decision_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "How one request was routed, and what came of it",
    description: "By the id that its answer has in `x-troupe-decision`."
  })),
  HttpApiEndpoint.post("route", "/admin/route", {
    payload: Question,
    success: Explanation,
    error: [...closed, wrong, error(404, "No such model (`model_not_found`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Explain how a request would be routed now",
    description: "Nobody is called and nothing is counted. `route` has what a request says in `troupe`."
  }))
)

/** What `HttpApi` itself reads and writes. The handlers of models read bodies themselves, as routes of their own. */
export class TypedApi extends HttpApi.make("troupe").add(ModelGroup).add(HealthGroup).add(AdminGroup) {}

/** All that there is, as it is described. */
export class Api extends HttpApi.make("troupe")
  .add(OpenAiGroup)
  .add(AnthropicGroup)
  .add(ModelGroup)
  .add(HealthGroup)
  .add(AdminGroup)
  .annotateMerge(OpenApi.annotations({
    title: "Troupe",
    version: "0.1.0",
    description: "An actor runtime for language models. `GET /metrics` is in Prometheus's text format."
  }))
{}

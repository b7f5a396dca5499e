/** Ollama's API as a description, from which `GET /openapi.json` is made. */
import { Schema as EffectSchema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import * as Schema from "../../dialects/ollama/Schema.ts"
import { lines } from "./Api.ts"

/** The version of Ollama's API that the routes follow: clients require one that is not too old. */
export const apiVersion = "0.12.11"

const error = (status: number, description: string) =>
  Schema.ErrorBody.annotate({ description }).pipe(HttpApiSchema.status(status))

const errors = [
  error(400, "The request is invalid, is not supported, or its prompt exceeds the context window"),
  error(404, "Unknown model"),
  error(413, "The body is larger than `server.maxBodyBytes`"),
  error(429, "Too many requests wait, or a limit is reached; `Retry-After` has the time to wait"),
  error(500, "The engine failed"),
  error(502, "The provider failed"),
  error(503, "No deployment is available; `Retry-After` has the time to wait"),
  error(504, "The provider's answer exceeded a time limit")
] as const

const closed = [
  error(401, "Administration requires an admin key, or the token of `server.admin.token`"),
  error(403, "Administration is for local programs, and not on the port of the models")
] as const

const title = (title: string, description?: string) =>
  OpenApi.annotations({ title, ...(description === undefined ? {} : { description }) })

/** @param name of the lines, which have the schema of the buffered answer */
const linesOf = <S extends EffectSchema.Top>(schema: S, name: string) => lines(schema.annotate({ identifier: name }))

const streamed = "Unless `stream` is false, the answer is a stream of lines of JSON, which ends with a line that has " +
  "`done`. A failure after the first line is a line with an `error`, and no `done` follows."

const notSupported = [error(501, "Troupe's models are configured")] as const

/** The endpoints, as `GET /openapi.json` describes them. */
export const group = HttpApiGroup.make("ollama").add(
  HttpApiEndpoint.post("chat", "/api/chat", {
    payload: Schema.ChatRequest,
    success: [Schema.ChatResponse, linesOf(Schema.ChatResponse, "OllamaChatLine")],
    error: errors
  }).annotateMerge(title("Answer a conversation", streamed)),
  HttpApiEndpoint.post("generate", "/api/generate", {
    payload: Schema.GenerateRequest,
    success: [Schema.GenerateResponse, linesOf(Schema.GenerateResponse, "OllamaGenerateLine")],
    error: errors
  }).annotateMerge(title("Answer a prompt", streamed)),
  HttpApiEndpoint.post("embed", "/api/embed", {
    payload: Schema.EmbedRequest,
    success: Schema.EmbedResponse,
    error: errors
  }).annotateMerge(title("Create embeddings of unit length")),
  HttpApiEndpoint.post("embeddings", "/api/embeddings", {
    payload: Schema.EmbeddingsRequest,
    success: Schema.EmbeddingsResponse,
    error: errors
  }).annotateMerge(title("Create the embedding of one text; replaced by /api/embed")),
  HttpApiEndpoint.post("show", "/api/show", {
    payload: Schema.ShowRequest,
    success: Schema.ShownModel,
    error: errors
  }).annotateMerge(title("Describe a model")),
  HttpApiEndpoint.get("tags", "/api/tags", { success: Schema.ModelList }).annotateMerge(title("List the models")),
  HttpApiEndpoint.get("ps", "/api/ps", { success: Schema.RunningList }).annotateMerge(title("List the loaded models")),
  HttpApiEndpoint.get("version", "/api/version", { success: Schema.Version }).annotateMerge(
    title("The version of Ollama's API that this service follows")
  ),
  HttpApiEndpoint.post("pull", "/api/pull", {
    payload: Schema.PullRequest,
    success: [Schema.PullProgress, linesOf(Schema.PullProgress, "OllamaPullLine")],
    error: [...closed, ...errors]
  }).annotateMerge(title("Pull a model into the store", "Administration. The last line has the status `success`.")),
  HttpApiEndpoint.delete("delete", "/api/delete", { payload: Schema.DeleteRequest, error: [...closed, ...errors] })
    .annotateMerge(title("Remove a model from the store", "Administration.")),
  HttpApiEndpoint.post("create", "/api/create", { error: notSupported }).annotateMerge(title("Not supported")),
  HttpApiEndpoint.post("copy", "/api/copy", { error: notSupported }).annotateMerge(title("Not supported")),
  HttpApiEndpoint.post("push", "/api/push", { error: notSupported }).annotateMerge(title("Not supported")),
  HttpApiEndpoint.post("blobs", "/api/blobs/:digest", {
    params: { digest: EffectSchema.String },
    error: notSupported
  }).annotateMerge(title("Not supported")),
  HttpApiEndpoint.get("root", "/", { success: EffectSchema.String }).annotateMerge(title("Whether the service runs"))
)

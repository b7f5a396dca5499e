/**
 * The routes of the Responses dialect that call a model: responses, token counts and compactions. `StoredRoutes` has those of
 * stored objects.
 */
import { Effect, Layer } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import * as Compaction from "../../dialects/responses/Compaction.ts"
import type { PromptCall, ResponseCall } from "../../dialects/responses/DecodeRequest.ts"
import * as DecodeRequest from "../../dialects/responses/DecodeRequest.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import * as Schema from "../../dialects/responses/Schema.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { CountRequest, Message } from "../../domain/Inference.ts"
import { languageModel } from "../../services/engines/LanguageModelKind.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { Registry } from "../../services/models/Registry.ts"
import * as ResponseRun from "../../services/responses/ResponseRun.ts"
import { ResponseState } from "../../services/responses/Responses.ts"
import { Router } from "../../services/routing/Router.ts"
import { error, events, unavailable } from "./Api.ts"
import type { Dialect } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import type { Run, Services } from "./ResponsesAnswer.ts"
import * as Answer from "./ResponsesAnswer.ts"
import * as Background from "./ResponsesBackground.ts"
import { dialogueOf, messagesOf } from "./ResponsesDialogue.ts"
import * as ResponsesSocket from "./ResponsesSocket.ts"
import { noState, respondState } from "./StateFailure.ts"
import * as StoredRoutes from "./StoredRoutes.ts"

const errors = [
  error(400, "The request is invalid, or its conversation exceeds the context window (`context_length_exceeded`)"),
  error(404, "Unknown model (`model_not_found`), conversation or item"),
  error(413, "The body is larger than `server.maxBodyBytes`"),
  error(429, "Too many requests wait (`queue_full`), or a limit is reached; `Retry-After` has the time to wait"),
  error(500, "The engine failed (`engine_failed`)"),
  unavailable
] as const

const calls = HttpApiGroup.make("responses").add(
  HttpApiEndpoint.post("create", "/v1/responses", {
    payload: Schema.CreateRequest,
    success: [Schema.Response, events(Schema.StreamEvent)],
    error: errors
  }).annotateMerge(OpenApi.annotations({
    title: "Create a response",
    description:
      "With `stream: true` the answer is a stream of server-sent events, whose last one is `response.completed`, " +
      "`response.incomplete` or `response.failed`, and after it `data: [DONE]`."
  })),
  HttpApiEndpoint.get("connect", "/v1/responses", {
    success: Schema.StreamEvent,
    error: [error(401, "No valid key"), error(426, "The request is no WebSocket handshake (`upgrade_required`)")]
  }).annotateMerge(OpenApi.annotations({
    title: "Connect by WebSocket",
    description:
      "Each message of the client is a request with `type: response.create`; the service sends the events of its stream " +
      "as messages, or `type: error`."
  })),
  HttpApiEndpoint.post("inputTokens", "/v1/responses/input_tokens", {
    payload: Schema.CountRequest,
    success: Schema.TokenCount,
    error: errors
  }).annotateMerge(OpenApi.annotations({ title: "Count the tokens of a response's prompt" })),
  HttpApiEndpoint.post("compact", "/v1/responses/compact", {
    payload: Schema.CompactRequest,
    success: Schema.Compaction,
    error: errors
  }).annotateMerge(OpenApi.annotations({
    title: "Compact a conversation",
    description: "The messages of users, and an item with a summary of the rest that the model writes."
  }))
)

const idPrefix = "resp_"

const encodeError = EncodeAnswer.encodeError

const respondRun = (run: Run) => {
  const { call: { body }, services: { connection, state } } = run
  if (connection?.isWarmUp === true) return Answer.respondEmpty(run)
  if (body.settings.background && state !== undefined) {
    return body.stream ? Background.respondStream(run, state) : Background.respondQueued(run, state)
  }
  return body.stream ? Answer.respondStream(run) : Answer.respondBuffered(run)
}

/** Whether an engine of this service generates the deployment's answers. */
const isLocal = ({ registry }: Services, deployment: string): boolean =>
  registry.models().some(({ deployments }) =>
    deployments.some(({ id, options }) =>
      id === deployment && !isRemote(options) && options.engine !== languageModel.name
    )
  )

/** In place of items that only a provider's Responses API reads. For an answer, the deployments without one are excluded, by their names. */
const unread: ReadonlyArray<Message> = [{ role: "user", content: "" }]

const create = (services: Services): Endpoint.Endpoint<ResponseCall> => ({
  idPrefix,
  encodeError,
  decode: DecodeRequest.decode,
  answer: (call) =>
    Effect.gen(function*() {
      const { request, settings } = call.body
      const dialogue = yield* dialogueOf(services, call.body, call.id)
      if (dialogue === undefined || (services.state === undefined && settings.background)) {
        return respondError(noState, call.headers)
      }
      const said = yield* messagesOf(call.body, dialogue)
      const messages = said.length === 0 && request.source?.responses?.needs !== undefined ? unread : said
      const store = settings.store && services.state !== undefined
      return yield* respondRun({
        services,
        call,
        dialogue,
        request: {
          ...request,
          messages,
          ...(request.source === undefined
            ? {}
            : { source: DecodeRequest.withItems(request.source, dialogue.before, dialogue.input) })
        },
        envelope: {
          id: call.id,
          created: call.created,
          settings: { ...settings, store },
          servedModel: call.servedModel,
          countsReasoning: (deployment) => isLocal(services, deployment)
        }
      })
    }).pipe(respondState(call.headers))
})

/** The prompt of a request that is counted. */
const countOf = ({ request }: PromptCall, messages: ReadonlyArray<Message>): CountRequest => {
  const { identity, keepAlive, model, priority, route, tenant, toolChoice, tools } = request
  // As for a generation, tools that must not be used are not counted.
  const used = toolChoice === "none" ? undefined : tools
  return {
    model,
    input: { messages, ...(used === undefined ? {} : { tools: used }) },
    identity,
    keepAlive,
    priority,
    route,
    tenant
  }
}

const inputTokens = (services: Services): Endpoint.Endpoint<PromptCall> => ({
  idPrefix,
  operation: "tokenize",
  encodeError,
  decode: DecodeRequest.decodeCount,
  answer: (call) =>
    Effect.gen(function*() {
      const dialogue = yield* dialogueOf(services, call.body, call.id)
      if (dialogue === undefined) return respondError(noState, call.headers)
      const said = yield* messagesOf(call.body, dialogue)
      const found = yield* services.inference.count(countOf(call.body, said.length === 0 ? unread : said))
      const body = { object: "response.input_tokens", input_tokens: found.promptTokens }
      return Endpoint.respondJson(call, body, Endpoint.answerHeaders(found))
    }).pipe(respondState(call.headers))
})

const compact = (services: Services): Endpoint.Endpoint<PromptCall> => ({
  idPrefix,
  encodeError,
  decode: DecodeRequest.decodeCompact,
  answer: (call) =>
    Effect.gen(function*() {
      const { body, created, id } = call
      const dialogue = yield* dialogueOf(services, body, id)
      if (dialogue === undefined) return respondError(noState, call.headers)
      const messages = Compaction.withPrompt(yield* messagesOf(body, dialogue))
      const answer = yield* ResponseRun.generate(services.inference, true, { ...body.request, messages })
      const item = {
        id: EncodeAnswer.outputId("cmp", id, 0),
        type: "compaction",
        encrypted_content: Compaction.encode(answer.text)
      }
      const output = [...[...dialogue.before, ...dialogue.input].filter(Compaction.isKept), item]
      const response = {
        id,
        object: "response.compaction",
        created_at: created,
        output,
        usage: EncodeAnswer.usageOf(answer.usage)
      }
      return Endpoint.respondJson(call, response, Endpoint.completeHeaders(answer))
    }).pipe(respondState(call.headers))
})

const { encodeProblem, idHeaders, keyOf, models } = OpenAiRoutes.dialect
const conventions = { encodeProblem, idHeaders, keyOf }

const services = Effect.map(
  Effect.all({ inference: Inference, registry: Registry, router: Router, state: ResponseState }),
  (found): Services => found
)

export const dialect: Dialect = {
  ...conventions,
  group: calls.add(...StoredRoutes.all),
  encodeReason: encodeError,
  models,
  layer: Layer.merge(
    Endpoint.layer(conventions, calls, (handle, ofMessage) =>
      Effect.gen(function*() {
        const found = yield* services
        const connect = yield* ResponsesSocket.make(
          conventions,
          (connection) => ofMessage(create({ ...found, connection }))
        )
        return {
          create: handle(create(found)),
          connect: { routed: connect, direct: Effect.die("not called") },
          inputTokens: handle(inputTokens(found)),
          compact: handle(compact(found))
        }
      })),
    StoredRoutes.layer(conventions)
  )
}

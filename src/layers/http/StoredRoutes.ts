/**
 * The routes of stored responses and of conversations.
 *
 * **Details**
 *
 * An object of another tenant is not found. Without a database, nothing is.
 */
import { Effect, Record, Schema as S, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiEndpoint, OpenApi } from "effect/http-api"
import type { ConversationCall } from "../../dialects/responses/Conversations.ts"
import * as Conversations from "../../dialects/responses/Conversations.ts"
import { ownerOf } from "../../dialects/responses/DecodeRequest.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import type { Item } from "../../dialects/responses/Items.ts"
import * as Schema from "../../dialects/responses/Schema.ts"
import { identityOf } from "../../dialects/shared/CallerRequest.ts"
import type { Fields } from "../../dialects/shared/Json.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import { StateError } from "../../services/responses/Dialogues.ts"
import type { Responses } from "../../services/responses/Responses.ts"
import { ResponseState } from "../../services/responses/Responses.ts"
import type { StoreError } from "../../services/responses/Tables.ts"
import { error, events } from "./Api.ts"
import type { Conventions } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import { noState, respondState } from "./StateFailure.ts"

const unknown = [
  error(400, "The request is invalid"),
  error(404, "No such object, or one of another tenant"),
  error(503, "The database cannot be used (`storage_failed`)")
] as const

/** What an endpoint reads of a request, and answers. */
interface Shape {
  readonly params?: S.Struct.Fields
  readonly query?: S.Struct.Fields
  readonly payload?: S.Top
  readonly success: S.Top | ReadonlyArray<S.Top>
}

const endpoint =
  (method: "DELETE" | "GET" | "POST", path: HttpRouter.PathInput, title: string, shape: Shape) => (name: string) =>
    HttpApiEndpoint.make(method)(name, path, { ...shape, error: unknown }).annotateMerge(OpenApi.annotations({ title }))

const ofResponse = { response: S.String }
const ofConversation = { conversation: S.String }
const ofItem = { conversation: S.String, item: S.String }
const page = {
  limit: S.optionalKey(S.String),
  order: S.optionalKey(S.Literals(["asc", "desc"])),
  after: S.optionalKey(S.String)
}

const endpoints = Record.map({
  retrieve: endpoint(
    "GET",
    "/v1/responses/:response",
    "Get a stored response, or the events of one that is streamed in the background",
    {
      params: ofResponse,
      query: { stream: S.optionalKey(S.Literals(["true", "false"])), starting_after: S.optionalKey(S.String) },
      success: [Schema.Response, events(Schema.StreamEvent)]
    }
  ),
  remove: endpoint("DELETE", "/v1/responses/:response", "Delete a stored response", {
    params: ofResponse,
    success: Schema.Deleted
  }),
  cancel: endpoint("POST", "/v1/responses/:response/cancel", "Cancel a response that is generated in the background", {
    params: ofResponse,
    success: Schema.Response
  }),
  inputItems: endpoint(
    "GET",
    "/v1/responses/:response/input_items",
    "List the items of a response's request, with those of the conversation before",
    { params: ofResponse, query: page, success: Schema.ItemList }
  ),
  newConversation: endpoint("POST", "/v1/conversations", "Create a conversation", {
    payload: Schema.NewConversation,
    success: Schema.Conversation
  }),
  conversation: endpoint("GET", "/v1/conversations/:conversation", "Get a conversation", {
    params: ofConversation,
    success: Schema.Conversation
  }),
  updateConversation: endpoint("POST", "/v1/conversations/:conversation", "Replace the metadata of a conversation", {
    params: ofConversation,
    payload: Schema.ConversationUpdate,
    success: Schema.Conversation
  }),
  removeConversation: endpoint("DELETE", "/v1/conversations/:conversation", "Delete a conversation with its items", {
    params: ofConversation,
    success: Schema.Deleted
  }),
  items: endpoint("GET", "/v1/conversations/:conversation/items", "List the items of a conversation", {
    params: ofConversation,
    query: page,
    success: Schema.ItemList
  }),
  addItems: endpoint("POST", "/v1/conversations/:conversation/items", "Add items to a conversation", {
    params: ofConversation,
    payload: Schema.NewItems,
    success: Schema.ItemList
  }),
  item: endpoint("GET", "/v1/conversations/:conversation/items/:item", "Get an item of a conversation", {
    params: ofItem,
    success: S.Record(S.String, S.Unknown)
  }),
  removeItem: endpoint("DELETE", "/v1/conversations/:conversation/items/:item", "Delete an item of a conversation", {
    params: ofItem,
    success: Schema.Conversation
  })
}, (make, name) => make(name))

type StoredEndpoint = typeof endpoints[keyof typeof endpoints]

/** The endpoints of stored objects. */
export const all = Object.values(endpoints) as [StoredEndpoint, ...Array<StoredEndpoint>]

/** A request for a stored object. */
interface Stored {
  readonly state: Responses
  readonly owner: string
  /** Parameters of the path. */
  readonly params: Readonly<Record<string, string | undefined>>
  readonly query: URLSearchParams
  /** Of the response. */
  readonly headers: Readonly<Record<string, string>>
}

type Failure = InferenceError.InferenceError | StoreError | StateError

const id = ({ params }: Stored, name: string): string => params[name] ?? ""

const pageOf = ({ query }: Stored) =>
  Effect.mapError(Effect.fromResult(Conversations.pageOf(query)), InferenceError.make)

const listed = (request: Stored, items: Effect.Effect<ReadonlyArray<Item>, Failure>) =>
  Effect.zipWith(pageOf(request), items, (page, all) => Conversations.listOf(all, page))

/** The last event of every stream, as Open Responses has it. */
export const done = "data: [DONE]\n\n"

/** Server-sent events of a stored response. */
export const respondEvents = (
  events: Stream.Stream<string, StoreError>,
  headers: Readonly<Record<string, string>>
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.stream(
    Stream.encodeText(Stream.concat(events, Stream.succeed(done))).pipe(
      Stream.tapError((error) => Effect.logWarning(`The events of a response cannot be read: ${summaryOf(error)}.`))
    ),
    { contentType: "text/event-stream; charset=utf-8", headers: { "cache-control": "no-cache", ...headers } }
  )

/** The number of the event after which a stream begins. */
const startOf = ({ query }: Stored): Effect.Effect<number, InferenceError.InferenceError> => {
  const after = query.get("starting_after") ?? "-1"
  return /^-1$|^\d{1,9}$/.test(after)
    ? Effect.succeed(Number(after))
    : Effect.fail(InferenceError.make(
      new InferenceError.InvalidRequest({
        path: "starting_after",
        detail: "Expected the sequence_number of an event",
        inBody: true
      })
    ))
}

const retrieve = (request: Stored): Effect.Effect<unknown, Failure> => {
  const { headers, owner, query, state } = request
  const response = id(request, "response")
  if (query.get("stream") !== "true") return state.response(owner, response)
  return Effect.flatMap(
    startOf(request),
    (after) => Effect.map(state.background.events(owner, response, after), (events) => respondEvents(events, headers))
  )
}

const remove = (request: Stored): Effect.Effect<unknown, Failure> => {
  const response = id(request, "response")
  return Effect.as(request.state.remove(request.owner, response), { id: response, object: "response", deleted: true })
}

const conversation = (request: Stored) =>
  Effect.map(
    request.state.dialogues.conversation(request.owner, id(request, "conversation")),
    (found) => Conversations.conversationOf(found.id, found.createdAt, found.metadata)
  )

const removeConversation = (request: Stored): Effect.Effect<unknown, Failure> =>
  Effect.flatMap(conversation(request), ({ id }) =>
    Effect.as(request.state.conversations.remove([id as string]), {
      id,
      object: "conversation.deleted",
      deleted: true
    }))

const itemsOf = (request: Stored) => request.state.dialogues.itemsOf(request.owner, id(request, "conversation"))

const noItem = (request: Stored) => Effect.fail(new StateError({ problem: "item-missing", id: id(request, "item") }))

const item = (request: Stored): Effect.Effect<unknown, Failure> =>
  Effect.flatMap(itemsOf(request), (items) => {
    const found = items.find((one) => one.id === id(request, "item"))
    return found === undefined ? noItem(request) : Effect.succeed(found)
  })

const removeItem = (request: Stored): Effect.Effect<unknown, Failure> =>
  Effect.flatMap(conversation(request), (found) =>
    Effect.flatMap(
      request.state.conversations.removeItem(found["id"] as string, id(request, "item")),
      (isRemoved) => isRemoved ? Effect.succeed(found) : noItem(request)
    ))

/** The answers without a body in the request. */
const reads = {
  retrieve,
  remove,
  cancel: (request: Stored): Effect.Effect<unknown, Failure> =>
    request.state.background.cancel(request.owner, id(request, "response")),
  inputItems: (request: Stored): Effect.Effect<unknown, Failure> =>
    listed(request, request.state.inputOf(request.owner, id(request, "response"))),
  conversation,
  removeConversation,
  items: (request: Stored): Effect.Effect<unknown, Failure> => listed(request, itemsOf(request)),
  item,
  removeItem
}

type Handle = Parameters<Parameters<typeof Endpoint.layer>[2]>[0]
type Handlers = ReturnType<Handle>

/** The router provides the parameters of the path. */
const withParams = (
  handler: (params: Stored["params"]) => Handlers["routed"]
): Handlers["routed"] => Effect.flatMap(HttpRouter.params, handler) as Handlers["routed"]

/** Only for paths without parameters. */
const noDirect: Handlers["direct"] = Effect.die("not called")

/** Answers a request without a body. */
const read = (
  { encodeProblem: _, idHeaders, keyOf }: Conventions,
  state: Responses | undefined,
  answer: (request: Stored) => Effect.Effect<unknown, Failure>
): Handlers => ({
  direct: noDirect,
  routed: withParams((params) =>
    Effect.gen(function*() {
      const { headers, source, url } = yield* HttpServerRequest.HttpServerRequest
      const request = idHeaders(yield* Endpoint.makeId("req_"))
      if (state === undefined) return respondError(noState, request)
      const identity = identityOf(source)
      const owner = ownerOf(identity === undefined ? { key: keyOf(headers), headers } : { headers, identity })
      const query = new URL(url, "http://localhost").searchParams
      return yield* Effect.map(
        answer({ state, owner, params, query, headers: request }),
        (body) =>
          HttpServerResponse.isHttpServerResponse(body)
            ? body
            : HttpServerResponse.jsonUnsafe(body, { headers: request })
      ).pipe(
        respondState(request),
        Effect.catch(({ reason }) => Effect.succeed(respondError(EncodeAnswer.encodeError(reason), request)))
      )
    })
  )
})

type Answered = Effect.Effect<Fields, Failure>

/** Items in their stored form. */
const storedItems = ({ items }: ConversationCall, callId: string): ReadonlyArray<Item> =>
  items.map((one, index) => EncodeAnswer.storedInput(one, callId, index))

const created = (state: Responses, { body, id }: Endpoint.Call<ConversationCall>): Answered =>
  Effect.map(
    state.newConversation(id, body.owner, body.metadata ?? {}, storedItems(body, id)),
    (now) => Conversations.conversationOf(id, now, body.metadata ?? {})
  )

const updated = (
  state: Responses,
  { body: { metadata = {}, owner } }: Endpoint.Call<ConversationCall>,
  of: string
): Answered =>
  Effect.flatMap(
    state.dialogues.conversation(owner, of),
    ({ createdAt, id }) =>
      Effect.as(state.conversations.describe(id, metadata), Conversations.conversationOf(id, createdAt, metadata))
  )

const added = (state: Responses, { body, id }: Endpoint.Call<ConversationCall>, of: string): Answered => {
  const items = storedItems(body, id)
  return Effect.flatMap(
    state.dialogues.conversation(body.owner, of),
    (found) =>
      Effect.as(state.addItems(found.id, items), {
        ...Conversations.listOf(items, { order: "asc", limit: Math.max(1, items.length), after: undefined })
      })
  )
}

/** A request with a body about a conversation. */
const write = (
  state: Responses | undefined,
  body: Parameters<typeof Conversations.decoderOf>[0],
  answer: (state: Responses, call: Endpoint.Call<ConversationCall>) => Answered
): Endpoint.Endpoint<ConversationCall> => ({
  idPrefix: "conv_",
  operation: false,
  encodeError: EncodeAnswer.encodeError,
  decode: Conversations.decoderOf(body),
  answer: (call) =>
    state === undefined
      ? Effect.succeed(respondError(noState, call.headers))
      : Effect.map(answer(state, call), (body) => Endpoint.respondJson(call, body, {})).pipe(
        respondState(call.headers)
      )
})

/** The routes of stored responses and conversations. */
export const layer = (conventions: Conventions) =>
  Endpoint.layer(conventions, { endpoints }, (handle) =>
    Effect.map(ResponseState, (state) => {
      const ofOne = (name: "update" | "addItems", answer: typeof updated): Handlers => ({
        direct: noDirect,
        routed: withParams(({ conversation = "" }) =>
          handle(write(state, name, (state, call) => answer(state, call, conversation))).routed
        )
      })
      const handlers = Object.fromEntries(
        Object.entries(reads).map(([name, answer]) => [name, read(conventions, state, answer)])
      ) as Record<keyof typeof reads, Handlers>
      return {
        ...handlers,
        newConversation: handle(write(state, "create", created)),
        updateConversation: ofOne("update", updated),
        addItems: ofOne("addItems", added)
      }
    }))

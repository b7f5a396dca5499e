/**
 * The routes of the Responses dialect that call a model: responses, token counts and compactions. `StoredRoutes` has those of
 * stored objects.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, also for a stream (`ServerSentEvents`). A later
 * failure is an `error` event and a `response.failed`. A response is stored before its last event, or the whole of it, is sent.
 */
import { Clock, Effect, Layer, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import type { SqlError } from "effect/sql/SqlError"
import * as Compaction from "../../dialects/responses/Compaction.ts"
import type { Prompt, PromptCall, ResponseCall } from "../../dialects/responses/DecodeRequest.ts"
import * as DecodeRequest from "../../dialects/responses/DecodeRequest.ts"
import type { Envelope, Outcome } from "../../dialects/responses/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import { ResponseFrames } from "../../dialects/responses/EncodeStream.ts"
import * as Items from "../../dialects/responses/Items.ts"
import * as Schema from "../../dialects/responses/Schema.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { CountRequest, Message, Request } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import { languageModel } from "../../services/engines/LanguageModelKind.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { Registry } from "../../services/models/Registry.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import type { UnwrittenFrames } from "../../services/responses/FrameLog.ts"
import * as ResponseRun from "../../services/responses/ResponseRun.ts"
import type { Continued, Dialogue, Responses } from "../../services/responses/Responses.ts"
import { ResponseState, StateError } from "../../services/responses/Responses.ts"
import { error, events, unavailable } from "./Api.ts"
import type { Dialect, ErrorResponse } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import { internalError } from "./EndpointFailure.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import type { Connection } from "./ResponsesSocket.ts"
import * as ResponsesSocket from "./ResponsesSocket.ts"
import type { AnswerFrames } from "./ServerSentEvents.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"
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

interface Services {
  readonly inference: Inference["Service"]
  readonly state: Responses | undefined
  readonly registry: Registry["Service"]
  /** Of the messages of a WebSocket. */
  readonly connection?: Connection
}

const idPrefix = "resp_"

const encodeError = EncodeAnswer.encodeError

const noDialogue: Dialogue = { before: [], input: [], chain: [] }

const needsState = ({ conversation, input, previous }: Prompt): boolean =>
  conversation !== undefined || previous !== undefined || input.some((item) => Items.typeOf(item) === "item_reference")

/** The latest response of the connection, if a request continues it and it is not stored. */
const unstored = (connection: Connection | undefined, { previous }: Prompt): Connection["latest"] =>
  previous === undefined || connection?.latest?.id !== previous || connection.latest.isStored
    ? undefined
    : connection.latest

/** The conversation of a request that continues the latest response of its connection, which is not stored. */
const dialogueOfConnection = (
  latest: NonNullable<Connection["latest"]>,
  { input }: Prompt,
  id: string
): Effect.Effect<Dialogue, StateError> => {
  const missing = input.find((item) =>
    item["type"] === "item_reference" && !latest.items.some((known) => known.id === item["id"])
  )
  if (missing !== undefined) {
    return Effect.fail(new StateError({ problem: "item-missing", id: missing["id"] as string }))
  }
  return Effect.succeed({
    before: latest.items,
    input: input.map((item, index) =>
      latest.items.find((known) => item["type"] === "item_reference" && known.id === item["id"]) ??
        Items.stored(item, (prefix) => EncodeAnswer.inputId(prefix, id, index))
    ),
    chain: []
  })
}

/** The conversation of a request; undefined if it needs stored objects and there are none. */
const dialogueOf = (
  { connection, state }: Services,
  prompt: Prompt,
  id: string
): Effect.Effect<Dialogue | undefined, SqlError | StateError> => {
  const latest = unstored(connection, prompt)
  if (latest !== undefined) return dialogueOfConnection(latest, prompt, id)
  if (state !== undefined) return state.dialogue(prompt, prompt.input, id)
  return Effect.succeed(
    needsState(prompt) ? undefined : {
      ...noDialogue,
      input: prompt.input.map((item, index) => Items.stored(item, (prefix) => EncodeAnswer.inputId(prefix, id, index)))
    }
  )
}

const orphan = (index: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.InvalidRequest({
      path: index < 0 ? "input" : `input[${index}].call_id`,
      detail: "No earlier function_call has this call_id",
      inBody: true
    })
  )

/** The messages of a conversation, after the instructions. */
const messagesOf = (
  { instructions }: Prompt,
  { before, input }: Dialogue
): Effect.Effect<ReadonlyArray<Message>, InferenceError.InferenceError> => {
  const all = [...before, ...input]
  const index = Items.orphanOf(all)
  if (index !== undefined) return Effect.fail(orphan(index - before.length))
  const messages = Items.messagesOf(all)
  return Effect.succeed(
    instructions === undefined ? messages : [{ role: "system", content: instructions }, ...messages]
  )
}

/** Seconds since 1970. */
const secondsOf = (ms: number): number => Math.floor(ms / 1000)

/** A request for a response, with its conversation. */
interface Run {
  readonly services: Services
  readonly call: Call<ResponseCall>
  readonly dialogue: Dialogue
  readonly request: Request
  readonly envelope: Envelope
}

const truncates = ({ envelope }: Run): boolean => envelope.settings.truncation === "auto"

/** Lets the next message of a connection continue a response. */
const keepLatest = ({ dialogue, services: { connection } }: Run, response: Schema.Response): void => {
  if (connection === undefined) return
  const { before, input } = dialogue
  connection.latest = response.status === "failed" ? undefined : {
    id: response.id,
    items: [...before, ...input, ...response.output as ReadonlyArray<Items.Item>],
    isStored: response.store
  }
}

/** What is stored: a response that continues one which is not stored has the whole conversation. */
const stored = ({ call: { body }, dialogue, services: { connection } }: Run): readonly [Continued, Dialogue] =>
  unstored(connection, body) === undefined
    ? [body, dialogue]
    : [{ ...body, previous: undefined }, { before: [], input: [...dialogue.before, ...dialogue.input], chain: [] }]

/** Stores a response. A database that fails does not fail the request: the response then says that it is not stored. */
const save = (run: Run, response: Schema.Response): Effect.Effect<Schema.Response> => {
  const { call, services: { state } } = run
  const saved = state === undefined
    ? Effect.succeed(response)
    : Effect.matchEffect(state.save(...stored(run), response), {
      onSuccess: () => Effect.succeed(response),
      onFailure: (error) =>
        Effect.as(Effect.logWarning(`${call.id} cannot be stored: ${summaryOf(error)}.`), { ...response, store: false })
    })
  return Effect.tap(saved, (response) => Effect.sync(() => keepLatest(run, response)))
}

const ended = (frames: string): string => frames + StoredRoutes.done

/** The frames of a response that is stored before they end. */
const makeFrames = (run: Run, now: () => number) => {
  const frames = new ResponseFrames(run.envelope, now)
  let last: string | undefined
  const completed = Effect.suspend(() =>
    Effect.map(save(run, frames.response), (response) => {
      last = frames.end(response)
    })
  )
  const failed = ({ reason }: InferenceError.InferenceError) =>
    Effect.suspend(() => {
      if (reason._tag === "ContentRefused") last = frames.refuse(reason)
      if (last === undefined && frames.isBegun) last = failure(reason)
      return last === undefined ? Effect.void : Effect.asVoid(save(run, frames.response))
    })
  const failure = (reason: Reason) => {
    const { body, status } = encodeError(reason)
    return frames.fail(body, status)
  }
  const answer: AnswerFrames = {
    begin: ({ deployment }) => frames.answeredBy(deployment),
    events: (some) => frames.events(some),
    end: () => ended(last ?? frames.end()),
    refuse: (reason) => {
      const refused = last ?? frames.refuse(reason)
      return refused === undefined ? undefined : ended(refused)
    },
    error: (reason) => ended(last ?? failure(reason)),
    defect: () => {
      const { body, status } = OpenAiRoutes.dialect.encodeProblem(internalError, run.call.id)
      return ended(frames.fail(body as Parameters<typeof frames.fail>[0], status))
    }
  }
  return { answer, hooks: { completed, failed, isBegun: () => frames.isBegun } }
}

const respondStream = (run: Run) =>
  Effect.flatMap(Clock.clockWith(Effect.succeed), (clock) => {
    const { answer, hooks } = makeFrames(run, () => secondsOf(clock.currentTimeMillisUnsafe()))
    const inference = ResponseRun.streaming(run.services.inference, truncates(run), hooks)
    return ServerSentEvents.respondOne(inference, run.request, run.call, answer)
  })

const seconds = Effect.map(Clock.currentTimeMillis, secondsOf)

const respondBuffered = (run: Run) => {
  const { call, envelope, request, services: { inference } } = run
  const saved = (outcome: Outcome) => save(run, EncodeAnswer.responseOf(envelope, outcome))
  return Effect.matchEffect(ResponseRun.generate(inference, truncates(run), request), {
    onSuccess: (answer) =>
      seconds.pipe(
        Effect.flatMap((now) => saved(EncodeAnswer.outcomeOf(envelope, answer, now))),
        Effect.map((response) => Endpoint.respondJson(call, response, Endpoint.completeHeaders(answer)))
      ),
    onFailure: (error) => {
      const { reason } = error
      const refusal = reason._tag === "ContentRefused" ? EncodeAnswer.refusalOf(reason) : undefined
      return refusal === undefined ? Effect.fail(error) : seconds.pipe(
        Effect.flatMap((now) => saved(EncodeAnswer.refusedOutcome(envelope, refusal, now))),
        Effect.flatMap((response) => Endpoint.respondRefusal(call, () => response)(error))
      )
    }
  })
}

/** The outcome of a response in the background, whatever it is. */
const outcomeOf = (run: Run): Effect.Effect<Outcome> =>
  ResponseRun.generate(run.services.inference, truncates(run), run.request).pipe(
    Effect.flatMap((answer) => Effect.map(seconds, (now) => EncodeAnswer.outcomeOf(run.envelope, answer, now))),
    Effect.catch(({ reason }) => {
      const { body, status } = encodeError(reason)
      const error = EncodeAnswer.failureOf(status, body.error.message)
      return Effect.as(
        Effect.logWarning(`${run.call.id}: ${ReasonMessage.recorded(reason)}`),
        { status: "failed", output: [], error } satisfies Outcome
      )
    }),
    Effect.catchDefect((defect) =>
      Effect.as(
        Effect.logError(`${run.call.id} failed with a defect.`, defect),
        { status: "failed", output: [], error: EncodeAnswer.failureOf(500, internalError.message) } satisfies Outcome
      )
    )
  )

/** The response in the background that a stream ends with. */
const streamedOutcome = (
  run: Run,
  frames: ResponseFrames,
  unwritten: UnwrittenFrames
): Effect.Effect<Schema.Response> => {
  let isBegun = false
  const add = (text: string) => unwritten.add(text, frames.last)
  const failed = ({ body, status }: Pick<ErrorResponse, "status" | "body">) =>
    Effect.sync(() => add(frames.fail(body as Parameters<typeof frames.fail>[0], status)))
  const opened = ResponseRun.opened(run.services.inference, truncates(run), run.request, () => isBegun)
  return opened.pipe(
    Effect.flatMap(({ deployment, events }) => {
      frames.answeredBy(deployment)
      return Stream.runForEachArray(events, (some) =>
        Effect.sync(() => {
          isBegun = true
          add(frames.events(some))
        }))
    }),
    Effect.andThen(Effect.sync(() => add(frames.end()))),
    Effect.scoped,
    Effect.catch(({ reason }) => {
      const refused = reason._tag === "ContentRefused" ? frames.refuse(reason) : undefined
      if (refused !== undefined) return Effect.sync(() => add(refused))
      return Effect.andThen(
        Effect.logWarning(`${run.call.id}: ${ReasonMessage.recorded(reason)}`),
        failed(encodeError(reason))
      )
    }),
    Effect.catchDefect((defect) =>
      Effect.andThen(
        Effect.logError(`${run.call.id} failed with a defect.`, defect),
        failed(OpenAiRoutes.dialect.encodeProblem(internalError, run.call.id))
      )
    ),
    Effect.map(() => frames.response)
  )
}

/** A stream of the events of a response in the background: it goes on without the client. */
const respondStreamInBackground = (run: Run, state: Responses) => {
  const { call, dialogue, envelope } = run
  return Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const frames = new ResponseFrames(envelope, () => secondsOf(clock.currentTimeMillisUnsafe()))
    const first = frames.queue()
    yield* state.save(call.body, dialogue, EncodeAnswer.responseOf(envelope, { status: "queued", output: [] }))
    yield* state.begin(call.id, first, frames.last)
    yield* state.startStream(call.body, dialogue, call.id, (unwritten) => streamedOutcome(run, frames, unwritten))
    return StoredRoutes.respondEvents(yield* state.events(call.body.owner, call.id, -1), call.headers)
  })
}

const respondInBackground = (run: Run, state: Responses) => {
  const { call, dialogue, envelope } = run
  const queued = EncodeAnswer.responseOf(envelope, { status: "queued", output: [] })
  const generated = Effect.map(outcomeOf(run), (outcome) => EncodeAnswer.responseOf(envelope, outcome))
  return state.save(call.body, dialogue, queued).pipe(
    Effect.andThen(state.start(call.body, dialogue, call.id, generated)),
    Effect.map(() => Endpoint.respondJson(call, queued, {}))
  )
}

/** Without a call of the model: the next message continues the conversation. */
const respondEmpty = (run: Run) =>
  Effect.flatMap(seconds, (now) => {
    const frames = new ResponseFrames(run.envelope, () => now)
    const text = frames.empty()
    return Effect.as(
      save(run, frames.response),
      HttpServerResponse.text(text, { contentType: "text/event-stream" })
    )
  })

const respondRun = (run: Run) => {
  const { call: { body }, services: { connection, state } } = run
  if (connection?.isWarmUp === true) return respondEmpty(run)
  if (body.settings.background && state !== undefined) {
    return body.stream ? respondStreamInBackground(run, state) : respondInBackground(run, state)
  }
  return body.stream ? respondStream(run) : respondBuffered(run)
}

/** Whether an engine of this service generates the deployment's answers. */
const isLocal = ({ registry }: Services, deployment: string): boolean =>
  registry.models().some(({ deployments }) =>
    deployments.some(({ id, options }) =>
      id === deployment && !isRemote(options) && options.engine !== languageModel.name
    )
  )

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
      const messages = yield* messagesOf(call.body, dialogue)
      const store = settings.store && services.state !== undefined
      return yield* respondRun({
        services,
        call,
        dialogue,
        request: { ...request, messages },
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
  encodeError,
  decode: DecodeRequest.decodeCount,
  answer: (call) =>
    Effect.gen(function*() {
      const dialogue = yield* dialogueOf(services, call.body, call.id)
      if (dialogue === undefined) return respondError(noState, call.headers)
      const found = yield* services.inference.count(countOf(call.body, yield* messagesOf(call.body, dialogue)))
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
  Effect.all({ inference: Inference, registry: Registry, state: ResponseState }),
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

/**
 * The routes of Ollama's API.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, also for a stream (`ServerSentEvents`). A later
 * failure is a line with an error, after which no line has `done`. `pull` and `delete` are administration.
 */
import { Clock, DateTime, Effect, Layer, Result, Stream } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { AnyCall, Arrived, GenerationCall, LoadCall } from "../../dialects/ollama/DecodeRequest.ts"
import * as DecodeRequest from "../../dialects/ollama/DecodeRequest.ts"
import type { Envelope } from "../../dialects/ollama/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/ollama/EncodeAnswer.ts"
import * as EncodeError from "../../dialects/ollama/EncodeError.ts"
import * as EncodeStream from "../../dialects/ollama/EncodeStream.ts"
import type { EmbedCall, NamedCall } from "../../dialects/ollama/Tasks.ts"
import * as Tasks from "../../dialects/ollama/Tasks.ts"
import type { CallerIdentity } from "../../dialects/shared/CallerRequest.ts"
import { bearerTokenOf, identityOf } from "../../dialects/shared/CallerRequest.ts"
import type { ErrorNames } from "../../dialects/shared/FieldNames.ts"
import { isObject } from "../../dialects/shared/Json.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import { allowsModel } from "../../domain/Identity.ts"
import type { AnsweredBy, Embeddings } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { Models } from "../../services/models/Models.ts"
import { Registry } from "../../services/models/Registry.ts"
import * as AdminGuard from "./AdminGuard.ts"
import type { Conventions, Dialect, HttpProblem } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import * as EndpointFailure from "./EndpointFailure.ts"
import { apiVersion, group } from "./OllamaApi.ts"
import * as OllamaModels from "./OllamaModels.ts"
import * as OllamaStore from "./OllamaStore.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import { PeerProcesses } from "./Peers.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"
import * as ServiceRoutes from "./ServiceRoutes.ts"

/** What Ollama's clients look for at the root. */
const greeting = "Ollama is running"

const encodeErrorWith = (names: ErrorNames) => (reason: InferenceError.Reason) => EncodeError.fromReason(reason, names)

const encodeProblem = ({ code, headers, message, status }: HttpProblem): EncodeError.OllamaError =>
  EncodeError.make(status, message, headers, ErrorCatalog.pathOf(code ?? ErrorCatalog.withoutCode))

const conventions: Conventions = {
  encodeProblem,
  idHeaders: (id) => ({ "x-request-id": id }),
  keyOf: (headers) => bearerTokenOf(headers["authorization"])
}

interface Services {
  readonly inference: Inference["Service"]
  readonly models: Models["Service"]
  readonly registry: Registry["Service"]
  readonly clock: Clock.Clock
  readonly loads: Loads
}

/** When the engines of deployments became ready last. */
class Loads {
  readonly #clock: Clock.Clock
  /** Monotonic nanoseconds by deployment. */
  readonly #readyAt = new Map<string, bigint>()

  constructor(clock: Clock.Clock) {
    this.#clock = clock
  }

  /** A deployment has become ready. */
  note(deployment: string): void {
    this.#readyAt.set(deployment, this.#clock.monotonicTimeNanosUnsafe())
  }

  /** Nanoseconds until the model was loaded by the first of its deployments; 0 if it was before. */
  after(registry: Registry["Service"], name: string, begun: bigint): number {
    const model = registry.find(name)
    if (Result.isFailure(model)) return 0
    const times = model.success.deployments.flatMap(({ id }) => this.#readyAt.get(id) ?? [])
    return times.reduce(
      (least, at) => Math.min(least, Math.max(0, Number(at - begun))),
      times.length === 0 ? 0 : Infinity
    )
  }
}

/** Follows the loads from now on. */
const makeLoads = Effect.gen(function*() {
  const loads = new Loads(yield* Clock.Clock)
  const { events } = yield* Models
  yield* Effect.forkScoped(Stream.runForEach(events, ({ deployment, state }) =>
    Effect.sync(() => {
      if (state === "ready") loads.note(deployment)
    })))
  return loads
})

const idPrefix = "ollama-"

/** What the endpoints whose body names a model share. */
const makeParts = ({ registry }: Services) => {
  const nameOf = (model: string) => OllamaModels.nameIn(registry, model)
  return {
    idPrefix,
    canonical: (json: unknown): unknown => {
      if (!isObject(json)) return json
      const model = json["model"] || json["name"]
      return typeof model === "string" ? { ...json, model: nameOf(model) } : json
    },
    arrived: (json: unknown, caller: CallerIdentity, exact: unknown, text: string | undefined): Arrived => ({
      json,
      caller,
      exact,
      text,
      nameOf
    })
  }
}

/** The model that an answer names; the one in the request as the caller wrote it. */
const servedModelOf =
  ({ body: { model, request }, servedModel }: Call<EmbedCall | GenerationCall>) => (deployment: string) => {
    const served = servedModel(deployment)
    return served === request.model ? model : served
  }

/** @param model as the caller wrote it */
const envelopeOf = (
  { clock, loads, registry }: Services,
  endpoint: Envelope["endpoint"],
  { model, thinking }: { readonly model: string; readonly thinking: boolean },
  servedModel?: Envelope["servedModel"]
): Envelope => {
  const begun = clock.monotonicTimeNanosUnsafe()
  return {
    model,
    ...(servedModel === undefined ? {} : { servedModel }),
    endpoint,
    thinking,
    elapsed: () => Number(clock.monotonicTimeNanosUnsafe() - begun),
    loaded: () => loads.after(registry, OllamaModels.nameIn(registry, model), begun),
    now: () => DateTime.formatIso(DateTime.makeUnsafe(clock.currentTimeMillisUnsafe()))
  }
}

const respondStream = (
  { inference }: Services,
  call: Call<GenerationCall>,
  envelope: Envelope,
  names: ErrorNames
) => {
  const encoder = EncodeStream.makeFrameEncoder(envelope)
  return ServerSentEvents.respondOne(inference, call.body.request, call, {
    contentType: OllamaStore.linesType,
    error: (reason) => EncodeStream.encodeError(EncodeError.fromReason(reason, names).body),
    defect: () => EncodeStream.encodeError(encodeProblem(EndpointFailure.internalError).body),
    ...encoder,
    begin: ({ deployment }) => encoder.begin(deployment)
  })
}

const servedBy = (envelope: Envelope, { deployment }: AnsweredBy): Envelope => ({
  ...envelope,
  model: envelope.servedModel?.(deployment) ?? envelope.model
})

const respondBuffered = ({ inference }: Services, call: Call<GenerationCall>, envelope: Envelope) =>
  Effect.flatMap(inference.generate(call.body.request), (answer) =>
    Effect.map(
      Effect.fromResult(EncodeAnswer.encodeText(servedBy(envelope, answer), answer)),
      (text) => Endpoint.respondText(call, text, Endpoint.completeHeaders(answer))
    ))

/** Loads the model's first deployment, or unloads it when it is unused. A provider's model is not loaded. */
const applyLoad = ({ models, registry }: Services, { caller, name, type }: LoadCall) =>
  Effect.gen(function*() {
    const { deployments: [deployment] } = yield* Effect.fromResult(registry.find(name))
    if (isRemote(deployment.options)) return
    const { state } = yield* models.status(deployment)
    if (type === "unload" && state !== "ready") return
    yield* Effect.scoped(models.lease(deployment, caller))
  })

const respondLoad = (services: Services, call: Call<LoadCall>, envelope: Envelope) =>
  Effect.map(applyLoad(services, call.body), () => {
    const body = EncodeAnswer.encodeLoad(envelope, call.body.type)
    return call.body.stream
      ? HttpServerResponse.text(`${JSON.stringify(body)}\n`, {
        contentType: OllamaStore.linesType,
        headers: call.headers
      })
      : Endpoint.respondJson(call, body, {})
  })

const isGeneration = (call: Call<AnyCall>): call is Call<GenerationCall> => call.body.type === "generation"

const generation = (
  services: Services,
  endpoint: Envelope["endpoint"],
  decode: typeof DecodeRequest.decodeChat,
  names: ErrorNames
): Endpoint.Endpoint<AnyCall> => {
  const { arrived, ...parts } = makeParts(services)
  return {
    ...parts,
    encodeError: encodeErrorWith(names),
    decode: (json, caller, exact, text) => decode(arrived(json, caller, exact, text)),
    answer: (call) => {
      if (!isGeneration(call)) {
        const envelope = envelopeOf(services, endpoint, { model: call.body.model, thinking: true })
        return respondLoad(services, call as Call<LoadCall>, envelope)
      }
      const envelope = envelopeOf(services, endpoint, call.body, servedModelOf(call))
      return call.body.stream
        ? respondStream(services, call, envelope, names)
        : respondBuffered(services, call, envelope)
    }
  }
}

const embedding = (
  services: Services,
  decode: typeof Tasks.decodeEmbed,
  encode: (call: EmbedCall, found: Embeddings, durationNs: number) => ReturnType<typeof Tasks.encodeEmbed>,
  names: ErrorNames
): Endpoint.Endpoint<EmbedCall> => {
  const { arrived, ...parts } = makeParts(services)
  return {
    ...parts,
    operation: "embeddings",
    encodeError: encodeErrorWith(names),
    decode: (json, caller, exact) => decode(arrived(json, caller, exact, undefined)),
    answer: (call) => {
      const { elapsed } = envelopeOf(services, "generate", { model: call.body.model, thinking: true })
      return services.inference.embed(call.body.request).pipe(
        Effect.flatMap((found) =>
          Effect.map(
            Effect.fromResult(
              encode(
                { ...call.body, model: servedModelOf(call)(found.deployment) ?? call.body.model },
                found,
                elapsed()
              )
            ),
            (body) => Endpoint.respondJson(call, body, Endpoint.completeHeaders(found))
          )
        ),
        Effect.mapError((error) => error._tag === "InvalidRequest" ? InferenceError.make(error) : error)
      )
    }
  }
}

const show = (services: Services, models: OllamaModels.OllamaModels): Endpoint.Endpoint<NamedCall> => {
  const { registry } = services
  const { arrived: _, ...parts } = makeParts(services)
  return {
    ...parts,
    operation: false,
    encodeError: encodeErrorWith(EncodeError.chatErrors),
    decode: (json) => Tasks.decodeNamed(json, "show"),
    answer: (call) =>
      Effect.fromResult(registry.find(OllamaModels.nameIn(registry, call.body.model))).pipe(
        Effect.flatMap((model) => models.show(model)),
        Effect.map((body) => Endpoint.respondJson(call, body, {}))
      )
  }
}

const { chat, embed, embeddings, generate, show: showEndpoint } = group.endpoints

const inferenceRoutes = Endpoint.layer(
  conventions,
  { endpoints: { chat, generate, embed, embeddings, show: showEndpoint } },
  (handle) =>
    Effect.gen(function*() {
      const services: Services = {
        inference: yield* Inference,
        models: yield* Models,
        registry: yield* Registry,
        clock: yield* Clock.Clock,
        loads: yield* makeLoads
      }
      const { decodeChat, decodeGenerate } = DecodeRequest
      return {
        chat: handle(generation(services, "chat", decodeChat, EncodeError.chatErrors)),
        generate: handle(generation(services, "generate", decodeGenerate, EncodeError.generateErrors)),
        embed: handle(embedding(services, Tasks.decodeEmbed, Tasks.encodeEmbed, EncodeError.embedErrors)),
        embeddings: handle(
          embedding(services, Tasks.decodeEmbeddings, Tasks.encodeEmbeddings, EncodeError.embeddingsErrors)
        ),
        show: handle(show(services, yield* OllamaModels.make))
      }
    })
)

/** Paths of Ollama that change its models. */
const unsupported = [group.endpoints.create, group.endpoints.copy, group.endpoints.push, group.endpoints.blobs]

const respondUnsupported = Effect.map(HttpServerRequest.HttpServerRequest, ({ url }) =>
  respondError(encodeProblem({
    status: 501,
    code: "not_supported",
    message: `Troupe does not serve ${url.split("?")[0]}. Its models are those of its configuration.`
  })))

/** Whether the key of a request allows a model. */
const isAllowed = Effect.map(HttpServerRequest.HttpServerRequest, ({ source }) => {
  const identity = identityOf(source)
  return (name: string) => allowsModel(identity, name)
})

const unavailable = respondError(encodeProblem({
  status: 503,
  code: "engine_crashed",
  message: "The process that serves local models is being started again.",
  headers: { "retry-after": "1" }
}))

const otherRoutes = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const models = yield* OllamaModels.make
  const store = yield* OllamaStore.make
  const peers = yield* PeerProcesses
  const guarded = yield* AdminGuard.makeWith({
    problem: encodeProblem,
    reason: encodeErrorWith(EncodeError.chatErrors)
  })
  const respond = (body: object) => HttpServerResponse.jsonUnsafe(body)
  const tags = Effect.map(Effect.flatMap(isAllowed, (allowed) => models.list(allowed)), (models) => respond({ models }))
  const running = Effect.map(
    Effect.flatMap(isAllowed, (allowed) => models.running(allowed)),
    (models) => respond({ models })
  )
  yield* router.add("GET", "/", Effect.succeed(HttpServerResponse.text(greeting)))
  yield* router.add("GET", "/api/version", Effect.succeed(respond({ version: apiVersion })))
  yield* router.add("GET", "/api/tags", tags)
  yield* router.add("GET", "/api/ps", ServiceRoutes.ofWhole(peers, running, Effect.succeed(unavailable)))
  yield* router.add("POST", "/api/pull", guarded(store.pull))
  yield* router.add("DELETE", "/api/delete", guarded(store.remove))
  for (const { method, path } of unsupported) yield* router.add(method, path, respondUnsupported)
}))

export const dialect: Dialect = {
  ...conventions,
  group,
  root: "/api",
  encodeReason: encodeErrorWith(EncodeError.chatErrors),
  // Ollama has the models of OpenAI's dialect at these paths.
  models: OpenAiRoutes.dialect.models,
  layer: Layer.merge(inferenceRoutes, otherRoutes)
}

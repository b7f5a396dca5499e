/**
 * The routes that belong to no single dialect: models, health, metrics, the description of the interface, and every path
 * that does not exist.
 */
import { Clock, Effect, Layer, Option, Result } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, OpenApi } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import { basename } from "node:path"
import { identityOf } from "../../dialects/shared/CallerRequest.ts"
import type { Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import { allowsModel } from "../../domain/Identity.ts"
import * as ModelCard from "../../domain/ModelCard.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Text from "../../domain/Text.ts"
import * as EngineKinds from "../../services/engines/EngineKinds.ts"
import { Refusals } from "../../services/guard/SecurityEvents.ts"
import type { Report } from "../../services/health/HealthDetails.ts"
import { HealthDetails } from "../../services/health/HealthDetails.ts"
import * as Readiness from "../../services/health/Readiness.ts"
import { Models } from "../../services/models/Models.ts"
import { namesIn, Registry } from "../../services/models/Registry.ts"
import type { SplitTable } from "../../services/rollout/Split.ts"
import { Splits } from "../../services/rollout/Split.ts"
import { Router } from "../../services/routing/Router.ts"
import * as AdminGuard from "./AdminGuard.ts"
import * as Api from "./Api.ts"
import * as Authentication from "./Authentication.ts"
import * as Dashboard from "./Dashboard.ts"
import type { Dialects, HttpProblem } from "./Dialect.ts"
import { makeDialectOf, makeDialectOfClient, respondError } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import type { Peers } from "./Peers.ts"
import { PeerProcesses } from "./Peers.ts"
import * as WholeService from "./WholeService.ts"

/** The name of the file that a model with variants has loaded. Callers do not see its folder. */
const loadedFile = Effect.fnUntraced(function*({ deployments }: Model, { variant }: Models["Service"]) {
  for (const { id, options } of deployments) {
    const path = isRemote(options) || EngineKinds.alternativesOf(options).length < 2 ? undefined : yield* variant(id)
    if (path !== undefined) return { variant: basename(path) }
  }
  return {}
})

/** The LoRA adapters of all deployments, each once. */
const adaptersOf = ({ deployments }: Model): Pick<ModelCard.ModelCard, "lora"> => {
  const all = deployments.flatMap(({ options }) => EngineKinds.adaptersOf(options)).map(({ path, scale }) =>
    [`${path} ${scale}`, { file: basename(path), scale }] as const
  )
  return all.length === 0 ? {} : { lora: [...new Map(all).values()] }
}

const versionsOf = (splits: SplitTable | undefined, { name }: Model): Pick<ModelCard.ModelCard, "versions"> => {
  const versions = splits?.of?.(name)?.shares
  return versions === undefined ? {} : { versions }
}

const makeCardOf = Effect.gen(function*() {
  const { facts } = yield* Router
  const actors = yield* Models
  const splits = yield* Splits
  return (model: Model) =>
    Effect.map(loadedFile(model, actors), (file): ModelCard.ModelCard => ({
      ...ModelCard.cardOf(model, facts(model), (deployment) => actors.snapshot(deployment).state),
      ...adaptersOf(model),
      ...versionsOf(splits, model),
      ...file
    }))
})

/** `GET /v1/models` and `GET /v1/models/{model}`, in the shape of the client's dialect. */
const models = (dialects: Dialects) => {
  const dialectOf = makeDialectOfClient(dialects)
  return HttpRouter.use(Effect.fnUntraced(function*(router) {
    const registry = yield* Registry
    const peers = yield* PeerProcesses
    const startedAt = yield* Clock.currentTimeMillis
    const nameOf = namesIn(registry)
    const cardOf = yield* makeCardOf
    const cardsOf = (model: Model) =>
      Effect.map(
        cardOf(model),
        (card) => [card, ...(model.aliases ?? []).map((alias) => ({ ...card, name: alias, aliasOf: model.name }))]
      )
    const list = Effect.gen(function*() {
      const { headers, source } = yield* HttpServerRequest.HttpServerRequest
      const identity = identityOf(source)
      const cards = yield* Effect.forEach(registry.models().filter(({ name }) => allowsModel(identity, name)), cardsOf)
      return HttpServerResponse.jsonUnsafe(dialectOf(headers).models.list(cards.flat(), startedAt))
    })
    const one = Effect.fnUntraced(function*() {
      const { headers, source } = yield* HttpServerRequest.HttpServerRequest
      const { model = "" } = yield* HttpRouter.params
      const { encodeReason, idHeaders, models } = dialectOf(headers)
      const id = yield* Endpoint.makeId("req_")
      const identity = identityOf(source)
      const forbidden = Authentication.modelRefusal(identity, { model }, nameOf)
      if (forbidden !== undefined) {
        const refusals = yield* Refusals
        refusals.record("access", { identity })
        return respondError(encodeReason(forbidden, id), idHeaders(id))
      }
      const found = registry.find(model)
      if (Result.isFailure(found)) return respondError(encodeReason(found.failure.reason, id), idHeaders(id))
      const cards = yield* cardsOf(found.success)
      return HttpServerResponse.jsonUnsafe(
        models.model(cards.find(({ name }) => name === model) ?? cards[0]!, startedAt)
      )
    })
    yield* router.add("GET", "/v1/models", ofWhole(peers, list, list))
    yield* router.add("GET", "/v1/models/:model", ofWhole(peers, one(), one()))
  }))
}

const detailsPath = "/health/details"

const restarting = HttpServerResponse.text("The process that answers for the whole service is being started again.\n", {
  status: 503
})

/** For load balancers and supervisors. */
export const health = HttpApiBuilder.group(
  Api.TypedApi,
  "health",
  Effect.fn(function*(handlers) {
    const services = yield* Effect.context<Models | Readiness.Readiness | Registry>()
    const peers = yield* PeerProcesses
    const details = yield* Effect.serviceOption(HealthDetails)
    const report: Effect.Effect<Readiness.Report> = Option.isNone(details)
      ? Effect.provideContext(Readiness.makeReport, services)
      : details.value.ready
    const respond = (body: Readiness.Report) =>
      HttpServerResponse.jsonUnsafe(body, { status: body.status === "ready" ? 200 : 503 })
    const ready = ofWhole(
      peers,
      Effect.map(report, respond),
      Effect.succeed(respond({ status: "starting", deployments: [] }))
    )

    return handlers.handle("live", () => Effect.succeed({ status: "live" as const })).handleRaw("ready", () => ready)
  })
)

/** For operators: as the metrics, for administrators where there are keys, else for programs of this machine. */
const details = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const found = yield* Effect.serviceOption(HealthDetails)
  if (Option.isNone(found)) return
  const guarded = yield* AdminGuard.makeForReaders
  const peers = yield* PeerProcesses
  const { report } = found.value
  const whole = peers?.isFirst === true
    ? Effect.zipWith(
      report,
      peers.askJson<Report>("GET", detailsPath),
      (own, others) => WholeService.health(own, others, (model) => peers.isOfFirst(model)),
      { concurrent: true }
    )
    : report
  const respond = Effect.map(whole, (body) => HttpServerResponse.jsonUnsafe(body))
  yield* router.add("GET", detailsPath, guarded(ofWhole(peers, respond, Effect.succeed(restarting))))
}))

/**
 * The answer of this process, unless another one answers for the whole service.
 *
 * @param unavailable if that one does not answer
 */
export const ofWhole = <R>(
  peers: Peers | undefined,
  own: Effect.Effect<HttpServerResponse.HttpServerResponse, never, R>,
  unavailable: Effect.Effect<HttpServerResponse.HttpServerResponse, never, R>
) =>
  Effect.flatMap(
    HttpServerRequest.HttpServerRequest,
    (request) =>
      peers === undefined || peers.answersWhole(request)
        ? own
        : Effect.catchTag(peers.passRequest(request), "InferenceError", () => unavailable)
  )

/** For administrators where there are keys, else for programs of this machine. */
const metrics = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const guarded = yield* AdminGuard.makeForReaders
  const peers = yield* PeerProcesses
  const respond = (text: string) =>
    HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
  const own = PrometheusMetrics.format()
  const all = peers?.isFirst === true
    ? Effect.zipWith(own, peers.ask("GET", "/metrics"), WholeService.metrics)
    : own
  yield* router.add("GET", "/metrics", guarded(ofWhole(peers, Effect.map(all, respond), Effect.succeed(restarting))))
}))

/** What the codes of errors mean, for people: the errors of the service have the path in `doc_url`. */
const errorPages = HttpRouter.add(
  "GET",
  "/errors/:code",
  Effect.map(HttpRouter.params, ({ code = "" }) => {
    const entry = Object.hasOwn(ErrorCatalog.entries, code) ? ErrorCatalog.entries[code] : undefined
    const text = entry === undefined
      ? `There is no error ${JSON.stringify(Text.cutName(code))}. The errors: ${
        Object.keys(ErrorCatalog.entries).join(", ")
      }.\n`
      : ErrorCatalog.format(code, entry)
    return HttpServerResponse.text(text, { status: entry === undefined ? 404 : 200 })
  })
)

/** Names in paths have no limit of their own: the HTTP parser limits the whole target, to 16 KiB with the headers. */
export const routerConfig = { maxParamLength: Number.MAX_SAFE_INTEGER }

/** The allowed methods of a path, as `GET, POST`; undefined for a path that does not exist. */
export type MethodsOf = (path: string) => string | undefined

/** The paths of the service. */
interface KnownPaths {
  readonly methodsOf: MethodsOf
  /** Those without a parameter. */
  readonly paths: ReadonlyArray<string>
}

const makeKnownPaths = (api: ReturnType<typeof Api.make>): KnownPaths => {
  const readable = ["/metrics", detailsPath, "/openapi.json", "/errors/:code", ...Dashboard.paths]
  const byPath = new Map<string, Array<string>>(readable.map((path) => [path, ["GET"]]))
  HttpApi.reflect(api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint: { method, path } }) => byPath.set(path, [...byPath.get(path) ?? [], method])
  })
  const patterns = Array.from(byPath, ([path, methods]) => ({
    pattern: new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/:\w+/g, "[^/]+")}$`),
    methods: methods.join(", ")
  }))
  return {
    methodsOf: (path) => patterns.find(({ pattern }) => pattern.test(path))?.methods,
    paths: [...byPath.keys()].filter((path) => !path.includes(":"))
  }
}

/** A path as it was probably meant: one `/v1` at its beginning. */
const spellings = (path: string): ReadonlyArray<string> => {
  const plain = path.replace(/\/+$/, "")
  return [plain, plain.replace(/^(?:\/v1)+(?=\/)/, "/v1"), `/v1${plain}`]
}

/** Why a path does not exist, with the path to use instead, if one is near. */
const missingPath = (path: string, { methodsOf, paths }: KnownPaths): string => {
  const shown = Text.cut(path, Text.longestPath)
  const possible = spellings(path)
  const meant = possible.find((one) => methodsOf(one) !== undefined) ?? nearestName(path, paths)
  const hint = meant === undefined ? "" : ` Did you mean ${Text.cut(meant, Text.longestPath)}?`
  return `The path ${shown} does not exist.${hint} GET /openapi.json lists all paths.`
}

const problemOf = (method: string, path: string, known: KnownPaths): HttpProblem => {
  const shown = Text.cut(path, Text.longestPath)
  const allowed = known.methodsOf(path)
  return allowed === undefined
    ? { status: 404, code: "not_found", message: missingPath(path, known) }
    : {
      status: 405,
      code: "method_not_allowed",
      message: `The path ${shown} does not allow ${method}. Use ${allowed}.`,
      headers: { allow: allowed }
    }
}

const notFound = (dialectOf: ReturnType<typeof makeDialectOf>, known: KnownPaths) =>
  Effect.zipWith(HttpServerRequest.HttpServerRequest, Endpoint.makeId("req_"), ({ headers, method, url }, id) => {
    const path = url.split("?")[0]!
    const { encodeProblem, idHeaders } = dialectOf(path, headers)
    return respondError(encodeProblem(problemOf(method, path, known), id), idHeaders(id))
  })

/** The routes, and what the server needs to answer a request without the router. */
export const make = (dialects: Dialects) => {
  const api = Api.make(dialects)
  const dialectOf = makeDialectOf(dialects)
  const known = makeKnownPaths(api)
  const layer = Layer.mergeAll(
    models(dialects),
    // It takes longer to make than to read the configuration, and few ask for it; `OpenApi` keeps it.
    HttpRouter.add("GET", "/openapi.json", Effect.sync(() => HttpServerResponse.jsonUnsafe(OpenApi.fromApi(api)))),
    metrics,
    details,
    errorPages,
    Dashboard.layer,
    HttpRouter.add("*", "/*", notFound(dialectOf, known))
  )
  return { dialectOf, layer, methodsOf: known.methodsOf }
}

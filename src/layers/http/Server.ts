/**
 * The HTTP server: every route, bound to the configured address.
 *
 * **Details**
 *
 * At the layer's end the server stops taking requests, waits for those in flight up to `server.shutdownGrace`, then
 * interrupts them.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { ByteSize, Deferred, Duration, Effect, Layer } from "effect"
import { HttpIncomingMessage, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder, OpenApi } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import { getHeapStatistics } from "node:v8"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"
import { ByteBudget, RequestBytes } from "../../services/limits/ByteBudget.ts"
import { Models } from "../../services/models/Models.ts"
import { Readiness } from "../../services/models/Readiness.ts"
import { AdminAddress } from "../../services/settings/AdminAddress.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as AdminListener from "./AdminListener.ts"
import * as AdminRoutes from "./AdminRoutes.ts"
import * as AnthropicRoutes from "./AnthropicRoutes.ts"
import { Api, TypedApi } from "./Api.ts"
import * as EarlyAnswer from "./EarlyAnswer.ts"
import * as Handler from "./Endpoint.ts"
import * as HealthRoutes from "./HealthRoutes.ts"
import * as Intake from "./Intake.ts"
import * as ModelRoutes from "./ModelRoutes.ts"
import { NodeServer } from "./NodeServer.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"

const description = OpenApi.fromApi(Api)

/** The methods of each path that there is, whose parameters are in braces. */
const methodsByPath: Readonly<Record<string, ReadonlyArray<string>>> = {
  ...Object.fromEntries(
    Object.entries(description.paths).map((
      [path, methods]
    ) => [path, Object.keys(methods).map((method) => method.toUpperCase())])
  ),
  "/metrics": ["GET"],
  "/openapi.json": ["GET"]
}

const paths = Object.entries(methodsByPath).map(([path, methods]) => ({
  pattern: new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`),
  methods: methods.join(", ")
}))

const methodsOf = (path: string): string | undefined => paths.find(({ pattern }) => pattern.test(path))?.methods

const explain = (method: string, path: string): Trouble => {
  const allowed = methodsOf(path)
  return allowed === undefined
    ? {
      status: 404,
      code: "not_found",
      message: `There is nothing at ${path}. GET /openapi.json describes what there is.`
    }
    : {
      status: 405,
      code: "method_not_allowed",
      message: `${path} takes ${allowed}, not ${method}.`,
      headers: { allow: allowed }
    }
}

const notFound = Effect.zipWith(
  HttpServerRequest.HttpServerRequest,
  Handler.makeId("req_"),
  ({ method, url }, id) => {
    const path = url.split("?")[0]!
    const { failure, identify } = EarlyAnswer.dialectOf(path)
    return identify(Handler.respondError(failure(explain(method, path), id)), id)
  }
)

const routes = Layer.mergeAll(
  OpenAiRoutes.layer,
  AnthropicRoutes.layer,
  HttpApiBuilder.layer(TypedApi).pipe(Layer.provide([ModelRoutes.layer, HealthRoutes.layer, AdminRoutes.layer])),
  HttpRouter.add("GET", "/openapi.json", Effect.sync(() => HttpServerResponse.jsonUnsafe(description))),
  PrometheusMetrics.layerHttp({ path: "/metrics" }),
  HttpRouter.add("*", "/*", notFound)
)

/** What an access log would cost (56 µs a request) is more than the request itself; failures are logged where they are. */
const served = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true })

/** How long answers that are cut may take to be written, ms. */
const lastWords = 1_000

/**
 * What happens at the end: nothing new is taken, and after the grace what still runs is failed, so that it ends in an
 * answer. Connections that outlast that (a half-sent request, a reader that stopped) would hold the shutdown for ever.
 */
const bound = Layer.unwrap(Effect.gen(function*() {
  const { server } = yield* Settings
  const readiness = yield* Readiness
  const models = yield* Models
  const grace = Duration.toMillis(server.shutdownGrace)
  const services = yield* Effect.context()
  const makeId = () => Effect.runSyncWith(services)(Handler.makeId("req_"))
  const node = new NodeServer({ settings: server, methodsOf, makeId })
  const stopping = yield* Deferred.make<void>()
  // Begun before the server, so that it ends after it.
  yield* Effect.forkScoped(
    Effect.andThen(Deferred.await(stopping), Effect.andThen(Effect.sleep(grace), models.stop))
  )
  const stop = Layer.effectDiscard(Effect.addFinalizer(() =>
    Effect.sync(() => {
      readiness.stage = "stopping"
      Deferred.doneUnsafe(stopping, Effect.void)
      setTimeout(() => node.closeAllConnections(), grace + 2 * lastWords).unref()
    })
  ))
  const http = NodeHttpServer.layer(() => node, {
    host: server.host,
    port: server.port,
    gracefulShutdownTimeout: grace + lastWords
  })
  const admin = Layer.effect(
    AdminAddress,
    Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
      AdminListener.listening({
        settings: server,
        port: "port" in address ? address.port : server.port,
        handle: (request, response) => node.handle(request, response)
      }))
  )
  const maxBody = Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(server.maxBodyBytes))
  const requestBytes = Layer.sync(
    RequestBytes,
    () => new ByteBudget(server.maxRequestMemory ?? Math.floor(getHeapStatistics().heap_size_limit / 4))
  )
  return stop.pipe(
    Layer.provideMerge(served),
    Layer.provideMerge(requestBytes),
    Layer.provide(Intake.layerCallerAddress),
    Layer.provideMerge(admin),
    Layer.provideMerge(http),
    Layer.provide(maxBody)
  )
}))

/** Requires the front door; provides `HttpServer`, whose address tells the port that was bound, and `AdminAddress`. */
export const layer = bound

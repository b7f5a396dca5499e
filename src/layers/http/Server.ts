/**
 * The HTTP server: every route, bound to the configured address.
 *
 * **Details**
 *
 * At the layer's end the server stops taking requests, waits for those in flight up to `server.shutdownGrace`, then
 * interrupts them.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { ByteSize, Duration, Effect, Layer } from "effect"
import { HttpIncomingMessage, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import { createServer } from "node:http"
import { Api } from "../../services/Api.ts"
import { Readiness } from "../../services/Readiness.ts"
import { Settings } from "../../services/Settings.ts"
import * as HealthRoutes from "./HealthRoutes.ts"
import * as OpenAiError from "./OpenAiError.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"

const notFound = Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
  const { body, status } = OpenAiError.make(
    `There is nothing at ${request.method} ${request.url}. GET /openapi.json describes what there is.`,
    { status: 404, type: "invalid_request_error", code: "not_found" }
  )
  return HttpServerResponse.jsonUnsafe(body, { status })
})

const routes = Layer.mergeAll(
  HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }).pipe(
    Layer.provide([OpenAiRoutes.layer, HealthRoutes.layer])
  ),
  PrometheusMetrics.layerHttp({ path: "/metrics" }),
  HttpRouter.add("*", "/*", notFound)
)

/** What an access log would cost (56 µs a request) is more than the request itself; failures are logged where they are. */
const served = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true })

/** Connections that outlast the grace (a half-sent request, a reader that stopped) would hold the shutdown for ever. */
const bound = Layer.unwrap(Effect.gen(function*() {
  const { server } = yield* Settings
  const readiness = yield* Readiness
  const node = createServer()
  const stop = Layer.effectDiscard(Effect.addFinalizer(() =>
    Effect.sync(() => {
      readiness.stage = "stopping"
      const last = Duration.toMillis(server.shutdownGrace) + 1_000
      setTimeout(() => node.closeAllConnections(), last).unref()
    })
  ))
  const http = NodeHttpServer.layer(() => node, {
    host: server.host,
    port: server.port,
    gracefulShutdownTimeout: server.shutdownGrace
  })
  const maxBody = Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(server.maxBodyBytes))
  return stop.pipe(Layer.provideMerge(served), Layer.provideMerge(http), Layer.provide(maxBody))
}))

/** Requires the front door; provides `HttpServer`, whose address tells the port that was bound. */
export const layer = bound

/**
 * The HTTP interface as a function from a web `Request` to a `Response`, for programs that mount it in a server of their own.
 *
 * **Details**
 *
 * The routes, their endpoints and the order of the checks are those of the service. An endpoint writes to a web response what
 * it cannot write to Node's. A response body that is cancelled, or a request whose signal is aborted, ends the request.
 *
 * Without keys the program decides who may call; with keys a request needs one. Web pages of other origins are refused unless
 * `server.cors.origins` has theirs. `/admin` requires the token of `server.admin.token` or an admin key, because the address of
 * the caller is not known.
 *
 * **Gotchas**
 *
 * The program's server limits connections, headers and slow bodies; `server.maxBodyBytes`, `server.maxRequestMemory` and
 * `server.streamKeepAlive` apply.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type { Scope } from "effect"
import { Context, Duration, Effect, Layer, Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { HttpEffect, HttpRouter } from "effect/http"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as Authentication from "./Authentication.ts"
import * as CallerAddress from "./CallerAddress.ts"
import * as Cors from "./Cors.ts"
import type { ErrorResponse, HttpProblem } from "./Dialect.ts"
import { makeDialectOf, stopping } from "./Dialect.ts"
import type { Arrived } from "./EarlyRefusals.ts"
import * as EarlyRefusals from "./EarlyRefusals.ts"
import * as Endpoint from "./Endpoint.ts"
import { layerRequestId } from "./NodeServer.ts"
import * as Replays from "./Replays.ts"
import * as RequestIds from "./RequestIds.ts"
import { canonicalTarget } from "./RequestTarget.ts"
import { dialects, layerLimits, noQueryValues, routesOf } from "./Server.ts"
import { WebKeepAliveMs } from "./ServerSentEvents.ts"
import * as ServiceRoutes from "./ServiceRoutes.ts"

type Handle = (request: Request) => Promise<Response>

/** The HTTP interface of a program. */
export class WebHandler extends Context.Service<WebHandler, {
  readonly handle: Handle
}>()("troupe/layers/http/WebHandler") {}

interface Options {
  readonly settings: Resolved["server"]
  readonly routes: Pick<ReturnType<typeof ServiceRoutes.make>, "dialectOf" | "methodsOf">
  readonly authentication: Authentication.Authentication
  readonly refusals: EarlyRefusals.EarlyRefusals["Service"]
  /** Makes the id of a response. */
  readonly makeId: () => string
  /** The routes. */
  readonly route: Handle
}

/** An address that other machines reach: the program answers to its own names. */
const anyAddress = "0.0.0.0"

const headersOf = ({ headers }: Request, host: string): Record<string, string> => ({
  host,
  ...Object.fromEntries(headers)
})

const respond = ({ body, headers: { connection: _, ...headers }, status }: ErrorResponse, id: string): Response =>
  Response.json(body, { status, headers: { ...headers, "request-id": id, "x-request-id": id } })

/** As Node's server: the routes have no `HEAD`. */
const bodiless = (request: Request): RequestInit =>
  request.method === "HEAD" ? { method: "GET", headers: request.headers, signal: request.signal } : request

const dialectOf = makeDialectOf(dialects)

/** The response of a program whose handler is closed. */
export const closed = (request: Request): Response =>
  respond(
    dialectOf(new URL(request.url).pathname, Object.fromEntries(request.headers)).encodeProblem(stopping, "req_closed"),
    "req_closed"
  )

/** What a request that passes is answered with. */
interface Admitted {
  readonly request: Request
  /** Added to the response. */
  readonly headers: Readonly<Record<string, string>>
}

/** The checks of a request, as those of `NodeServer`, and then its route. */
class Handler {
  readonly #options: Options

  constructor(options: Options) {
    this.#options = options
  }

  async handle(request: Request): Promise<Response> {
    const admitted = this.#admit(request)
    if (admitted instanceof Response) return admitted
    const routed = await this.#options.route(admitted.request)
    const response = request.method === "HEAD" ? new Response(null, routed) : routed
    for (const [name, value] of Object.entries(admitted.headers)) response.headers.set(name, value)
    // The connection is that of the program's server.
    response.headers.delete("connection")
    return response
  }

  /** The request in the form that the router accepts, or the response to one that no handler may have. */
  #admit(request: Request): Admitted | Response {
    const { host, origin, pathname, search } = new URL(request.url)
    const headers = headersOf(request, host)
    const target = canonicalTarget(pathname + search)
    const arrived = { method: request.method, url: pathname, headers }
    if (Result.isFailure(target)) {
      return this.#reject(arrived, { status: 400, code: "invalid_target", message: target.failure })
    }
    const isSame = target.success === pathname + search && request.method !== "HEAD"
    const canonical = isSame ? request : new Request(`${origin}${target.success}`, bodiless(request))
    const path = target.success.split("?", 1)[0]!
    const answer = this.#answerPage(path, request.method, headers)
    if (answer._tag === "Refuse") return this.#reject({ ...arrived, url: path }, answer.problem)
    if (answer._tag === "Empty") return new Response(null, { status: 204, headers: answer.headers })
    return this.#refuse(canonical, path, headers) ?? { request: canonical, headers: answer.headers }
  }

  #answerPage(path: string, method: string, headers: Record<string, string>): Cors.Answer {
    const { routes, settings } = this.#options
    return Cors.answer({
      origins: settings.cors?.origins ?? [],
      bound: anyAddress,
      method,
      path,
      headers,
      methods: routes.methodsOf(path)
    })
  }

  #refuse(request: Request, path: string, headers: Record<string, string>): Response | undefined {
    const { authentication, makeId, routes } = this.#options
    const reason = authentication.refusalOfPassed(request, path, headers)
    if (reason === undefined) return undefined
    const id = makeId()
    const { encodeReason, idHeaders } = routes.dialectOf(path, headers)
    const error = encodeReason(reason, id)
    this.#options.refusals.noteArrived({ url: path, method: request.method, headers }, id, reason, error.status)
    return respond({ ...error, headers: { ...error.headers, ...idHeaders(id) } }, id)
  }

  #reject(arrived: Arrived, problem: HttpProblem): Response {
    const { makeId, refusals, routes } = this.#options
    const id = makeId()
    const error = routes.dialectOf(arrived.url!, arrived.headers).encodeProblem(problem, id)
    refusals.noteArrived(arrived, id, problem, error.status)
    return respond(error, id)
  }
}

/** The handler over the router that the routes were added to. */
const make = (routes: Options["routes"]) =>
  Effect.gen(function*() {
    const { server } = yield* Settings
    const context = yield* Effect.context<HttpRouter.HttpRouter>()
    const routed = Context.get(context, HttpRouter.HttpRouter).asHttpEffect()
    const handler = new Handler({
      settings: server,
      routes,
      authentication: yield* Authentication.make,
      refusals: yield* EarlyRefusals.EarlyRefusals,
      makeId: () => Effect.runSyncWith(context)(Endpoint.makeId("req_")),
      route: HttpEffect.toWebHandlerWith<HttpRouter.HttpRouter, Scope.Scope | HttpServerRequest.HttpServerRequest>(
        context
      )(routed)
    })
    return WebHandler.of({ handle: (request) => handler.handle(request) })
  })

const keepAliveMs = ({ streamKeepAlive }: Resolved["server"]): number | undefined =>
  streamKeepAlive === false ? undefined : Duration.toMillis(streamKeepAlive)

/** Requires what `Server.layer` requires. */
export const layer = Layer.unwrap(Effect.map(Settings, ({ server }) => {
  const serviceRoutes = ServiceRoutes.make(dialects)
  const router = Layer.provide(HttpRouter.layer, Layer.succeed(HttpRouter.RouterConfig)(ServiceRoutes.routerConfig))
  return Layer.effect(WebHandler, make(serviceRoutes)).pipe(
    Layer.provide(routesOf(dialects, serviceRoutes.layer)),
    Layer.provide(Layer.succeed(WebKeepAliveMs, keepAliveMs(server))),
    Layer.provide([
      CallerAddress.layer,
      layerRequestId,
      RequestIds.layer,
      Replays.layer,
      noQueryValues,
      router,
      NodeHttpServer.layerHttpServices,
      layerLimits(server)
    ]),
    Layer.provide(EarlyRefusals.layer)
  )
}))

/**
 * The endpoints whose requests start without the router: those at a path without parameters.
 *
 * **Details**
 *
 * `NodeServer` finds them by method and path. The handler is the one that the router has. A request of these has one fiber,
 * which the server's scope interrupts when it closes, and which is interrupted when the client disconnects. What the handler
 * does not write to Node's response itself, all errors among it, is sent by Effect's server, as after the router.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, Effect, Fiber, Option, Scope, Tracer } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { RequestBytes } from "../../services/limits/RequestLimits.ts"
import type { DirectHandler, DirectRequest, DirectRoute, Unsent } from "./NodeServer.ts"

/** The routes of one server, by path; all are for `POST`. A server without the service has none. */
export class DirectRoutes extends Context.Service<DirectRoutes, Map<string, DirectRoute>>()(
  "troupe/layers/http/DirectRoutes"
) {}

/** Services without layers of later additions, so that one more is not a copy of all; a request has its own scope, or none. */
const servicesOf = (context: Context.Context<never>): Context.Context<never> =>
  Context.makeUnsafe(new Map(Context.omit(Scope.Scope)(context as Context.Context<Scope.Scope>).mapUnsafe))

/** Sends responses with Effect's server. */
const makeSend = Effect.fnUntraced(function*(scope: Scope.Scope) {
  const unsent = new WeakMap<object, Unsent["response"]>()
  const handle = yield* NodeHttpServer.makeHandler(
    Effect.flatMap(
      HttpServerRequest.HttpServerRequest,
      ({ source }) =>
        Effect.interruptible(unsent.get(source) ?? Effect.succeed(HttpServerResponse.empty({ status: 500 })))
    ),
    { scope }
  )
  return ({ hold, message, response }: DirectRequest, left: Unsent["response"]) => {
    const release = Effect.addFinalizer(() => Effect.sync(() => hold.release()))
    unsent.set(message, Effect.andThen(release, left))
    handle(message, response)
  }
})

/** What the routes of a server share, until the scope closes. */
const makeParts = Effect.fnUntraced(function*(scope: Scope.Scope) {
  const running: Array<DirectRequest> = []
  const interruptAll = Effect.suspend(() => Fiber.interruptAll(running.map(({ fiber }) => fiber)))
  yield* Scope.addFinalizer(scope, interruptAll)
  return {
    budget: yield* RequestBytes,
    running,
    services: servicesOf(yield* Effect.context()),
    send: yield* makeSend(scope)
  }
})

/**
 * Adds a route until the scope closes.
 *
 * **Details**
 *
 * Where another tracer than Effect's own records requests there is none: Effect's server begins their spans.
 */
export const add = Effect.fnUntraced(function*(path: string, handler: DirectHandler) {
  const context = yield* Effect.context<RequestBytes | Scope.Scope>()
  const routes = Context.getOption(context, DirectRoutes)
  if (Option.isNone(routes) || Context.get(context, Tracer.Tracer) !== Tracer.nativeTracer) return
  const scope = yield* Scope.fork(Context.get(context, Scope.Scope), "parallel")
  const parts = yield* makeParts(scope)
  yield* Effect.acquireRelease(
    Effect.sync(() => routes.value.set(path, { ...parts, handler })),
    () => Effect.sync(() => routes.value.delete(path))
  )
})

/**
 * The address of a caller, by which callers share a model fairly.
 *
 * **Details**
 *
 * It is the address of the connection, or the one that a trusted proxy names in `x-forwarded-for`. Between the processes of a
 * service, the one that has accepted the request passes the address on.
 */
import { Context, Effect, Layer, Option } from "effect"
import { HttpServerRequest } from "effect/http"
import * as Caller from "../../domain/Caller.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as AdminListener from "./AdminListener.ts"
import type { RequestHeaders } from "./Dialect.ts"
import { NodeExchange } from "./NodeServer.ts"
import { addressHeader } from "./Peers.ts"

/** Where the request of a fiber comes from; undefined if the fiber answers no request. */
const originOf = (context: Context.Context<never>) => {
  const exchange = Context.getOption(context, NodeExchange)
  if (Option.isSome(exchange)) {
    const { headers, socket } = exchange.value.message
    return { address: socket.remoteAddress, headers: headers as RequestHeaders }
  }
  const request = Option.getOrUndefined(Context.getOption(context, HttpServerRequest.HttpServerRequest))
  if (request === undefined) return undefined
  const headers = request.headers as RequestHeaders
  // Another process of the service has accepted the request, and resolved the address.
  if (AdminListener.originOf(request.source) === "process") return { address: headers[addressHeader], headers: {} }
  return { address: Option.getOrUndefined(request.remoteAddress), headers }
}

/** Reads the address from the request that the fiber answers; empty without a request. */
export const layer: Layer.Layer<never, never, Settings> = Layer.effect(
  Caller.CallerAddress,
  Effect.map(Settings, ({ server }) => {
    const trustedProxies = Caller.trustedProxiesOf(server.trustedProxies)
    return (context: Context.Context<never>) => {
      const origin = originOf(context)
      if (origin === undefined) return ""
      return Caller.addressOf(origin.address ?? "", origin.headers["x-forwarded-for"], trustedProxies)
    }
  })
)

/**
 * The ids of requests in log entries: `request_id`, and `client_request_id` if the caller has sent one.
 *
 * **Details**
 *
 * The log of the process reads them from the request that the fiber answers. The loggers of a program get them as annotations,
 * which copy the context of each request, and so do entries of a request that does not come from the network.
 */
import { Context, Effect, Layer, Option } from "effect"
import { HttpServerRequest } from "effect/http"
import * as Caller from "../../domain/Caller.ts"
import { LogLines, RequestLog } from "../../services/observability/RequestLog.ts"
import { NodeExchange } from "./NodeServer.ts"

/** Of a caller, if it is fit for a log. */
const clientId = /^[\w.:/+=-]{1,128}$/

/**
 * The ids of a request in its log entries.
 *
 * @param id of the response
 * @param sent the id that the caller has sent
 */
export const idsOf = (id: string, sent: string | undefined): Caller.LogIds =>
  sent !== undefined && clientId.test(sent) ? { request_id: id, client_request_id: sent } : { request_id: id }

const headersOf = (context: Context.Context<never>): Readonly<Record<string, unknown>> => {
  const exchange = Context.getOption(context, NodeExchange)
  if (Option.isSome(exchange)) return exchange.value.message.headers
  return Option.getOrUndefined(Context.getOption(context, HttpServerRequest.HttpServerRequest))?.headers ?? {}
}

/** Reads the ids of the request that the fiber answers. */
export const layer = Layer.succeed(Caller.RequestLogIds, (context) => {
  const id = Context.get(context, Caller.RequestId)(context)
  if (id === undefined) return undefined
  const sent = headersOf(context)["x-request-id"]
  return idsOf(id, typeof sent === "string" ? sent : undefined)
})

const always = () => true

/** Whether entries of a request get its ids as annotations; undefined: none get them, as no request has an entry. */
export const annotates = Effect.gen(function*() {
  if ((yield* RequestLog) === undefined) return undefined
  const readsIds = (yield* LogLines) !== undefined
  return readsIds ? ({ source }: { readonly source: object | undefined }) => source === undefined : always
})

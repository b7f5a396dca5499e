/**
 * Who may administer: callers on the same machine only, and no web page. A request that a browser marks as another site's is
 * refused, since a page from anywhere could send it. So is what a proxy on this machine says it passes on.
 *
 * **Gotchas**
 *
 * A page whose own name is made to resolve to this machine (DNS rebinding) reads what is here as its own, and no header but
 * `Host` tells: so a request must ask for a loopback name or address, or for the configured one.
 */
import { Effect, Option } from "effect"
import type { HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import type { InferenceError } from "../../services/InferenceError.ts"
import { Settings } from "../../services/Settings.ts"
import { respondError } from "./Handler.ts"
import * as OpenAiError from "./OpenAiError.ts"

const loopback = /^(?:::ffff:)?127\.|^::1$/

/** What a URL may call this machine: names that browsers resolve here themselves, and addresses. */
const loopbackHost = /^(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])$/

const forbid = (message: string) =>
  respondError(OpenAiError.make(message, { status: 403, type: "invalid_request_error", code: "forbidden" }))

const notFromHere = forbid("Administration answers programs on the machine that Troupe runs on, and no web page.")

const notForHere = forbid(
  "Administration answers at localhost, at a loopback address and at the configured server.host. Ask there."
)

/** Of web pages, and of proxies: RFC 7239, and what was usual before it. */
const telltales = ["origin", "forwarded", "x-forwarded-for"] as const

/** What browsers say of requests that no other site has sent: W3C's Fetch Metadata. */
const ownSites: ReadonlySet<string | undefined> = new Set([undefined, "none", "same-origin"])

type Request = Pick<HttpServerRequest.HttpServerRequest, "headers" | "remoteAddress">

const isFromHere = ({ headers, remoteAddress }: Request): boolean =>
  telltales.every((name) => headers[name] === undefined) && ownSites.has(headers["sec-fetch-site"]) &&
  Option.exists(remoteAddress, (address) => loopback.test(address))

/** @param own `server.host` */
const isForHere = ({ headers }: Request, own: string): boolean => {
  const host = headers["host"]?.toLowerCase().replace(/:\d*$/, "")
  return host !== undefined && (loopbackHost.test(host) || host === own || host === `[${own}]`)
}

/** Paths as the shapes of `/admin` have them. */
const fields = { prompt: "prompt", rename: (path: string) => path }

type Answer<E, R> = Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

/** Makes answers that are only for who is on this machine. */
export const make = Effect.map(Settings, ({ server }) => {
  const own = server.host.toLowerCase()
  return <R>(answer: Answer<InferenceError, R>): Answer<never, R | HttpServerRequest.HttpServerRequest> =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request): Answer<InferenceError, R> => {
      if (!isFromHere(request)) return Effect.succeed(notFromHere)
      return isForHere(request, own) ? answer : Effect.succeed(notForHere)
    }).pipe(
      Effect.catch(({ reason }) => Effect.succeed(respondError(OpenAiError.fromReason(reason, fields))))
    )
})

/**
 * Requests of web pages (WHATWG Fetch, CORS; W3C Fetch Metadata): which are allowed, and the answer to a preflight. Pure.
 *
 * **Details**
 *
 * Browsers send simple requests of other origins without a preflight, so the request itself is refused, before anything
 * is called. A page is allowed whose origin is listed, or whose origin is the service itself. Requests without `Origin`
 * and without a `Sec-Fetch-Site` that names another site are of programs, or are typed by a user.
 *
 * **Gotchas**
 *
 * A page may resolve its own name to this machine (DNS rebinding): its origin then equals `Host`. So where the service
 * listens on loopback, a page's request must ask for a loopback name or address, the configured host, or a listed host.
 *
 * Node's `fetch` sends `Sec-Fetch-Mode` as well, so that header does not indicate a browser.
 *
 * `/admin` allows no origin. Credentials such as cookies are not allowed either: keys go in headers, which need none.
 */
import type { IncomingHttpHeaders } from "node:http"
import type { HttpProblem } from "./Dialect.ts"
import * as LimitHeaders from "./LimitHeaders.ts"

/** Response headers that describe how a request was routed: see `Endpoint.answerHeaders`. */
const routingHeaderNames = [
  "x-troupe-attempts",
  "x-troupe-cache",
  "x-troupe-cache-age",
  "x-troupe-cache-key",
  "x-troupe-cache-similarity",
  "x-troupe-cache-tier",
  "x-troupe-decision",
  "x-troupe-deployment",
  "x-troupe-dropped",
  "x-troupe-redacted"
] as const

/** How long browsers may keep a preflight's answer, s. */
const maxAge = 600

/** What pages may read of an answer. */
const exposed = ["retry-after", "request-id", "x-request-id", ...routingHeaderNames, ...LimitHeaders.names].join(", ")

/** Names that browsers resolve to this machine themselves, and its addresses, as a URL has them. */
const loopbackHost = /^(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])$/

/** Without the port, in lower case. */
const hostnameOf = (host: string | undefined): string => host?.toLowerCase().replace(/:\d*$/, "") ?? ""

/** @param host as in the header `Host` */
export const isLoopbackHost = (host: string | undefined): boolean => loopbackHost.test(hostnameOf(host))

/** The configuration and the request. */
export interface Question {
  readonly origins: ReadonlyArray<string>
  /** The address that the service listens on. */
  readonly bound: string
  readonly method: string
  /** Without query. */
  readonly path: string
  readonly headers: IncomingHttpHeaders
  /** Of the path, as `GET, POST`; undefined for a path that does not exist. */
  readonly methods: string | undefined
}

/** What to do with a request. */
export type Answer =
  /** Handle it, with these headers on the answer. */
  | { readonly _tag: "Continue"; readonly headers: Readonly<Record<string, string>> }
  /** Answer 204 with these headers. */
  | { readonly _tag: "Empty"; readonly headers: Readonly<Record<string, string>> }
  | { readonly _tag: "Refuse"; readonly problem: HttpProblem }

const nothing: Answer = { _tag: "Continue", headers: {} }

const isAdmin = (path: string): boolean => /^\/admin(?:\/|$)/.test(path)

const isAllowed = ({ origins, path }: Question, origin: string): boolean =>
  !isAdmin(path) && (origins.includes(origin) || origins.includes("*"))

/** Of an origin, without its scheme; empty for `null`. */
const hostOf = (origin: string): string => origin.split("://")[1]?.toLowerCase() ?? ""

/** A URL has brackets around an IPv6 address. */
const inUrl = (address: string): string => address.includes(":") ? `[${address}]` : address

/** Whether only programs of this machine reach an address. */
export const isLoopbackOnly = (bound: string): boolean => loopbackHost.test(inUrl(bound).toLowerCase())

/** Whether the service answers to this name: any where other machines reach it. */
export const isOwnHost = (
  { bound, headers: { host }, origins }: Pick<Question, "bound" | "headers" | "origins">
): boolean =>
  !isLoopbackOnly(bound) || isLoopbackHost(host) || hostnameOf(host) === bound.toLowerCase() ||
  origins.some((origin) => hostnameOf(hostOf(origin)) === hostnameOf(host))

const refusal = ({ path }: Question, origin: string): HttpProblem => ({
  status: 403,
  code: "origin_not_allowed",
  message: isAdmin(path)
    ? "Web pages may not call /admin."
    : `Web pages of ${JSON.stringify(origin.slice(0, 200))} may not call this service. ` +
      "Add the origin to server.cors.origins to allow it."
})

const crossSite = (question: Question): HttpProblem => ({
  ...refusal(question, ""),
  ...(isAdmin(question.path) ? {} : {
    message: "Web pages of other sites may not call this service (Sec-Fetch-Site: cross-site without Origin). " +
      "Send the request with fetch, from an origin in server.cors.origins."
  })
})

const wrongHost = ({ headers: { host = "" } }: Question): HttpProblem => ({
  status: 403,
  code: "host_not_allowed",
  message: `Web pages may not call this service as ${JSON.stringify(host.slice(0, 200))}. ` +
    "Use localhost, or add the page's origin to server.cors.origins."
})

/** Why a page's request is not answered; undefined for requests that may pass. */
const refused = (question: Question): HttpProblem | undefined => {
  const { headers, origins } = question
  const { host = "", origin } = headers
  const site = headers["sec-fetch-site"]
  if (origin === undefined) {
    if (site === undefined || site === "none" || origins.includes("*")) return undefined
    if (site === "cross-site") return crossSite(question)
  } else {
    if (isAllowed(question, origin)) return undefined
    if (hostOf(origin) !== host.toLowerCase()) return refusal(question, origin)
  }
  return isOwnHost(question) ? undefined : wrongHost(question)
}

const allowance = (origin: string) => ({ "access-control-allow-origin": origin, vary: "Origin" })

const preflight = (question: Question, origin: string): Answer => {
  if (!isAllowed(question, origin)) return { _tag: "Refuse", problem: refusal(question, origin) }
  if (question.methods === undefined) return { _tag: "Continue", headers: allowance(origin) }
  const requested = question.headers["access-control-request-headers"]
  return {
    _tag: "Empty",
    headers: {
      ...allowance(origin),
      "access-control-allow-methods": question.methods,
      ...(requested === undefined ? {} : { "access-control-allow-headers": requested }),
      "access-control-max-age": String(maxAge)
    }
  }
}

/** `OPTIONS` without `Origin` asks for the path's methods (RFC 9110, 9.3.7). */
export const answer = (question: Question): Answer => {
  const { headers, method, methods } = question
  const { origin } = headers
  if (method === "OPTIONS" && origin !== undefined && headers["access-control-request-method"] !== undefined) {
    return preflight(question, origin)
  }
  const problem = refused(question)
  if (problem !== undefined) return { _tag: "Refuse", problem }
  if (method === "OPTIONS" && methods !== undefined) return { _tag: "Empty", headers: { allow: methods } }
  return origin !== undefined && isAllowed(question, origin)
    ? { _tag: "Continue", headers: { ...allowance(origin), "access-control-expose-headers": exposed } }
    : nothing
}

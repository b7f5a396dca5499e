/**
 * Cross-origin requests of web pages (WHATWG Fetch, CORS): which are allowed, and what a preflight is answered. Pure.
 *
 * **Gotchas**
 *
 * `/admin` allows none. Credentials such as cookies are not allowed either: keys go in headers, which need none.
 */
import type { IncomingHttpHeaders } from "node:http"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"

/** How long browsers may keep a preflight's answer, s. */
const maxAge = 600

/** What pages may read of an answer. */
const exposed = "retry-after, request-id, x-request-id, x-troupe-attempts, x-troupe-decision, x-troupe-deployment"

/** What the configuration and the request say. */
export interface Question {
  readonly origins: ReadonlyArray<string>
  readonly method: string
  /** Without query. */
  readonly path: string
  readonly headers: IncomingHttpHeaders
  /** Of the path, as `GET, POST`; undefined where there is no such path. */
  readonly methods: string | undefined
}

/** What to do with a request. */
export type Answer =
  /** Handle it, with these headers on the answer. */
  | { readonly _tag: "Continue"; readonly headers: Readonly<Record<string, string>> }
  /** Answer 204 with these headers. */
  | { readonly _tag: "Empty"; readonly headers: Readonly<Record<string, string>> }
  | { readonly _tag: "Refuse"; readonly trouble: Trouble }

const nothing: Answer = { _tag: "Continue", headers: {} }

const isAllowed = ({ origins, path }: Question, origin: string): boolean =>
  !/^\/admin(?:\/|$)/.test(path) && (origins.includes(origin) || origins.includes("*"))

const refusal = ({ path }: Question, origin: string): Trouble => ({
  status: 403,
  code: "origin_not_allowed",
  message: /^\/admin(?:\/|$)/.test(path)
    ? "Web pages may not call /admin."
    : `Web pages of ${JSON.stringify(origin.slice(0, 200))} may not call this service. ` +
      "Add the origin to server.cors.origins to allow it."
})

const allowance = (origin: string) => ({ "access-control-allow-origin": origin, vary: "Origin" })

const preflight = (question: Question, origin: string): Answer => {
  if (!isAllowed(question, origin)) return { _tag: "Refuse", trouble: refusal(question, origin) }
  if (question.methods === undefined) return { _tag: "Continue", headers: allowance(origin) }
  const asked = question.headers["access-control-request-headers"]
  return {
    _tag: "Empty",
    headers: {
      ...allowance(origin),
      "access-control-allow-methods": question.methods,
      ...(asked === undefined ? {} : { "access-control-allow-headers": asked }),
      "access-control-max-age": String(maxAge)
    }
  }
}

/** A request without `Origin` is none of a web page's; `OPTIONS` then asks for the path's methods (RFC 9110, 9.3.7). */
export const answer = (question: Question): Answer => {
  const { headers, method, methods } = question
  const { origin } = headers
  if (method === "OPTIONS") {
    if (origin !== undefined && headers["access-control-request-method"] !== undefined) {
      return preflight(question, origin)
    }
    if (methods !== undefined) return { _tag: "Empty", headers: { allow: methods } }
  }
  return origin !== undefined && isAllowed(question, origin)
    ? { _tag: "Continue", headers: { ...allowance(origin), "access-control-expose-headers": exposed } }
    : nothing
}

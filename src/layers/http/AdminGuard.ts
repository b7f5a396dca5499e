/**
 * Who may administer: callers on the same machine only, and no web page. A request that a browser marks with its `Origin`
 * is refused, since a page from anywhere could send it. So is what a proxy on this machine says it passes on.
 */
import { Effect, Option } from "effect"
import type { HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import type { InferenceError } from "../../services/InferenceError.ts"
import { respondError } from "./Handler.ts"
import * as OpenAiError from "./OpenAiError.ts"

const loopback = /^(?:::ffff:)?127\.|^::1$/

const forbidden = OpenAiError.make(
  "Administration answers programs on the machine that Troupe runs on, and no web page.",
  {
    status: 403,
    type: "invalid_request_error",
    code: "forbidden"
  }
)

/** Of web pages, and of proxies: RFC 7239, and what was usual before it. */
const telltales = ["origin", "forwarded", "x-forwarded-for"] as const

const isFromHere = Effect.map(
  HttpServerRequest.HttpServerRequest,
  ({ headers, remoteAddress }) =>
    telltales.every((name) => headers[name] === undefined) &&
    Option.exists(remoteAddress, (address) => loopback.test(address))
)

/** Paths as the shapes of `/admin` have them. */
const fields = { prompt: "prompt", rename: (path: string) => path }

/** Only for who is on this machine. */
export const guarded = <R>(
  answer: Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | HttpServerRequest.HttpServerRequest> =>
  Effect.flatMap(isFromHere, (allowed) => allowed ? answer : Effect.succeed(respondError(forbidden))).pipe(
    Effect.catch(({ reason }) => Effect.succeed(respondError(OpenAiError.fromReason(reason, fields))))
  )

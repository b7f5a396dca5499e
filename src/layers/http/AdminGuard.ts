/**
 * Which callers may administer: local ones, or those with the token.
 *
 * **Details**
 *
 * A reverse proxy on this machine that adds no header looks like a local program. So without `server.admin.token` the port
 * of the models changes nothing, and it answers reads (GET) only where the client's socket belongs to the service's user.
 * The socket and the port of administration take local callers, but no web page and nothing that a proxy has passed on.
 * With a token or with virtual keys, only the socket is open without one: the others need the token or an admin key.
 *
 * **Gotchas**
 *
 * A page whose own name is made to resolve to this machine (DNS rebinding) reads what is here as its own, and no header but
 * `Host` shows it: so a request to the port must ask for a loopback name or address.
 *
 * The dashboard is a page of the service's own origin. Its requests are direct, and that rule of `Host` holds for them too.
 */
import { Duration, Effect, Option, Redacted, Schedule } from "effect"
import type { HttpServerResponse } from "effect/http"
import { HttpServerRequest } from "effect/http"
import { existsSync } from "node:fs"
import { IncomingMessage } from "node:http"
import { tmpdir } from "node:os"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { bearerTokenOf } from "../../dialects/shared/CallerRequest.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import { defaultSocket } from "../../services/settings/Resolution.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { Origin } from "./AdminListener.ts"
import { isSameToken, originOf } from "./AdminListener.ts"
import { isSameUser, makeLookup } from "./AdminPeer.ts"
import * as Authentication from "./Authentication.ts"
import { isLoopbackHost } from "./Cors.ts"
import type { ErrorResponse, HttpProblem } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import type { Peers } from "./Peers.ts"
import { PeerProcesses } from "./Peers.ts"

const loopback = /^(?:::ffff:)?127\.|^::1$/

const forbid = (message: string): HttpProblem => ({ status: 403, code: "forbidden", message })

const notLocal = forbid(
  "Administration accepts requests of programs on the service's machine only, not of web pages or through a proxy."
)

const notLoopback = forbid("Administration is available at localhost and at loopback addresses only.")

/** Where administration listens, for people: its socket file if there is one, and its port. */
const listenersOf = ({ port, socket }: Resolved["server"]["admin"], modelsPort: number): string => {
  const path = socket === undefined ? defaultSocket(modelsPort, tmpdir(), process) : socket
  const all = [
    ...(path === false || !existsSync(path) ? [] : [`the socket file ${path}`]),
    ...(port === undefined
      ? []
      : [port === 0 ? "the port that `troupe serve` has printed" : `http://127.0.0.1:${port}`])
  ]
  return all.length === 0 ? "" : ` Administration listens at ${all.join(" and at ")}.`
}

const notHere = (listeners: string): HttpProblem =>
  forbid(
    `This is the port of the models: it accepts only GET requests of /admin.${listeners} To change something, use the troupe ` +
      "command on the service's machine without --url, or set server.admin.port or server.admin.token."
  )

const notOwnUser = forbid(
  "This port answers GET requests of /admin only to programs of the service's own user, and only on Linux. Use " +
    "the troupe command or the socket file as the service's user, or set server.admin.port or server.admin.token."
)

const unauthorized = (message: string): HttpProblem => ({
  status: 401,
  code: "unauthorized",
  message,
  headers: { "www-authenticate": "Bearer" }
})

const notAuthorized = unauthorized(
  "Administration requires an admin key, or the token of server.admin.token. Send it as a bearer token."
)

const notAccepted = unauthorized(
  "The key or token that was sent is not accepted: it is unknown, expired or revoked. Administration requires an admin " +
    "key, or the token of server.admin.token."
)

const notAdmin = forbid("The API key is not an admin key. Create one with `troupe keys create NAME --admin`.")

/** Of proxies: RFC 9110, RFC 7239, RFC 8586, and what servers and clouds add. */
const forwarding =
  /^(?:via|forwarded|cdn-loop|x-real-ip|x-(?:cluster-)?client-ip|true-client-ip|fastly-client-ip|(?:x-forwarded|x-original|x-envoy|x-amzn?|x-azure|x-appengine|x-arr|x-proxy|cf)(?:-.*)?)$/

/** The `Sec-Fetch-Site` of requests that no other site has sent (W3C Fetch Metadata). */
const ownSites: ReadonlySet<string | undefined> = new Set([undefined, "none", "same-origin"])

type Request = Pick<HttpServerRequest.HttpServerRequest, "headers" | "method" | "remoteAddress" | "source">

/** The port that the request came to. */
const portOf = ({ source }: Request): number => source instanceof IncomingMessage ? source.socket.localPort ?? 0 : 0

/** Browsers send `Origin` with every POST, also of a page to its own origin: the dashboard at `/ui`. */
const isOwnOrigin = ({ headers: { host, origin } }: Request): boolean =>
  origin === undefined || (host !== undefined && origin === `http://${host}`)

const isDirect = (request: Request): boolean =>
  isOwnOrigin(request) && ownSites.has(request.headers["sec-fetch-site"]) &&
  Object.keys(request.headers).every((name) => !forwarding.test(name))

/** What a request may authenticate with. */
interface Secrets {
  readonly admin: Resolved["server"]["admin"]
  readonly token: string | undefined
  readonly authentication: Authentication.Authentication
}

const isRequired = ({ authentication, token }: Secrets): boolean => token !== undefined || authentication.isRequired

/** Whether a request has sent a key or a token. */
const hasSecret = (headers: Request["headers"]): boolean =>
  bearerTokenOf(headers["authorization"]) !== undefined || (headers["x-api-key"] ?? "").trim() !== ""

/** Why a request has neither the token nor an admin key. */
const withSecret = (
  { headers }: Request,
  { authentication, token }: Secrets
): HttpProblem | undefined => {
  const given = bearerTokenOf(headers["authorization"])
  if (token !== undefined && given !== undefined && isSameToken(given, token)) return undefined
  const found = authentication.identify(headers)
  if (typeof found === "string") return hasSecret(headers) ? notAccepted : notAuthorized
  return found.isAdmin ? undefined : notAdmin
}

/** Why a request may not administer. */
const refusal = (
  request: Request,
  origin: Origin | undefined,
  secrets: Secrets
): HttpProblem | undefined => {
  if (origin === "process") return undefined
  if (origin !== "socket" && isRequired(secrets)) return withSecret(request, secrets)
  if (origin === undefined && request.method !== "GET") return notHere(listenersOf(secrets.admin, portOf(request)))
  if (!isDirect(request)) return notLocal
  if (origin === "socket") return undefined
  if (!Option.exists(request.remoteAddress, (address) => loopback.test(address))) return notLocal
  return isLoopbackHost(request.headers["host"]) ? undefined : notLoopback
}

/** Paths as the shapes of `/admin` have them. */
const fields = { prompt: "prompt", rename: (path: string) => path }

/** How the refusals and failures of administration are encoded. */
export interface Encoding {
  readonly problem: (problem: HttpProblem) => ErrorResponse
  readonly reason: (reason: Reason) => ErrorResponse
}

const openAi: Encoding = {
  problem: ({ code, headers = {}, message, status }) =>
    OpenAiEncodeError.make(message, { status, type: "invalid_request_error", code, headers }),
  reason: (reason) => OpenAiEncodeError.fromReason(reason, fields)
}

type Answer<E, R> = Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

/** The answer of this process, unless another one answers for the whole service. */
const inGroup = <R>(
  answer: Answer<InferenceError, R>,
  peers: Peers | undefined,
  request: HttpServerRequest.HttpServerRequest
): Answer<InferenceError, R> => peers === undefined || peers.answersWhole(request) ? answer : peers.passRequest(request)

/** Counts and logs a request that is refused, and answers it. */
const refuse = (
  { authentication }: Secrets,
  { headers, remoteAddress }: Request,
  refused: HttpProblem,
  encoding: Encoding
) =>
  Effect.sync(() => {
    const address = Option.getOrUndefined(remoteAddress)
    authentication.note(refused.status === 401 ? "key" : "admin", { headers, address })
    return respondError(encoding.problem(refused))
  })

const secretsOf = Effect.gen(function*() {
  const { server } = yield* Settings
  return {
    admin: server.admin,
    token: server.admin.token === undefined ? undefined : Redacted.value(server.admin.token),
    authentication: yield* Authentication.make
  } satisfies Secrets
})

/** How often the key of a reader that stays connected is checked. */
const checkEvery = Schedule.spaced(Duration.seconds(1))

/**
 * Makes an effect that waits until the request may no longer administer: its key was revoked or has expired. For responses that
 * go on.
 */
export const makeUntilRefused = Effect.map(
  secretsOf,
  (secrets) =>
    Effect.map(HttpServerRequest.HttpServerRequest, (request): Effect.Effect<void> => {
      const origin = originOf(request.source)
      const isRefused = () =>
        // Another process has passed it on, with its key, or asks for itself, without one.
        origin === "process"
          ? isRequired(secrets) && hasSecret(request.headers) && withSecret(request, secrets) !== undefined
          : refusal(request, origin, secrets) !== undefined
      return Effect.asVoid(Effect.repeat(Effect.sync(isRefused), {
        schedule: checkEvery,
        until: (isOver: boolean) => isOver
      }))
    })
)

/** Makes answers that only administrators get once there are keys; without keys, everyone who reaches the service. */
export const makeForReaders = Effect.map(
  secretsOf,
  (secrets) => <R>(answer: Answer<never, R>): Answer<never, R | HttpServerRequest.HttpServerRequest> =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request): Answer<never, R> => {
      const origin = originOf(request.source)
      if (origin === "socket" || origin === "process" || !secrets.authentication.isRequired) return answer
      const refused = withSecret(request, secrets)
      return refused === undefined ? answer : refuse(secrets, request, refused, openAi)
    })
)

/** Makes answers that only administrators get, with errors in the shape of a dialect. */
export const makeWith = Effect.fnUntraced(function*(encoding: Encoding) {
  const secrets = yield* secretsOf
  const peers = yield* PeerProcesses
  const lookup = makeLookup()
  const isOwnUser = ({ source }: HttpServerRequest.HttpServerRequest) =>
    Effect.map(
      Effect.promise(async () => source instanceof IncomingMessage ? lookup(source.socket) : undefined),
      (owner) => isSameUser(owner, process.geteuid?.())
    )
  return <R>(own: Answer<InferenceError, R>): Answer<never, R | HttpServerRequest.HttpServerRequest> =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request): Answer<InferenceError, R> => {
      const answer = inGroup(own, peers, request)
      const origin = originOf(request.source)
      const refused = refusal(request, origin, secrets)
      if (refused !== undefined) return refuse(secrets, request, refused, encoding)
      if (origin !== undefined || isRequired(secrets)) return answer
      return Effect.flatMap(
        isOwnUser(request),
        (isOwn) => isOwn ? answer : refuse(secrets, request, notOwnUser, encoding)
      )
    }).pipe(
      Effect.catch(({ reason }) => Effect.succeed(respondError(encoding.reason(reason))))
    )
})

/** Makes answers that only administrators get. */
export const make = makeWith(openAi)

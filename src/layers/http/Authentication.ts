/**
 * Who calls: the virtual key of a request, before anything else of it is read.
 *
 * **Details**
 *
 * `NodeServer` asks for every request of every listener, whichever way handles it afterwards. Every path needs a key once
 * there are keys, known or not, except those in `open` and those with a guard of their own: `/admin`, `/metrics` and others.
 *
 * Without keys the service is for programs of this machine. A page whose own name is made to resolve to this machine (DNS
 * rebinding) sends that name as `Host`, and old browsers send nothing else that shows a page: so a request must ask for a
 * loopback name or address, the configured host, or a host of `server.cors.origins`.
 *
 * **Gotchas**
 *
 * The key is never kept with the request: only the identity is. A connection keeps its latest key, so that it is hashed once.
 */
import { Clock, Effect } from "effect"
import type { IncomingMessage } from "node:http"
import type { Socket } from "node:net"
import { bearerTokenOf, setIdentity } from "../../dialects/shared/CallerRequest.ts"
import type { Identity } from "../../domain/Identity.ts"
import { allowsModel } from "../../domain/Identity.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { Forbidden, Unauthenticated } from "../../domain/InferenceError.ts"
import { isPublic } from "../../domain/PublicAddress.ts"
import * as Text from "../../domain/Text.ts"
import type { AddressKind, Refusal as RefusalKind, RefusalLog } from "../../services/guard/SecurityEvents.ts"
import { Refusals } from "../../services/guard/SecurityEvents.ts"
import type { Refusal } from "../../services/keys/KeyIndex.ts"
import type { LatestSecret } from "../../services/keys/VirtualKeys.ts"
import { VirtualKeys } from "../../services/keys/VirtualKeys.ts"
import { cachedResponses } from "../../services/routing/DecisionRecord.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as Cors from "./Cors.ts"
import type { HttpProblem } from "./Dialect.ts"

/** Paths that need no key: for load balancers, the description of the interface, the dashboard, and what codes of errors mean. */
const open: ReadonlySet<string> = new Set(["/health/live", "/health/ready", "/openapi.json", "/ui"])

/** Paths with a guard of their own, which also accepts the token of administration. */
const guarded: ReadonlySet<string> = new Set(["/metrics", "/health/details", "/api/delete", "/api/pull"])

/** `/admin` has a guard of its own, which also accepts its socket and its token. */
const isOpen = (path: string): boolean =>
  open.has(path) || path.startsWith("/admin/") || path.startsWith("/errors/") || path.startsWith("/ui/")

type Headers = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

const textOf = (value: Headers[string]): string | undefined => typeof value === "string" ? value : undefined

const latestKey: unique symbol = Symbol("troupe/layers/http/Authentication/latest")

/** The latest secret of a connection. It ends with the connection. */
const latestOf = (connection: Socket): LatestSecret => {
  const known = connection as { [latestKey]?: LatestSecret }
  return known[latestKey] ??= { secret: undefined, hash: "" }
}

export interface Options {
  readonly keys: VirtualKeys["Service"]
  readonly settings: Resolved["server"]
  /** ms since 1970 */
  readonly now: () => number
  /** Counts and logs requests that are refused. */
  readonly refusals: RefusalLog
}

const loopback = /^(?:::ffff:)?127\.|^::1$/

/** @param address of the connection; undefined for a socket file */
const addressKindOf = (address: string | undefined): AddressKind => {
  if (address === undefined || loopback.test(address)) return "loopback"
  return isPublic(address) ? "public" : "private"
}

/** A request that is refused. */
export interface RefusedRequest {
  readonly headers: Headers
  /** Of the connection; undefined for a socket file. */
  readonly address: string | undefined
}

const refusedOf = ({ headers, socket }: IncomingMessage): RefusedRequest => ({ headers, address: socket.remoteAddress })

export class Authentication {
  readonly #options: Options
  /** The latest `Host` that was accepted without keys: most clients send the same. */
  knownHost: string | null = null

  /** Of the keys. */
  readonly state: VirtualKeys["Service"]["state"]

  constructor(options: Options) {
    this.#options = options
    this.state = options.keys.state
  }

  /** Whether requests need a key. */
  get isRequired(): boolean {
    return this.state.areRequired
  }

  /**
   * The identity of a request's key: `Authorization: Bearer` or `x-api-key`. A client that sends both, one for another
   * service, is known by the one that is a key of this service.
   */
  identify(headers: Headers, latest?: LatestSecret): Identity | Refusal {
    const { keys, now } = this.#options
    const bearer = bearerTokenOf(textOf(headers["authorization"]))
    const other = textOf(headers["x-api-key"])?.trim() || undefined
    const found = keys.identify(bearer ?? other, now(), latest)
    if (typeof found !== "string" || bearer === undefined || other === undefined) return found
    const second = keys.identify(other, now())
    return typeof second === "string" ? found : second
  }

  /** Why a request is not answered; undefined if it may pass, and then it has its identity. */
  refusalOf(request: IncomingMessage): Reason | undefined {
    const path = request.url!.split("?", 1)[0]!
    if (isOpen(path)) return undefined
    if (!this.isRequired) {
      if (this.#isOwnHost(request.headers.host)) return undefined
      this.note("host", refusedOf(request))
      return wrongHost(request.headers.host)
    }
    if (guarded.has(path)) return undefined
    const found = this.identify(request.headers, latestOf(request.socket))
    if (typeof found === "string") {
      this.note("key", refusedOf(request))
      return new Unauthenticated({ problem: found })
    }
    setIdentity(request, found)
    return undefined
  }

  /**
   * As `refusalOf`, of a request that a program passes on. Without keys the program decides who may call.
   *
   * @param headers with names in lower case
   */
  refusalOfPassed(request: object, path: string, headers: Headers): Reason | undefined {
    if (!this.isRequired || isOpen(path) || guarded.has(path)) return undefined
    const found = this.identify(headers)
    if (typeof found === "string") {
      this.note("key", { headers, address: undefined })
      return new Unauthenticated({ problem: found })
    }
    setIdentity(request, found)
    return undefined
  }

  /** Counts and logs a request that is refused, with the id of its key if it has one, and never with its address. */
  note(refusal: RefusalKind, { address, headers }: RefusedRequest): void {
    const found = this.isRequired ? this.identify(headers) : "missing"
    this.#options.refusals.record(
      refusal,
      typeof found === "string" ? { address: addressKindOf(address) } : { identity: found }
    )
  }

  /** As `note`, of a web page. */
  notePage(request: IncomingMessage, { code }: HttpProblem): void {
    this.note(code === "host_not_allowed" ? "host" : "origin", refusedOf(request))
  }

  #isOwnHost(host: string | undefined): boolean {
    const { cors, host: bound } = this.#options.settings
    if (!Cors.isOwnHost({ bound, headers: { host }, origins: cors?.origins ?? [] })) return false
    this.knownHost = host ?? null
    return true
  }
}

/** Of the service's keys. */
export const make = Effect.gen(function*() {
  const { server } = yield* Settings
  const clock = yield* Clock.Clock
  return new Authentication({
    keys: yield* VirtualKeys,
    settings: server,
    now: () => clock.currentTimeMillisUnsafe(),
    refusals: yield* Refusals
  })
})

const wrongHost = (host = ""): Forbidden =>
  new Forbidden({
    detail: `Without keys, this service answers as localhost only, not as ${JSON.stringify(host.slice(0, 200))}. ` +
      "Create a key with `troupe keys create`, or add the host's origin to server.cors.origins."
  })

/** The fields of a decoded body that name models. */
interface Named {
  readonly model?: unknown
  readonly troupe?: { readonly fallbacks?: ReadonlyArray<string> } | null
}

/**
 * Why the key does not allow the models that a body names; `undefined` if it does. The operator's own fallbacks are allowed.
 *
 * @param nameOf the own name of the model that a name or an alias selects
 */
export const modelRefusal = (
  identity: Identity | undefined,
  body: unknown,
  nameOf: (name: string) => string
): Forbidden | undefined => {
  if (identity?.models === undefined) return undefined
  const { model, troupe } = body as Named
  const named = [model, ...troupe?.fallbacks ?? []].filter((name) => typeof name === "string")
  const wrong = named.find((name) => name !== cachedResponses && !allowsModel(identity, nameOf(name)))
  return wrong === undefined ? undefined : notAllowed(identity.models, wrong, nameOf)
}

/** The key does not allow the model; a key that lists an alias allows nothing by it. */
const notAllowed = (models: ReadonlyArray<string>, model: string, nameOf: (name: string) => string): Forbidden => {
  const own = nameOf(model)
  const alias = models.find((pattern) => pattern !== own && nameOf(pattern) === own)
  const hint = alias === undefined ? "" : ` "${alias}" is an alias: a key has to list the model's own name, "${own}".`
  return new Forbidden({ model, detail: `Its models: ${Text.cutList(models)}.${hint}` })
}

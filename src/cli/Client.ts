/** The HTTP client with which commands call a running service. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Option, Redacted, Result, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { existsSync } from "node:fs"
import { tmpdir } from "node:os"
import { TypedApi } from "../layers/http/Api.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import type { Target } from "./Flags.ts"
import { addressOf, CommandFailed, loadWithoutSecrets, urlOf } from "./Flags.ts"
import * as RunningService from "./RunningService.ts"

/** No service listens at the address. */
export class NoService extends Schema.TaggedError<NoService>()("NoService", { message: Schema.String }) {}

/** The command for each path that messages of the service name. */
const commandOf: Readonly<Record<string, string>> = {
  "GET /admin/deployments": "troupe ps",
  "GET /admin/decisions": "troupe decisions",
  "GET /admin/overview": "troupe top",
  "GET /admin/requests": "troupe logs",
  "GET /admin/circuits": "troupe circuits ls",
  "GET /admin/keys": "troupe keys ls",
  "GET /admin/usage": "troupe usage",
  "GET /admin/budgets": "troupe budgets",
  "GET /admin/rollouts": "troupe rollout list"
}

/** A message of the service with commands in place of paths. */
export const withCommands = (message: string): string =>
  message.replaceAll(/GET \/admin\/\w+/g, (path) => commandOf[path] === undefined ? path : `\`${commandOf[path]}\``)

export const noServiceAt = (at: string): NoService =>
  new NoService({
    message: `No service is running at ${at}. Start one with \`troupe serve\`, or pass the URL of another with --url.`
  })

/** The message of the service, or the reason why the call failed. */
const failureOf = (at: string) => (error: unknown): Effect.Effect<never, CommandFailed | NoService> => {
  const message = (error as { readonly error?: { readonly message?: string } }).error?.message
  if (message !== undefined) return Effect.fail(new CommandFailed({ message: withCommands(message) }))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "TransportError"
    ? Effect.fail(noServiceAt(at))
    : Effect.fail(
      new CommandFailed({
        message: `The server at ${at} is not a Troupe service, or runs another version. Check --url.`
      })
    )
}

/** How a service is called. */
export interface Endpoint {
  readonly url: string
  /** File of a socket; the URL then gives the path and `Host`. */
  readonly socket?: string
  readonly token?: string
}

const tokenInEnvironment = () => process.env["TROUPE_ADMIN_TOKEN"] || undefined

const socketOf = (port: number): string => defaultSocket(port, tmpdir(), process)

/** `--url` and the token say what is called and as whom: the socket, which needs no token, is not used. */
const endpointAt = (url: string): Endpoint => {
  const token = tokenInEnvironment()
  return { url, ...(token === undefined ? {} : { token }) }
}

type Server = Resolved["server"]

const tokenOf = (server: Server | undefined): { readonly token?: string } => {
  const configured = server?.admin.token
  const token = configured === undefined ? tokenInEnvironment() : Redacted.value(configured)
  return token === undefined ? {} : { token }
}

/** The endpoints of `troupe serve` with this configuration, in the order in which they are called. */
const configuredEndpoints = Effect.fnUntraced(function*(server: Server) {
  const { host, port } = yield* addressOf(server)
  const { port: adminPort = 0, socket } = server.admin
  const token = tokenOf(server)
  const url = urlOf(host, port)
  const local = socketOf(port)
  const file = typeof socket === "string" ? socket : socket === undefined && existsSync(local) ? local : undefined
  if (file === undefined) return [{ url: adminPort === 0 ? url : urlOf("127.0.0.1", adminPort), ...token }]
  // A service that was killed leaves its socket.
  return [{ url, socket: file, ...token }, { url, ...token }]
})

/** Where a recorded service runs, whatever its configuration file says now. */
const recordedEndpoint = ({ adminUrl, socket, url }: RunningService.Place, server: Server | undefined): Endpoint => ({
  ...(socket === undefined ? { url: adminUrl ?? url } : { url, socket }),
  ...tokenOf(server)
})

const severalRun = (places: ReadonlyArray<RunningService.Place>): CommandFailed =>
  new CommandFailed({
    message: `${places.length} services run: ${places.map(RunningService.textOf).join(", ")}. Choose one with --url.`
  })

/** `--url` or PORT names the service; else it is the one that runs, or that of the configuration. */
const endpointsOf = Effect.fnUntraced(function*({ config, url }: Target) {
  if (Option.isSome(url)) return [endpointAt(url.value)]
  const places = process.env["PORT"]
    ? []
    : RunningService.ofFile(RunningService.all(), Option.getOrUndefined(config), existsSync)
  if (places.length > 1) return yield* severalRun(places)
  const loaded = yield* Effect.result(loadWithoutSecrets(config))
  const recorded = places.map((place) =>
    recordedEndpoint(place, Result.isSuccess(loaded) ? loaded.success.server : undefined)
  )
  if (Result.isSuccess(loaded)) return [...recorded, ...(yield* configuredEndpoints(loaded.success.server))]
  return recorded.length > 0 ? recorded : yield* loaded.failure
})

/** Calls the first of the services that runs. */
const withFirst = <A, E, R>(
  [endpoint, ...others]: ReadonlyArray<Endpoint>,
  use: (endpoint: Endpoint) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  others.length === 0
    ? use(endpoint!)
    : Effect.catchIf(use(endpoint!), (error) => error instanceof NoService, () => withFirst(others, use))

const call = <A, E>(
  { socket, token, url }: Endpoint,
  use: (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>
) =>
  HttpApiClient.make(TypedApi, {
    baseUrl: url,
    ...(token === undefined ? {} : { transformClient: HttpClient.mapRequest(HttpClientRequest.bearerToken(token)) })
  }).pipe(
    Effect.flatMap(use),
    Effect.catch(failureOf(url)),
    Effect.provide(
      socket === undefined ? FetchHttpClient.layer : NodeHttpClient.layerNodeHttpOptions({ socketPath: socket })
    )
  )

/** Calls the running service. */
export const withClient = <A, E>(
  target: Target,
  use: (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>
) => Effect.flatMap(endpointsOf(target), (endpoints) => withFirst(endpoints, (endpoint) => call(endpoint, use)))

/** Calls a service that is recorded; its token is that of the environment. */
export const withPlace = <A, E>(
  place: RunningService.Place,
  use: (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>
) => Effect.suspend(() => call(recordedEndpoint(place, undefined), use))

/** Calls the running service without a description, as `withClient` does; requests have the token. */
export const connect = <A, E, R>(
  target: Target,
  use: (endpoint: Endpoint) => Effect.Effect<A, E, R>
) =>
  Effect.flatMap(endpointsOf(target), (endpoints) =>
    withFirst(endpoints, (endpoint) => {
      const { socket, token } = endpoint
      const withToken = HttpClient.mapRequest((request: HttpClientRequest.HttpClientRequest) =>
        token === undefined ? request : HttpClientRequest.bearerToken(request, token)
      )
      const client = Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, withToken))
      return Effect.provide(
        use(endpoint),
        Layer.provide(
          client,
          socket === undefined ? FetchHttpClient.layer : NodeHttpClient.layerNodeHttpOptions({ socketPath: socket })
        )
      )
    }))

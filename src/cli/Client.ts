/** The HTTP client with which commands call a running service. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Option, Redacted, Schema } from "effect"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { existsSync } from "node:fs"
import { tmpdir } from "node:os"
import { TypedApi } from "../layers/http/Api.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
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

/** The endpoint of `troupe serve` with this configuration. */
const configuredEndpoint = Effect.fnUntraced(function*(file: Option.Option<string>) {
  const { server } = yield* loadWithoutSecrets(file)
  const { host, port } = yield* addressOf(server)
  const { port: adminPort = 0, socket, token: configured } = server.admin
  const token = configured === undefined ? tokenInEnvironment() : Redacted.value(configured)
  const url = urlOf(host, port)
  const authorized = token === undefined ? {} : { token }
  if (typeof socket === "string") return { url, socket, ...authorized }
  const local = socketOf(port)
  if (socket === undefined && existsSync(local)) return { url, socket: local, ...authorized }
  return { url: adminPort === 0 ? url : urlOf("127.0.0.1", adminPort), ...authorized }
})

const endpointOf = ({ config, url }: Target) =>
  Option.isSome(url) ? Effect.sync(() => endpointAt(url.value)) : configuredEndpoint(config)

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

type Use<A, E> = (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>

/** The service that was started with the file; none if `--url` or PORT names another, or it is not recorded. */
const startedEndpoint = Effect.fnUntraced(function*({ config, url }: Target) {
  const place = RunningService.find(config)
  if (Option.isSome(url) || process.env["PORT"] || Option.isNone(place)) return undefined
  const { adminUrl, socket, url: bound } = place.value
  const settings = yield* Effect.option(loadWithoutSecrets(config))
  const configured = Option.getOrUndefined(settings)?.server.admin.token
  const token = configured === undefined ? tokenInEnvironment() : Redacted.value(configured)
  return {
    url: socket === undefined ? adminUrl ?? bound : bound,
    ...(socket === undefined ? {} : { socket }),
    ...(token === undefined ? {} : { token })
  } satisfies Endpoint
})

/** Calls the service that was started with the file, whatever the file says now; else as `withClient`. */
export const withStarted = <A, E>(target: Target, use: Use<A, E>) =>
  Effect.flatMap(startedEndpoint(target), (endpoint) =>
    endpoint === undefined
      ? withClient(target, use)
      : Effect.catchTag(call(endpoint, use), "NoService", () => withClient(target, use)))

/** Calls the running service. Falls back to the port if the socket was left by a killed service. */
export const withClient = <A, E>(target: Target, use: Use<A, E>) =>
  Effect.flatMap(endpointOf(target), (endpoint: Endpoint) => {
    const { socket, ...direct } = endpoint
    const answer = call(endpoint, use)
    return socket === undefined ? answer : Effect.catchTag(answer, "NoService", () => call(direct, use))
  })

/** Calls the running service without a description, as `withClient` does; requests have the token. */
export const connect = <A, E, R>(
  target: Target,
  use: (endpoint: Endpoint) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | Effect.Error<ReturnType<typeof endpointOf>>, Exclude<R, HttpClient.HttpClient>> =>
  Effect.flatMap(endpointOf(target), (endpoint: Endpoint) => {
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
  })

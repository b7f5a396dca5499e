/** How commands speak to a running service. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Option, Redacted, Schema } from "effect"
import { Flag } from "effect/cli"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { existsSync } from "node:fs"
import { tmpdir } from "node:os"
import { TypedApi } from "../layers/http/Api.ts"
import { defaultSocket } from "../services/settings/AdminAddress.ts"
import { addressOf, urlOf } from "./Address.ts"
import { CommandFailed, config, loadToShow } from "./Shared.ts"

const url = Flag.String("url").pipe(
  Flag.withSchema(Schema.String.check(
    Schema.isPattern(/^https?:\/\/[^\s/]/, { message: "Expected a URL such as http://127.0.0.1:3000" })
  )),
  Flag.withDescription("URL of the service (default: from HOST, PORT and the configuration)"),
  Flag.optional
)

/** Flags that say which service is meant. */
export const target = { url, config }

export interface Target {
  readonly url: Option.Option<string>
  readonly config: Option.Option<string>
}

/** Nobody listens there. */
export class NoService extends Schema.TaggedError<NoService>()("NoService", { message: Schema.String }) {}

/** Commands for the paths that the service's messages name. */
const commands: Readonly<Record<string, string>> = {
  "GET /admin/deployments": "troupe ps",
  "GET /admin/decisions": "troupe decisions",
  "GET /admin/circuits": "troupe circuits ls"
}

const withCommands = (message: string): string =>
  message.replaceAll(/GET \/admin\/\w+/g, (path) => commands[path] === undefined ? path : `\`${commands[path]}\``)

/** The service's own words, or why it could not be asked. */
const explain = (at: string) => (error: unknown): Effect.Effect<never, CommandFailed | NoService> => {
  const told = (error as { readonly error?: { readonly message?: string } }).error?.message
  if (told !== undefined) return Effect.fail(new CommandFailed({ message: withCommands(told) }))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "TransportError"
    ? Effect.fail(
      new NoService({
        message:
          `No service is running at ${at}. Start one with \`troupe serve\`, or pass the URL of another with --url.`
      })
    )
    : Effect.fail(
      new CommandFailed({
        message: `The server at ${at} is not a Troupe service, or runs another version. Check --url.`
      })
    )
}

/** Where to ask, and how. */
interface Endpoint {
  readonly url: string
  /** Of a socket; the URL is then for its path and `Host`. */
  readonly socket?: string
  readonly token?: string
}

const tokenInEnvironment = () => process.env["TROUPE_ADMIN_TOKEN"] || undefined

const isLoopback = (hostname: string): boolean => /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname)

const socketOf = (port: number): string => defaultSocket(port, tmpdir(), process)

/** A service of this machine is asked by its socket, where it has one. */
const endpointAt = (url: string): Endpoint => {
  const token = tokenInEnvironment()
  const { hostname, port, protocol } = new URL(url)
  const socket = socketOf(Number(port || (protocol === "https:" ? 443 : 80)))
  return {
    url,
    ...(isLoopback(hostname) && existsSync(socket) ? { socket } : {}),
    ...(token === undefined ? {} : { token })
  }
}

/** As `troupe serve` is configured. */
const configuredEndpoint = Effect.fnUntraced(function*(file: Option.Option<string>) {
  const { server } = yield* loadToShow(file)
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

const ask = <A, E>(
  { socket, token, url }: Endpoint,
  use: (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>
) =>
  HttpApiClient.make(TypedApi, {
    baseUrl: url,
    ...(token === undefined ? {} : { transformClient: HttpClient.mapRequest(HttpClientRequest.bearerToken(token)) })
  }).pipe(
    Effect.flatMap(use),
    Effect.catch(explain(url)),
    Effect.provide(
      socket === undefined ? FetchHttpClient.layer : NodeHttpClient.layerNodeHttpOptions({ socketPath: socket })
    )
  )

/** Asks the running service. A socket that a killed service has left is passed over. */
export const withClient = <A, E>(
  target: Target,
  use: (client: HttpApiClient.ForApi<typeof TypedApi>) => Effect.Effect<A, E>
) =>
  Effect.flatMap(endpointOf(target), (endpoint: Endpoint) => {
    const { socket, ...direct } = endpoint
    const asked = ask(endpoint, use)
    return socket === undefined ? asked : Effect.catchTag(asked, "NoService", () => ask(direct, use))
  })

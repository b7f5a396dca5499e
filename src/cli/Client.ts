/** How commands speak to a running service. */
import { Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import { FetchHttpClient, HttpClientError } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Api } from "../services/Api.ts"
import { addressOf, urlOf } from "./Address.ts"
import { CommandFailed, config, loadToShow } from "./Shared.ts"

const url = Flag.String("url").pipe(
  Flag.withSchema(Schema.String.check(
    Schema.isPattern(/^https?:\/\/[^\s/]/, { message: "Expected a URL, as http://127.0.0.1:3000" })
  )),
  Flag.withDescription("Where the service listens; default as HOST, PORT and the configuration say"),
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

/** The service's own words, or why it could not be asked. */
const explain = (at: string) => (error: unknown): Effect.Effect<never, CommandFailed | NoService> => {
  const told = (error as { readonly error?: { readonly message?: string } }).error?.message
  if (told !== undefined) return Effect.fail(new CommandFailed({ message: told }))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "TransportError"
    ? Effect.fail(
      new NoService({
        message: `No service answers at ${at}. Start one with: troupe serve; or name another with --url`
      })
    )
    : Effect.fail(new CommandFailed({ message: `${at} answers, but not as Troupe does.` }))
}

/** As `troupe serve` finds it, where no URL is given. */
const urlOfService = Effect.fnUntraced(function*({ config, url }: Target) {
  if (Option.isSome(url)) return url.value
  const { server } = yield* loadToShow(config)
  const { host, port } = yield* addressOf(server)
  return urlOf(host, port)
})

/** Asks the running service. */
export const withClient = <A, E>(
  target: Target,
  use: (client: HttpApiClient.ForApi<typeof Api>) => Effect.Effect<A, E>
) =>
  Effect.flatMap(urlOfService(target), (at) =>
    HttpApiClient.make(Api, { baseUrl: at }).pipe(
      Effect.flatMap(use),
      Effect.catch(explain(at)),
      Effect.provide(FetchHttpClient.layer)
    ))

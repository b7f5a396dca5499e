/** `troupe ps`, `load`, `unload` and `reload`: what a running service's models do, and what an operator does to them. */
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { HttpClientError } from "effect/http"
import { FetchHttpClient } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import * as SettingsFile from "../layers/SettingsFile.ts"
import type { Action, Deployment } from "../services/Admin.ts"
import { Api } from "../services/Api.ts"
import { addressOf, urlOf } from "./Address.ts"
import { CommandFailed, config, json, printJson, table } from "./Shared.ts"

const url = Flag.String("url").pipe(
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDescription("Where the service listens; default as HOST, PORT and the configuration say"),
  Flag.optional
)

/** Flags that say which service is meant. */
const target = { url, config }

interface Target {
  readonly url: Option.Option<string>
  readonly config: Option.Option<string>
}

const model = Argument.String("model").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("A configured model's name")
)

/** The service's own words, or why it could not be asked. */
const explain = (at: string) => (error: unknown): Effect.Effect<never, CommandFailed> => {
  const told = (error as { readonly error?: { readonly message?: string } }).error?.message
  const transport = (error as HttpClientError.HttpClientError)._tag === "HttpClientError"
  const message = told ?? (transport
    ? `No service answers at ${at}. Start one with: troupe serve; or name another with --url`
    : `${at} answers, but not as Troupe does.`)
  return Effect.fail(new CommandFailed({ message }))
}

/** As `troupe serve` finds it, where no URL is given. */
const urlOfService = Effect.fnUntraced(function*({ config, url }: Target) {
  if (Option.isSome(url)) return url.value
  const { server } = yield* SettingsFile.load({ file: Option.getOrUndefined(config) })
  const { host, port } = yield* addressOf(server)
  return urlOf(host, port)
})

const withClient = <A, E>(
  target: Target,
  use: (client: HttpApiClient.ForApi<typeof Api>) => Effect.Effect<A, E>
) =>
  Effect.flatMap(urlOfService(target), (at) =>
    HttpApiClient.make(Api, { baseUrl: at }).pipe(
      Effect.flatMap(use),
      Effect.catch(explain(at)),
      Effect.provide(FetchHttpClient.layer)
    ))

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`

const rows = (deployments: ReadonlyArray<Deployment>): ReadonlyArray<ReadonlyArray<string>> => [
  ["DEPLOYMENT", "ENGINE", "STATE", "RUNNING", "WAITING", "MEMORY", ""],
  ...deployments.map(({ deployment, engine, lastFailure, memoryBytes, pinned, queued, running, state }) => [
    deployment,
    engine,
    pinned ? `${state}, pinned` : state,
    String(running),
    String(queued),
    memoryBytes === 0 ? "" : mebibytes(memoryBytes),
    state === "failed" ? lastFailure ?? "" : ""
  ])
]

const print = (asJson: boolean, deployments: ReadonlyArray<Deployment>) =>
  asJson ? printJson(deployments) : Console.log(table(rows(deployments)))

export const ps = Command.make("ps", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.deployments({})),
    ({ deployments }) => print(json, deployments)
  )).pipe(Command.withDescription("Show what the models of a running service do"))

const act = (action: Action, description: string) =>
  Command.make(action, { model, ...target, json }, ({ json, model, ...target }) =>
    Effect.flatMap(
      withClient(target, (client) => client.admin.act({ params: { model, action } })),
      ({ deployments }) => print(json, deployments)
    )).pipe(Command.withDescription(description))

export const load = act("load", "Load a model of a running service, also one that is down")
export const unload = act("unload", "Unload a model of a running service when its requests have ended")
export const reload = act("reload", "Load a model of a running service anew, beside itself, and move over")

/** Flags of several commands, and their results: the configuration and the address of the service. */
import { Effect, Option, Schema } from "effect"
import { Flag } from "effect/cli"
import { availableParallelism } from "node:os"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { bareHost } from "../services/settings/Resolution.ts"
import type { Resolved } from "../services/settings/Settings.ts"

/** A command that failed, with a message for the user. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  message: Schema.String
}) {}

/** A text that may be left out, and is not empty. */
export const optionalText = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withSchema(Schema.NonEmptyString),
    Flag.withDescription(description),
    Flag.optional
  )

export const config = optionalText(
  "config",
  "Configuration file (default: troupe.yaml in the current folder, if any)"
)

export const json = Flag.Boolean("json").pipe(Flag.withDescription("Print JSON"), Flag.withDefault(false))

const url = Flag.String("url").pipe(
  Flag.withSchema(Schema.String.check(
    Schema.isPattern(/^https?:\/\/[^\s/]/, { message: "Expected a URL such as http://127.0.0.1:3000" })
  )),
  Flag.withDescription("URL of the service (default: from HOST, PORT and the configuration)"),
  Flag.optional
)

/** Flags that name a running service. */
export const target = { url, config }

export interface Target {
  readonly url: Option.Option<string>
  readonly config: Option.Option<string>
}

/**
 * The settings, for commands that send nothing to providers: their secrets may be unset.
 *
 * @param engineHost where engines run unless the file says; default on threads of this process
 */
export const loadWithoutSecrets = (file: Option.Option<string>, engineHost?: "process" | "thread") =>
  SettingsFile.load({ file: Option.getOrUndefined(file), secretsMayBeUnset: true, engineHost })

/** The number of service processes that a setting or a flag asks for. */
export const processCount = (processes: Resolved["server"]["processes"]): number =>
  processes === "auto" ? availableParallelism() : processes

/** Why PORT is not a port, if it is set. */
export const portProblem = (): string | undefined => {
  const text = process.env["PORT"] ?? ""
  if (text === "" || /^\d{1,5}$/.test(text) && Number(text) <= 65535) return undefined
  return `The environment variable PORT must be a port from 0 to 65535, not "${text}"`
}

const portFromEnvironment = Effect.suspend(() => {
  const problem = portProblem()
  if (problem !== undefined) return Effect.fail(new CommandFailed({ message: `${problem}.` }))
  const text = process.env["PORT"] ?? ""
  return Effect.succeed(text === "" ? undefined : Number(text))
})

/** The address that the service listens on: HOST, or that of the settings. */
export const hostOf = (server: Resolved["server"]): string => bareHost(process.env["HOST"] || server.host)

/** Where the service listens: flags first, then HOST and PORT, then the settings. */
export const addressOf = Effect.fnUntraced(function*(
  server: Resolved["server"],
  flags: { readonly host?: string | undefined; readonly port?: number | undefined } = {}
) {
  return {
    host: flags.host === undefined ? hostOf(server) : bareHost(flags.host),
    port: flags.port ?? (yield* portFromEnvironment) ?? server.port
  }
})

/** The URL for clients on this machine. */
export const urlOf = (host: string, port: number): string => {
  const name = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host
  return `http://${name.includes(":") ? `[${name}]` : name}:${port}`
}

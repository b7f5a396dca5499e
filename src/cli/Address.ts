/** Where the service listens: what flags, environment variables and settings say of it. */
import { Effect } from "effect"
import type { Resolved } from "../services/settings/Settings.ts"
import { bareHost } from "../services/settings/Settings.ts"
import { CommandFailed } from "./Shared.ts"

const portFromEnvironment = Effect.suspend(() => {
  const text = process.env["PORT"]
  if (text === undefined || text === "") return Effect.undefined
  return /^\d{1,5}$/.test(text) && Number(text) <= 65535
    ? Effect.succeed(Number(text))
    : Effect.fail(
      new CommandFailed({ message: `The environment variable PORT must be a port from 0 to 65535, not "${text}".` })
    )
})

/** Flags first, then HOST and PORT, then the settings. */
export const addressOf = Effect.fnUntraced(function*(
  server: Resolved["server"],
  flags: { readonly host?: string | undefined; readonly port?: number | undefined } = {}
) {
  return {
    host: bareHost(flags.host ?? (process.env["HOST"] || server.host)),
    port: flags.port ?? (yield* portFromEnvironment) ?? server.port
  }
})

/** The address as a client on this machine would dial it. */
export const urlOf = (host: string, port: number): string => {
  const dial = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host
  return `http://${dial.includes(":") ? `[${dial}]` : dial}:${port}`
}

/** What `troupe serve` prints: where it listens, or why it cannot. */
import * as Binding from "../layers/http/Binding.ts"
import type { Bound } from "../services/processes/ProcessGroup.ts"
import type { AdminAddress, Resolved } from "../services/settings/Settings.ts"
import { CommandFailed, urlOf } from "./Flags.ts"
import { asInvoked, modelTable } from "./Output.ts"

const adminText = ({ socket, url }: AdminAddress["Service"]): string =>
  [url, socket].filter((address) => address !== undefined).join(" and ") || "the same port, with the token"

/** A service that listens. */
export interface Listening extends Bound {
  readonly settings: Resolved
  readonly count?: number
}

/** What `serve` prints once it listens. */
export const listening = ({ admin, bound, count = 1, hasKeys, port, settings }: Listening): string => {
  const model = settings.models[0]?.name ?? "tiny-chat"
  const body = JSON.stringify({
    model,
    messages: [{ role: "user", content: "What is the capital of Japan?" }],
    temperature: 0
  })
  const key = hasKeys ? " -H 'authorization: Bearer KEY'" : ""
  const url = urlOf(settings.server.host, port)
  return [
    `Troupe listens on ${bound} (${settings.environment})${count === 1 ? "" : ` with ${count} processes`}`,
    `${asInvoked(Binding.callersText(settings.server, hasKeys))}.`,
    `Administration at ${adminText(admin)}`,
    "",
    modelTable(settings),
    "",
    "Try it:",
    `  curl -s ${url}/v1/chat/completions -H 'content-type: application/json'${key} -d '${body}'`,
    "",
    "Press Ctrl-C to stop after running requests have finished; twice to stop immediately."
  ].join("\n")
}

const otherHost = "Use 127.0.0.1, or an address of this machine, with --host, HOST or server.host."

/** Why the service cannot listen, by the code of the error. */
const listenProblems: Readonly<Record<string, (host: string, port: number) => string>> = {
  EADDRINUSE: (host, port) => `Port ${port} of ${host} is already in use. Choose another port with --port or PORT.`,
  EACCES: (host, port) =>
    `This user may not listen on port ${port} of ${host}. Choose another port with --port or PORT.`,
  EADDRNOTAVAIL: (host) => `${host} is not an address of this machine. ${otherHost}`,
  ENOTFOUND: (host) => `Could not resolve the host ${host}. ${otherHost}`,
  EAI_AGAIN: (host) => `Could not resolve the host ${host}. ${otherHost}`
}

/** The failure to listen, with what to do. */
export const listenError = (settings: Resolved, error: { readonly cause?: unknown }): CommandFailed => {
  const cause = error.cause as NodeJS.ErrnoException | undefined
  const { host, port } = settings.server
  const message = listenProblems[cause?.code ?? ""]?.(host, port) ??
    `Cannot listen on ${host}, port ${port}: ${cause?.message ?? "unknown reason"}.`
  return new CommandFailed({ message })
}

/**
 * Which addresses the service may listen on: without keys, only those of this machine. Pure.
 *
 * **Details**
 *
 * Everyone who reaches the port of a service without keys uses its models and the provider keys of its owner, and reads what
 * others do. So a wider address needs a key, or the setting that says that this is wanted.
 */
import { Result, Schema } from "effect"
import type { Resolved } from "../../services/settings/Settings.ts"
import { isLoopbackOnly } from "./Cors.ts"

/** The address would open the service to everyone. */
export class UnprotectedError extends Schema.TaggedError<UnprotectedError>()("UnprotectedError", {
  message: Schema.String
}) {}

type Settings = Pick<Resolved, "environment"> & { readonly server: Pick<Resolved["server"], "allowAnonymous" | "host"> }

const createKey = "create a key with `troupe keys create NAME`, or declare one under `keys` in troupe.yaml"

const refusal = ({ environment, server: { allowAnonymous, host } }: Settings): string => {
  const why =
    `The service has no keys, and other machines reach it at ${host}: everyone there could use its models and ` +
    "its provider keys."
  if (environment !== "production") {
    return `${why} Either ${createKey}; or set server.allowAnonymous: true, if this is wanted; or listen on 127.0.0.1.`
  }
  const ignored = allowAnonymous ? " server.allowAnonymous does not apply in production." : ""
  return `${why}${ignored} In production, ${createKey}; or listen on 127.0.0.1.`
}

/** @param hasKeys whether requests need a key */
export const check = (settings: Settings, hasKeys: boolean): Result.Result<void, UnprotectedError> => {
  const { environment, server: { allowAnonymous, host } } = settings
  const isAllowed = hasKeys || isLoopbackOnly(host) || (allowAnonymous && environment !== "production")
  return isAllowed ? Result.void : Result.fail(new UnprotectedError({ message: refusal(settings) }))
}

/** Who may call the service, for the message at its start. */
export const callersText = ({ host }: Resolved["server"], hasKeys: boolean): string => {
  if (hasKeys) return "Requests need a key; `troupe keys ls` lists them"
  return isLoopbackOnly(host)
    ? "No keys exist: programs on this machine may call it without one. `troupe keys create NAME` makes the first"
    : "No keys exist, and server.allowAnonymous is set: everyone who reaches this address may call it"
}

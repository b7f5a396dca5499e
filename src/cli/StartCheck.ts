/**
 * What stops `troupe serve` although the settings are valid: what several processes cannot share, two listeners on one port,
 * and an address that it refuses. For `troupe config check`.
 *
 * **Details**
 *
 * Whether a service has keys depends on its database too. One in a file that exists is read. One that does not exist yet, or
 * that is on another machine, may get keys before the service starts: then the refusal is a warning.
 */
import { Effect, Layer, Option, Result } from "effect"
import { existsSync } from "node:fs"
import * as App from "../App.ts"
import type { Problem } from "../domain/Problem.ts"
import * as Binding from "../layers/http/Binding.ts"
import { fileIn } from "../layers/persistence/Storage.ts"
import { VirtualKeys } from "../services/keys/VirtualKeys.ts"
import * as Shares from "../services/processes/Shares.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { Settings } from "../services/settings/Settings.ts"
import { addressOf, hostOf, portProblem, processCount } from "./Flags.ts"

/** What would stop the service. */
export interface Found {
  readonly problems: ReadonlyArray<Problem>
  readonly warnings: ReadonlyArray<Problem>
}

const nothing: Found = { problems: [], warnings: [] }

const portProblems = (): ReadonlyArray<Problem> => {
  const expected = portProblem()
  return expected === undefined ? [] : [{ path: "PORT", expected }]
}

/** What several processes cannot share. */
const shareProblems = (settings: Resolved): ReadonlyArray<Problem> => {
  const count = processCount(settings.server.processes)
  return count === 1 ? [] : Shares.problemsOf(settings, count)
}

/** Hosts whose port is that of 127.0.0.1 too. */
const withLoopback = new Set(["127.0.0.1", "localhost", "0.0.0.0", "::"])

/** Administration listens on 127.0.0.1. */
const adminProblems = ({ server }: Resolved): Effect.Effect<ReadonlyArray<Problem>> =>
  Effect.map(Effect.option(addressOf(server)), (address) => {
    const { port } = server.admin
    return port !== 0 && Option.isSome(address) && address.value.port === port && withLoopback.has(address.value.host)
      ? [{ path: "server.admin.port", expected: `Expected another port than ${port}, on which the service listens` }]
      : []
  })

/** Whether the settings or their database have keys; undefined if another database may have them. */
const hasKeys = Effect.fnUntraced(function*(settings: Resolved) {
  const { keys, storage } = settings
  if (keys.length > 0) return true
  if (storage.type === "memory") return false
  if (storage.type === "postgres" || !existsSync(fileIn(storage.folder))) return undefined
  const found = yield* Effect.map(VirtualKeys, ({ state }) => state.areRequired).pipe(
    Effect.provide(Layer.provide(App.keys, Layer.succeed(Settings, settings))),
    Effect.option
  )
  return Option.getOrUndefined(found)
})

/** The address, if everyone who reaches it could use the service. */
const addressProblems = Effect.fnUntraced(function*(settings: Resolved) {
  const host = hostOf(settings.server)
  const bound = { ...settings, server: { ...settings.server, host } }
  const refusal = Result.getFailure(Binding.check(bound, false))
  if (Option.isNone(refusal)) return nothing
  const found = yield* hasKeys(settings)
  if (found === true) return nothing
  const path = process.env["HOST"] ? "HOST" : "server.host"
  const { message } = refusal.value
  return found === false
    ? { ...nothing, problems: [{ path, expected: message.replace(/\.$/, "") }] }
    : {
      ...nothing,
      warnings: [{ path, expected: `Without a key in its database the service does not start. ${message}` }]
    }
})

/** What would stop `troupe serve`; without settings, only what the environment has. */
export const find = (settings: Resolved | undefined): Effect.Effect<Found> =>
  settings === undefined
    ? Effect.sync(() => ({ ...nothing, problems: portProblems() }))
    : Effect.gen(function*() {
      const { problems, warnings } = yield* addressProblems(settings)
      const ofAdmin = yield* adminProblems(settings)
      return { problems: [...portProblems(), ...shareProblems(settings), ...ofAdmin, ...problems], warnings }
    })

/**
 * Where the services of this user run, so that the other commands find them: with a configuration file or without one, on whatever port.
 *
 * **Details**
 *
 * A service writes a record beside the default sockets of administration, named after its process, and removes it when it stops. The
 * record of a process that has ended without doing so is left out.
 */
import { Effect, Option, Schema } from "effect"
import { lstatSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { Bound } from "../services/processes/ProcessGroup.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
import { temporaryFiles } from "./Signals.ts"

const Place = Schema.Struct({
  /** Of the process that was started. */
  pid: Schema.Int,
  /** Its configuration file, absolute; left out, it has none. */
  file: Schema.optionalKey(Schema.String),
  /** Of the models. */
  url: Schema.String,
  /** File of the socket of administration. */
  socket: Schema.optionalKey(Schema.String),
  /** URL of the port of administration. */
  adminUrl: Schema.optionalKey(Schema.String)
})

/** Where a service runs. */
export type Place = typeof Place.Type

const encode = Schema.encodeSync(Schema.fromJsonString(Place))
const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Place))

/** On Windows, where the socket is a named pipe, the folder of temporary files belongs to the user. */
const folderOf = (): string => process.platform === "win32" ? tmpdir() : dirname(defaultSocket(0, tmpdir(), process))

const recordName = /^service-\d+\.json$/

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

const readRecord = (path: string): ReadonlyArray<Place> => {
  try {
    // The token of administration is sent there.
    if (lstatSync(path).uid !== (process.getuid?.() ?? 0)) return []
    return Option.toArray(Option.filter(decode(readFileSync(path, "utf8")), ({ pid }) => runs(pid)))
  } catch {
    return []
  }
}

const namesIn = (folder: string): ReadonlyArray<string> => {
  try {
    return readdirSync(folder).filter((name) => recordName.test(name))
  } catch {
    return []
  }
}

/** The services that run, by their URLs. */
export const all = (): ReadonlyArray<Place> => {
  const folder = folderOf()
  return namesIn(folder).flatMap((name) => readRecord(join(folder, name)))
    .toSorted((one, other) => one.url < other.url ? -1 : 1)
}

/** Of these services, those of this file; those without a file where there is none at the default place. */
export const ofFile = (
  places: ReadonlyArray<Place>,
  file: string | undefined,
  exists: (path: string) => boolean
): ReadonlyArray<Place> => {
  const path = resolve(file ?? SettingsFile.defaultFile)
  const own = places.filter((place) => place.file === path)
  if (own.length > 0 || file !== undefined || exists(path)) return own
  return places.filter((place) => place.file === undefined)
}

/** A service in a message. */
export const textOf = ({ file, url }: Place): string => file === undefined ? url : `${url} (${file})`

const remove = (path: string, text: string): void => {
  temporaryFiles.delete(path)
  try {
    if (readFileSync(path, "utf8") === text) rmSync(path)
  } catch {
    // Removed already.
  }
}

/**
 * Records where this service runs, until the scope ends. A record that cannot be written is left out.
 *
 * @param file its configuration file; undefined: it has none
 */
export const record = (file: string | undefined, { admin, bound }: Pick<Bound, "admin" | "bound">) => {
  const { socket, url: adminUrl } = admin
  const path = join(folderOf(), `service-${process.pid}.json`)
  const text = encode({
    pid: process.pid,
    ...(file === undefined ? {} : { file: resolve(file) }),
    url: bound,
    ...(socket === undefined ? {} : { socket: resolve(socket) }),
    ...(adminUrl === undefined ? {} : { adminUrl })
  })
  return Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      try {
        rmSync(path, { force: true })
        writeFileSync(path, text, { mode: 0o600, flag: "wx" })
        temporaryFiles.add(path)
      } catch {
        // Without its folder there is no default socket: the command line needs the configured address.
      }
    }),
    () => Effect.sync(() => remove(path, text))
  ))
}

/**
 * Where the service that was started with a configuration file runs, so that `troupe reload` finds it also when the file has another
 * port now, or is invalid.
 *
 * **Details**
 *
 * The service writes a record beside the default sockets of administration, named after the path of the file, and removes it when
 * it stops. Two services of one file: the record is that of the one that was started last.
 */
import { Effect, Option, Schema } from "effect"
import { createHash } from "node:crypto"
import { lstatSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { Bound } from "../services/processes/ProcessGroup.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
import { temporaryFiles } from "./Signals.ts"

const Place = Schema.Struct({
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

/** @param file default: `troupe.yaml` in the current folder */
const recordOf = (file: string | undefined): string => {
  const path = resolve(file ?? SettingsFile.defaultFile)
  const hash = createHash("sha256").update(path).digest("hex").slice(0, 32)
  // On Windows, where the socket is a named pipe, the folder of temporary files belongs to the user.
  const folder = process.platform === "win32" ? tmpdir() : dirname(defaultSocket(0, tmpdir(), process))
  return join(folder, `troupe-${hash}.json`)
}

const readRecord = (path: string): Option.Option<Place> => {
  try {
    // The token of administration is sent there.
    if (lstatSync(path).uid !== (process.getuid?.() ?? 0)) return Option.none()
    return decode(readFileSync(path, "utf8"))
  } catch {
    return Option.none()
  }
}

/** Where the service of this file runs, or has run: one that was killed leaves its record. */
export const find = (file: Option.Option<string>): Option.Option<Place> =>
  readRecord(recordOf(Option.getOrUndefined(file)))

const remove = (path: string, text: string): void => {
  temporaryFiles.delete(path)
  try {
    if (readFileSync(path, "utf8") === text) rmSync(path)
  } catch {
    // Removed already.
  }
}

/** Records where the service of this file runs, until the scope ends. A record that cannot be written is left out. */
export const record = (file: Option.Option<string>, { admin, bound }: Pick<Bound, "admin" | "bound">) => {
  const { socket, url: adminUrl } = admin
  const path = recordOf(Option.getOrUndefined(file))
  const text = encode({
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

/** Why storage cannot be used, as one line: what is wrong, where, and what to do. Pure. */
import { Schema } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"

/** Storage that cannot be used. The message is one line and contains no secret. */
export class StorageError extends Schema.TaggedError<StorageError>()("StorageError", {
  /** What is stored where: the path of a file, or host and port. */
  place: Schema.String,
  message: Schema.String
}) {}

/** What to do for a result code of SQLite, of which the lowest 8 bits name the class. */
const advice: Readonly<Record<number, readonly [what: string, todo: string]>> = {
  5: ["is locked by another program", "Stop that program, or set storage.folder or TROUPE_DATA to another folder"],
  6: ["is locked by another program", "Stop that program, or set storage.folder or TROUPE_DATA to another folder"],
  8: ["is read-only", "Give this user write access, or set storage.folder or TROUPE_DATA to another folder"],
  10: [
    "cannot be read or written (I/O error)",
    "Check the disk, or set storage.folder or TROUPE_DATA to another folder"
  ],
  11: ["is damaged", "Restore it from a backup, or move it away to start empty"],
  13: [
    "cannot grow: the disk is full",
    "Free space on the disk, or set storage.folder or TROUPE_DATA to another folder"
  ],
  14: [
    "cannot be opened",
    "Check that this user may write its folder, or set storage.folder or TROUPE_DATA to another folder"
  ],
  26: ["is not an SQLite database", "Move it away, or set storage.folder or TROUPE_DATA to another folder"]
}

/** What to do for an error of the file system. */
const fileAdvice: Readonly<Record<string, readonly [what: string, todo: string]>> = {
  EACCES: [
    "cannot be written by this user",
    "Give this user write access, or set storage.folder or TROUPE_DATA to another folder"
  ],
  EPERM: [
    "cannot be written by this user",
    "Give this user write access, or set storage.folder or TROUPE_DATA to another folder"
  ],
  EROFS: ["is on a read-only file system", "Set storage.folder or TROUPE_DATA to a folder that can be written"],
  ENOSPC: [
    "cannot be written: the disk is full",
    "Free space on the disk, or set storage.folder or TROUPE_DATA to another folder"
  ],
  ENOTDIR: ["cannot be created: a part of its path is a file", "Set storage.folder or TROUPE_DATA to another folder"],
  EEXIST: ["cannot be created: a part of its path is a file", "Set storage.folder or TROUPE_DATA to another folder"],
  EISDIR: ["is a folder, not a file", "Move it away, or set storage.folder or TROUPE_DATA to another folder"]
}

interface Failure {
  readonly message: string
  /** Extended result code of SQLite. */
  readonly errcode?: number
  /** Code of an error of the file system or of Postgres. */
  readonly code?: string
  readonly _tag?: string
}

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message || cause.name : String(cause)

/** The first error in a chain of causes that is no wrapper. */
export const rootCause = ({ reason }: SqlError): Failure => {
  let cause: unknown = reason
  for (let depth = 0; depth < 8; depth++) {
    const next = (cause as { readonly cause?: unknown }).cause
    if (typeof next !== "object" || next === null) break
    cause = next
  }
  return cause as Failure
}

/** The error of an SQLite file that cannot be opened, read or written. */
export const sqliteError = (file: string, error: SqlError): StorageError => {
  const { code = "", errcode, message } = rootCause(error)
  const [what, todo] = (errcode === undefined ? fileAdvice[code] : advice[errcode & 0xff]) ??
    [`cannot be used: ${message}`, "Set storage.folder or TROUPE_DATA to another folder"]
  return new StorageError({ place: file, message: `The database ${file} ${what}. ${todo}.` })
}

/** Errors of values that the driver of Postgres cannot send. */
const unsendable: ReadonlySet<unknown> = new Set(["PgTypesCodecError", "PgProtocolEncodeError"])

/** Whether the values of a statement are the reason, so that another attempt fails too. */
export const isRejected = (error: RedisError | SqlError): boolean => {
  if (error._tag === "RedisError") return false
  const { _tag } = error.reason
  if (_tag === "UniqueViolation" || _tag === "ConstraintError" || _tag === "SqlSyntaxError") return true
  const cause = rootCause(error)
  // Class 22 of Postgres: data exceptions, such as a number out of range, or a NUL in a text.
  return cause.code?.startsWith("22") === true || unsendable.has(cause._tag)
}

/** What is wrong with the database or the Redis of an error, without a path or an address. */
export const summaryOf = (error: RedisError | SqlError): string => {
  if (error._tag === "RedisError") return `Redis failed (${messageOf(error.cause)})`
  const { errcode, message } = rootCause(error)
  const what = errcode === undefined ? undefined : advice[errcode & 0xff]?.[0]
  return what === undefined ? `the database failed (${message})` : `the database ${what}`
}

/** Host, port and database of a URL, without user and password. */
export const placeOf = (url: string, defaultPort: number): string => {
  const { hostname, pathname, port } = new URL(url)
  return `${hostname}:${port || defaultPort}${pathname === "/" ? "" : pathname}`
}

/** What to do for a server that cannot be used. */
const serverAdvice = (server: string, setting: string, { reason }: SqlError): readonly [what: string, todo: string] => {
  switch (reason._tag) {
    case "AuthenticationError":
      return ["rejected the user or the password", `Check the user and the password in ${setting}`]
    case "AuthorizationError":
      return ["denies this user access", `Grant the user of ${setting} access to the database`]
    default:
      return ["cannot be reached", `Start ${server}, or check ${setting}`]
  }
}

/** The error of a Postgres that cannot be used. */
export const postgresError = (url: string, error: SqlError): StorageError => {
  const [what, todo] = serverAdvice("Postgres", "storage.url", error)
  const place = placeOf(url, 5432)
  return new StorageError({
    place,
    message: `The database at ${place} ${what} (${rootCause(error).message}). ${todo}.`
  })
}

/** The error of a Redis that cannot be used. */
export const redisError = (url: string, cause: unknown): StorageError => {
  const place = placeOf(url, 6379)
  const message = messageOf(cause)
  const [what, todo] = /^(?:WRONGPASS|NOAUTH|NOPERM)/.test(message)
    ? ["rejected the user or the password", "Check the user and the password in redis.url"]
    : ["cannot be reached", "Start Redis, or check redis.url"]
  return new StorageError({ place, message: `Redis at ${place} ${what} (${message}). ${todo}.` })
}

/** The error of a package that is not installed: it is an optional dependency. */
export const missingPackage = (name: string, setting: string): StorageError =>
  new StorageError({ place: name, message: `${setting} needs the package ${name}. Run npm install ${name}.` })

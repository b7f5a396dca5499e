/**
 * Brings one file to the disk as `<file>.part`, whole and checked: a cut is tried again from where it was cut, and so
 * is a pull that ended with its process.
 */
import type { Duration, Schedule } from "effect"
import { Duration as Durations, Effect, Option, Result, Schedule as Schedules, Schema, Stream } from "effect"
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { mkdir, open, readFile, rm, stat, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import { pullUnreachableRetries } from "../../domain/Defaults.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { Progress } from "../../services/store/ModelStore.ts"
import {
  ChecksumMismatch,
  DiskFull,
  DownloadFailed,
  fail,
  ModelStoreError,
  StoreUnusable
} from "../../services/store/ModelStore.ts"
import type { Opened, Origin } from "./Origin.ts"
import { Cut } from "./Origin.ts"

/** A file that has arrived, under `part`. */
export interface Arrived {
  readonly origin: Origin
  readonly part: string
  readonly bytes: number
  readonly sha256: string
  readonly etag: string | undefined
  readonly revision: string | undefined
}

export interface DownloadOptions {
  readonly origin: Origin
  /** Where the file will be; it arrives beside it. */
  readonly target: string
  /** Tries after failures in a row; a try that brought bytes starts the count anew. */
  readonly retry: Schedule.Schedule<unknown>
  /** Whether the same pull has brought another file: then a host that cannot be reached is tried as long as any other. */
  readonly hasBegun?: boolean
  /** A connection without a byte for so long counts as cut. */
  readonly stallAfter: Duration.Duration
  /** Bytes this file may take. */
  readonly room: number
  readonly report: (progress: Progress) => Effect.Effect<unknown>
}

const folderOf = (options: DownloadOptions): string => dirname(options.target)

const readOnly = new Set<string | undefined>(["EROFS", "EACCES", "EPERM"])

/** What the disk said. */
export const diskError = (path: string, cause: unknown, neededBytes = 1): ModelStoreError => {
  const { code, message } = cause as NodeJS.ErrnoException
  if (code === "ENOSPC" || code === "EDQUOT") {
    return fail(new DiskFull({ folder: dirname(path), neededBytes, availableBytes: 0 }))
  }
  const detail = readOnly.has(code)
    ? `this process has no write permission (${code}). Make the folder writable, or choose another store.folder`
    : code ?? message
  return fail(new StoreUnusable({ path, detail }))
}

/** Runs something of the disk's. */
export const onDisk = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ModelStoreError> =>
  Effect.tryPromise({ try: run, catch: (cause) => diskError(path, cause) })

/** What stands beside a part: of which file it is. */
const PartNote = Schema.fromJsonString(Schema.Struct({ label: Schema.String, etag: Schema.optionalKey(Schema.String) }))

interface Part {
  readonly bytes: number
  readonly etag: string | undefined
}

const nothingYet: Part = { bytes: 0, etag: undefined }

/** What there is of the file, if it is certain to be of this file. */
const findPart = ({ origin, target }: DownloadOptions): Effect.Effect<Part> =>
  Effect.gen(function*() {
    const text = yield* Effect.promise(() => readFile(`${target}.part.json`, "utf8").catch(() => ""))
    const note = Option.getOrUndefined(Schema.decodeOption(PartNote)(text))
    const size = yield* Effect.promise(() => stat(`${target}.part`).then(({ size }) => size, () => 0))
    const isKnown = note?.label === origin.label && (note.etag !== undefined || origin.sha256 !== undefined)
    const fits = origin.bytes === undefined || size <= origin.bytes
    return isKnown && fits ? { bytes: size, etag: note.etag } : nothingYet
  })

const removePart = (target: string) =>
  onDisk(target, () => Promise.all([rm(`${target}.part`, { force: true }), rm(`${target}.part.json`, { force: true })]))

const hashOf = (path: string, bytes: number) =>
  onDisk(path, async () => {
    const hash = createHash("sha256")
    if (bytes > 0) {
      for await (const piece of createReadStream(path, { end: bytes - 1 })) hash.update(piece as Buffer)
    }
    return hash
  })

const openPart = (path: string, fromBytes: number) =>
  Effect.acquireRelease(
    onDisk(path, async () => {
      await mkdir(dirname(path), { recursive: true })
      const handle = await open(path, fromBytes === 0 ? "w" : "a")
      await handle.truncate(fromBytes)
      return handle
    }),
    (handle) => Effect.promise(() => handle.close().catch(() => {}))
  )

const wrongSize = (origin: Origin, detail: string) => fail(new DownloadFailed({ url: origin.label, detail }))

/** What the whole file's size is said to be; two sources that differ cannot both be right. */
const totalOf = (origin: Origin, opened: Opened): Result.Result<number | undefined, ModelStoreError> =>
  origin.bytes !== undefined && opened.totalBytes !== undefined && origin.bytes !== opened.totalBytes
    ? Result.fail(wrongSize(origin, `the file has ${opened.totalBytes} bytes, but ${origin.bytes} were announced`))
    : Result.succeed(origin.bytes ?? opened.totalBytes)

/** Writes what arrives; gives how many bytes there are then. */
const receive = Effect.fnUntraced(function*(
  options: DownloadOptions,
  opened: Opened,
  total: number | undefined,
  write: (piece: Uint8Array) => Promise<void>,
  counted: (bytes: number) => void
) {
  const { origin, report, room, stallAfter } = options
  let received = opened.fromBytes
  const most = Math.min(room, total ?? Number.POSITIVE_INFINITY)
  yield* opened.body.pipe(
    Stream.timeoutOrElse({
      duration: stallAfter,
      orElse: () => Stream.fail(new Cut({ detail: `no data was received for ${Durations.toSeconds(stallAfter)} s` }))
    }),
    Stream.runForEach((piece) =>
      Effect.gen(function*() {
        if (received + piece.length > most) {
          return yield* most === room
            ? fail(
              new DiskFull({ folder: folderOf(options), neededBytes: received + piece.length, availableBytes: room })
            )
            : wrongSize(origin, `more than the announced ${total} bytes were received`)
        }
        const missing = (total ?? received + piece.length) - received
        yield* Effect.tryPromise({
          try: () => write(piece),
          catch: (cause) => diskError(options.target, cause, missing)
        })
        received += piece.length
        counted(received)
        yield* report({ type: "received", file: origin.path, receivedBytes: received, totalBytes: total })
      })
    )
  )
  if (total !== undefined && received < total) {
    return yield* new Cut({ detail: `the connection closed after ${received} of ${total} bytes` })
  }
  return received
})

/** Room is looked for before the first byte. */
const checkRoom = (options: DownloadOptions, total: number | undefined) =>
  total !== undefined && total > options.room
    ? fail(new DiskFull({ folder: folderOf(options), neededBytes: total, availableBytes: options.room }))
    : Effect.void

const openOrigin = ({ origin, report, stallAfter }: DownloadOptions, from: Part) =>
  Effect.gen(function*() {
    if (from.bytes > 0) yield* report({ type: "resumed", file: origin.path, fromBytes: from.bytes })
    // All of it is here: nothing to ask for.
    if (from.bytes > 0 && from.bytes === origin.bytes) {
      return {
        fromBytes: from.bytes,
        totalBytes: from.bytes,
        etag: from.etag,
        sha256: undefined,
        revision: undefined,
        body: Stream.empty
      } satisfies Opened
    }
    return yield* Effect.timeoutOrElse(origin.open(from.bytes, from.etag), {
      duration: stallAfter,
      orElse: () => new Cut({ detail: `the server did not respond within ${Durations.toSeconds(stallAfter)} s` })
    })
  })

const writeNote = (target: string, origin: Origin, etag: string | undefined) =>
  onDisk(
    target,
    () =>
      writeFile(`${target}.part.json`, JSON.stringify({ label: origin.label, ...(etag === undefined ? {} : { etag }) }))
  )

const writeTo = (handle: FileHandle, hash: { update(piece: Uint8Array): unknown }) => async (piece: Uint8Array) => {
  await handle.appendFile(piece)
  hash.update(piece)
}

/** One try. */
const attempt = (options: DownloadOptions, counted: (bytes: number) => void) =>
  Effect.scoped(Effect.gen(function*() {
    const { origin, target } = options
    const part = `${target}.part`
    const opened = yield* openOrigin(options, yield* findPart(options))
    const total = yield* Effect.fromResult(totalOf(origin, opened))
    yield* checkRoom(options, total)
    const handle = yield* openPart(part, opened.fromBytes)
    yield* writeNote(target, origin, opened.etag)
    const hash = yield* hashOf(part, opened.fromBytes)
    const bytes = yield* receive(options, opened, total, writeTo(handle, hash), counted)
    yield* onDisk(part, () => handle.sync())
    const expected = origin.sha256 ?? opened.sha256
    const sha256 = hash.digest("hex")
    if (expected !== undefined && sha256 !== expected) {
      yield* removePart(target)
      // What was there before may have been wrong, not what came now.
      if (opened.fromBytes > 0) return yield* new Cut({ detail: "the resumed part does not match the checksum" })
      return yield* fail(new ChecksumMismatch({ file: origin.path, expected, actual: sha256 }))
    }
    return { origin, part, bytes, sha256, etag: opened.etag, revision: opened.revision } satisfies Arrived
  }))

/** When to try again after so many failures in a row; undefined when not. */
const delayAfter = Effect.fnUntraced(function*(
  step: Effect.Success<ReturnType<typeof Schedules.toStep<unknown, unknown, never, never>>>,
  cut: Cut
) {
  const now = yield* Monotonic.now
  const next = yield* Effect.result(step(now, cut))
  return Result.isSuccess(next)
    ? Math.max(Durations.toMillis(next.success[1]), cut.retryAfterMs ?? 0)
    : undefined
})

/** Downloads one file to its part; fails when its failures do not pass. */
export const download = Effect.fnUntraced(function*(options: DownloadOptions) {
  const { hasBegun = false, origin, report, retry } = options
  let attempts = 0
  // A server without ranges sends the same bytes again: that is no progress.
  let furthest = 0
  let unreachable = 0
  const isLost = (cut: Cut): boolean => {
    if (cut.isUnreachable === true && furthest === 0 && !hasBegun) unreachable++
    return unreachable > pullUnreachableRetries
  }
  for (;;) {
    const step = yield* Schedules.toStep(retry)
    let progressed = false
    while (!progressed) {
      const result = yield* Effect.result(attempt(options, (bytes) => {
        progressed ||= bytes > furthest
        furthest = Math.max(furthest, bytes)
      }))
      if (Result.isSuccess(result)) return result.success
      const cut = result.failure
      if (cut instanceof ModelStoreError) return yield* cut
      const delayMs = isLost(cut) ? undefined : yield* delayAfter(step, cut)
      attempts++
      if (delayMs === undefined) {
        return yield* fail(new DownloadFailed({ url: origin.label, detail: cut.detail, attempts }))
      }
      yield* report({ type: "retry", file: origin.path, attempt: attempts, delayMs, detail: cut.detail })
      yield* Effect.sleep(delayMs)
    }
  }
})

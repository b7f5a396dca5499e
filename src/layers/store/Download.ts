/**
 * Downloads one file as `<file>.part` and verifies it. A download that was interrupted, in this process or an earlier one,
 * resumes where it ended.
 */
import type { Duration, Schedule } from "effect"
import { Duration as Durations, Effect, Option, Result, Schedule as Schedules, Schema, Stream } from "effect"
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { mkdir, open, readFile, rm, stat, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import { pullUnreachableRetries } from "../../domain/Defaults.ts"
import * as Time from "../../domain/Time.ts"
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

/** A downloaded file, at `part`. */
export interface Downloaded {
  readonly origin: Origin
  readonly part: string
  readonly bytes: number
  readonly sha256: string
  readonly etag: string | undefined
  readonly revision: string | undefined
}

export interface DownloadOptions {
  readonly origin: Origin
  /** Final path of the file. */
  readonly target: string
  /** Delays after consecutive failures; an attempt that receives new bytes resets the count. */
  readonly retry: Schedule.Schedule<unknown>
  /** Whether the same pull has downloaded another file: then an unreachable host is retried like any other failure. */
  readonly hasBegun?: boolean
  /** Time without a byte after which a connection counts as lost. */
  readonly stallAfter: Duration.Duration
  /** Limit of the file, bytes. */
  readonly maxBytes: number
  readonly report: (progress: Progress) => Effect.Effect<unknown>
}

const folderOf = (options: DownloadOptions): string => dirname(options.target)

const readOnly = new Set<string | undefined>(["EROFS", "EACCES", "EPERM"])

/** The error for a failure of the file system. */
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

/** Runs an operation of the file system. */
export const onDisk = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, ModelStoreError> =>
  Effect.tryPromise({ try: run, catch: (cause) => diskError(path, cause) })

/** Written beside a part: the identity of the file that is downloaded. */
const PartNote = Schema.fromJsonString(Schema.Struct({ label: Schema.String, etag: Schema.optionalKey(Schema.String) }))

interface Part {
  readonly bytes: number
  readonly etag: string | undefined
}

const nothingYet: Part = { bytes: 0, etag: undefined }

/** The existing part, if it is certainly a part of this file. */
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

/** The announced size of the complete file; fails if two sources differ. */
const totalOf = (origin: Origin, opened: Opened): Result.Result<number | undefined, ModelStoreError> =>
  origin.bytes !== undefined && opened.totalBytes !== undefined && origin.bytes !== opened.totalBytes
    ? Result.fail(wrongSize(origin, `the file has ${opened.totalBytes} bytes, but ${origin.bytes} were announced`))
    : Result.succeed(origin.bytes ?? opened.totalBytes)

/** Writes the received bytes; returns the size of the part. */
const receive = Effect.fnUntraced(function*(
  options: DownloadOptions,
  opened: Opened,
  total: number | undefined,
  write: (piece: Uint8Array) => Promise<void>,
  counted: (bytes: number) => void
) {
  const { origin, report, maxBytes, stallAfter } = options
  let received = opened.fromBytes
  const most = Math.min(maxBytes, total ?? Number.POSITIVE_INFINITY)
  yield* opened.body.pipe(
    Stream.timeoutOrElse({
      duration: stallAfter,
      orElse: () => Stream.fail(new Cut({ detail: `no data was received for ${Durations.toSeconds(stallAfter)} s` }))
    }),
    Stream.runForEach((piece) =>
      Effect.gen(function*() {
        if (received + piece.length > most) {
          return yield* most === maxBytes
            ? fail(
              new DiskFull({
                folder: folderOf(options),
                neededBytes: received + piece.length,
                availableBytes: maxBytes
              })
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

/** Checks the space before the first byte. */
const checkSpace = (options: DownloadOptions, total: number | undefined) =>
  total !== undefined && total > options.maxBytes
    ? fail(new DiskFull({ folder: folderOf(options), neededBytes: total, availableBytes: options.maxBytes }))
    : Effect.void

const openOrigin = ({ origin, report, stallAfter }: DownloadOptions, from: Part) =>
  Effect.gen(function*() {
    if (from.bytes > 0) yield* report({ type: "resumed", file: origin.path, fromBytes: from.bytes })
    // The part is complete.
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

/** One attempt. */
const attempt = (options: DownloadOptions, counted: (bytes: number) => void) =>
  Effect.scoped(Effect.gen(function*() {
    const { origin, target } = options
    const part = `${target}.part`
    const opened = yield* openOrigin(options, yield* findPart(options))
    const total = yield* Effect.fromResult(totalOf(origin, opened))
    yield* checkSpace(options, total)
    const handle = yield* openPart(part, opened.fromBytes)
    yield* writeNote(target, origin, opened.etag)
    const hash = yield* hashOf(part, opened.fromBytes)
    const bytes = yield* receive(options, opened, total, writeTo(handle, hash), counted)
    yield* onDisk(part, () => handle.sync())
    const expected = origin.sha256 ?? opened.sha256
    const sha256 = hash.digest("hex")
    if (expected !== undefined && sha256 !== expected) {
      yield* removePart(target)
      // The existing part may have been wrong, not the received bytes.
      if (opened.fromBytes > 0) return yield* new Cut({ detail: "the resumed part does not match the checksum" })
      return yield* fail(new ChecksumMismatch({ file: origin.path, expected, actual: sha256 }))
    }
    return { origin, part, bytes, sha256, etag: opened.etag, revision: opened.revision } satisfies Downloaded
  }))

/** The delay before the next attempt, ms; undefined if no attempt remains. */
const delayAfter = Effect.fnUntraced(function*(
  step: Effect.Success<ReturnType<typeof Schedules.toStep<unknown, unknown, never, never>>>,
  cut: Cut
) {
  const now = yield* Time.now
  const next = yield* Effect.result(step(now, cut))
  return Result.isSuccess(next)
    ? Math.max(Durations.toMillis(next.success[1]), cut.retryAfterMs ?? 0)
    : undefined
})

/** Downloads one file to its part; fails when the retries are used up. */
export const download = Effect.fnUntraced(function*(options: DownloadOptions) {
  const { hasBegun = false, origin, report, retry } = options
  let attempts = 0
  // A server without range requests sends the same bytes again, which is no progress.
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

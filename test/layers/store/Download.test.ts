/** Downloads over a real connection that is cut, slow, or sends wrong data. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Result, Schedule } from "effect"
import { HttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { describe } from "vitest"
import type { DownloadOptions } from "../../../src/layers/store/Download.ts"
import { download } from "../../../src/layers/store/Download.ts"
import * as Http from "../../../src/layers/store/Http.ts"
import type { Progress } from "../../../src/services/store/ModelStore.ts"
import type { Fault, ModelServer, Seen } from "../../support/ModelServer.ts"
import { sha256Of, startModelServer } from "../../support/ModelServer.ts"
import { temporaryFolder, until } from "../../support/Service.ts"

/** Its pieces all differ. */
const makeBytes = (length: number): Uint8Array => {
  const words = new Uint32Array(Math.ceil(length / 4)).map((_, index) => Math.imul(index + 1, 0x9e3779b1))
  return new Uint8Array(words.buffer, 0, length)
}
const bytes = makeBytes(300_000)
const sha256 = sha256Of(bytes)

interface Try {
  readonly server: ModelServer
  readonly target: string
  readonly events: Array<Progress>
  /** One pull; the second argument is the announced file. */
  readonly pull: (
    given?: Partial<DownloadOptions>,
    origin?: { sha256?: string; bytes?: number; headers?: Record<string, string> }
  ) => Effect.Effect<string, { readonly reason: { readonly _tag: string }; readonly message: string }>
}

const withServer = (
  faultOf: (index: number, seen: Seen) => Fault | undefined,
  use: (it: Try) => Effect.Effect<void, unknown>
) =>
  Effect.scoped(Effect.gen(function*() {
    const folder = yield* Effect.acquireDisposable(Effect.sync(temporaryFolder))
    const server = yield* Effect.acquireRelease(
      Effect.promise(() => startModelServer({ "file.bin": bytes }, faultOf)),
      (server) => Effect.promise(server.close)
    )
    const client = yield* HttpClient.HttpClient
    const target = join(folder.path, "file.bin")
    const events: Array<Progress> = []
    const pull: Try["pull"] = (given, origin) =>
      Effect.gen(function*() {
        const arrived = yield* download({
          origin: Http.make(client, {
            path: "file.bin",
            url: `${server.url}/org/model/resolve/main/file.bin?secret=hush`,
            headers: {},
            bytes: undefined,
            sha256: undefined,
            ...origin
          }),
          target,
          retry: Schedule.upTo(Schedule.spaced("1 millis"), { times: 3 }),
          stallAfter: Duration.seconds(30),
          maxBytes: 1e9,
          report: (progress) => Effect.sync(() => events.push(progress)),
          ...given
        })
        assert.strictEqual(sha256Of(readFileSync(arrived.part)), arrived.sha256)
        return arrived.sha256
      })
    yield* use({ server, target, events, pull })
  })).pipe(Effect.provide(NodeHttpClient.layerNodeHttp))

const reasonOf = (pull: ReturnType<Try["pull"]>) =>
  Effect.map(Effect.flip(pull), ({ reason }): Readonly<Record<string, unknown>> => ({ ...reason }))

describe("download", () => {
  it.live("downloads the bytes and reports their number", () =>
    withServer(() => undefined, ({ events, pull }) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* pull(), sha256)
        const received = events.flatMap((event) => event.type === "received" ? [event] : [])
        assert.deepInclude(received.at(-1), { receivedBytes: bytes.length, totalBytes: bytes.length })
      })))

  it.live("resumes a cut connection, of the same file only", () =>
    withServer(
      (index) => index === 0 ? { cutAfter: 100_000 } : undefined,
      ({ events, pull, server }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* pull(), sha256)
          assert.strictEqual(server.seen[0]!.headers.range, undefined)
          assert.match(server.seen[1]!.headers.range!, /^bytes=[1-9]\d*-$/)
          assert.match(String(server.seen[1]!.headers["if-range"]), /^"[0-9a-f]{16}"$/)
          assert.isTrue(events.some((event) => event.type === "retry" && event.attempt === 1))
          assert.isBelow(server.sentBytes(), bytes.length + 100_000)
        })
    ))

  it.live("restarts if the server does not support ranges", () =>
    withServer(
      (index) => index === 0 ? { cutAfter: 100_000 } : { ignoreRanges: true },
      ({ pull, server }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* pull(), sha256)
          assert.strictEqual(server.sentBytes(), bytes.length + 100_000)
        })
    ))

  it.live("restarts if the file has changed, by the server's response or by its ETag alone", () =>
    withServer(
      (index) => index === 0 ? { cutAfter: 100_000, etag: "\"old\"", corruptAt: 5 } : undefined,
      ({ pull }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* pull(), sha256)
        })
    ))

  it.live("keeps no part of a file without a strong ETag or a checksum", () =>
    withServer(
      (index) => ({ etag: "W/\"weak\"", ...(index === 0 ? { cutAfter: 100_000 } : {}) }),
      ({ pull, server }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* pull(), sha256)
          assert.strictEqual(server.seen[1]!.headers.range, undefined)
        })
    ))

  it.live("resumes an earlier pull", () =>
    withServer(
      (index) => index < 5 ? { cutAfter: index === 0 ? 100_000 : 0 } : undefined,
      ({ pull, server }) =>
        Effect.gen(function*() {
          assert.strictEqual((yield* reasonOf(pull()))["_tag"], "DownloadFailed")
          assert.strictEqual(yield* pull(), sha256)
          assert.match(server.seen.at(-1)!.headers.range!, /^bytes=[1-9]/)
        })
    ))

  it.live("recognizes a complete part", () =>
    withServer(() => undefined, ({ pull, server }) =>
      Effect.gen(function*() {
        yield* pull()
        assert.strictEqual(yield* pull(), sha256)
        assert.strictEqual(yield* pull({}, { bytes: bytes.length, sha256 }), sha256)
        assert.strictEqual(server.sentBytes(), bytes.length)
      })))

  it.live("deletes bytes with a wrong checksum", () =>
    withServer(() => ({ corruptAt: 200_000 }), ({ pull, target }) =>
      Effect.gen(function*() {
        assert.deepInclude(yield* reasonOf(pull({}, { sha256 })), { _tag: "ChecksumMismatch", expected: sha256 })
        assert.isFalse(existsSync(`${target}.part`))
      })))

  it.live("downloads the complete file again if the part of an earlier pull was wrong", () =>
    withServer(
      (index) => index === 0 ? { cutAfter: 100_000, corruptAt: 50 } : undefined,
      ({ pull }) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* pull({}, { sha256 }), sha256)
        })
    ))

  for (
    const [status, reason] of [[401, "AccessDenied"], [403, "AccessDenied"], [404, "SourceNotFound"], [
      400,
      "DownloadFailed"
    ]] as const
  ) {
    it.live(`fails at once with ${reason} on status ${status}, without secrets in the message`, () =>
      withServer(() => ({ status }), ({ pull, server }) =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(pull())
          assert.strictEqual(error.reason._tag, reason)
          assert.notInclude(error.message, "hush")
          assert.strictEqual(server.seen.length, 1)
        })))
  }

  it.live("retries status 500 up to the limit", () =>
    withServer(() => ({ status: 500 }), ({ events, pull, server }) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(pull())
        assert.strictEqual(error.reason._tag, "DownloadFailed")
        assert.include(error.message, "HTTP status 500")
        assert.strictEqual(server.seen.length, 4)
        assert.deepStrictEqual(
          events.map((event) => event.type === "retry" ? event.attempt : event.type),
          [1, 2, 3]
        )
      })))

  it.live("explains a refused connection", () =>
    withServer(() => undefined, ({ events, pull, server }) =>
      Effect.gen(function*() {
        yield* Effect.promise(server.close)
        const error = yield* Effect.flip(pull())
        assert.include(error.message, " attempts: the connection was refused (ECONNREFUSED).")
        assert.deepInclude(events.at(-1), { type: "retry", detail: "the connection was refused (ECONNREFUSED)" })
      })))

  const often = { retry: Schedule.upTo(Schedule.spaced("1 millis"), { times: 20 }) }
  const retries = (events: ReadonlyArray<Progress>) => events.filter(({ type }) => type === "retry").length

  it.live("stops after a few attempts for an unreachable host", () =>
    withServer(() => undefined, ({ events, pull, server }) =>
      Effect.gen(function*() {
        yield* Effect.promise(server.close)
        assert.include((yield* Effect.flip(pull(often))).message, "ECONNREFUSED")
        assert.strictEqual(retries(events), 4)
      })))

  it.live("retries an unreachable host like any failure after a transfer of this or another file", () =>
    withServer(
      (index) => index === 0 ? { cutAfter: 100_000 } : undefined,
      ({ events, pull, server }) =>
        Effect.gen(function*() {
          let isClosed = false
          const report = (progress: Progress) =>
            Effect.promise(async () => {
              events.push(progress)
              if (progress.type !== "retry" || isClosed) return
              isClosed = true
              await server.close()
            })
          yield* Effect.flip(pull({ ...often, report }))
          assert.isAtLeast(retries(events), 20)
          events.splice(0)
          yield* Effect.flip(pull({ ...often, hasBegun: true }))
          assert.strictEqual(retries(events), 20)
        })
    ))

  it.effect("waits for the Retry-After of a busy server", () =>
    withServer(
      (index) => index === 0 ? { status: 429, headers: { "retry-after": "1" } } : undefined,
      ({ events, pull, server }) =>
        Effect.gen(function*() {
          const pulling = yield* Effect.forkChild(pull())
          yield* Effect.promise(() => until(() => events.length > 0 || undefined))
          assert.deepInclude(events[0], { type: "retry", delayMs: 1000 })
          yield* TestClock.adjust("999 millis")
          assert.strictEqual(server.seen.length, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* Fiber.join(pulling), sha256)
        })
    ))

  it.effect("counts a silent connection as cut", () =>
    withServer(
      (index) => index === 0 ? { stallAfter: 100_000 } : undefined,
      ({ events, pull, server, target }) =>
        Effect.gen(function*() {
          const isRetrying = () => events.some(({ type }) => type === "retry") || undefined
          const pulling = yield* Effect.forkChild(pull({ stallAfter: Duration.minutes(1) }))
          yield* Effect.promise(() =>
            until(() => statSync(`${target}.part`, { throwIfNoEntry: false })?.size === 100_000 || undefined)
          )
          yield* TestClock.adjust("1 minute")
          yield* Effect.promise(() => until(isRetrying))
          assert.strictEqual(server.seen.length, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* Fiber.join(pulling), sha256)
          const retry = events.find((event) => event.type === "retry")
          assert.strictEqual(retry?.detail, "no data was received for 60 s")
        })
    ))

  it.live("rejects contradicting sizes and missing bytes", () =>
    withServer(
      (index) => index === 0 ? undefined : { lengthOff: 10, ignoreRanges: true },
      ({ pull, target }) =>
        Effect.gen(function*() {
          assert.strictEqual((yield* reasonOf(pull({}, { bytes: 5 })))["_tag"], "DownloadFailed")
          const error = yield* Effect.flip(pull())
          assert.strictEqual(error.reason._tag, "DownloadFailed")
          assert.isFalse(existsSync(target))
        })
    ))

  it.live("ends at maxBytes: before the first byte if the size is known", () =>
    withServer(() => undefined, ({ pull, target }) =>
      Effect.gen(function*() {
        assert.deepInclude(yield* reasonOf(pull({ maxBytes: 1000 })), {
          _tag: "DiskFull",
          neededBytes: bytes.length,
          availableBytes: 1000
        })
        assert.isFalse(existsSync(`${target}.part`))
      })))

  it.live("sends a token to its own host only", () =>
    Effect.scoped(Effect.gen(function*() {
      const other = yield* Effect.acquireRelease(
        Effect.promise(() => startModelServer({ "file.bin": bytes })),
        (server) => Effect.promise(server.close)
      )
      const location = `http://localhost:${other.port}/org/model/resolve/main/file.bin`
      yield* withServer(
        () => ({ status: 302, headers: { location, "x-linked-etag": `"${sha256}"` } }),
        ({ pull, server }) =>
          Effect.gen(function*() {
            assert.strictEqual(yield* pull({}, { headers: { authorization: "Bearer hush" } }), sha256)
            assert.strictEqual(server.seen[0]!.headers.authorization, "Bearer hush")
            assert.strictEqual(other.seen[0]!.headers.authorization, undefined)
          })
      )
    })))

  it.live("verifies the checksum in a redirect", () =>
    withServer(
      (index) =>
        index === 0
          ? {
            status: 302,
            headers: { location: "/org/model/resolve/main/file.bin", "x-linked-etag": `"${"0".repeat(64)}"` }
          }
          : undefined,
      ({ pull }) =>
        Effect.gen(function*() {
          assert.strictEqual((yield* reasonOf(pull()))["_tag"], "ChecksumMismatch")
        })
    ))

  it.live("follows no redirect to plain http on another host, and no circular redirects", () =>
    withServer(
      (_, { path }) => ({
        status: 302,
        headers: { location: path.includes("file.bin") ? "http://example.com/file.bin" : "/circle" }
      }),
      ({ pull, server }) =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(pull())
          assert.include(error.message, "plain http")
          assert.strictEqual(server.seen.length, 1)
        })
    ))

  it.live("downloads the same bytes after any cuts", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.nat(bytes.length), { maxLength: 6 }),
          fc.boolean(),
          (cuts, ranges) =>
            Effect.runPromise(withServer(
              (index) => index < cuts.length ? { cutAfter: cuts[index]!, ignoreRanges: !ranges } : {},
              ({ pull }) =>
                Effect.gen(function*() {
                  const first = yield* Effect.result(pull())
                  assert.strictEqual(Result.isSuccess(first) ? first.success : yield* pull(), sha256)
                  assert.isTrue(Result.isSuccess(first) || cuts.filter((cut) => cut < 100).length > 0 || !ranges)
                })
            ))
        ),
        { numRuns: 40 }
      )
    ))

  /** A small disk for the test, if this user can mount one. */
  const smallDisk = (folder: string): boolean => {
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=128k", "none", folder], { stdio: "ignore" })
      return true
    } catch {
      return false
    }
  }

  it.live("reports a disk that fills during the download, and keeps the part", (context) =>
    withServer(() => undefined, ({ pull, target }) =>
      Effect.gen(function*() {
        const folder = `${target}.disk`
        mkdirSync(folder)
        if (!smallDisk(folder)) return context.skip("no disk can be mounted here")
        yield* Effect.addFinalizer(() => Effect.sync(() => execFileSync("umount", [folder])))
        const onDisk = join(folder, "file.bin")
        const reason = yield* reasonOf(pull({ target: onDisk }))
        assert.deepInclude(reason, { _tag: "DiskFull", folder, availableBytes: 0 })
        assert.isTrue(existsSync(`${onDisk}.part`))
      }).pipe(Effect.scoped)))
})

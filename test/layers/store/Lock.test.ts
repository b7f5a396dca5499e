/** The lock of a pull, among real processes, and with owners outside this process's namespace. */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import { diskError } from "../../../src/layers/store/Download.ts"
import * as Lock from "../../../src/layers/store/Lock.ts"
import type { ModelStoreError } from "../../../src/services/store/ModelStore.ts"
import { temporaryFolder } from "../../support/Service.ts"

const withFile = <A, E>(use: (file: string) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.scoped(
    Effect.flatMap(Effect.acquireDisposable(Effect.sync(temporaryFolder)), ({ path }) => use(join(path, ".m.lock")))
  )

const attempt = (file: string) => Effect.scoped(Effect.as(Lock.acquire(file, "m"), "taken"))

const reasonOf = (effect: Effect.Effect<unknown, ModelStoreError>) =>
  Effect.map(
    Effect.flip(effect),
    ({ reason }): Readonly<Record<string, unknown>> => Object.fromEntries(Object.entries(reason))
  )

/** A process that takes the lock and keeps it until it is killed. */
const keeper = (file: string) => {
  const source = (path: string) => fileURLToPath(new URL(`../../../src/${path}`, import.meta.url))
  const script = `
    import { Effect } from "effect"
    import * as Lock from ${JSON.stringify(source("layers/store/Lock.ts"))}
    await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
      const { lost } = yield* Lock.acquire(${JSON.stringify(file)}, "m")
      console.log("held")
      yield* lost
    })))`
  return spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] })
}

const foreign = { id: "other", host: "machine-b", pid: 1, namespace: "another boot pid:[1]" }

describe("the lock of a pull", () => {
  it.live("belongs to one process, and is free at once after that process is killed", () =>
    withFile((file) =>
      Effect.gen(function*() {
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => keeper(file)),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        yield* Effect.promise(() => once(child.stdout, "data"))
        assert.deepInclude(yield* reasonOf(attempt(file)), { _tag: "PullInProgress", pid: child.pid })
        const exited = once(child, "exit")
        child.kill("SIGKILL")
        yield* Effect.promise(() => exited)
        assert.isTrue(existsSync(file))
        assert.strictEqual(yield* attempt(file), "taken")
        assert.isFalse(existsSync(file))
      })
    ))

  it.live("belongs to another container until it expires, regardless of its process ID", () =>
    withFile((file) =>
      Effect.gen(function*() {
        for (const pid of [1, process.pid, 4_194_304]) {
          writeFileSync(file, JSON.stringify({ ...foreign, pid }))
          const error = yield* Effect.flip(attempt(file))
          assert.include(error.message, `process ${pid} on machine-b`)
          const longAgo = Date.now() / 1000 - 31
          utimesSync(file, longAgo, longAgo)
          assert.strictEqual(yield* attempt(file), "taken")
        }
      })
    ))

  it.effect("is updated while it is held, and lost when another process takes it", () =>
    withFile((file) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_000_000)
        const scope = yield* Scope.make()
        const { lost } = yield* Scope.provide(Lock.acquire(file, "m"), scope)
        const losing = yield* Effect.forkChild(Effect.flip(lost), { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        yield* Effect.promise(async () => {
          while (statSync(file).mtimeMs !== 1_005_000) await new Promise(setImmediate)
        })
        writeFileSync(file, JSON.stringify(foreign))
        yield* TestClock.adjust("5 seconds")
        assert.include((yield* Fiber.join(losing)).message, "expired during the pull")
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(readFileSync(file, "utf8"), JSON.stringify(foreign))
      })
    ))

  it.live("is taken by one of many processes that find it expired", () =>
    withFile((file) =>
      Effect.gen(function*() {
        for (let round = 0; round < 20; round++) {
          writeFileSync(file, JSON.stringify(foreign))
          utimesSync(file, 1, 1)
          const results = yield* Effect.scoped(
            Effect.forEach(
              Array.from({ length: 20 }),
              () => Effect.exit(Lock.acquire(file, "m")),
              { concurrency: "unbounded" }
            )
          )
          assert.strictEqual(results.filter(Exit.isSuccess).length, 1)
          assert.deepStrictEqual(readdirSync(join(file, "..")), [])
        }
      })
    ))

  it.live("is taken after a process that ended while it removed an expired one", () =>
    withFile((file) =>
      Effect.gen(function*() {
        writeFileSync(file, JSON.stringify(foreign))
        writeFileSync(`${file}.expired`, "")
        utimesSync(file, 1, 1)
        utimesSync(`${file}.expired`, 1, 1)
        assert.strictEqual(yield* attempt(file), "taken")
        assert.deepStrictEqual(readdirSync(join(file, "..")), [])
      })
    ))

  it("reports a store without write permission in one line", () => {
    for (const code of ["EROFS", "EACCES", "EPERM"]) {
      assert.strictEqual(
        diskError("/models/.m.lock", Object.assign(new Error("no"), { code })).message,
        `Cannot use /models/.m.lock: this process has no write permission (${code}). Make the folder writable, or choose ` +
          "another store.folder."
      )
    }
  })
})

/**
 * Runs one suite of a store on every database: memory, an SQLite file and Postgres, and on Redis.
 *
 * **Example**
 *
 * ```ts
 * onEachDatabase("the ledger", (it) => {
 *   it("keeps a row", (database) =>
 *     Effect.gen(function*() {
 *       const ledger = yield* Ledger.make
 *       ...
 *     }).pipe(Effect.provide(database.layer())))
 * })
 * ```
 */
import type { Layer } from "effect"
import { Effect, Redacted } from "effect"
import type { Redis } from "effect/persistence/Redis"
import type { SqlClient } from "effect/sql/SqlClient"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as Storage from "../../src/layers/persistence/Storage.ts"
import type { StorageError } from "../../src/services/persistence/StorageError.ts"
import type { RedisLocation, StorageLocation } from "../../src/services/settings/StorageSettings.ts"
import type { DatabaseServer } from "../support/DatabaseServers.ts"
import { installed, mustRun, startPostgres, startRedis } from "../support/DatabaseServers.ts"

/** An empty database for one test. */
export interface Database {
  readonly location: StorageLocation
  /** A new client of the same database, as another process has one; of memory, a new database. */
  readonly layer: () => Layer.Layer<SqlClient, StorageError>
}

/** Declares a test, as `it` does. The scope of the effect is closed after it. */
export type Test = (name: string, run: (database: Database) => Effect.Effect<unknown, unknown>) => void

/** How a kind of database is started once, and how each test gets an empty one. */
interface Kind {
  readonly name: string
  readonly isInstalled: boolean
  readonly start: () => Promise<{ readonly empty: () => Promise<StorageLocation>; readonly stop: () => Promise<void> }>
}

const nothing = () => Promise.resolve()

const memory: Kind = {
  name: "memory",
  isInstalled: true,
  start: () => Promise.resolve({ empty: () => Promise.resolve({ type: "memory" }), stop: nothing })
}

const sqlite: Kind = {
  name: "an SQLite file",
  isInstalled: true,
  start: () => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-sqlite-"))
    let count = 0
    return Promise.resolve({
      empty: () => Promise.resolve({ type: "sqlite", folder: join(folder, String(count++)) }),
      stop: () => Promise.resolve(rmSync(folder, { recursive: true, force: true }))
    })
  }
}

/** A new database of the server. */
const emptyPostgres = async ({ url }: DatabaseServer, name: string): Promise<StorageLocation> => {
  const { SqlClient } = await import("effect/sql/SqlClient")
  await Effect.runPromise(
    Effect.flatMap(SqlClient, (sql) => sql`CREATE DATABASE ${sql(name)}`.unprepared).pipe(
      Effect.provide(Storage.layerAt({ type: "postgres", url: Redacted.make(url) }))
    )
  )
  return { type: "postgres", url: Redacted.make(Object.assign(new URL(url), { pathname: `/${name}` }).href) }
}

const postgres: Kind = {
  name: "Postgres",
  isInstalled: installed.postgres,
  start: async () => {
    const server = await startPostgres()
    let count = 0
    return { empty: () => emptyPostgres(server, `test_${count++}`), stop: server.stop }
  }
}

const onKind = (subject: string, { isInstalled, name, start }: Kind, suite: (test: Test) => void): void => {
  describe.skipIf(!isInstalled && !mustRun)(`${subject} on ${name}`, () => {
    let started: Awaited<ReturnType<Kind["start"]>>
    beforeAll(async () => {
      started = await start()
    })
    afterAll(() => started?.stop())
    suite((title, run) =>
      // oxlint-disable-next-line vitest/expect-expect
      it(title, async () => {
        const location = await started.empty()
        await Effect.runPromise(run({ location, layer: () => Storage.layerAt(location) }))
      })
    )
  })
}

/** A Redis of which one test has all names that begin with the prefix. */
export interface RedisKeys {
  readonly location: RedisLocation
  readonly layer: () => Layer.Layer<Redis, StorageError>
}

/** Runs a suite on Redis. */
export const onRedis = (
  subject: string,
  suite: (test: (name: string, run: (redis: RedisKeys) => Effect.Effect<unknown, unknown>) => void) => void
): void => {
  describe.skipIf(!installed.redis && !mustRun)(`${subject} on Redis`, () => {
    let server: DatabaseServer
    let count = 0
    beforeAll(async () => {
      server = await startRedis()
    })
    afterAll(() => server?.stop())
    suite((title, run) =>
      // oxlint-disable-next-line vitest/expect-expect
      it(title, async () => {
        const url = Redacted.make(server.url)
        const location = { url, prefix: `test-${count++}:` }
        await Effect.runPromise(run({ location, layer: () => Storage.redisAt(url) }))
      })
    )
  })
}

/** Runs a suite on memory, an SQLite file and Postgres. */
export const onEachDatabase = (subject: string, suite: (test: Test) => void): void =>
  [memory, sqlite, postgres].forEach((kind) => onKind(subject, kind, suite))

/** SQLite files that cannot be used, and how files are opened. */
import { assert } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, it } from "vitest"
import * as Storage from "../../../src/layers/persistence/Storage.ts"
import { LastRead } from "../../../src/services/persistence/OtherCommits.ts"
import * as WriteBehind from "../../../src/services/persistence/WriteBehind.ts"

const root = mkdtempSync(join(tmpdir(), "troupe-sqlite-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const layerIn = (folder: string) => Storage.layerAt({ type: "sqlite", folder })

/** The line of a failed start, without the folder. */
const refusal = (folder: string) =>
  Effect.runPromise(
    Effect.flip(Effect.provide(SqlClient, layerIn(folder))).pipe(
      Effect.map(({ message }) => message.replaceAll(root, ""))
    )
  )

const newFolder = (name: string): string => {
  const folder = join(root, name)
  mkdirSync(folder)
  return folder
}

describe("an SQLite file", () => {
  it("is refused in one line where its folder is below a file", async () => {
    writeFileSync(join(root, "file"), "")
    assert.strictEqual(
      await refusal(join(root, "file/data")),
      "The database /file/data/troupe.sqlite cannot be created: a part of its path is a file. Set storage.folder or " +
        "TROUPE_DATA to another folder."
    )
  })

  it("is refused in one line if it is another file or a folder", async () => {
    const folder = newFolder("other")
    writeFileSync(
      Storage.fileIn(folder),
      "This is a text, which is no database, of more than 100 characters.".repeat(4)
    )
    assert.strictEqual(
      await refusal(folder),
      "The database /other/troupe.sqlite is not an SQLite database. Move it away, or set storage.folder or TROUPE_DATA to another folder."
    )
    mkdirSync(Storage.fileIn(newFolder("nested")))
    assert.match(
      await refusal(join(root, "nested")),
      /^The database \/nested\/troupe\.sqlite is a folder, not a file\. .+\.$/
    )
  })

  it.runIf(process.platform === "linux")("is refused in one line where no folder can be created", async () => {
    assert.match(
      await refusal("/proc/nowhere/data"),
      /^The database \/proc\/nowhere\/data\/troupe\.sqlite cannot be .+\.$/
    )
  })

  it.skipIf(process.platform === "win32")("is for its user only", async () => {
    const folder = join(root, "a/b")
    await Effect.runPromise(Effect.provide(SqlClient, layerIn(folder)))
    assert.strictEqual(statSync(folder).mode & 0o777, 0o700)
    assert.strictEqual(statSync(Storage.fileIn(folder)).mode & 0o777, 0o600)
  })

  it("waits for another process that writes, without blocking", async () => {
    const folder = newFolder("locked")
    const waits = Effect.gen(function*() {
      const other = yield* Effect.provide(SqlClient, yield* Layer.build(layerIn(folder)))
      const sql = yield* Effect.provide(SqlClient, yield* Layer.build(layerIn(folder)))
      yield* sql`CREATE TABLE troupe_test (id BIGINT)`
      const isHeld = yield* Deferred.make<void>()
      const held = Effect.andThen(Deferred.succeed(isHeld, undefined), Effect.sleep("200 millis"))
      const holder = yield* Effect.forkChild(other.withTransaction(held))
      yield* Deferred.await(isHeld)
      yield* sql`INSERT INTO troupe_test VALUES (1)`
      yield* Fiber.join(holder)
      assert.lengthOf(yield* other`SELECT id FROM troupe_test`, 1)
    })
    await Effect.runPromise(Effect.scoped(waits))
  })

  it("is read again only after a commit of another connection", async () => {
    const folder = newFolder("commits")
    const open = Effect.flatMap(
      Layer.build(Layer.fresh(layerIn(folder))),
      (context) => Effect.succeed(Context.get(context, SqlClient))
    )
    const reads = Effect.gen(function*() {
      const sql = yield* open
      const other = yield* open
      yield* sql`CREATE TABLE troupe_test (id INTEGER)`
      let times = 0
      const last = new LastRead(
        sql,
        Effect.map(sql`SELECT id FROM troupe_test`, (rows) => {
          times++
          return rows.length
        })
      )
      const current = Effect.map(last.current, (rows) => [rows, times])
      assert.deepStrictEqual([yield* current, yield* current], [[0, 1], [0, 1]])
      yield* other`INSERT INTO troupe_test VALUES (1)`
      assert.deepStrictEqual([yield* current, yield* current], [[1, 2], [1, 2]])
      yield* sql`INSERT INTO troupe_test VALUES (2)`
      assert.deepStrictEqual(yield* current, [1, 2])
      last.forget()
      assert.deepStrictEqual(yield* current, [2, 3])
    })
    await Effect.runPromise(Effect.scoped(reads))
  })

  it("that is full delays rows, and takes them when it can grow", async () => {
    const grows = Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`CREATE TABLE troupe_test (text TEXT)`
      const [pages] = yield* sql<{ page_count: number }>`PRAGMA page_count`
      yield* sql.unsafe(`PRAGMA max_page_count = ${pages!.page_count}`)
      const rows = yield* WriteBehind.make<{ text: string }>({
        name: "test",
        insert: (rows) => sql`INSERT INTO troupe_test ${sql.insert(rows)}`
      })
      const written = yield* Effect.forkChild(rows.write({ text: "x".repeat(100_000) }))
      yield* Effect.sleep("100 millis")
      assert.strictEqual(rows.waiting, 1)
      // What needs no space goes on.
      assert.lengthOf(yield* sql`SELECT text FROM troupe_test`, 0)
      yield* sql`PRAGMA max_page_count = 10000`
      yield* Fiber.join(written)
      assert.lengthOf(yield* sql`SELECT text FROM troupe_test`, 1)
    })
    await Effect.runPromise(Effect.provide(Effect.scoped(grows), layerIn(newFolder("full"))))
  })
})

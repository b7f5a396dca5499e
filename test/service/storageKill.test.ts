/** The end of a process by SIGKILL loses no row that it has acknowledged, and damages nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Storage from "../../src/layers/persistence/Storage.ts"
import { repetitions } from "../support/Repetitions.ts"

const writer = fileURLToPath(new URL("../fixtures/rowWriter.ts", import.meta.url))

const kills = repetitions(20, 100)

/** Processes that write to the same file at the same time. */
const atOnce = 4

/** Ids of one process; the next has others. */
const idsOfOne = 1_000_000

/** The acknowledged rows of a writer that is killed at a random point: before it writes, or between two rows. */
const killedWriter = async (folder: string, index: number): Promise<ReadonlyArray<number>> => {
  const child = spawn(process.execPath, [writer, folder, String(index * idsOfOne)], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  let printed = ""
  const rowsBeforeKill = Math.floor(Math.random() * 400)
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    // A kill between two lines of a chunk is as good: the child goes on meanwhile.
    printed += text
    if (printed.split("\n").length > rowsBeforeKill) child.kill("SIGKILL")
  })
  // One in five dies while it opens the file or changes its tables.
  if (index % 5 === 0) setTimeout(() => child.kill("SIGKILL"), Math.random() * 2000)
  const [, signal] = await once(child, "close") as [number | null, NodeJS.Signals | null]
  assert.strictEqual(signal, "SIGKILL")
  return printed.split("\n").slice(0, -1).map(Number)
}

const contentOf = (folder: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient
    const integrity = yield* sql`PRAGMA integrity_check`
    const rows = yield* sql<{ id: number; length: number }>`SELECT id, LENGTH(text) AS length FROM troupe_rows`
    const steps = yield* sql<{ name: string }>`SELECT name FROM troupe_migrations ORDER BY step`
    return { integrity: integrity.map((row) => ({ ...row })), rows, steps: steps.map(({ name }) => name) }
  }).pipe(Effect.provide(Storage.layerAt({ type: "sqlite", folder })), Effect.runPromise)

describe("the SQLite file of processes that are killed", () => {
  it(`has every acknowledged row after ${kills} kills at random points, and is intact`, async () => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-kill-"))
    try {
      const acknowledged: Array<number> = []
      let index = 0
      const line = async () => {
        while (index < kills) acknowledged.push(...await killedWriter(folder, index++))
      }
      await Promise.all(Array.from({ length: atOnce }, line))
      const { integrity, rows, steps } = await contentOf(folder)
      assert.deepStrictEqual(integrity, [{ integrity_check: "ok" }])
      assert.deepStrictEqual(steps, ["create", "index"])
      const lengths = new Map(rows.map(({ id, length }) => [id, length]))
      assert.deepStrictEqual(acknowledged.filter((id) => !lengths.has(id)), [])
      assert.deepStrictEqual(rows.filter(({ id, length }) => length !== `row ${id} `.length + id % 500), [])
      assert.isAbove(acknowledged.length, kills)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }, 300_000)
})

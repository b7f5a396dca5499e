/**
 * Effect's `SqlClient` over `node:sqlite`: one connection to a file, or to memory.
 *
 * **Details**
 *
 * - `node:sqlite` is loaded when the layer is built, not when this module is imported.
 * - A file is in WAL mode with `synchronous = NORMAL`: the end of the process loses no committed transaction and damages
 *   nothing; a power failure can lose the last ones.
 * - Transactions begin with `BEGIN IMMEDIATE`, so that two processes never deadlock. A statement that finds the file locked
 *   by another process is tried again for up to 5 s, without blocking the event loop.
 *
 * **Gotchas**
 *
 * Statements run synchronously on the event loop. Integers beyond 2^53 cannot be read.
 */
import { Effect, Layer, Schedule, Semaphore, Stream } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import { closeSync, existsSync, mkdirSync, openSync } from "node:fs"
import { dirname } from "node:path"
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import type { BulkValue } from "../../services/persistence/BulkInsert.ts"
import * as BulkInsert from "../../services/persistence/BulkInsert.ts"
import * as OtherCommits from "../../services/persistence/OtherCommits.ts"
import { sqliteError } from "../../services/persistence/StorageError.ts"

/** Prepared statements that are kept. */
const cachedStatements = 200

/** How long a statement waits for a lock before it fails; the event loop waits for at most `busyTimeoutMs`. */
const busyTimeoutMs = 20
const waitForLock = Schedule.spaced("10 millis").pipe(Schedule.upTo({ duration: "5 seconds" }))

/** Loads `node:sqlite` without the warning of Node.js 22 that it is experimental. */
const loadSqlite = (): typeof import("node:sqlite") => {
  const emitWarning: unknown = Reflect.get(process, "emitWarning")
  process.emitWarning = () => {}
  try {
    const module = process.getBuiltinModule("node:sqlite") as typeof import("node:sqlite") | undefined
    if (module === undefined) throw new Error(`Node.js ${process.version} has no node:sqlite; 22.19 or newer has it`)
    return module
  } finally {
    Reflect.set(process, "emitWarning", emitWarning)
  }
}

const toValue = (param: unknown): SQLInputValue =>
  typeof param === "boolean" ? Number(param) : param === undefined ? null : param as SQLInputValue

const constraint = 19
const uniqueViolation = 2067

/** Result codes that Effect classifies as another: a primary key; a value too long, or of another type. */
const classifiedAs: Readonly<Record<number, number>> = { 1555: uniqueViolation, 18: constraint, 20: constraint }

/** An error of `node:sqlite`, classified by SQLite's result code. A value that it does not take has none. */
const classify = (cause: unknown): SqlError => {
  const { errcode, message } = cause as { readonly errcode?: number; readonly message: string }
  const errno = errcode === undefined && cause instanceof TypeError ? constraint : classifiedAs[errcode ?? 0] ?? errcode
  const coded = errno === undefined ? cause : Object.assign(cause as Error, { errno })
  return new SqlError({ reason: classifySqliteError(coded, { message, operation: "execute" }) })
}

const isLocked = ({ reason }: SqlError): boolean => reason._tag === "LockTimeoutError"

/** The connection and its prepared statements. */
class SqliteConnection implements Connection {
  readonly #database: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  constructor(database: DatabaseSync) {
    this.#database = database
  }

  get isTransaction(): boolean {
    return this.#database.isTransaction
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    const statement = this.#database.prepare(sql)
    if (this.#statements.size >= cachedStatements) this.#statements.delete(this.#statements.keys().next().value!)
    this.#statements.set(sql, statement)
    return statement
  }

  /** Undefined while a process locks the file. */
  otherCommits(): number | undefined {
    try {
      return this.#prepare("PRAGMA data_version").get()?.["data_version"] as number | undefined
    } catch {
      return undefined
    }
  }

  /** Runs a statement. Outside of a transaction it waits for the locks of other processes. */
  #run<A>(run: () => A): Effect.Effect<A, SqlError> {
    const once = Effect.try({ try: run, catch: classify })
    return Effect.catchIf(
      once,
      (error) => isLocked(error) && !this.isTransaction,
      () => Effect.retry(once, { schedule: waitForLock, while: isLocked })
    )
  }

  execute(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined
  ) {
    return this.#run(() => {
      const rows = this.#prepare(sql).all(...params.map(toValue))
      return transformRows === undefined ? rows : transformRows(rows)
    })
  }

  executeUnprepared(...call: Parameters<SqliteConnection["execute"]>) {
    return this.execute(...call)
  }

  executeRaw(sql: string, params: ReadonlyArray<unknown>) {
    return this.#run(() => this.#prepare(sql).run(...params.map(toValue)))
  }

  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.#run(() => {
      const statement = this.#database.prepare(sql)
      statement.setReturnArrays(true)
      return statement.all(...params.map(toValue)) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
    })
  }

  executeValuesUnprepared(sql: string, params: ReadonlyArray<unknown>) {
    return this.executeValues(sql, params)
  }

  /** Runs a statement once for each row, in one transaction. */
  insertAll(sql: string, rows: ReadonlyArray<ReadonlyArray<BulkValue>>): Effect.Effect<void, SqlError> {
    return this.#run(() => {
      const statement = this.#prepare(sql)
      // One whose rollback has failed: nothing else runs beside this.
      if (this.isTransaction) this.#database.exec("ROLLBACK")
      this.#database.exec("BEGIN IMMEDIATE")
      try {
        for (const row of rows) statement.run(...row)
        this.#database.exec("COMMIT")
      } catch (cause) {
        // Some failures, as that of a full disk, have ended the transaction.
        if (this.isTransaction) this.#database.exec("ROLLBACK")
        throw cause
      }
    })
  }

  executeStream(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: (<A extends object>(row: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined
  ) {
    const rows = Effect.try({
      try: () => this.#database.prepare(sql).iterate(...params.map(toValue)),
      catch: classify
    }).pipe(
      Effect.map((rows) => Stream.fromIterable({ [Symbol.iterator]: () => rows })),
      Stream.unwrap
    )
    return transformRows === undefined ? rows : Stream.map(rows, (row) => transformRows([row])[0]!)
  }
}

/** Creates a folder and the folders above it. The option `recursive` of Node.js never returns in `/proc`. */
const makeFolder = (folder: string): void => {
  const above = dirname(folder)
  if (above !== folder && !existsSync(above)) makeFolder(above)
  if (!existsSync(folder)) mkdirSync(folder, { mode: 0o700 })
}

/** Opens a file; its folder and the file are for this user only. */
const open = (file: string): DatabaseSync => {
  const { DatabaseSync } = loadSqlite()
  if (file !== ":memory:") {
    makeFolder(dirname(file))
    closeSync(openSync(file, "a", 0o600))
  }
  const database = new DatabaseSync(file)
  try {
    database.exec(`PRAGMA busy_timeout = ${busyTimeoutMs}`)
    database.exec("PRAGMA foreign_keys = ON")
    if (file !== ":memory:") {
      database.exec("PRAGMA journal_mode = WAL")
      database.exec("PRAGMA synchronous = NORMAL")
      // The first write: a file that is read-only or locked, a full disk.
      database.exec("BEGIN IMMEDIATE; ROLLBACK")
    }
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}

const make = Effect.fnUntraced(function*(file: string) {
  const opening = Effect.try({ try: () => open(file), catch: classify })
  const database = yield* Effect.acquireRelease(
    Effect.retry(opening, { schedule: waitForLock, while: isLocked }).pipe(
      Effect.mapError((error) => sqliteError(file, error))
    ),
    (database) => Effect.sync(() => database.close())
  )
  const connection = new SqliteConnection(database)
  const semaphore = Semaphore.makeUnsafe(1)
  const acquirers = SqlClient.makeSqliteAcquirers({
    connection: Effect.succeed(connection),
    semaphore,
    isTransaction: (connection) => connection.isTransaction
  })
  const client = yield* SqlClient.make({
    ...acquirers,
    compiler: Statement.makeCompilerSqlite(),
    driver: "sqlite-node",
    beginTransaction: "BEGIN IMMEDIATE",
    prepareTransactionControls: true,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "sqlite"]]
  })
  const inserting = BulkInsert.provide(client, (sql, rows) => acquirers.borrower(() => connection.insertAll(sql, rows)))
  return OtherCommits.provide(inserting, () => connection.otherCommits())
})

/**
 * The client of a file.
 *
 * @param file an absolute path, or `:memory:` for a database that ends with the layer. A file that cannot be opened and
 * written fails the layer with a `StorageError`.
 */
export const layer = (file: string) =>
  Layer.effect(SqlClient.SqlClient, make(file)).pipe(Layer.provide(Reactivity.layer))

/**
 * Answers in a store that outlives the process: a table of the database, or Redis.
 *
 * **Details**
 *
 * A read also reads the marks of what has been cleared, so that every process sees the clearings of the others. A failing
 * store is no answer and changes no request; the first failure of its kind is logged. A value that is no answer is removed
 * and logged once.
 */
import { Context, Duration, Effect, Layer } from "effect"
import type { BackingPersistence, BackingPersistenceStore, PersistenceError } from "effect/persistence/Persistence"
import type { Redis } from "effect/persistence/Redis"
import { SqlClient } from "effect/sql/SqlClient"
import * as Defaults from "../../domain/Defaults.ts"
import type { CachedAnswer } from "../../services/cache/CachedAnswer.ts"
import { decode } from "../../services/cache/CachedAnswer.ts"
import type { Clears, Mark } from "./Clears.ts"
import { bounded } from "./StoreBound.ts"

/** What stores answers; undefined where they end with the process. */
export const Backing = Context.Reference<BackingPersistence["Service"] | undefined>(
  "troupe/layers/cache/AnswerStore/Backing",
  { defaultValue: () => undefined }
)

/** An answer, and its text. */
export interface Stored {
  readonly answer: CachedAnswer
  readonly text: string
}

/** No key of an answer has this form. */
const marksKey = "cleared"

const makeLogOnce = () => {
  const logged = new Set<string>()
  return (message: string, cause?: unknown) =>
    Effect.suspend(() => {
      if (logged.has(message)) return Effect.void
      logged.add(message)
      return Effect.logWarning(`${message} Later ones are not logged.`, ...(cause === undefined ? [] : [cause]))
    })
}

/** Reads and writes answers by key. */
export class AnswerStore {
  readonly #store: BackingPersistenceStore
  readonly #clears: Clears
  readonly #logOnce = makeLogOnce()

  constructor(store: BackingPersistenceStore, clears: Clears) {
    this.#store = store
    this.#clears = clears
  }

  /** Reads what has been cleared. */
  readonly readMarks: Effect.Effect<void> = Effect.suspend(() =>
    this.#orElse(Effect.map(this.#store.get(marksKey), (value) => this.#merge(value)), "be read", undefined)
  )

  find(key: string): Effect.Effect<Stored | undefined> {
    return this.#orElse(
      Effect.flatMap(this.#store.getMany([key, marksKey]), ([value, marks]) => {
        this.#merge(marks)
        return value === undefined ? Effect.undefined : this.#decoded(key, value)
      }),
      "be read",
      undefined
    )
  }

  /** @param ttlMs above 0 */
  keep(key: string, text: string, ttlMs: number): Effect.Effect<void> {
    return this.#orElse(this.#store.set(key, { text }, Duration.millis(ttlMs)), "be written", undefined)
  }

  /** Removes the answer of a key, or writes what has been cleared. */
  clear(key: string | undefined, mark: Mark | undefined): Effect.Effect<void> {
    const removed = key === undefined ? Effect.void : this.#store.remove(key)
    const written = mark === undefined ? Effect.void : this.#write(mark)
    return this.#orElse(Effect.andThen(removed, written), "be cleared", undefined)
  }

  #decoded(key: string, value: object): Effect.Effect<Stored | undefined, PersistenceError> {
    const { text } = value as { readonly text?: unknown }
    const answer = typeof text === "string" ? decode(text) : undefined
    if (answer !== undefined) return Effect.succeed({ answer, text: text as string })
    const logged = this.#logOnce("A cached answer in the store could not be read.")
    return Effect.as(Effect.andThen(this.#store.remove(key), logged), undefined)
  }

  #merge(value: { readonly marks?: unknown } | undefined): void {
    this.#clears.merge(value?.marks)
  }

  /** Other processes may have written marks meanwhile. */
  #write(mark: Mark): Effect.Effect<void, PersistenceError> {
    return Effect.flatMap(this.#store.get(marksKey), (found) => {
      this.#merge(found)
      this.#clears.merge([mark])
      return this.#store.set(marksKey, { marks: this.#clears.marks }, Duration.millis(Defaults.cache.marksKeptMs))
    })
  }

  /** A failure of the store is none of the request's. */
  #orElse<A>(effect: Effect.Effect<A, unknown>, name: string, fallback: A): Effect.Effect<A> {
    return Effect.catchCause(
      effect,
      (cause) => Effect.as(this.#logOnce(`The store of cached answers cannot ${name}.`, cause), fallback)
    )
  }
}

/**
 * Opens the store within the scope; undefined without `Backing`.
 *
 * @param storeId begins the names of the store's keys
 */
export const open = Effect.fnUntraced(function*(storeId: string, clears: Clears) {
  const backing = yield* Backing
  if (backing === undefined) return undefined
  const store = new AnswerStore(yield* backing.make(storeId), clears)
  yield* store.readMarks
  return store
})

/** Effect's persistence is loaded only where models keep answers: it is large. */
const persistence = Effect.promise(() => import("effect/persistence/Persistence"))

/**
 * Stores answers in the database: at most about this number, those that end first out. Expired ones are deleted every 5
 * minutes.
 */
export const layerSqlWith = (mostEntries: number): Layer.Layer<never, never, SqlClient> =>
  Layer.unwrap(
    Effect.map(persistence, ({ BackingPersistence, layerBackingSql }) =>
      Layer.provide(
        Layer.effect(
          Backing,
          Effect.gen(function*() {
            const backing = yield* BackingPersistence
            return bounded(backing, yield* SqlClient, mostEntries, marksKey)
          })
        ),
        layerBackingSql
      ))
  )

/** Stores answers in the database, with the bound of `Defaults.cache`. */
export const layerSql: Layer.Layer<never, never, SqlClient> = layerSqlWith(Defaults.cache.storedEntries)

/** Stores answers in Redis. */
export const layerRedis: Layer.Layer<never, never, Redis> = Layer.unwrap(
  Effect.map(
    persistence,
    ({ BackingPersistence, layerBackingRedis }) =>
      Layer.provide(Layer.effect(Backing, BackingPersistence), layerBackingRedis)
  )
)

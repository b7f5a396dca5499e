/** Virtual keys on every database, also where several processes share it. */
import { assert } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Layer } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import { crypto } from "../../src/layers/keys/VirtualKeys.ts"
import type { Options } from "../../src/services/keys/VirtualKeys.ts"
import * as VirtualKeys from "../../src/services/keys/VirtualKeys.ts"
import * as VirtualKeyStore from "../../src/services/keys/VirtualKeyStore.ts"
import type { Database } from "./databases.ts"
import { onEachDatabase } from "./databases.ts"

const pollMs = 20

/** The keys of a process. */
const opened = (database: Database, options: Partial<Options> = {}) =>
  VirtualKeys.layer({ declared: [], pollMs: database.location.type === "memory" ? undefined : pollMs, ...options })
    .pipe(
      Layer.provide(VirtualKeyStore.layer),
      Layer.provideMerge(database.layer()),
      Layer.provide(Layer.succeed(VirtualKeys.KeyCrypto, crypto))
    )

const inProcess = <A, E>(
  database: Database,
  use: Effect.Effect<A, E, VirtualKeys.VirtualKeys | SqlClient>,
  options?: Partial<Options>
) => Effect.provide(use, opened(database, options))

const whoIs = (secret: string | undefined) =>
  Effect.gen(function*() {
    const keys = yield* VirtualKeys.VirtualKeys
    const found = keys.identify(secret, yield* Clock.currentTimeMillis)
    return typeof found === "string" ? found : found.tenant
  })

const codeOf = <A, R>(effect: Effect.Effect<A, VirtualKeys.KeyError, R>) =>
  Effect.match(effect, { onSuccess: () => "none", onFailure: ({ code }) => code })

onEachDatabase("virtual keys", (it) => {
  it("are required from the first on, and identified by their secret", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        assert.isFalse(keys.state.areRequired)
        const { key, secret } = yield* keys.create({
          name: "app",
          tenant: "shop",
          models: ["chat"],
          limits: { parallel: 2 }
        })
        assert.isTrue(keys.state.areRequired)
        assert.strictEqual(yield* whoIs(secret), "shop")
        assert.strictEqual(yield* whoIs(undefined), "missing")
        assert.strictEqual(yield* whoIs(`${secret}x`), "unknown")
        assert.strictEqual(yield* whoIs(secret.replace(/.$/, (last) => last === "a" ? "b" : "a")), "unknown")
        assert.deepStrictEqual(yield* keys.find("app"), yield* keys.find(key.id))
        assert.deepInclude(yield* keys.find("app"), { models: ["chat"], limits: { parallel: 2 }, origin: "store" })
      })
    ))

  it("store no secret", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const { secret } = yield* keys.create({ name: "app" })
        const { secret: second } = yield* keys.rotate("app", Duration.hours(1))
        const sql = yield* SqlClient
        const rows = JSON.stringify(yield* sql`SELECT * FROM troupe_keys`)
        const listed = JSON.stringify(yield* keys.list)
        for (const one of [secret, second]) {
          // What follows the characters that are shown.
          assert.notInclude(rows, one.slice(9))
          assert.notInclude(listed, one.slice(9))
        }
      })
    ))

  it("are refused at once on a connection that has used them", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const [one, other] = [yield* keys.create({ name: "one" }), yield* keys.create({ name: "other" })]
        const latest: VirtualKeys.LatestSecret = { secret: undefined, hash: "" }
        const found = (secret: string | undefined) => {
          const identity = keys.identify(secret, Number.MAX_SAFE_INTEGER, latest)
          return typeof identity === "string" ? identity : identity.tenant
        }
        assert.deepStrictEqual([one, one, other, one].map(({ secret }) => found(secret)), [
          "one",
          "one",
          "other",
          "one"
        ])
        assert.deepStrictEqual([undefined, `${one.secret}x`, one.secret].map(found), ["missing", "unknown", "one"])
        yield* keys.revoke("one")
        assert.deepStrictEqual([one, one, other].map(({ secret }) => found(secret)), ["revoked", "revoked", "other"])
        const { secret } = yield* keys.rotate("other", Duration.zero)
        assert.deepStrictEqual([found(other.secret), found(secret)], ["expired", "other"])
      })
    ))

  it("have a name each, which a revoked key gives up", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const first = yield* keys.create({ name: "app" })
        assert.strictEqual(yield* codeOf(keys.create({ name: "app" })), "key_exists")
        yield* keys.revoke("app")
        assert.strictEqual(yield* whoIs(first.secret), "revoked")
        assert.strictEqual(yield* codeOf(keys.revoke("app")), "key_revoked")
        assert.strictEqual(yield* codeOf(keys.rotate("app", Duration.zero)), "key_revoked")
        const second = yield* keys.create({ name: "app" })
        assert.strictEqual(yield* whoIs(second.secret), "app")
        assert.strictEqual((yield* keys.find("app")).id, second.key.id)
        assert.strictEqual(yield* codeOf(keys.find("ap")), "key_not_found")
        assert.isTrue(keys.state.areRequired)
      })
    ))

  it("have two secrets while a rotation overlaps, and no more", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const first = yield* keys.create({ name: "app" })
        const second = yield* keys.rotate("app", Duration.hours(1))
        assert.strictEqual(yield* whoIs(first.secret), "app")
        assert.strictEqual(yield* whoIs(second.secret), "app")
        assert.isUndefined(second.endedEarly)
        const third = yield* keys.rotate("app", Duration.zero)
        assert.strictEqual(third.endedEarly, second.key.previousUntil)
        assert.strictEqual(yield* whoIs(first.secret), "unknown")
        assert.strictEqual(yield* whoIs(second.secret), "expired")
        assert.strictEqual(yield* whoIs(third.secret), "app")
        assert.isUndefined((yield* keys.rotate("app", Duration.zero)).endedEarly)
      })
    ))

  it("that have expired are not rotated, and are accepted again with a later end", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const { key, secret } = yield* keys.create({ name: "app", models: ["chat"], expiresAt: 1 })
        assert.strictEqual(yield* whoIs(secret), "expired")
        assert.strictEqual(yield* codeOf(keys.rotate("app", Duration.hours(1))), "key_expired")
        const { expiresAt: _, ...others } = key
        const later = yield* keys.extend("app", Number.MAX_SAFE_INTEGER)
        assert.deepStrictEqual(later, { ...others, expiresAt: Number.MAX_SAFE_INTEGER })
        const forEver = yield* keys.extend("app", undefined)
        assert.deepStrictEqual(forEver, others)
        assert.strictEqual(yield* whoIs(secret), "app")
        assert.strictEqual(yield* codeOf(keys.rotate("app", Duration.zero)), "none")
        yield* keys.revoke("app")
        assert.strictEqual(yield* codeOf(keys.extend("app", undefined)), "key_revoked")
        assert.strictEqual(yield* codeOf(keys.extend("ap", undefined)), "key_not_found")
      })
    ))

  it("have no name that a path or an id is read from", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        const { key } = yield* keys.create({ name: "app" })
        for (const name of ["settings/team", "a/b", "/", ".", "..", key.id]) {
          assert.strictEqual(yield* codeOf(keys.create({ name })), "key_name", name)
        }
        for (const name of ["...", "a.b", "settings", "key_app"]) {
          assert.strictEqual((yield* keys.create({ name })).key.name, name)
        }
      }),
      { declared: [{ name: "team", secret: "a-secret-of-the-file" }] }
    ))

  it("of the configuration cannot be changed, and their names are taken", (database) =>
    inProcess(
      database,
      Effect.gen(function*() {
        const keys = yield* VirtualKeys.VirtualKeys
        assert.strictEqual(yield* whoIs("a-secret-of-the-file"), "team")
        assert.strictEqual(yield* codeOf(keys.revoke("team")), "key_declared")
        assert.strictEqual(yield* codeOf(keys.rotate("settings/team", Duration.zero)), "key_declared")
        assert.strictEqual(yield* codeOf(keys.extend("team", undefined)), "key_declared")
        assert.strictEqual(yield* codeOf(keys.create({ name: "team" })), "key_exists")
      }),
      { declared: [{ name: "team", secret: "a-secret-of-the-file" }] }
    ))

  it("changed by another process are changed in this one when the change returns", (database) => {
    if (database.location.type === "memory") return Effect.void
    return inProcess(
      database,
      Effect.gen(function*() {
        const here = yield* VirtualKeys.VirtualKeys
        const { secret } = yield* inProcess(
          database,
          Effect.flatMap(VirtualKeys.VirtualKeys, (there) => there.create({ name: "app" })),
          // Longer than here, so that the test does not race.
          { pollMs: 25 * pollMs }
        )
        assert.isTrue(here.state.areRequired)
        assert.strictEqual(yield* whoIs(secret), "app")
        const revoke = Effect.flatMap(VirtualKeys.VirtualKeys, (there) => there.revoke("app"))
        yield* inProcess(database, revoke, { pollMs: 25 * pollMs })
        assert.strictEqual(yield* whoIs(secret), "revoked")
      })
    )
  })

  it("changed by two processes at once keep one of the changes", (database) => {
    if (database.location.type === "memory") return Effect.void
    const there = (use: (keys: VirtualKeys.VirtualKeys["Service"]) => Effect.Effect<unknown, VirtualKeys.KeyError>) =>
      inProcess(database, Effect.flatMap(VirtualKeys.VirtualKeys, use))
    return Effect.gen(function*() {
      const exits = yield* Effect.all(
        Array.from({ length: 4 }, () => Effect.exit(there((keys) => keys.create({ name: "app" })))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
      yield* Effect.all(
        [
          there((keys) => keys.revoke("app")),
          Effect.exit(there((keys) => keys.rotate("app", Duration.hours(1))))
        ],
        { concurrency: "unbounded" }
      )
      yield* there((keys) =>
        Effect.map(
          keys.list,
          (all) => assert.deepStrictEqual(all.map(({ revokedAt }) => revokedAt === undefined), [false])
        )
      )
    })
  })

  it("keep the time of their use over a restart", (database) => {
    if (database.location.type === "memory") return Effect.void
    return Effect.gen(function*() {
      const { secret } = yield* inProcess(
        database,
        Effect.flatMap(VirtualKeys.VirtualKeys, (keys) => keys.create({ name: "app" }))
      )
      yield* inProcess(database, whoIs(secret))
      const [key] = yield* inProcess(database, Effect.flatMap(VirtualKeys.VirtualKeys, (keys) => keys.list))
      assert.isNumber(key?.lastUsedAt)
    })
  })
})

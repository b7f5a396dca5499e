/**
 * The virtual keys of the service: which callers it accepts, and the identity of each.
 *
 * **Details**
 *
 * `identify` is synchronous: all keys are in memory. A change by this process holds from its return on. A change by another
 * process that shares the store is read within `pollMs`; changes return after that time, so that they hold in every process.
 * Keys of `troupe.yaml` are there as well, and are changed in the file only.
 *
 * **Gotchas**
 *
 * Once there is a key, every request needs one, also after the last key has been revoked or has expired: otherwise a
 * revocation would open the service. If the store cannot be read, the keys stay as they were read last.
 */
import { Clock, Context, Duration, Effect, Layer, Schema } from "effect"
import type { Identity } from "../../domain/Identity.ts"
import { nearestName } from "../../domain/NearestName.ts"
import type { Refusal } from "./KeyIndex.ts"
import { KeyIndex } from "./KeyIndex.ts"
import type { Grant, StoredKey, VirtualKey } from "./VirtualKey.ts"
import { beginningOf, isOwnName, makeId, makeSecret, secretBytes, standingOf } from "./VirtualKey.ts"
import { VirtualKeyStore } from "./VirtualKeyStore.ts"

/** Why a key could not be changed. */
export class KeyError extends Schema.TaggedError<KeyError>()("KeyError", {
  code: Schema.Literals([
    "key_not_found",
    "key_name",
    "key_exists",
    "key_declared",
    "key_revoked",
    "key_expired",
    "storage_failed"
  ]),
  message: Schema.String
}) {}

/** A new secret, which is not kept: it cannot be shown again. */
export interface Issued {
  readonly key: VirtualKey
  readonly secret: string
  /**
   * Until when the secret before the last one would have been accepted, ms since 1970: a key has two secrets at most, so it
   * ends with this rotation. Left out where there was none.
   */
  readonly endedEarly?: number
}

/** The latest secret of a connection with its hash. Not its identity: a key that is revoked is refused from then on. */
export interface LatestSecret {
  secret: string | undefined
  hash: string
}

/** Hashes and random bytes, which the platform provides. */
export class KeyCrypto extends Context.Service<KeyCrypto, {
  /** SHA-256, as text of a fixed length. */
  readonly hash: (secret: string) => string
  /** Random bytes of a generator for secrets. */
  readonly random: (length: number) => Uint8Array
}>()("troupe/services/keys/KeyCrypto") {}

export class VirtualKeys extends Context.Service<VirtualKeys, {
  /** What changes with the keys, to be read without a call. */
  readonly state: {
    /** Whether requests need a key: whether any exists or has existed. */
    readonly areRequired: boolean
  }
  /**
   * @param now ms since 1970
   * @param latest the last secret on the caller's connection: most requests on a connection have the same one
   */
  readonly identify: (secret: string | undefined, now: number, latest?: LatestSecret) => Identity | Refusal
  readonly list: Effect.Effect<ReadonlyArray<VirtualKey>>
  readonly find: (idOrName: string) => Effect.Effect<VirtualKey, KeyError>
  readonly create: (grant: Grant) => Effect.Effect<Issued, KeyError>
  /** @param overlap how long the secret before it is accepted */
  readonly rotate: (idOrName: string, overlap: Duration.Duration) => Effect.Effect<Issued, KeyError>
  /** Changes when a key ends. @param expiresAt ms since 1970; undefined for never */
  readonly extend: (idOrName: string, expiresAt: number | undefined) => Effect.Effect<VirtualKey, KeyError>
  readonly revoke: (idOrName: string) => Effect.Effect<VirtualKey, KeyError>
}>()("troupe/services/keys/VirtualKeys") {}

/** A key of the configuration. */
export interface Declared extends Grant {
  readonly secret: string
}

/** What the service is made of. */
export interface Options {
  readonly declared: ReadonlyArray<Declared>
  /** Calls its argument when the configuration declares other keys. */
  readonly follow?: ((declare: (declared: ReadonlyArray<Declared>) => void) => void) | undefined
  /** How often changes of other processes are read, ms; undefined if no other process has the store. */
  readonly pollMs: number | undefined
}

/** How often the times of use are written. */
const touchEvery = Duration.minutes(1)

const failed = (cause: { readonly message: string }) =>
  new KeyError({ code: "storage_failed", message: `The key store cannot be used: ${cause.message}` })

const notFound = (name: string, known: ReadonlyArray<VirtualKey>) => {
  const nearest = nearestName(name, known.flatMap((key) => [key.name, key.id]))
  return new KeyError({
    code: "key_not_found",
    message:
      `Key ${JSON.stringify(name.slice(0, 100))} not found.${
        nearest === undefined ? "" : ` Did you mean ${nearest}?`
      } ` +
      "GET /admin/keys lists them."
  })
}

const isDeclared = (key: VirtualKey) =>
  new KeyError({
    code: "key_declared",
    message: `The key ${key.name} is declared in troupe.yaml. Change it there, and run: troupe reload.`
  })

const isAmbiguous = (name: string) =>
  new KeyError({
    code: "key_name",
    message:
      `A key cannot be named ${
        JSON.stringify(name)
      }: a name has no "/", is not "." or "..", and is not like the id of a ` +
      "key. Choose another name."
  })

const isRevoked = (key: VirtualKey) =>
  new KeyError({ code: "key_revoked", message: `The key ${key.name} has been revoked. Create another one.` })

const isExpired = (key: VirtualKey) =>
  new KeyError({
    code: "key_expired",
    message: `The key ${key.name} has expired: a new secret would not be accepted. Give it a later end first, with ` +
      "`troupe keys extend` or POST /admin/keys/{key}/extend."
  })

/** The keys in memory and the store. */
class Ring {
  readonly index = new KeyIndex()
  readonly state = { areRequired: false }
  readonly #store: VirtualKeyStore["Service"]
  readonly #crypto: KeyCrypto["Service"]
  #declared: ReadonlyArray<StoredKey> = []
  #stored: ReadonlyArray<StoredKey> = []
  readonly #settle: Effect.Effect<void>
  #version = -1

  constructor(
    store: VirtualKeyStore["Service"],
    crypto: KeyCrypto["Service"],
    { declared, pollMs }: Options
  ) {
    this.#store = store
    this.#crypto = crypto
    this.declare(declared)
    this.#settle = pollMs === undefined ? Effect.void : Effect.sleep(Duration.millis(2 * pollMs))
  }

  /** Replaces the keys of the configuration. */
  declare(declared: ReadonlyArray<Declared>): void {
    this.#declared = declared.map(({ secret, ...grant }) => ({
      hash: this.#crypto.hash(secret),
      key: { ...grant, tenant: grant.tenant ?? grant.name, id: `settings/${grant.name}`, origin: "settings" }
    }))
    this.#index()
  }

  #index(): void {
    this.index.replaceAll([...this.#stored, ...this.#declared])
    this.state.areRequired ||= this.index.size > 0
  }

  identify(secret: string | undefined, now: number, latest?: LatestSecret): Identity | Refusal {
    if (secret === undefined) return "missing"
    if (latest === undefined) return this.index.identify(this.#crypto.hash(secret), now)
    if (latest.secret !== secret) {
      latest.hash = this.#crypto.hash(secret)
      latest.secret = secret
    }
    return this.index.identify(latest.hash, now)
  }

  readonly reload = Effect.suspend(() =>
    Effect.map(this.#store.load, ({ keys, version }) => {
      this.#version = version
      this.#stored = keys
      this.#index()
    })
  )

  /** Reads the keys again if another process has changed one. */
  readonly refresh = Effect.suspend(() =>
    Effect.flatMap(this.#store.version, (version) => version === this.#version ? Effect.void : this.reload)
  )

  readonly touch = Effect.suspend(() => {
    const uses = this.index.used()
    return uses.length === 0 ? Effect.void : this.#store.touch(uses)
  })

  find(idOrName: string): Effect.Effect<StoredKey, KeyError> {
    return Effect.suspend(() => {
      const found = this.index.find(idOrName)
      return found === undefined ? Effect.fail(notFound(idOrName, this.index.list())) : Effect.succeed(found)
    })
  }

  /** A key that can be changed. */
  #changeable(idOrName: string): Effect.Effect<StoredKey, KeyError> {
    return Effect.flatMap(this.find(idOrName), (stored) => {
      if (stored.key.origin === "settings") return Effect.fail(isDeclared(stored.key))
      return stored.key.revokedAt === undefined ? Effect.succeed(stored) : Effect.fail(isRevoked(stored.key))
    })
  }

  /** Reads what has been changed, and waits until other processes have read it. */
  readonly #changed = (id: string) =>
    Effect.andThen(Effect.mapError(this.reload, failed), Effect.andThen(this.#settle, this.find(id)))

  create(grant: Grant): Effect.Effect<Issued, KeyError> {
    return Effect.gen({ self: this }, function*() {
      if (!isOwnName(grant.name)) return yield* isAmbiguous(grant.name)
      const taken = new KeyError({
        code: "key_exists",
        message: `A key named ${JSON.stringify(grant.name)} exists. Choose another name, or rotate or revoke that key.`
      })
      if (this.#declared.some(({ key }) => key.name === grant.name)) return yield* taken
      const secret = makeSecret(this.#crypto.random(secretBytes))
      const stored: StoredKey = {
        hash: this.#crypto.hash(secret),
        key: {
          ...grant,
          tenant: grant.tenant ?? grant.name,
          id: makeId(this.#crypto.random(24)),
          begins: beginningOf(secret),
          origin: "store",
          createdAt: yield* Clock.currentTimeMillis
        }
      }
      if (!(yield* Effect.mapError(this.#store.insert(stored), failed))) return yield* taken
      return { key: (yield* this.#changed(stored.key.id)).key, secret }
    })
  }

  rotate(idOrName: string, overlap: Duration.Duration): Effect.Effect<Issued, KeyError> {
    return Effect.gen({ self: this }, function*() {
      const { key } = yield* this.#changeable(idOrName)
      const now = yield* Clock.currentTimeMillis
      if (standingOf(key, now) === "expired") return yield* isExpired(key)
      const secret = makeSecret(this.#crypto.random(secretBytes))
      const previousUntil = now + Duration.toMillis(overlap)
      const rotation = { hash: this.#crypto.hash(secret), begins: beginningOf(secret), previousUntil }
      if (!(yield* Effect.mapError(this.#store.rotate(key.id, rotation), failed))) return yield* isRevoked(key)
      const rotated = { key: (yield* this.#changed(key.id)).key, secret }
      const { previousUntil: endedEarly = 0 } = key
      return endedEarly > now ? { ...rotated, endedEarly } : rotated
    })
  }

  extend(idOrName: string, expiresAt: number | undefined): Effect.Effect<VirtualKey, KeyError> {
    return Effect.gen({ self: this }, function*() {
      const stored = yield* this.#changeable(idOrName)
      const { expiresAt: _, ...key } = stored.key
      const extended = { ...stored, key: { ...key, ...(expiresAt === undefined ? {} : { expiresAt }) } }
      if (!(yield* Effect.mapError(this.#store.grant(extended), failed))) return yield* isRevoked(key)
      return (yield* this.#changed(key.id)).key
    })
  }

  revoke(idOrName: string): Effect.Effect<VirtualKey, KeyError> {
    return Effect.gen({ self: this }, function*() {
      const { key } = yield* this.#changeable(idOrName)
      const revoked = yield* Effect.mapError(this.#store.revoke(key.id, yield* Clock.currentTimeMillis), failed)
      if (!revoked) yield* Effect.mapError(this.reload, failed)
      return revoked ? (yield* this.#changed(key.id)).key : yield* isRevoked(key)
    })
  }
}

/** Repeats until the scope ends; a failure is logged once until it succeeds again. */
const repeatedly = <E extends { readonly message: string }>(
  what: Effect.Effect<void, E>,
  every: Duration.Duration,
  problem: string
) => {
  let isFailing = false
  const once = Effect.matchEffect(what, {
    onSuccess: () =>
      Effect.sync(() => {
        isFailing = false
      }),
    onFailure: ({ message }) =>
      Effect.suspend(() => {
        const log = isFailing ? Effect.void : Effect.logWarning(`${problem}: ${message}`)
        isFailing = true
        return log
      })
  })
  return Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(every), once)))
}

/** The keys of the store and of the configuration. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const ring = new Ring(yield* VirtualKeyStore, yield* KeyCrypto, options)
  yield* ring.reload
  options.follow?.((declared) => ring.declare(declared))
  yield* Effect.addFinalizer(() => Effect.ignore(ring.touch))
  yield* repeatedly(ring.touch, touchEvery, "The times of use of keys cannot be written")
  if (options.pollMs !== undefined) {
    yield* repeatedly(
      ring.refresh,
      Duration.millis(options.pollMs),
      "Keys cannot be read; those of the last reading hold"
    )
  }
  return VirtualKeys.of({
    state: ring.state,
    identify: (secret, now, latest) => ring.identify(secret, now, latest),
    list: Effect.sync(() => ring.index.list()),
    find: (idOrName) => Effect.map(ring.find(idOrName), ({ key }) => key),
    create: (grant) => ring.create(grant),
    rotate: (idOrName, overlap) => ring.rotate(idOrName, overlap),
    extend: (idOrName, expiresAt) => ring.extend(idOrName, expiresAt),
    revoke: (idOrName) => ring.revoke(idOrName)
  })
})

export const layer = (options: Options) => Layer.effect(VirtualKeys, make(options))

/** No keys, and none can be made: for tests and programs that serve their own requests only. */
export const none = VirtualKeys.of({
  state: { areRequired: false },
  identify: () => "unknown",
  list: Effect.succeed([]),
  find: (name) => Effect.fail(notFound(name, [])),
  create: () => Effect.fail(failed({ message: "there is none." })),
  rotate: (name) => Effect.fail(notFound(name, [])),
  extend: (name) => Effect.fail(notFound(name, [])),
  revoke: (name) => Effect.fail(notFound(name, []))
})

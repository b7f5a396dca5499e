/**
 * The keys of the service in memory, by the hash of their secrets. Every request looks its key up here, so nothing waits.
 *
 * **Details**
 *
 * The look-up takes one step of a `Map`, however many keys there are. The hash is then compared in constant time: what a
 * look-up of a hash takes shows nothing about the secret, and the comparison keeps that true if the index ever changes.
 */
import type { Identity } from "../../domain/Identity.ts"
import type { StoredKey, VirtualKey } from "./VirtualKey.ts"
import { identityOf, standingOf } from "./VirtualKey.ts"

/** Why a secret is not accepted. */
export type Refusal = "missing" | "unknown" | "expired" | "revoked"

/** A key with its identity, which all its requests share. */
interface Entry {
  readonly stored: StoredKey
  readonly identity: Identity
  /** ms since 1970, NaN: never. Always a double, which V8 changes in its place: else each use would be an object to collect. */
  lastUsedAt: number
}

/** Compares texts of the same length in a time that does not depend on where they differ. */
const isSame = (one: string, other: string): boolean => {
  let difference = one.length ^ other.length
  for (let index = 0; index < one.length; index++) difference |= one.charCodeAt(index) ^ other.charCodeAt(index)
  return difference === 0
}

/** The identity before a change if it is equal: the windows of a key's limits go on, which are kept by identity. */
const unchanged = (before: Identity | undefined, after: Identity): Identity =>
  before !== undefined && JSON.stringify(before) === JSON.stringify(after) ? before : after

export class KeyIndex {
  #byHash = new Map<string, Entry>()
  #byId = new Map<string, Entry>()

  /** All keys, revoked and expired ones too. */
  get size(): number {
    return this.#byId.size
  }

  /** Adds a key, or replaces the one of its id. */
  set(stored: StoredKey): void {
    const { hash, key, previousHash } = stored
    const before = this.#byId.get(key.id)
    if (before !== undefined) this.#forget(before)
    const identity = unchanged(before?.identity, identityOf(key))
    const entry: Entry = { stored, identity, lastUsedAt: before?.lastUsedAt ?? key.lastUsedAt ?? Number.NaN }
    this.#byId.set(key.id, entry)
    this.#byHash.set(hash, entry)
    if (previousHash !== undefined) this.#byHash.set(previousHash, entry)
  }

  #forget({ stored: { hash, previousHash } }: Entry): void {
    this.#byHash.delete(hash)
    if (previousHash !== undefined) this.#byHash.delete(previousHash)
  }

  /** Replaces all keys but keeps the times of their use. */
  replaceAll(all: ReadonlyArray<StoredKey>): void {
    const kept = new Set(all.map(({ key }) => key.id))
    for (const [id, entry] of this.#byId) {
      if (kept.has(id)) continue
      this.#forget(entry)
      this.#byId.delete(id)
    }
    for (const stored of all) this.set(stored)
  }

  /**
   * The identity of a secret, or why it is not accepted.
   *
   * @param hash of the secret
   * @param now ms since 1970
   */
  identify(hash: string, now: number): Identity | Refusal {
    const entry = this.#byHash.get(hash)
    if (entry === undefined) return "unknown"
    const { stored: { key, previousHash = "", hash: current } } = entry
    if (!isSame(current, hash)) {
      if (!isSame(previousHash, hash)) return "unknown"
      if ((key.previousUntil ?? 0) <= now && key.revokedAt === undefined) return "expired"
    }
    const standing = standingOf(key, now)
    if (standing !== "valid") return standing
    entry.lastUsedAt = now
    return entry.identity
  }

  /** Newest first; those of the settings last. */
  list(): ReadonlyArray<VirtualKey> {
    return Array.from(this.#byId.values(), describe)
      .toSorted((one, other) => (other.createdAt ?? 0) - (one.createdAt ?? 0))
  }

  /** The key of this id, or of this name: the one that is not revoked, else the newest. */
  find(idOrName: string): StoredKey | undefined {
    const byId = this.#byId.get(idOrName)
    if (byId !== undefined) return withUse(byId)
    const named = Array.from(this.#byId.values()).filter(({ stored: { key } }) => key.name === idOrName)
    const active = named.find(({ stored: { key } }) => key.revokedAt === undefined) ??
      named.toSorted((one, other) => (other.stored.key.createdAt ?? 0) - (one.stored.key.createdAt ?? 0))[0]
    return active === undefined ? undefined : withUse(active)
  }

  /** The keys that were used after what is stored about them, with the time. */
  used(): ReadonlyArray<{ readonly id: string; readonly at: number }> {
    return Array.from(this.#byId.values()).flatMap(({ lastUsedAt, stored: { key } }) =>
      key.origin === "store" && !Number.isNaN(lastUsedAt) && lastUsedAt !== key.lastUsedAt
        ? [{ id: key.id, at: lastUsedAt }]
        : []
    )
  }
}

const describe = ({ lastUsedAt, stored: { key } }: Entry): VirtualKey =>
  Number.isNaN(lastUsedAt) ? key : { ...key, lastUsedAt }

const withUse = (entry: Entry): StoredKey => ({ ...entry.stored, key: describe(entry) })

/**
 * Where virtual keys are kept that are made while the service runs: their hashes, never a secret.
 *
 * **Details**
 *
 * Every change raises the version: a process reads the keys again when the version has grown.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { StoredKey } from "./VirtualKey.ts"

/** What a rotation changes. */
export interface Rotation {
  readonly hash: string
  readonly begins: string
  /** Until when the secret before it is accepted, ms since 1970. */
  readonly previousUntil: number
}

/** When a key was used, ms since 1970. */
export interface Use {
  readonly id: string
  readonly at: number
}

/** All keys, at a version of the table. */
export interface Snapshot {
  readonly keys: ReadonlyArray<StoredKey>
  readonly version: number
}

export class VirtualKeyStore extends Context.Service<VirtualKeyStore, {
  readonly load: Effect.Effect<Snapshot, SqlError>
  /** Grows with every change of any process. */
  readonly version: Effect.Effect<number, SqlError>
  /** False if a key of this name exists that is not revoked. */
  readonly insert: (stored: StoredKey) => Effect.Effect<boolean, SqlError>
  /** False if the key does not exist or is revoked. */
  readonly rotate: (id: string, rotation: Rotation) => Effect.Effect<boolean, SqlError>
  /** False if the key does not exist or is revoked. @param at ms since 1970 */
  readonly revoke: (id: string, at: number) => Effect.Effect<boolean, SqlError>
  /** Writes when keys were used; the version stays. */
  readonly touch: (uses: ReadonlyArray<Use>) => Effect.Effect<void, SqlError>
}>()("troupe/services/keys/VirtualKeyStore") {}

/**
 * A virtual key: what an operator gives to a caller of this service. Its secret is shown once; only its hash is kept. Pure.
 *
 * **Details**
 *
 * A secret of the service's own is `tk-`, 40 random characters of base 62 (238 bits) and a checksum of 6, by which
 * scanners of repositories recognize it. The secret of a key in `troupe.yaml` may be
 * any text of at least 16 characters.
 *
 * **Gotchas**
 *
 * A slow hash is for passwords, which can be guessed: one SHA-256 of 238 random bits cannot be inverted by trying.
 */
import { Schema } from "effect"
import { Budget, Identity, Limits } from "../../domain/Identity.ts"
import type { Identity as Caller } from "../../domain/Identity.ts"

const Time = Schema.Finite

/** Printable ASCII without white space around it: names are sent in headers between instances. */
const namePattern = /^(?! )[\x20-\x7e]{1,100}(?<! )$/

/** What a name must be, for messages. */
export const nameExpected = "1 to 100 printable characters of ASCII"

export const isName = (text: string): boolean => namePattern.test(text)

/** The parts of a path that are not names, and the ids of keys. */
const notOwnNames = /\/|^\.{1,2}$|^key_[0-9A-Za-z]{12}$/

/** Whether a key of this name is found by it alone, as a part of a path, too: no id of a key is like it. */
export const isOwnName = (name: string): boolean => !notOwnNames.test(name)

/** The name of a key, a tenant or a user. */
export const Name = Schema.String.check(Schema.isPattern(namePattern, { message: `Expected ${nameExpected}` }))

/** Patterns of models. */
export const Models = Schema.Array(Schema.NonEmptyString.check(Schema.isMaxLength(200))).check(
  Schema.isMinLength(1, { message: "Expected at least one model, or none of this field for all models" })
)

/** What an operator decides about a key. */
export const Grant = Schema.Struct({
  /** Unique among the keys that are not revoked. */
  name: Name,
  /** Default the name. */
  tenant: Schema.optionalKey(Name),
  user: Schema.optionalKey(Name),
  models: Schema.optionalKey(Models),
  limits: Schema.optionalKey(Limits),
  budgets: Schema.optionalKey(Schema.Array(Budget)),
  /** Default false. */
  admin: Schema.optionalKey(Schema.Boolean),
  /** Default false. */
  setsTenant: Schema.optionalKey(Schema.Boolean),
  /** ms since 1970; left out, never. */
  expiresAt: Schema.optionalKey(Time)
})
export type Grant = typeof Grant.Type

/** Where a key is declared. */
export const Origin = Schema.Literals(["store", "settings"])

/** A key without its secret. */
export const VirtualKey = Schema.Struct({
  ...Grant.fields,
  id: Schema.String,
  tenant: Schema.String,
  /** The first characters of the secret, to recognize it; left out where the secret is not of the service's own. */
  begins: Schema.optionalKey(Schema.String),
  origin: Origin,
  /** ms since 1970. */
  createdAt: Schema.optionalKey(Time),
  revokedAt: Schema.optionalKey(Time),
  /** Of the latest request, as far as it has been written; ms since 1970. */
  lastUsedAt: Schema.optionalKey(Time),
  /** Until when the secret before the last rotation is accepted, ms since 1970. */
  previousUntil: Schema.optionalKey(Time)
}).annotate({ identifier: "VirtualKey" })
export type VirtualKey = typeof VirtualKey.Type

/** A key with the hashes of its secrets. */
export interface StoredKey {
  readonly key: VirtualKey
  readonly hash: string
  /** Of the secret before the last rotation, until `previousUntil`. */
  readonly previousHash?: string | undefined
}

/** The identity of callers with the key. */
export const identityOf = (key: VirtualKey): Caller =>
  Identity.make({
    keyId: key.id,
    name: key.name,
    tenant: key.tenant,
    ...(key.user === undefined ? {} : { user: key.user }),
    ...(key.models === undefined ? {} : { models: key.models }),
    ...(key.limits === undefined ? {} : { limits: key.limits }),
    ...(key.budgets === undefined ? {} : { budgets: key.budgets }),
    isAdmin: key.admin ?? false,
    setsTenant: key.setsTenant ?? false
  })

/** The state of a key. */
export type Standing = "valid" | "expired" | "revoked"

/** @param now ms since 1970 */
export const standingOf = ({ expiresAt, revokedAt }: VirtualKey, now: number): Standing => {
  if (revokedAt !== undefined) return "revoked"
  return expiresAt !== undefined && expiresAt <= now ? "expired" : "valid"
}

const prefix = "tk-"
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
const randomLength = 40
const checksumLength = 6

/** Characters of a secret that may be shown. */
const shownLength = prefix.length + 6

/** FNV-1a over the characters, in base 62. */
const checksumOf = (text: string): string => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193) >>> 0
  let digits = ""
  for (let left = hash, index = 0; index < checksumLength; index++, left = Math.floor(left / 62)) {
    digits += alphabet[left % 62]
  }
  return digits
}

/** Random bytes that `makeSecret` may take: some are left out, so that all characters are equally likely. */
export const secretBytes = 2 * randomLength

/** A new secret. @param random at least `secretBytes` random bytes */
export const makeSecret = (random: Uint8Array): string => {
  const even = random.filter((byte) => byte < 248).slice(0, randomLength)
  const text = Array.from(even, (byte) => alphabet[byte % 62]).join("")
  return `${prefix}${text}${checksumOf(text)}`
}

/** A new id of a key. @param random at least 24 random bytes */
export const makeId = (random: Uint8Array): string =>
  `key_${Array.from(random.slice(0, 12), (byte) => alphabet[byte % 62]).join("")}`

/** The part of a secret that may be shown. */
export const beginningOf = (secret: string): string => `${secret.slice(0, shownLength)}…`

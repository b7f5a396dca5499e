/**
 * The virtual keys of this service: those of its database and of `troupe.yaml`, hashed by Node.
 *
 * **Details**
 *
 * A database in memory belongs to this process alone, so no changes of others are read.
 *
 * **Gotchas**
 *
 * For commands, which serve nobody, a variable of a declared key may be unset: its reference then takes the place of the
 * secret.
 */
import { Effect, Layer, Redacted } from "effect"
import { hash, randomBytes } from "node:crypto"
import * as VirtualKeys from "../../services/keys/VirtualKeys.ts"
import * as VirtualKeyStore from "../../services/keys/VirtualKeyStore.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"

/** SHA-256 and the generator of the operating system. */
export const crypto = VirtualKeys.KeyCrypto.of({
  hash: (secret) => hash("sha256", secret, "base64url"),
  random: (length) => randomBytes(length)
})

/** How often changes of other processes are read, ms: one number of a file, or of a server. */
const pollMs = { memory: undefined, sqlite: 100, postgres: 1_000 } as const

const declaredIn = ({ keys }: Resolved): ReadonlyArray<VirtualKeys.Declared> =>
  keys.map(({ secret, ...grant }) => ({ ...grant, secret: Redacted.value(secret) }))

/** Requires `Settings` and the `SqlClient` of the settings. */
export const layer = Layer.unwrap(
  Effect.gen(function*() {
    const settings = yield* Settings
    const changes = yield* SettingsChanges
    return VirtualKeys.layer({
      declared: declaredIn(settings),
      follow: (declare) => changes.follow((next) => declare(declaredIn(next))),
      pollMs: pollMs[settings.storage.type]
    })
  })
).pipe(
  Layer.provide(VirtualKeyStore.layer),
  Layer.provide(Layer.succeed(VirtualKeys.KeyCrypto, crypto))
)

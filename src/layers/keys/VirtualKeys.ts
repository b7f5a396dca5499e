/**
 * The virtual keys of this service: those of `troupe.yaml`, hashed by Node.
 *
 * **Details**
 *
 * Their secrets are in memory until they are hashed, when the layer is built.
 */
import { Effect, Layer, Redacted } from "effect"
import { hash, randomBytes } from "node:crypto"
import * as VirtualKeys from "../../services/keys/VirtualKeys.ts"
import { VirtualKeyStore } from "../../services/keys/VirtualKeyStore.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"

/** SHA-256 and the generator of the operating system. */
export const crypto = VirtualKeys.KeyCrypto.of({
  hash: (secret) => hash("sha256", secret, "base64url"),
  random: (length) => randomBytes(length)
})

const declaredIn = ({ keys }: Resolved): ReadonlyArray<VirtualKeys.Declared> =>
  keys.map(({ secret, ...grant }) => ({ ...grant, secret: Redacted.value(secret) }))

/** A store that keeps none: the keys are those of the configuration. */
const noStore = Layer.succeed(VirtualKeyStore, {
  load: Effect.succeed({ keys: [], version: 0 }),
  version: Effect.succeed(0),
  insert: () => Effect.succeed(false),
  rotate: () => Effect.succeed(false),
  revoke: () => Effect.succeed(false),
  touch: () => Effect.void
})

/** Requires `Settings`. */
export const layer = Layer.unwrap(
  Effect.map(Settings, (settings) => VirtualKeys.layer({ declared: declaredIn(settings), pollMs: undefined }))
).pipe(
  Layer.provide(noStore),
  Layer.provide(Layer.succeed(VirtualKeys.KeyCrypto, crypto))
)

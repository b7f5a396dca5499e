import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import { prefixFilesOf } from "../../../src/services/settings/PrefixFileSettings.ts"
import type { StorageLocation } from "../../../src/services/settings/StorageSettings.ts"

const sqlite: StorageLocation = { type: "sqlite", folder: "/srv/data" }
const postgres: StorageLocation = { type: "postgres", url: Redacted.make("postgres://localhost/troupe") }
const memory: StorageLocation = { type: "memory" }

const defaults = { enabled: true, maxBytes: 2 * 2 ** 30, ttl: Duration.days(7) }

const settingsOf = (...parameters: Parameters<typeof prefixFilesOf>) => prefixFilesOf(...parameters).prefixFiles

describe("the settings of kept prompts", () => {
  it("have the data folder of the storage, or the user's", () => {
    assert.deepStrictEqual(settingsOf(sqlite, "/home/data"), { ...defaults, dataFolder: "/srv/data" })
    assert.deepStrictEqual(settingsOf(postgres, "/home/data"), { ...defaults, dataFolder: "/home/data" })
  })

  it("write nothing to the disk, and delete nothing, where the storage is memory", () => {
    assert.deepStrictEqual(prefixFilesOf(memory, "/home/data"), {})
    assert.deepStrictEqual(prefixFilesOf(memory, "/home/data", { enabled: false }), {})
    const enabled = settingsOf(memory, "/home/data", { enabled: true })
    assert.deepStrictEqual(enabled, { ...defaults, dataFolder: "/home/data" })
  })

  it("are turned off, or have other bounds", () => {
    assert.isFalse(settingsOf(sqlite, "", { enabled: false })?.enabled)
    const given = settingsOf(sqlite, "", { maxBytes: 1_000, ttl: false })
    const bounds = { maxBytes: 1_000, ttl: Duration.infinity }
    assert.deepStrictEqual(given, { enabled: true, dataFolder: "/srv/data", ...bounds })
  })
})

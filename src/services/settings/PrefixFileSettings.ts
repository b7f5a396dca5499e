/** The section `engines.prefixFiles`: computed prompts of local models in files. */
import { Duration, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { Bytes, durationText, optional, orOff, SpanOrOff } from "../../domain/Fields.ts"
import type { StorageLocation } from "./StorageSettings.ts"

const defaults = Defaults.prefixFiles

export const PrefixFiles = Schema.Struct({
  enabled: optional(
    "Whether they are kept; false also deletes the files at start. Default true, except with storage.type: memory.",
    Schema.Boolean
  ),
  maxBytes: optional(
    "Size of the files of all models, as 2 GiB or in bytes; the least recently used are deleted. Default 2 GiB.",
    Bytes
  ),
  ttl: optional(
    `Time after which an unused file is deleted, false for never. Default ${
      durationText(Duration.toMillis(defaults.ttl))
    }.`,
    SpanOrOff
  )
})

/** With defaults. */
export interface PrefixFileSettings {
  readonly enabled: boolean
  /** The folder that has theirs, absolute. */
  readonly dataFolder: string
  readonly maxBytes: number
  /** Infinite, never. */
  readonly ttl: Duration.Duration
}

/**
 * The section with defaults; left out if nothing may be stored on the disk.
 *
 * @param defaultFolder the data folder if the storage has none
 */
export const prefixFilesOf = (
  storage: StorageLocation,
  defaultFolder: string,
  { enabled = storage.type !== "memory", maxBytes = defaults.maxBytes, ttl }: typeof PrefixFiles.Type = {}
): { readonly prefixFiles?: PrefixFileSettings } => {
  // Without storage, the default data folder can be that of another service, so its files are not removed.
  if (storage.type === "memory" && !enabled) return {}
  const dataFolder = storage.type === "sqlite" ? storage.folder : defaultFolder
  return { prefixFiles: { enabled, dataFolder, maxBytes, ttl: orOff(ttl, defaults.ttl, Duration.infinity) } }
}

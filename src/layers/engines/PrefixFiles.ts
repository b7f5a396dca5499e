/**
 * The folder of computed prompts, as the settings have it.
 *
 * **Details**
 *
 * Engine threads write, read and delete the files (`workers/model/PrefixFolder`). This service deletes all of them at start if
 * they are turned off.
 *
 * **Gotchas**
 *
 * A folder that cannot be deleted does not prevent the start: the log says so.
 */
import { Duration, Effect } from "effect"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import * as Defaults from "../../domain/Defaults.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import type { PrefixFileSettings } from "../../services/settings/PrefixFileSettings.ts"

/** The folder in the data folder. */
const name = "prefixes"

const deleteAll = (folder: string): Effect.Effect<void> =>
  Effect.tryPromise(() => rm(folder, { recursive: true, force: true })).pipe(
    Effect.catch(({ cause }) =>
      Effect.logWarning(`The computed prompts in ${folder} were not deleted: ${(cause as Error).message}`)
    )
  )

/**
 * The options of engines; undefined if no prompts are kept.
 *
 * @param settings undefined if nothing may be stored on the disk
 */
export const prepare = (settings: PrefixFileSettings | undefined): Effect.Effect<PrefixFileOptions | undefined> => {
  if (settings === undefined) return Effect.succeed(undefined)
  const { dataFolder, enabled, maxBytes, ttl } = settings
  const folder = join(dataFolder, name)
  if (!enabled) return Effect.as(deleteAll(folder), undefined)
  return Effect.succeed({
    folder,
    maxBytes,
    idleMs: Duration.toMillis(Defaults.prefixFiles.idle),
    ...(Duration.isFinite(ttl) ? { ttlMs: Duration.toMillis(ttl) } : {})
  })
}

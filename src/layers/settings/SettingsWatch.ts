/**
 * Watches the configuration file.
 *
 * **Details**
 *
 * The folder is watched, not the file: editors and deployments write another file and rename it, and Kubernetes replaces a symbolic
 * link beside it (`..data`). Events that follow each other within the wait count once, and a text that is as before does not
 * count. A file that cannot be read in between is read again at the next event. A change before the folder is watched, such as
 * one while the service starts, is found by one comparison at the beginning.
 */
import { Duration, Effect } from "effect"
import type { FSWatcher } from "node:fs"
import { realpathSync, watch as watchFolder } from "node:fs"
import { readFile } from "node:fs/promises"
import { basename, dirname } from "node:path"

/** Of a volume that Kubernetes fills from a ConfigMap or a Secret. */
const isVolumeLink = (name: string): boolean => name.startsWith("..")

const realPath = (file: string): string => {
  try {
    return realpathSync(file)
  } catch {
    return file
  }
}

const textOf = (file: string): Promise<string | undefined> => readFile(file, "utf8").catch(() => undefined)

class Watch {
  readonly #file: string
  readonly #waitMs: number
  readonly #changed: () => void
  readonly #watchers: ReadonlyArray<FSWatcher>
  #text: string | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(file: string, text: string, wait: Duration.Duration, changed: () => void) {
    this.#file = file
    this.#text = text
    this.#waitMs = Duration.toMillis(wait)
    this.#changed = changed
    // A link to a file in another folder is followed once.
    const files = new Set([file, realPath(file)])
    this.#watchers = Array.from(files, (one) =>
      watchFolder(dirname(one), { persistent: false }, (_, name) => {
        if (name === null || name === basename(one) || isVolumeLink(name)) this.#note()
      }).on("error", () => {}))
    this.#note()
  }

  #note(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#compare(), this.#waitMs)
  }

  async #compare(): Promise<void> {
    const text = await textOf(this.#file)
    if (text === undefined || text === this.#text) return
    this.#text = text
    this.#changed()
  }

  close(): void {
    clearTimeout(this.#timer)
    for (const watcher of this.#watchers) watcher.close()
  }
}

/**
 * Runs an effect each time when the text of a file has changed, until the scope ends.
 *
 * @param file absolute
 * @param text as it was read last
 * @param wait without another event, before the file is read
 */
export const watch = <R>(file: string, text: string, wait: Duration.Duration, changed: Effect.Effect<void, never, R>) =>
  Effect.flatMap(Effect.context<R>(), (services) =>
    Effect.acquireRelease(
      Effect.sync(() => new Watch(file, text, wait, () => void Effect.runForkWith(services)(changed))),
      (watching) => Effect.sync(() => watching.close())
    ))

/** Pulls a model into the store: find its files, lock, download, verify, move into place, inspect. */
import { Effect } from "effect"
import { mkdir, rm, rmdir, statfs } from "node:fs/promises"
import { dirname, join } from "node:path"
import * as ModelSource from "../../services/store/ModelSource.ts"
import type { Manifest, PullOptions, StoredModel } from "../../services/store/ModelStore.ts"
import { ChecksumMismatch, DiskFull, fail, NameTaken } from "../../services/store/ModelStore.ts"
import type { Downloaded } from "./Download.ts"
import { download, onDisk } from "./Download.ts"
import * as Lock from "./Lock.ts"
import * as Manifests from "./Manifests.ts"
import type { Origin } from "./Origin.ts"
import { ensureInspected } from "./Quarantine.ts"
import { find, shown, withChecksum } from "./Sources.ts"
import type { Options, Report, StoreContext } from "./StoreContext.ts"
import { invalid, now } from "./StoreContext.ts"

/** Limit of a model's folder, bytes. */
const availableFor = Effect.fnUntraced(function*({ folder, maxBytes }: Options, name: string) {
  const disk = yield* onDisk(folder, async () => {
    await mkdir(folder, { recursive: true })
    return await statfs(folder)
  })
  const free = disk.bavail * disk.bsize + (yield* Manifests.bytesUnder(join(folder, name)))
  if (maxBytes === undefined) return free
  const all = yield* Manifests.bytesUnder(folder)
  const own = yield* Manifests.bytesUnder(join(folder, name))
  return Math.max(0, Math.min(free, maxBytes - (all - own)))
})

/** Removes the folders of a failed pull that are empty. */
const removeEmptyFolders = (folder: string, origins: ReadonlyArray<Origin>) => {
  const folders = new Set([...origins.map(({ path }) => dirname(join(folder, path))), folder])
  return Effect.promise(async () => {
    for (const one of [...folders].sort((a, b) => b.length - a.length)) await rmdir(one).catch(() => undefined)
  })
}

/** Downloads every file as a part, within the available space. */
const downloadAll = Effect.fnUntraced(function*(
  { options, retry, stallAfter }: StoreContext,
  name: string,
  origins: ReadonlyArray<Origin>,
  report: Report
) {
  const available = yield* availableFor(options, name)
  const needed = origins.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0)
  if (needed > available) {
    return yield* fail(new DiskFull({ folder: options.folder, neededBytes: needed, availableBytes: available }))
  }
  const downloaded: Array<Downloaded> = []
  for (const origin of origins) {
    const maxBytes = available - downloaded.reduce((sum, { bytes }) => sum + bytes, 0)
    const target = join(options.folder, name, origin.path)
    downloaded.push(
      yield* download({ origin, target, retry, stallAfter, maxBytes, report, hasBegun: downloaded.length > 0 })
    )
  }
  return downloaded
})

const removeParts = (downloaded: ReadonlyArray<Downloaded>) =>
  Effect.promise(() =>
    Promise.all(downloaded.flatMap(({ part }) => [rm(part, { force: true }), rm(`${part}.json`, { force: true })]))
  )

/** Fails unless the parts are GGUF files, before they are moved into place. */
const checkHeaders = ({ files }: StoreContext, typed: string, downloaded: ReadonlyArray<Downloaded>) =>
  Effect.forEach(downloaded, ({ part }) => files.inspectFile(part), { discard: true }).pipe(
    Effect.catch(({ reason }) =>
      Effect.andThen(
        removeParts(downloaded),
        Effect.fail(invalid(typed, `Not a loadable GGUF file: ${reason.detail}`))
      )
    )
  )

/** Moves the files into place and writes the manifest. */
const commit = Effect.fnUntraced(function*(
  { options: { folder } }: StoreContext,
  about: Pick<Manifest, "kind" | "name" | "source">,
  downloaded: ReadonlyArray<Downloaded>
) {
  for (const { origin, part } of downloaded) {
    const target = join(folder, about.name, origin.path)
    yield* Manifests.moveInto(part, target, dirname(target))
    yield* onDisk(target, () => rm(`${part}.json`, { force: true }))
  }
  const [first, ...others] = downloaded.map(({ bytes, etag, origin, sha256 }) => ({
    path: origin.path,
    bytes,
    sha256,
    ...(etag === undefined ? {} : { etag })
  }))
  const revision = downloaded.find((one) => one.revision !== undefined)?.revision
  return yield* Manifests.write(folder, {
    version: 1,
    ...about,
    ...(revision === undefined ? {} : { revision }),
    pulledAt: yield* now,
    files: [first!, ...others]
  })
})

/** The existing model, if it has the same source and checksum; undefined if it must be pulled again. */
const reuse = Effect.fnUntraced(
  function*(context: StoreContext, existing: StoredModel, source: string, given: PullOptions) {
    const { files, name, quarantined, source: before } = existing.manifest
    if (before !== source) return yield* fail(new NameTaken({ name, source: before }))
    if (quarantined !== undefined) {
      yield* Manifests.remove(context.options.folder, name)
      return undefined
    }
    const [{ path, sha256 }] = files
    return given.sha256 === undefined || given.sha256.toLowerCase() === sha256
      ? existing
      : yield* fail(new ChecksumMismatch({ file: path, expected: given.sha256, actual: sha256 }))
  }
)

const checkName = (typed: string, name: string) =>
  ModelSource.isName(name)
    ? Effect.void
    : invalid(
      typed,
      `"${name}" is not a valid model name. Choose one with --name, of letters, digits, ".", "_" and "-"`
    )

/** Pulls the files into the store; the caller holds the lock. */
const pullLocked = Effect.fnUntraced(function*(
  context: StoreContext,
  typed: string,
  about: Pick<Manifest, "kind" | "name" | "source">,
  origins: ReadonlyArray<Origin>,
  report: Report
) {
  const bytes = origins.reduce<number | undefined>(
    (sum, origin) => sum === undefined || origin.bytes === undefined ? undefined : sum + origin.bytes,
    0
  )
  yield* report({ type: "resolved", name: about.name, files: origins.length, bytes })
  return yield* Effect.gen(function*() {
    const downloaded = yield* downloadAll(context, about.name, origins, report)
    if (about.kind === "gguf") yield* checkHeaders(context, typed, downloaded)
    return yield* commit(context, about, downloaded)
  }).pipe(Effect.onError(() => removeEmptyFolders(join(context.options.folder, about.name), origins)))
})

/** Pulls a model and reports the progress. */
export const pull = Effect.fnUntraced(
  function*(context: StoreContext, typed: string, given: PullOptions, report: Report) {
    const { folder } = context.options
    const source = yield* Effect.mapError(
      Effect.fromResult(ModelSource.parse(typed)),
      (detail) => invalid(typed, detail)
    )
    // Checked before any request is sent.
    if (given.name !== undefined) yield* checkName(typed, given.name)
    const found = yield* find(context, typed, source, report)
    const name = given.name ?? found.name
    yield* checkName(typed, name)
    const origins = yield* withChecksum(found.origins, typed, given.sha256)
    const { lost } = yield* Lock.acquire(join(folder, `.${name}.lock`), name)
    const pulled = Effect.gen(function*() {
      const existing = yield* Manifests.read(folder, name)
      const reused = existing === undefined ? undefined : yield* reuse(context, existing, shown(typed, source), given)
      const model = reused ??
        (yield* pullLocked(context, typed, { kind: found.kind, name, source: shown(typed, source) }, origins, report))
      yield* report({
        type: "done",
        model: yield* ensureInspected(context, model, report),
        already: reused !== undefined
      })
    })
    yield* Effect.raceFirst(pulled, lost)
  }
)

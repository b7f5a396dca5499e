/** A pull from its source to the store: find, lock, receive, check, take its place, inspect. */
import { Effect } from "effect"
import { mkdir, rm, rmdir, statfs } from "node:fs/promises"
import { dirname, join } from "node:path"
import * as ModelSource from "../../services/store/ModelSource.ts"
import type { Manifest, PullOptions, StoredModel } from "../../services/store/ModelStore.ts"
import { ChecksumMismatch, DiskFull, fail, NameTaken } from "../../services/store/ModelStore.ts"
import type { Arrived } from "./Download.ts"
import { download, onDisk } from "./Download.ts"
import * as Lock from "./Lock.ts"
import * as Manifests from "./Manifests.ts"
import type { Origin } from "./Origin.ts"
import { ensure } from "./Quarantine.ts"
import { find, shown, withChecksum } from "./Sources.ts"
import type { Options, Report, Tools } from "./StoreContext.ts"
import { invalid, now } from "./StoreContext.ts"

/** Bytes that a model's folder may come to. */
const roomFor = Effect.fnUntraced(function*({ folder, maxBytes }: Options, name: string) {
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

/** A pull that kept nothing leaves no folder either; one that holds anything stays. */
const removeEmptyFolders = (folder: string, origins: ReadonlyArray<Origin>) => {
  const folders = new Set([...origins.map(({ path }) => dirname(join(folder, path))), folder])
  return Effect.promise(async () => {
    for (const one of [...folders].sort((a, b) => b.length - a.length)) await rmdir(one).catch(() => undefined)
  })
}

/** Every file as a part, within the room there is. */
const receiveAll = Effect.fnUntraced(function*(
  { options, retry, stallAfter }: Tools,
  name: string,
  origins: ReadonlyArray<Origin>,
  report: Report
) {
  const whole = yield* roomFor(options, name)
  const needed = origins.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0)
  if (needed > whole) {
    return yield* fail(new DiskFull({ folder: options.folder, neededBytes: needed, availableBytes: whole }))
  }
  const arrived: Array<Arrived> = []
  for (const origin of origins) {
    const room = whole - arrived.reduce((sum, { bytes }) => sum + bytes, 0)
    const target = join(options.folder, name, origin.path)
    arrived.push(yield* download({ origin, target, retry, stallAfter, room, report, hasBegun: arrived.length > 0 }))
  }
  return arrived
})

const removeParts = (arrived: ReadonlyArray<Arrived>) =>
  Effect.promise(() =>
    Promise.all(arrived.flatMap(({ part }) => [rm(part, { force: true }), rm(`${part}.json`, { force: true })]))
  )

/** Whether the parts are GGUF files at all, before they take their place. */
const checkHeaders = ({ files }: Tools, typed: string, arrived: ReadonlyArray<Arrived>) =>
  Effect.forEach(arrived, ({ part }) => files.inspectFile(part), { discard: true }).pipe(
    Effect.catch(({ reason }) =>
      Effect.andThen(
        removeParts(arrived),
        Effect.fail(invalid(typed, `Not a loadable GGUF file: ${reason.detail}`))
      )
    )
  )

/** Puts the files in their place, and tells of them. */
const commit = Effect.fnUntraced(function*(
  { options: { folder } }: Tools,
  about: Pick<Manifest, "kind" | "name" | "source">,
  arrived: ReadonlyArray<Arrived>
) {
  for (const { origin, part } of arrived) {
    const target = join(folder, about.name, origin.path)
    yield* Manifests.moveInto(part, target, dirname(target))
    yield* onDisk(target, () => rm(`${part}.json`, { force: true }))
  }
  const [first, ...others] = arrived.map(({ bytes, etag, origin, sha256 }) => ({
    path: origin.path,
    bytes,
    sha256,
    ...(etag === undefined ? {} : { etag })
  }))
  const revision = arrived.find((one) => one.revision !== undefined)?.revision
  return yield* Manifests.write(folder, {
    version: 1,
    ...about,
    ...(revision === undefined ? {} : { revision }),
    pulledAt: yield* now,
    files: [first!, ...others]
  })
})

/** What becomes of a model that is there already; undefined when it is to be pulled again. */
const settle = Effect.fnUntraced(function*(tools: Tools, existing: StoredModel, source: string, given: PullOptions) {
  const { files, name, quarantined, source: before } = existing.manifest
  if (before !== source) return yield* fail(new NameTaken({ name, source: before }))
  if (quarantined !== undefined) {
    yield* Manifests.remove(tools.options.folder, name)
    return undefined
  }
  const [{ path, sha256 }] = files
  return given.sha256 === undefined || given.sha256.toLowerCase() === sha256
    ? existing
    : yield* fail(new ChecksumMismatch({ file: path, expected: given.sha256, actual: sha256 }))
})

const checkName = (typed: string, name: string) =>
  ModelSource.isName(name)
    ? Effect.void
    : invalid(
      typed,
      `"${name}" is not a valid model name. Choose one with --name, of letters, digits, ".", "_" and "-"`
    )

/** Brings the files into the store, for the holder of its lock. */
const bring = Effect.fnUntraced(function*(
  tools: Tools,
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
    const arrived = yield* receiveAll(tools, about.name, origins, report)
    if (about.kind === "gguf") yield* checkHeaders(tools, typed, arrived)
    return yield* commit(tools, about, arrived)
  }).pipe(Effect.onError(() => removeEmptyFolders(join(tools.options.folder, about.name), origins)))
})

/** Pulls, and tells of it. */
export const pull = Effect.fnUntraced(function*(tools: Tools, typed: string, given: PullOptions, report: Report) {
  const { folder } = tools.options
  const source = yield* Effect.mapError(Effect.fromResult(ModelSource.parse(typed)), (detail) => invalid(typed, detail))
  // Before anybody is asked for the rest.
  if (given.name !== undefined) yield* checkName(typed, given.name)
  const found = yield* find(tools, typed, source, report)
  const name = given.name ?? found.name
  yield* checkName(typed, name)
  const origins = yield* withChecksum(found.origins, typed, given.sha256)
  const { lost } = yield* Lock.acquire(join(folder, `.${name}.lock`), name)
  const locked = Effect.gen(function*() {
    const existing = yield* Manifests.read(folder, name)
    const there = existing === undefined ? undefined : yield* settle(tools, existing, shown(typed, source), given)
    const model = there ??
      (yield* bring(tools, typed, { kind: found.kind, name, source: shown(typed, source) }, origins, report))
    yield* report({ type: "done", model: yield* ensure(tools, model, report), already: there !== undefined })
  })
  yield* Effect.raceFirst(locked, lost)
})

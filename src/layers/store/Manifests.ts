/** The folders of the store and their manifests, `model.json`. */
import { Effect, Option, Schema } from "effect"
import type { Dirent } from "node:fs"
import { open, opendir, readFile, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { isName } from "../../services/store/ModelSource.ts"
import type { ModelStoreError, StoredModel } from "../../services/store/ModelStore.ts"
import { Manifest } from "../../services/store/ModelStore.ts"
import { onDisk } from "./Download.ts"

const manifestName = "model.json"
const ManifestText = Schema.fromJsonString(Manifest)

/** A rename is durable only after its folder is synchronized. */
const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, "r")
  await handle.sync().catch(() => {})
  await handle.close()
}

/** Moves a file durably. */
export const moveInto = (from: string, to: string, folder: string): Effect.Effect<void, ModelStoreError> =>
  onDisk(to, async () => {
    await rename(from, to)
    await syncFolder(folder)
  })

/** The path to load. */
const pathOf = (folder: string, { files, kind, name }: Manifest): string =>
  kind === "gguf" ? join(folder, name, files[0].path) : join(folder, name)

const modelOf = (folder: string, manifest: Manifest): StoredModel => ({
  manifest,
  path: pathOf(folder, manifest),
  bytes: manifest.files.reduce((sum, { bytes }) => sum + bytes, 0)
})

/** Limit of a manifest, bytes: 1000 files need about 200,000. */
const maxManifestBytes = 1_000_000

const readManifest = async (file: string): Promise<string> =>
  (await stat(file)).size > maxManifestBytes ? "" : readFile(file, "utf8")

/** The model of this name; undefined if it is missing or incomplete. */
export const read = (folder: string, name: string): Effect.Effect<StoredModel | undefined> =>
  Effect.promise(() => readManifest(join(folder, name, manifestName)).catch(() => "")).pipe(
    Effect.map((text) => {
      const manifest = Option.getOrUndefined(Schema.decodeOption(ManifestText)(text))
      return manifest === undefined || manifest.name !== name ? undefined : modelOf(folder, manifest)
    })
  )

/** Writes the manifest atomically. */
export const write = (folder: string, manifest: Manifest): Effect.Effect<StoredModel, ModelStoreError> => {
  const place = join(folder, manifest.name)
  const file = join(place, manifestName)
  return Effect.as(
    onDisk(file, async () => {
      const handle = await open(`${file}.part`, "w")
      try {
        await handle.writeFile(`${JSON.stringify(manifest, null, 2)}\n`)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(`${file}.part`, file)
      await syncFolder(place)
    }),
    modelOf(folder, manifest)
  )
}

/** Limit of the models in a list. */
const maxModels = 1000

/** Entries of a folder, one by one: a large folder does not have to fit in memory. */
async function* entriesOf(folder: string): AsyncGenerator<Dirent, void, undefined> {
  const opened = await opendir(folder).catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" ? undefined : Promise.reject(cause)
  )
  if (opened !== undefined) yield* opened
}

/** The first names in alphabetical order, and whether there are more. */
const firstNames = async (folder: string, most: number) => {
  let names: Array<string> = []
  let isCut = false
  const cut = () => {
    isCut ||= names.length > most
    names = names.sort().slice(0, most)
  }
  for await (const entry of entriesOf(folder)) {
    if (!entry.isFile() && isName(entry.name)) names.push(entry.name)
    if (names.length >= 2 * most) cut()
  }
  cut()
  return { names, isCut }
}

/** Every complete model, by name; at most the first 1000. */
export const list = Effect.fnUntraced(function*(folder: string) {
  const { isCut, names } = yield* onDisk(folder, () => firstNames(folder, maxModels))
  if (isCut) {
    yield* Effect.logWarning(`${folder} has more than ${maxModels} folders; the list shows the first of them.`)
  }
  const models = yield* Effect.forEach(names, (name) => read(folder, name))
  return models.filter((model) => model !== undefined)
})

const bytesIn = async (folder: string): Promise<number> => {
  let bytes = 0
  for await (const entry of entriesOf(folder)) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) bytes += await bytesIn(path)
    else if (entry.isFile() && !entry.name.endsWith(".lock")) {
      bytes += await stat(path).then(({ size }) => size, () => 0)
    }
  }
  return bytes
}

/** The size of a folder's files, including parts and without locks, bytes; 0 without a folder. */
export const bytesUnder = (folder: string): Effect.Effect<number> =>
  Effect.promise(() => bytesIn(folder).catch(() => 0))

/** Removes a model in one step, then deletes its bytes. Returns whether it existed. */
export const remove = (folder: string, name: string): Effect.Effect<boolean, ModelStoreError> =>
  onDisk(join(folder, name), async () => {
    const aside = join(folder, `.removed-${name}-${process.pid}`)
    const found = await rename(join(folder, name), aside).then(
      () => true,
      (cause: NodeJS.ErrnoException) => cause.code === "ENOENT" ? false : Promise.reject(cause)
    )
    await rm(aside, { recursive: true, force: true })
    return found
  })

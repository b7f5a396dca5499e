/** The store's folders and their `model.json`. */
import { Effect, Option, Schema } from "effect"
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import type { ModelStoreError, StoredModel } from "../../services/ModelStore.ts"
import { Manifest } from "../../services/ModelStore.ts"
import { onDisk } from "./Download.ts"

const manifestName = "model.json"
const ManifestText = Schema.fromJsonString(Manifest)

/** A rename is only certain when its folder is on the disk. */
const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, "r")
  await handle.sync().catch(() => {})
  await handle.close()
}

/** Puts a file in its place, for good. */
export const moveInto = (from: string, to: string, folder: string): Effect.Effect<void, ModelStoreError> =>
  onDisk(to, async () => {
    await rename(from, to)
    await syncFolder(folder)
  })

/** What to load of a model. */
const pathOf = (folder: string, { files, kind, name }: Manifest): string =>
  kind === "gguf" ? join(folder, name, files[0].path) : join(folder, name)

const modelOf = (folder: string, manifest: Manifest): StoredModel => ({
  manifest,
  path: pathOf(folder, manifest),
  bytes: manifest.files.reduce((sum, { bytes }) => sum + bytes, 0)
})

/** The model of this name, if it is there whole. */
export const read = (folder: string, name: string): Effect.Effect<StoredModel | undefined> =>
  Effect.promise(() => readFile(join(folder, name, manifestName), "utf8").catch(() => "")).pipe(
    Effect.map((text) => {
      const manifest = Option.getOrUndefined(Schema.decodeOption(ManifestText)(text))
      return manifest === undefined || manifest.name !== name ? undefined : modelOf(folder, manifest)
    })
  )

/** Writes the manifest, in one step. */
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

/** Every model that is there whole, by name. */
export const list = Effect.fnUntraced(function*(folder: string) {
  const names = yield* onDisk(
    folder,
    () => readdir(folder).catch((cause: NodeJS.ErrnoException) => cause.code === "ENOENT" ? [] : Promise.reject(cause))
  )
  const models = yield* Effect.forEach([...names].sort(), (name) => read(folder, name))
  return models.filter((model) => model !== undefined)
})

/** What a folder's files take, parts and all but locks, bytes; nothing where there is none. */
export const bytesUnder = (folder: string): Effect.Effect<number> =>
  Effect.promise(async () => {
    const paths = await readdir(folder, { recursive: true }).catch(() => [])
    const sizes = await Promise.all(
      paths.filter((path) => !path.endsWith(".lock")).map((path) =>
        stat(join(folder, path)).then((found) => found.isFile() ? found.size : 0, () => 0)
      )
    )
    return sizes.reduce((sum, size) => sum + size, 0)
  })

/** Takes a model away in one step, then its bytes. Tells whether there was anything. */
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

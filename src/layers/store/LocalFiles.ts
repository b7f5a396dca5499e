/** Reads a model from a local path: a GGUF file with its parts, or an ONNX folder. */
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect } from "effect"
import { createReadStream } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { nameOf, partsOf } from "../../services/store/ModelSource.ts"
import { fail, InvalidSource } from "../../services/store/ModelStore.ts"
import type { Origin } from "./Origin.ts"
import { Cut } from "./Origin.ts"

/** Limit of the files of one model. */
const maxFiles = 1000

/** A model on the disk. */
export interface Found {
  readonly kind: "gguf" | "onnx"
  readonly name: string
  readonly origins: ReadonlyArray<Origin>
}

const describe = (path: string) =>
  stat(path).then(({ mtimeMs, size }) => ({ bytes: size, etag: `"${size}-${mtimeMs}"` }))

const make = async (file: string, path: string): Promise<Origin> => {
  const { bytes } = await describe(file)
  return {
    path,
    label: file,
    bytes,
    sha256: undefined,
    open: (fromBytes, etag) =>
      Effect.tryPromise({ try: () => describe(file), catch: (cause) => cutFrom(cause) }).pipe(Effect.map((now) => {
        const from = etag === now.etag ? fromBytes : 0
        return {
          fromBytes: from,
          totalBytes: now.bytes,
          etag: now.etag,
          sha256: undefined,
          revision: undefined,
          body: NodeStream.fromReadable<Uint8Array, Cut>({
            evaluate: () => createReadStream(file, { start: from, highWaterMark: 1024 * 1024 }),
            onError: cutFrom
          })
        }
      }))
  }
}

const cutFrom = (cause: unknown) => {
  const { code, message } = cause as NodeJS.ErrnoException
  return new Cut({ detail: code ?? message })
}

const isCompanion = (name: string): boolean => /\.(json|jinja|txt|model)$/.test(name)
const isWeights = (name: string): boolean => /\.onnx(_data.*)?$/.test(name)

/** Names in one level of a folder: an unrelated folder may contain millions of files below. */
const namesIn = (folder: string): Promise<Array<string>> =>
  readdir(folder).catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" || cause.code === "ENOTDIR" ? [] : Promise.reject(cause)
  )

const findFolder = async (folder: string): Promise<Found | undefined> => {
  const weights = (await namesIn(join(folder, "onnx"))).filter(isWeights).map((name) => join("onnx", name)).sort()
  const companions = (await namesIn(folder)).filter(isCompanion).sort()
  // The weights come first, since a checksum applies to the first file.
  const models = weights.filter((path) => path.endsWith(".onnx"))
  const files = [...models, ...weights.filter((path) => !models.includes(path)), ...companions]
  if (models.length === 0 || !companions.includes("config.json")) return undefined
  if (files.length > maxFiles) {
    throw new Error(`${folder} has ${files.length} model files, but at most ${maxFiles} are supported`)
  }
  return {
    kind: "onnx",
    name: nameOf(folder),
    origins: await Promise.all(files.map((path) => make(join(folder, path), path)))
  }
}

const findFile = async (file: string): Promise<Found> => ({
  kind: "gguf",
  name: nameOf(file),
  origins: await Promise.all(partsOf(basename(file)).map((part) => make(join(dirname(file), part), part)))
})

/** A hint for a bare name, which may have been meant for another source. */
const otherSources = (typed: string): string =>
  /^[./\\]/.test(typed) ? "" : ". To download a model, use hf:org/repo or https://host/model.gguf"

/** The model at a path. */
export const find = Effect.fnUntraced(function*(typed: string) {
  const path = resolve(typed)
  const wrong = (detail: string) => fail(new InvalidSource({ source: typed, detail }))
  const found = yield* Effect.tryPromise({
    try: async () => (await stat(path)).isDirectory() ? await findFolder(path) : await findFile(path),
    catch: (cause) => {
      const { code, message, path: where = path } = cause as NodeJS.ErrnoException
      if (code === undefined) return wrong(message)
      return wrong(
        code === "ENOENT" ? `No such file: ${where}${otherSources(typed)}` : `Cannot read ${where} (${code})`
      )
    }
  })
  return found ?? (yield* wrong("Expected a GGUF file, or a folder with config.json and an onnx folder"))
})

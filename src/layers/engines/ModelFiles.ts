/**
 * Reads model files' headers from the disk, in pieces that grow from 256 KiB to 64 MiB until the header is whole.
 */
import { Cache, Data, Effect, Layer, Result, Schema } from "effect"
import { open, readdir, readFile, stat } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import type { DeploymentOptions, LlamaDeployment, OnnxDeployment } from "../../domain/Deployment.ts"
import { defaultSlots } from "../../domain/Deployment.ts"
import type { GgufFile } from "../../services/engines/ModelFiles.ts"
import { ModelFileError, ModelFiles, NotAModel, Unreadable } from "../../services/engines/ModelFiles.ts"
import type { MemoryEstimate, Use } from "../../services/models/MemoryEstimate.ts"
import { ofGguf, ofOnnx } from "../../services/models/MemoryEstimate.ts"
import type { Header } from "../../services/store/Gguf.ts"
import { endOf, Malformed, parse } from "../../services/store/Gguf.ts"

/** bytes */
const smallestPiece = 256 * 1024
/** A header is mostly its vocabulary: a million tokens take about 40 MiB. */
const largestPiece = 64 * 1024 * 1024
const headersKept = 64

const unreadable = (path: string, cause: unknown): ModelFileError => {
  const { code, message } = cause as NodeJS.ErrnoException
  const detail = code === "ENOENT" ? "There is no such file" : message
  return new ModelFileError({ reason: new Unreadable({ path, detail }) })
}

const notAModel = (path: string, detail: string): ModelFileError =>
  new ModelFileError({ reason: new NotAModel({ path, detail }) })

const tryRead = <A>(path: string, read: () => Promise<A>): Effect.Effect<A, ModelFileError> =>
  Effect.tryPromise({ try: read, catch: (cause) => unreadable(path, cause) })

/** The header, or what is wrong with it. */
const readHeader = async (path: string, fileBytes: number): Promise<Result.Result<Header, Error>> => {
  await using file = await open(path)
  for (let size = smallestPiece;; size *= 4) {
    const piece = new Uint8Array(Math.min(size, largestPiece, fileBytes))
    const { bytesRead } = await file.read(piece, 0, piece.length, 0)
    const header = parse(piece.subarray(0, bytesRead), { fileBytes })
    if (Result.isSuccess(header) || header.failure instanceof Malformed) return header
    if (bytesRead < piece.length || size >= largestPiece) return header
    size = Math.max(size, (bytesRead + header.failure.moreBytes) / 4)
  }
}

/** A file as it was at one time. */
class Version extends Data.Class<{ readonly path: string; readonly bytes: number; readonly changedAt: number }> {}

const readFileOf = Effect.fnUntraced(function*(version: Version) {
  const { bytes, path } = version
  const header = yield* tryRead(path, () => readHeader(path, bytes))
  if (Result.isFailure(header)) return yield* notAModel(path, header.failure.message)
  const end = header.success.tensors.length === 0 ? 0 : endOf(header.success)
  if (end > bytes) return yield* notAModel(path, `its weights end at byte ${end}, and the file has ${bytes}`)
  return { path, bytes, changedAt: version.changedAt, header: header.success } satisfies GgufFile
})

/** The parts of a split GGUF file, of which the first is named; the file itself where it is whole. */
const partsOf = (path: string): ReadonlyArray<string> => {
  const split = /^(.*)-00001-of-(\d{5})\.gguf$/.exec(basename(path))
  if (split === null) return [path]
  const [, name, total] = split
  return Array.from(
    { length: Number(total) },
    (_, index) => join(dirname(path), `${name}-${String(index + 1).padStart(5, "0")}-of-${total}.gguf`)
  )
}

/** Of a file and its parts, one estimate: only the first has the model's figures. */
const merge = (parts: ReadonlyArray<GgufFile>): Header => ({
  ...parts[0]!.header,
  tensors: parts.flatMap(({ header }) => header.tensors)
})

const useOf = (options: typeof LlamaDeployment.Type | typeof OnnxDeployment.Type): Use => ({
  contextSize: options.contextSize,
  slots: options.slots ?? defaultSlots,
  replicas: options.replicas ?? 1,
  ...(options.engine === "llama"
    ? {
      kvCacheType: options.kvCacheType,
      flashAttention: options.flashAttention,
      useMmap: options.useMmap,
      gpu: options.gpu
    }
    : {})
})

const sizeOf = (path: string) => tryRead(path, () => stat(path).then(({ size }) => size))

const decodeConfig = Schema.decodeEffect(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))

const estimateOnnx = Effect.fnUntraced(function*(options: typeof OnnxDeployment.Type) {
  const file = join(options.folder, "config.json")
  const text = yield* tryRead(file, () => readFile(file, "utf8"))
  const config = yield* decodeConfig(text).pipe(Effect.mapError(() => notAModel(file, "it is not a JSON object")))
  const folder = join(options.folder, "onnx")
  const model = `${options.model ?? "model"}.onnx`
  const names = yield* tryRead(folder, () => readdir(folder))
  if (!names.includes(model)) return yield* unreadable(join(folder, model), { code: "ENOENT" })
  // External data lies beside the model under its name: model.onnx_data, model.onnx.data, model.onnx_data_1.
  const sizes = yield* Effect.forEach(
    names.filter((name) => name.startsWith(model)),
    (name) => sizeOf(join(folder, name))
  )
  return ofOnnx(config, sizes.reduce((sum, size) => sum + size, 0), useOf(options))
})

const nothing: MemoryEstimate = { weightsBytes: 0, kvCacheBytes: 0, computeBytes: 0, totalBytes: 0 }

/** From the disk, with the last headers kept. */
export const layer = Layer.effect(
  ModelFiles,
  Effect.gen(function*() {
    const headers = yield* Cache.make({ capacity: headersKept, lookup: readFileOf })

    const inspectFile = Effect.fnUntraced(function*(path: string) {
      const found = yield* tryRead(path, () => stat(path))
      if (!found.isFile()) return yield* notAModel(path, "it is not a file")
      if (found.size === 0) return yield* notAModel(path, "it is empty")
      return yield* Cache.get(headers, new Version({ path, bytes: found.size, changedAt: found.mtimeMs }))
    })

    const estimate = (options: DeploymentOptions): Effect.Effect<MemoryEstimate, ModelFileError> => {
      switch (options.engine) {
        case "llama":
          return Effect.map(
            Effect.forEach(partsOf(options.file), inspectFile),
            (parts) => ofGguf(merge(parts), parts.reduce((sum, { bytes }) => sum + bytes, 0), useOf(options))
          )
        case "onnx":
          return estimateOnnx(options)
        case "fake": {
          const totalBytes = options.memory ?? 0
          return Effect.succeed({ ...nothing, computeBytes: totalBytes, totalBytes })
        }
        case "language-model":
        case "remote":
          return Effect.succeed(nothing)
      }
    }

    return ModelFiles.of({ inspectFile, estimate })
  })
)

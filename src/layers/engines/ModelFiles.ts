/**
 * Reads model files from the disk. Headers are read in pieces that grow from 256 KiB to 64 MiB until the header is complete.
 */
import { Cache, Data, Effect, Layer, Result } from "effect"
import { open, readdir, readFile, stat } from "node:fs/promises"
import { isRemote } from "../../domain/Deployment.ts"
import type { OnnxGraph as Graph } from "../../domain/ModelCapabilities.ts"
import { noMemory } from "../../services/engines/EngineKind.ts"
import { kindOf } from "../../services/engines/EngineKinds.ts"
import type { FileReader, GgufFile, ModelFileError } from "../../services/engines/ModelFiles.ts"
import { ModelFiles, notAModel, unreadable } from "../../services/engines/ModelFiles.ts"
import type { Header } from "../../services/store/Gguf.ts"
import { endOf, Malformed, parse } from "../../services/store/Gguf.ts"
import * as OnnxGraph from "../../services/store/OnnxGraph.ts"

/** bytes */
const smallestPiece = 256 * 1024
/** A header is mostly its vocabulary: a million tokens take about 40 MiB. */
const largestPiece = 64 * 1024 * 1024
const headersKept = 64
/** The nodes of a graph are small, and are skipped one by one, bytes. */
const graphPiece = 64 * 1024

const failureOf = (path: string, cause: unknown): ModelFileError => {
  const { code, message } = cause as NodeJS.ErrnoException
  return unreadable(path, code === "ENOENT" ? "There is no such file" : message)
}

const tryRead = <A>(path: string, read: () => Promise<A>): Effect.Effect<A, ModelFileError> =>
  Effect.tryPromise({ try: read, catch: (cause) => failureOf(path, cause) })

/** The header, or why it cannot be parsed. */
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

/** A file at one size and time. */
class Version extends Data.Class<{ readonly path: string; readonly bytes: number; readonly changedAt: number }> {}

const readFileOf = Effect.fnUntraced(function*(version: Version) {
  const { bytes, path } = version
  const header = yield* tryRead(path, () => readHeader(path, bytes))
  if (Result.isFailure(header)) return yield* notAModel(path, header.failure.message)
  const end = header.success.tensors.length === 0 ? 0 : endOf(header.success)
  if (end > bytes) return yield* notAModel(path, `its weights end at byte ${end}, and the file has ${bytes}`)
  return { path, bytes, changedAt: version.changedAt, header: header.success } satisfies GgufFile
})

/** The graph in an ONNX file; undefined if it is not an ONNX model. */
const readGraph = async (path: string, fileBytes: number): Promise<Graph | undefined> => {
  await using file = await open(path)
  const scan = OnnxGraph.scan(fileBytes)
  let [start, window] = [0, new Uint8Array()]
  for (let step = scan.next(window);;) {
    if (step.done === true) return step.value
    const { length, offset } = step.value
    if (offset < start || offset + length > start + window.length) {
      const piece = new Uint8Array(Math.max(length, graphPiece))
      const { bytesRead } = await file.read(piece, 0, piece.length, offset)
      start = offset
      window = piece.subarray(0, bytesRead)
    }
    step = scan.next(window.subarray(offset - start, offset - start + length))
  }
}

const readGraphOf = Effect.fnUntraced(function*({ bytes, path }: Version) {
  const graph = yield* tryRead(path, () => readGraph(path, bytes))
  return graph ?? (yield* notAModel(path, "it has no ONNX graph"))
})

/** Keeps the last headers and graphs. */
export const layer = Layer.effect(
  ModelFiles,
  Effect.gen(function*() {
    const headers = yield* Cache.make({ capacity: headersKept, lookup: readFileOf })
    const graphs = yield* Cache.make({ capacity: headersKept, lookup: readGraphOf })

    const versionOf = Effect.fnUntraced(function*(path: string) {
      const found = yield* tryRead(path, () => stat(path))
      if (found.isDirectory()) return yield* notAModel(path, "it is a folder, which engine: onnx reads as `folder`")
      if (!found.isFile()) return yield* notAModel(path, "it is not a file")
      if (found.size === 0) return yield* notAModel(path, "it is empty")
      return new Version({ path, bytes: found.size, changedAt: found.mtimeMs })
    })

    const inspectFile: FileReader["inspectFile"] = (path) =>
      Effect.flatMap(versionOf(path), (version) => Cache.get(headers, version))

    const reader: FileReader = {
      inspectFile,
      inspectGraph: (path) => Effect.flatMap(versionOf(path), (version) => Cache.get(graphs, version)),
      readText: (path) => tryRead(path, () => readFile(path, "utf8")),
      namesIn: (folder) => tryRead(folder, () => readdir(folder)),
      sizeOf: (path) => tryRead(path, () => stat(path).then(({ size }) => size))
    }

    return ModelFiles.of({
      inspectFile,
      describe: (options) => isRemote(options) ? Effect.succeed(noMemory) : kindOf(options).describe(options, reader)
    })
  })
)

/**
 * ONNX sessions on the runtime that the device requires, with readable failures.
 *
 * **Details**
 *
 * onnxruntime-node computes on the CPU, and on CUDA and WebGPU if the machine has them; onnxruntime-web computes by WASM
 * on any machine. Each is imported when the first model needs it.
 *
 * **Gotchas**
 *
 * The runtime's messages contain names of its source files and terminal colors: `wordsOf` removes them.
 */
import { readdir, readFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { setImmediate as turn } from "node:timers/promises"
import type { InferenceSession, Tensor } from "onnxruntime-node"
import { refuse } from "../../domain/Job.ts"
import { flushEvents } from "../job/JobServer.ts"
import type { Pair } from "../job/ThoughtSyntax.ts"
import { checkFile } from "../model/ModelCheck.ts"

/** The device of an ONNX model. */
export type OnnxDevice = "cpu" | "wasm" | "webgpu" | "cuda"

/** The specification that an onnx engine thread loads. */
export type OnnxSpec = {
  readonly engine: "onnx"
  /** Absolute path of a folder in the layout of transformers.js. */
  readonly folder: string
  /** The model file within the folder's `onnx`, without `.onnx`. */
  readonly model: string
  /** Left out, the CPU: natively, or by WASM if the native library is missing. */
  readonly device?: OnnxDevice | undefined
  /** Tokens per slot; left out, the model's own window, at most 4,096. */
  readonly contextSize?: number | undefined
  readonly slots: number
  /** Compute threads of one engine thread. */
  readonly threads: number
  /** Jobs of all owners share the computation of common prompt beginnings; left out, false. */
  readonly sharePrefixes?: boolean | undefined
  /** The markers of thoughts, or false for none; left out, those of the chat template. */
  readonly reasoning?: Pair | false | undefined
}

export type Library = typeof import("onnxruntime-node")

/** The imports of the libraries; tests replace them. */
export interface Importers {
  readonly native: () => Promise<Library>
  readonly wasm: () => Promise<Library>
}

const importers: Importers = {
  native: async () => {
    const module = await import("onnxruntime-node") as Library & { readonly default?: Library }
    return module.default ?? module
  },
  // The two libraries have the same interface in unrelated types.
  wasm: async () => await import("onnxruntime-web") as unknown as Library
}

/** A loaded graph. */
export interface Session
  extends Pick<InferenceSession, "inputMetadata" | "outputMetadata" | "inputNames" | "outputNames">
{
  /** Computes the named outputs; concurrent callers take turns. */
  readonly run: (
    feeds: Readonly<Record<string, Tensor>>,
    outputs: ReadonlyArray<string>
  ) => Promise<Readonly<Record<string, Tensor>>>
  /** Frees the graph; no computation may be running. */
  readonly release: () => Promise<void>
}

export interface Runtime {
  readonly library: Library
  readonly device: OnnxDevice
}

/** The first line, without colors, the runtime's source file names, and bytes of a damaged file. */
export const wordsOf = (cause: unknown): string => {
  const text = (cause instanceof Error ? cause.message : String(cause))
    .replaceAll(new RegExp(String.raw`${String.fromCharCode(27)}\[[0-9;]*m`, "g"), "")
    .trim()
    .split("\n")[0]!
    .replace(/^Load model from .* failed:/, "")
    .replace(/^Can't create a session\. ERROR_CODE: \d+, ERROR_MESSAGE: /, "")
    .replaceAll(/\/onnxruntime_src\/\S+ /g, "")
    .replace(/^onnxruntime::.* was false\. /, "")
    .replaceAll(/[^\x20-\x7e]/g, "?")
  return text.length > 300 ? `${text.slice(0, 300)}...` : text
}

const isPackageMissing = (cause: unknown, name: string): boolean =>
  cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND" && cause.message.includes(name)

const importWasm = ({ wasm }: Importers): Promise<Library> =>
  wasm().catch((cause: unknown) =>
    isPackageMissing(cause, "onnxruntime-web")
      ? refuse({ kind: "package_missing", packageName: "onnxruntime-web" })
      : refuse({ kind: "load_failed", message: `onnxruntime-web does not start: ${wordsOf(cause)}` })
  )

const explainNative = (cause: unknown): never =>
  isPackageMissing(cause, "onnxruntime-node")
    ? refuse({ kind: "package_missing", packageName: "onnxruntime-node" })
    : refuse({
      kind: "load_failed",
      message: `onnxruntime-node does not work on ${process.platform} ${process.arch}. Set device: wasm. ` +
        `(${wordsOf(cause)})`
    })

/** The library for a device; without a device, the CPU's, or WASM if the native library does not work. */
export const importRuntime = async (
  { device, threads }: Pick<OnnxSpec, "device" | "threads">,
  from: Importers = importers
): Promise<Runtime> => {
  const wasm = async (): Promise<Runtime> => {
    const library = await importWasm(from)
    library.env.wasm.numThreads = threads
    return { library, device: "wasm" }
  }
  if (device === "wasm") return wasm()
  const native = from.native().then((library): Runtime => ({ library, device: device ?? "cpu" }))
  // If both are missing, the error names the faster one.
  return native.catch((cause) => device === undefined ? wasm().catch(() => explainNative(cause)) : explainNative(cause))
}

/** Weights in separate files, for a model too large for one: `model.onnx_data`, `model.onnx_data_1`, `model.onnx.data`. */
const externalData = async (file: string) => {
  const model = basename(file)
  const all = await readdir(dirname(file))
  const weights = all.filter((name) => name.startsWith(model) && /^[._]data/.test(name.slice(model.length)))
  return Promise.all(weights.map(async (path) => ({ path, data: await readFile(join(dirname(file), path)) })))
}

const isAbsent: Readonly<Record<OnnxDevice, string>> = {
  cpu: "",
  wasm: "",
  webgpu: "This machine has no WebGPU adapter. Set device: cpu or device: wasm.",
  cuda:
    "onnxruntime-node cannot use CUDA. Install the NVIDIA driver, CUDA, cuDNN and the package's CUDA libraries (its " +
    "install script downloads them on Linux x64), or set device: cpu."
}

const isAboutDevice = (words: string): boolean =>
  /adapter|WebGPU|ExecutionProvider|shared library|CUDA|backend/i.test(words)

/**
 * A run blocks the thread, so the event loop runs before each: commands arrive then, and other jobs continue.
 */
const takingTurns = (session: InferenceSession): Session => {
  let last: Promise<unknown> = Promise.resolve()
  const { inputMetadata, inputNames, outputMetadata, outputNames } = session
  return {
    inputMetadata,
    inputNames,
    outputMetadata,
    outputNames,
    run(feeds, outputs) {
      const next = last.then(() => turn()).then(() => {
        flushEvents()
        return session.run(feeds, outputs)
      }).catch((cause: unknown) => refuse({ kind: "failed", message: `The computation failed: ${wordsOf(cause)}` }))
      last = next.catch(() => {})
      return next
    },
    release: () => session.release()
  }
}

/** A session over a model file; rejects with `load_failed`. */
export const openSession = async (
  { device, library }: Runtime,
  file: string,
  threads: number
): Promise<Session> => {
  await checkFile(file)
  const options: InferenceSession.SessionOptions = {
    executionProviders: [device],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // Problems are reported as errors, so they are not printed.
    logSeverityLevel: 4
  }
  const open = async () =>
    device === "wasm"
      ? library.InferenceSession.create(await readFile(file), { ...options, externalData: await externalData(file) })
      : library.InferenceSession.create(file, options)
  return open().then(takingTurns, (cause: unknown) => {
    const words = wordsOf(cause)
    const message = isAbsent[device] !== "" && isAboutDevice(words)
      ? `${isAbsent[device]} (${words})`
      : `${file}: ${words}`
    return refuse({ kind: "load_failed", message })
  })
}

/** Loads a GGUF model and makes its context, with failures that say what was wrong with which file. */
import type { ChatWrapper, Llama, LlamaModel } from "node-llama-cpp"
import { access, stat } from "node:fs/promises"
import { setImmediate } from "node:timers/promises"
import type { EngineDescription, LlamaSpec } from "../services/EngineProtocol.ts"
import { failureFrom, refuse } from "../services/Job.ts"
import { serialiseSampling } from "./LlamaSampling.ts"

type Library = typeof import("node-llama-cpp")

/** Tokens a slot gets when nobody says how many, since a model's own window may need more memory than there is. */
const largestDefaultWindow = 4096
const largestBatch = 512
const complaintsKept = 8

const checkFile = async (file: string): Promise<void> => {
  await access(file).catch(() => refuse({ kind: "load_failed", message: `There is no readable file at ${file}` }))
  const found = await stat(file)
  if (!found.isFile()) refuse({ kind: "load_failed", message: `${file} is not a file` })
  if (found.size === 0) refuse({ kind: "load_failed", message: `${file} is empty` })
}

const importLibrary = (): Promise<Library> =>
  import("node-llama-cpp").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ERR_MODULE_NOT_FOUND" ? refuse({ kind: "package_missing", packageName: "node-llama-cpp" }) : refuse(
      failureFrom(cause, "load_failed")
    )
  )

/** The file's own chat template; where it has none, or one that cannot be read, what its name and tokens suggest. */
const chatWrapperOf = (library: Library, model: LlamaModel): ChatWrapper => {
  const template = model.fileInfo.metadata.tokenizer.chat_template
  if (template === undefined) return library.resolveChatWrapper(model)
  try {
    return new library.JinjaTemplateChatWrapper({ template })
  } catch {
    return library.resolveChatWrapper(model)
  }
}

/** The only build for Apple silicon is Metal's, which computes on the CPU as well when no layer is given to the GPU. */
export const buildFor = (platform: NodeJS.Platform, arch: NodeJS.Architecture): "metal" | false =>
  platform === "darwin" && arch === "arm64" ? "metal" : false

/** Characters of the vocabulary's longest token. */
const longestOf = (tokens: ReadonlyArray<string>): number =>
  tokens.reduce((longest, token) => Math.max(longest, token.length), 1)

/** The library's own words for a failure, which its errors leave out. */
const complaints: Array<string> = []

const loadModel = (llama: Llama, file: string): Promise<LlamaModel> =>
  llama.loadModel({ modelPath: file, gpuLayers: 0 }).catch(async (cause: Error) => {
    // Native log lines arrive on a later turn than the error they explain.
    await setImmediate()
    // A damaged file's own bytes may be quoted.
    const why = (complaints[0] ?? cause.message).replaceAll(/[^\x20-\x7e]/g, "?")
    return refuse({
      kind: "load_failed",
      message: `${file}: ${why.replace(/^\w+: (?:error loading model: )?/, "")}`
    })
  })

/** A loaded model with one free sequence a slot; rejects with an `EngineFailure`. */
export const load = async (spec: LlamaSpec) => {
  await checkFile(spec.file)
  const library = await importLibrary()
  const llama = await library.getLlama({
    gpu: buildFor(process.platform, process.arch),
    build: "never",
    logLevel: library.LlamaLogLevel.error,
    logger: (_, message) => {
      complaints.push(message.trim())
      if (complaints.length > complaintsKept) complaints.shift()
    },
    maxThreads: 0
  })
  const model = await loadModel(llama, spec.file)
  const contextSize = spec.contextSize ?? Math.min(model.trainContextSize, largestDefaultWindow)
  if (contextSize > model.trainContextSize) {
    refuse({
      kind: "load_failed",
      message: `contextSize is ${contextSize} tokens, and the model was trained for at most ${model.trainContextSize}`
    })
  }
  const context = await model.createContext({
    contextSize,
    sequences: spec.slots,
    threads: spec.threads,
    batchSize: Math.min(contextSize * spec.slots, largestBatch)
  })
  serialiseSampling(context)
  const { general } = model.fileInfo.metadata
  const description: EngineDescription = {
    engine: "llama",
    contextWindow: context.contextSize,
    slots: spec.slots,
    abilities: ["generate"],
    details: {
      name: general.name ?? "",
      architecture: general.architecture,
      type: model.typeDescription,
      sizeBytes: model.size
    }
  }
  return {
    library,
    llama,
    model,
    description,
    chatWrapper: chatWrapperOf(library, model),
    longestToken: longestOf(model.fileInfo.metadata.tokenizer.ggml.tokens),
    free: Array.from({ length: spec.slots }, () => context.getSequence())
  }
}

export type Loaded = Awaited<ReturnType<typeof load>>

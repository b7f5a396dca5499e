/** Loads a GGUF model and creates its context. Failures name the file and the problem. */
import type { GgufFileInfo, Llama, LlamaContext, LlamaModel } from "node-llama-cpp"
import { availableParallelism } from "node:os"
import { setImmediate } from "node:timers/promises"
import type { EngineCapability, EngineDescription } from "../../domain/EngineProtocol.ts"
import { batchOf, largestDefaultWindow, promptPiece, promptsPerBatch } from "../../domain/EngineProtocol.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { Adapter, Header } from "../../domain/LoraAdapter.ts"
import { problemOf } from "../../domain/LoraAdapter.ts"
import { ofGguf } from "../../domain/ModelCapabilities.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import type { Pair } from "../job/ThoughtSyntax.ts"
import { checkFile } from "../model/ModelCheck.ts"
import { countCheck, fitCheck } from "../model/TextLimits.ts"
import { makeBatches } from "./LlamaBatches.ts"
import type { Library, Started } from "./LlamaBinary.ts"
import { loadBinary } from "./LlamaBinary.ts"
import { makeTokenTexts } from "./LlamaLogprobs.ts"
import { filesBefore, openPrefixes } from "./LlamaPrefixFolder.ts"
import type { Prompts } from "./LlamaPrompt.ts"
import { makePrompts } from "./LlamaPrompt.ts"
import { makeGrammars } from "./LlamaSampling.ts"
import { makeContextLock, makeSlot } from "./LlamaSlots.ts"
import type { Threads } from "./LlamaThreads.ts"
import { threadsFor } from "./LlamaThreads.ts"
import { Answers } from "./LlamaTokens.ts"

/** The specification that a llama engine thread loads. */
export type LlamaSpec = {
  readonly engine: "llama"
  /** Absolute path of the GGUF file. */
  readonly file: string
  /** Tokens per slot; left out, the model's own window, at most 4,096. */
  readonly contextSize?: number | undefined
  readonly slots: number
  /** Compute threads of one engine thread; left out, by cores and model: see `LlamaThreads`. */
  readonly threads?: number | undefined
  /** Compute threads for prompts and large batches; left out, `threads`, or chosen as well. */
  readonly promptThreads?: number | undefined
  /** Engine threads that share the cores; left out, 1. */
  readonly replicas?: number | undefined
  /** Left out, the CPU. */
  readonly gpu?: "auto" | "metal" | "cuda" | "vulkan" | undefined
  /** Layers that the GPU computes; left out, as many as fit. */
  readonly gpuLayers?: number | undefined
  readonly flashAttention?: boolean | undefined
  /** Left out, true. */
  readonly useMmap?: boolean | undefined
  readonly useMlock?: boolean | undefined
  /** Type of the KV cache's entries; left out, F16. Those with a quantized V need `flashAttention`. */
  readonly kvCacheType?: "f32" | "f16" | "q8_0" | "q5_1" | "q5_0" | "q4_1" | "q4_0" | undefined
  /** Jobs of all owners share the computation of common prompt beginnings; left out, false. */
  readonly sharePrefixes?: boolean | undefined
  /** Where computed prompts are kept; left out, nowhere. */
  readonly prefixFiles?: PrefixFileOptions | undefined
  /** LoRA adapters with absolute paths, applied together; left out, none. */
  readonly lora?: ReadonlyArray<Adapter> | undefined
  /** The markers of thoughts, or false for none; left out, those of the chat template. */
  readonly reasoning?: Pair | false | undefined
}

const messagesKept = 8

const importLibrary = () =>
  import("node-llama-cpp").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ERR_MODULE_NOT_FOUND" ? refuse({ kind: "package_missing", packageName: "node-llama-cpp" }) : refuse(
      failureFrom(cause, "load_failed")
    )
  )

/** The only build for Apple silicon is Metal's, which computes on the CPU as well when no layer is given to the GPU. */
export const buildFor = (platform: NodeJS.Platform, arch: NodeJS.Architecture): "metal" | false =>
  platform === "darwin" && arch === "arm64" ? "metal" : false

/** Characters of the vocabulary's longest token. */
const longestOf = (tokens: ReadonlyArray<string>): number =>
  tokens.reduce((longest, token) => Math.max(longest, token.length), 1)

/** The library's log messages, which explain a failure better than its errors. */
const logMessages: Array<string> = []

/** Fails with llama.cpp's first log message, or else the error's message. */
const failWith = async (what: string, cause: Error): Promise<never> => {
  // Native log messages arrive in a later turn than the error.
  await setImmediate()
  // The message may quote bytes of a damaged file.
  const words = cause instanceof RangeError ? `its header is damaged (${cause.message})` : cause.message
  const detail = (logMessages[0] ?? words).replaceAll(/[^\x20-\x7e]/g, "?")
  return refuse({ kind: "load_failed", message: `${what}: ${detail.replace(/^\w+: (?:error loading model: )?/, "")}` })
}

const gpuNames = { metal: "Metal", cuda: "CUDA", vulkan: "Vulkan" } as const

const refuseGpu = (gpu: keyof typeof gpuNames): never =>
  refuse({
    kind: "load_failed",
    message: `No build of llama.cpp with ${gpuNames[gpu]} works on this machine. Install the package ` +
      `@node-llama-cpp/<platform>-<architecture>-${gpu} in node-llama-cpp's version with the GPU's driver (where an ` +
      "`overrides` entry in package.json leaves it out, without that entry), or leave out `gpu`, which computes on the " +
      "CPU."
  })

const logger = (_: unknown, message: string): void => {
  logMessages.push(message.trim())
  if (logMessages.length > messagesKept) logMessages.shift()
}

const startLibrary = async (gpu: LlamaSpec["gpu"]): Promise<Started> => {
  const prebuilt = gpu === undefined ? await loadBinary(logger) : undefined
  if (prebuilt !== undefined) return prebuilt
  const library = await importLibrary()
  const llama = await library.getLlama({
    gpu: gpu ?? buildFor(process.platform, process.arch),
    build: "never",
    logLevel: library.LlamaLogLevel.error,
    logger,
    maxThreads: 0
  }).catch((cause: Error) =>
    gpu === undefined || gpu === "auto" ? failWith("llama.cpp does not start", cause) : refuseGpu(gpu)
  )
  // On a platform without this GPU, the library uses another.
  if (gpu === undefined || gpu === "auto" || llama.gpu === gpu) return { library, llama }
  await llama.dispose()
  return refuseGpu(gpu)
}

const loadModel = (llama: Llama, spec: LlamaSpec): Promise<LlamaModel> =>
  llama.loadModel({
    modelPath: spec.file,
    gpuLayers: spec.gpu === undefined ? 0 : spec.gpuLayers ?? "auto",
    ...(spec.useMmap === undefined ? {} : { useMmap: spec.useMmap }),
    ...(spec.useMlock === undefined ? {} : { useMlock: spec.useMlock })
  }).catch((cause: Error) => failWith(spec.file, cause))

/** Refuses contradicting options, which the library would ignore or report badly. */
const checkOptions = ({ flashAttention, gpu, gpuLayers, kvCacheType = "f16" }: LlamaSpec): void => {
  if (gpuLayers !== undefined && gpu === undefined) {
    refuse({ kind: "load_failed", message: "gpuLayers is set without gpu. Set gpu to auto, metal, cuda or vulkan" })
  }
  if (flashAttention !== true && kvCacheType !== "f16" && kvCacheType !== "f32") {
    refuse({ kind: "load_failed", message: `kvCacheType ${kvCacheType} needs flashAttention: true` })
  }
}

/** Tokens per slot. */
const windowOf = (spec: LlamaSpec, model: LlamaModel): number => {
  const contextSize = spec.contextSize ?? Math.min(model.trainContextSize, largestDefaultWindow)
  if (contextSize <= model.trainContextSize) return contextSize
  return refuse({
    kind: "load_failed",
    message: `contextSize is ${contextSize} tokens, and the model was trained for at most ${model.trainContextSize}`
  })
}

const headerOf = (
  { fullTensorInfo = [], metadata }: Pick<GgufFileInfo, "fullTensorInfo" | "metadata">
): Header => ({
  metadata: (key) =>
    key.split(".").reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], metadata),
  tensors: fullTensorInfo.map(({ dimensions, name }) => ({ name, dimensions: dimensions.map(Number) }))
})

/** Refuses a LoRA adapter that cannot be applied to the model. */
const checkAdapters = async (
  library: Library,
  { fileInfo }: LlamaModel,
  { lora = [] }: LlamaSpec
): Promise<void> => {
  for (const { path } of lora) {
    const info = await library.readGgufFileInfo(path, { sourceType: "filesystem", logWarnings: false }).catch(() =>
      refuse({ kind: "load_failed", message: `${path} is not a GGUF file` })
    )
    const problem = problemOf(headerOf(info), headerOf(fileInfo))
    if (problem !== undefined) {
      refuse({ kind: "load_failed", message: `${path} is not a LoRA adapter of this model. ${problem}` })
    }
  }
}

const createContext = async (
  library: Library,
  model: LlamaModel,
  spec: LlamaSpec,
  threads: Threads
): Promise<LlamaContext> => {
  const contextSize = windowOf(spec, model)
  const type = spec.kvCacheType?.toUpperCase() as Uppercase<NonNullable<LlamaSpec["kvCacheType"]>> | undefined
  const batchSize = batchOf(contextSize, spec)
  await checkAdapters(library, model, spec)
  const batches = makeBatches(spec.gpu === undefined ? promptsPerBatch : batchSize, threads)
  const context = await model.createContext({
    contextSize,
    sequences: spec.slots,
    threads: threads.answers,
    batchSize,
    batching: { itemPrioritizationStrategy: batches.strategy },
    ...(spec.lora === undefined ? {} : {
      lora: { adapters: spec.lora.map(({ path, scale }) => ({ filePath: path, scale })) }
    }),
    ...(spec.flashAttention === undefined ? {} : { flashAttention: spec.flashAttention }),
    ...(type === undefined ? {} : {
      experimentalKvCacheKeyType: library.GgmlType[type],
      experimentalKvCacheValueType: library.GgmlType[type]
    })
  }).catch((cause: Error) => failWith(`${spec.file}: its context cannot be created`, cause))
  batches.attach(context)
  return context
}

const capabilitiesOf = (
  { fileInfo, fileInsights }: LlamaModel,
  supportsTools: boolean
): ReadonlyArray<EngineCapability> => {
  const { attention, pooling_type: pooling } = fileInfo.architectureMetadata as {
    readonly attention?: { readonly causal?: boolean }
    readonly pooling_type?: number
  }
  return ofGguf({
    architecture: fileInfo.metadata.general.architecture,
    causal: attention?.causal,
    pooling,
    ranks: fileInsights.supportsRanking,
    supportsTools
  })
}

const describe = (
  spec: LlamaSpec,
  context: LlamaContext,
  threads: Threads,
  { supportsTools, warnings }: Pick<Prompts, "supportsTools" | "warnings">
): EngineDescription => {
  const { model } = context
  const capabilities = capabilitiesOf(model, supportsTools)
  const { general } = model.fileInfo.metadata
  return {
    engine: "llama",
    contextWindow: context.contextSize,
    slots: spec.slots,
    threads,
    capabilities,
    details: {
      name: general.name ?? "",
      architecture: general.architecture,
      type: model.typeDescription,
      sizeBytes: model.size
    },
    warnings: capabilities.includes("generate") ? warnings : []
  }
}

const loadWith = async (library: Library, llama: Llama, spec: LlamaSpec) => {
  const files = filesBefore(spec)
  const model = await loadModel(llama, spec)
  const threads = threadsFor(
    { cores: availableParallelism(), weightsBytes: model.size, replicas: spec.replicas ?? 1 },
    spec
  )
  const context = await createContext(library, model, spec, threads)
  const answers = new Answers(llama, model, context)
  const contextLock = makeContextLock()
  const longestToken = longestOf(model.fileInfo.metadata.tokenizer.ggml.tokens)
  const prompts = makePrompts(library, model, spec.reasoning)
  const cacheGranularity = spec.flashAttention === false && llama.gpu === false ? 1 : promptPiece
  // The library numbers sequences in the order in which it gives them.
  const free = Array.from(
    { length: spec.slots },
    (_, number) => makeSlot(number, context.getSequence(), contextLock, cacheGranularity)
  )
  const description = describe(spec, context, threads, prompts)
  const { prefixes, warnings } = openPrefixes({ spec, files, context, threads, description, cacheGranularity, free })
  return {
    library,
    llama,
    model,
    threads,
    answers,
    contextLock,
    prefixes,
    checks: {
      fit: fitCheck(context.contextSize, longestToken),
      count: countCheck(context.contextSize, longestToken)
    },
    prompts,
    textOf: makeTokenTexts(model),
    ...makeGrammars(library, llama, model, prompts.callSyntax),
    description: { ...description, warnings: [...description.warnings ?? [], ...warnings] },
    sharesPrefixes: spec.sharePrefixes === true,
    free
  }
}

export type Loaded = Awaited<ReturnType<typeof loadWith>>

/** A loaded model with one free slot for each sequence; rejects with an `EngineFailure`. */
export const load = async (spec: LlamaSpec): Promise<Loaded> => {
  checkOptions(spec)
  for (const path of [spec.file, ...(spec.lora ?? []).map(({ path }) => path)]) await checkFile(path)
  const { library, llama } = await startLibrary(spec.gpu)
  try {
    return await loadWith(library, llama, spec)
  } catch (cause) {
    // The thread ends after this, and native code that still runs would abort the process.
    await llama.dispose()
    throw cause
  }
}

/** The engine kind `llama`: a GGUF file in llama.cpp. */
import { Effect, Schema } from "effect"
import { defaultSlots } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import { Count, described, optional } from "../../domain/Fields.ts"
import * as ModelCapabilities from "../../domain/ModelCapabilities.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { contextSizeOf, ofGguf, shapeOf } from "../models/MemoryEstimate.ts"
import type { Header } from "../store/Gguf.ts"
import { architectureOf, bitsOf, numberOf, textOf } from "../store/Gguf.ts"
import type { EngineKind } from "./EngineKind.ts"
import { contextSize, sharePrefixes, threadOptions } from "./EngineKind.ts"
import * as LoraOption from "./LoraOption.ts"
import type { GgufFile } from "./ModelFiles.ts"

const name = "llama"

const LlamaOptions = Schema.Struct({
  engine: Schema.Literal(name),
  file: described(
    "The GGUF file, relative to the configuration file's folder, or builtin:tiny-chat.",
    Schema.NonEmptyString
  ),
  variants: optional(
    "Other sizes of the same model: GGUF files to load when `file` does not fit into memory. Default none.",
    Schema.Array(Schema.NonEmptyString)
  ),
  lora: LoraOption.lora,
  contextSize,
  threads: optional(
    "Compute threads of each engine thread, for all batches. Default by cores and model: half of the cores but one for answers and all " +
      "but one for prompts, 1 for a file below 50 MB.",
    Count
  ),
  promptThreads: optional(
    "Compute threads for prompts and for the tokens of 8 or more answers at once. Default threads, or chosen as well.",
    Count
  ),
  gpu: optional(
    "GPU to use. auto: any GPU, else the CPU. With another value, a load without that GPU fails. Default the CPU.",
    Schema.Literals(["auto", "metal", "cuda", "vulkan"])
  ),
  gpuLayers: optional(
    "Number of layers that the GPU computes. Default as many as fit.",
    wholeNumber(0)
  ),
  flashAttention: optional(
    "Whether to use flash attention. It needs less memory for long context windows and is often faster. With it the prefix " +
      "cache is reused in blocks of 64 tokens, without it token by token. Default when model and build support it.",
    Schema.Boolean
  ),
  useMmap: optional("Whether to map the file into memory instead of reading it. Default true.", Schema.Boolean),
  useMlock: optional(
    "Whether to lock the model in memory, so that it is not swapped out. Default false.",
    Schema.Boolean
  ),
  kvCacheType: optional(
    "Type of the entries of the KV cache. Types below f16 need less memory, and flashAttention. Default f16.",
    Schema.Literals(["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
  ),
  sharePrefixes,
  prefixFiles: optional(
    "Whether computed prompts are kept in files, where engines.prefixFiles is on. Default true.",
    Schema.Boolean
  ),
  ...threadOptions
})
type LlamaOptions = typeof LlamaOptions.Type

/** All files of a split GGUF model, given the first one; else the file itself. */
const partsOf = (path: string): ReadonlyArray<string> => {
  const split = /^(.*)-00001-of-(\d{5})\.gguf$/s.exec(path)
  if (split === null) return [path]
  const [, prefix, total] = split
  return Array.from(
    { length: Number(total) },
    (_, index) => `${prefix}-${String(index + 1).padStart(5, "0")}-of-${total}.gguf`
  )
}

/** One header for all parts: only the first has the model's metadata. */
const merge = (parts: ReadonlyArray<GgufFile>): Header => ({
  ...parts[0]!.header,
  tensors: parts.flatMap(({ header }) => header.tensors)
})

/** The capabilities of the model by its header. */
const capabilitiesIn = (header: Header): ReadonlyArray<EngineCapability> => {
  const architecture = architectureOf(header)
  const causal = header.metadata.get(`${architecture}.attention.causal`)
  return ModelCapabilities.ofGguf({
    architecture,
    causal: typeof causal === "boolean" ? causal : undefined,
    pooling: numberOf(header, `${architecture}.pooling_type`),
    ranks: header.tensors.some(({ name }) => ModelCapabilities.rankingTensors.includes(name)),
    supportsTools: ["", ".tool_use"].some((name) =>
      ModelCapabilities.mentionsTools(textOf(header, `tokenizer.chat_template${name}`) ?? "")
    )
  })
}

/** The context window of an inspection, tokens: enough to compute one token. */
const inspectedWindow = 256

export const llama = {
  name,
  options: LlamaOptions,
  capabilities: [
    "generate",
    "complete",
    "tools",
    "format",
    "logprobs",
    "echo",
    "embed",
    "embedTokens",
    "rerank",
    "tokenize"
  ],
  path: "file",
  variants: "variants",
  adapters: "lora",
  format: "gguf",
  extension: ".gguf",
  isNative: true,
  isExternal: false,
  describe: (options, files) =>
    Effect.gen(function*() {
      const parts = yield* Effect.forEach(partsOf(options.file), files.inspectFile)
      const header = merge(parts)
      const adapterBytes = yield* LoraOption.describe(options.lora, header, files)
      const fileBytes = parts.reduce((sum, { bytes }) => sum + bytes, 0)
      const shape = shapeOf(header)
      return {
        ...ofGguf(header, fileBytes, {
          ...options,
          slots: options.slots ?? defaultSlots,
          replicas: options.replicas ?? 1,
          adapterBytes
        }),
        bits: bitsOf(header),
        window: contextSizeOf(shape, options.contextSize),
        trainedWindow: shape.trainedWindow,
        capabilities: capabilitiesIn(header)
      }
    }),
  spec: (
    { lora, maxReplicas: _, prefixFiles: keeps = true, variants: __, ...options },
    prefixFiles?: PrefixFileOptions
  ) => ({
    ...options,
    ...(lora === undefined ? {} : { lora: LoraOption.adaptersOf(lora) }),
    ...(keeps && prefixFiles !== undefined ? { prefixFiles } : {}),
    slots: options.slots ?? defaultSlots
  }),
  inspection: (file, files) =>
    Effect.map(files.inspectFile(file), ({ header }) => ({
      engine: name,
      file,
      contextSize: Math.min(contextSizeOf(shapeOf(header), undefined), inspectedWindow),
      slots: 1,
      threads: 1
    }))
} as const satisfies EngineKind<LlamaOptions>

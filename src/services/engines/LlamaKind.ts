/** The engine kind `llama`: a GGUF file in llama.cpp. */
import { Effect, Schema } from "effect"
import { defaultSlots } from "../../domain/Deployment.ts"
import { described, optional } from "../../domain/Fields.ts"
import { contextSizeOf, ofGguf, shapeOf } from "../models/MemoryEstimate.ts"
import type { Header } from "../store/Gguf.ts"
import { bitsOf } from "../store/Gguf.ts"
import type { EngineKind } from "./EngineKind.ts"
import { contextSize, sharePrefixes, threadOptions, threads } from "./EngineKind.ts"
import type { GgufFile } from "./ModelFiles.ts"

const name = "llama"

const LlamaOptions = Schema.Struct({
  engine: Schema.Literal(name),
  file: described("The GGUF file, relative to the configuration file's folder.", Schema.NonEmptyString),
  variants: optional(
    "The same model in other sizes: GGUF files to take instead when `file` does not fit the memory there is.",
    Schema.Array(Schema.NonEmptyString)
  ),
  contextSize,
  threads,
  gpu: optional(
    "Compute on a GPU: auto takes what there is, the others insist; default the CPU.",
    Schema.Literals(["auto", "metal", "cuda", "vulkan"])
  ),
  gpuLayers: optional(
    "Layers that the GPU computes; default as many as fit.",
    Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
  ),
  flashAttention: optional(
    "Less memory for long windows, and often faster; false keeps every token of an earlier prompt that begins alike, " +
      "else whole pieces of 64; default where model and build can.",
    Schema.Boolean
  ),
  useMmap: optional("Map the file instead of reading it; default true.", Schema.Boolean),
  useMlock: optional("Keep the model from being swapped out; default false.", Schema.Boolean),
  kvCacheType: optional(
    "Type of the KV cache's entries, of which smaller ones save memory and need flashAttention; default f16.",
    Schema.Literals(["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
  ),
  sharePrefixes,
  ...threadOptions
})
type LlamaOptions = typeof LlamaOptions.Type

/** The files of a split GGUF model, of which the first is configured; else the file itself. */
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

/** Tokens that are enough to compute one. */
const inspectedWindow = 256

export const llama = {
  name,
  options: LlamaOptions,
  capabilities: ["generate", "tools", "format", "logprobs", "embed", "rerank", "tokenize"],
  path: "file",
  variants: "variants",
  format: "gguf",
  extension: ".gguf",
  isNative: true,
  isElsewhere: false,
  describe: (options, files) =>
    Effect.map(Effect.forEach(partsOf(options.file), files.inspectFile), (parts) => {
      const header = merge(parts)
      const fileBytes = parts.reduce((sum, { bytes }) => sum + bytes, 0)
      const shape = shapeOf(header)
      return {
        ...ofGguf(header, fileBytes, {
          ...options,
          slots: options.slots ?? defaultSlots,
          replicas: options.replicas ?? 1
        }),
        bits: bitsOf(header),
        window: contextSizeOf(shape, options.contextSize),
        trainedWindow: shape.trainedWindow
      }
    }),
  spec: ({ replicas: _, variants: __, ...options }) => ({
    ...options,
    slots: options.slots ?? defaultSlots,
    threads: options.threads ?? 1
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

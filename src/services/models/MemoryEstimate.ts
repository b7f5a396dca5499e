/**
 * Estimates the memory of a model from its files before it is loaded: weights, KV cache and compute buffers. Pure.
 *
 * **Details**
 *
 * The KV cache keeps a key and a value of `head dimension` numbers for every layer, head and token (Vaswani et al.,
 * 2017, section 3.2; with fewer heads for keys and values than for queries: Ainslie et al., 2023). llama.cpp rounds
 * each slot's window up to 256 tokens. Compute buffers hold llama.cpp's output, a batch of logits, and the largest
 * intermediate results: activations, and without flash attention the scores of a batch of tokens against the window.
 *
 * **Gotchas**
 *
 * An upper bound for models with sliding-window attention. Replicas share the file's pages unless `useMmap` is false.
 * The engine's process and library, about 130 MiB, are not included (see `LoadCandidates`): with tiny-chat and 1, 8 and 32 busy slots of 512
 * tokens, an engine process used 139, 168 and 225 MiB, and the estimate is 7, 24 and 79.
 */
import { batchOf, largestDefaultWindow } from "../../domain/EngineProtocol.ts"
import type { Header } from "../store/Gguf.ts"
import { architectureOf, numberOf, weightsBytesOf } from "../store/Gguf.ts"

/** All in bytes. */
export interface MemoryEstimate {
  readonly weightsBytes: number
  readonly kvCacheBytes: number
  readonly computeBytes: number
  readonly totalBytes: number
}

/** The options of a deployment that memory depends on. */
export interface Use {
  /** Tokens per slot; default the model's own window, at most `largestDefaultWindow`. */
  readonly contextSize?: number | undefined
  readonly slots: number
  readonly replicas: number
  readonly kvCacheType?: keyof typeof kvEntryBytes | undefined
  readonly flashAttention?: boolean | undefined
  readonly useMmap?: boolean | undefined
  /** Size of the LoRA adapters, of which each engine thread has a copy, bytes; default 0. */
  readonly adapterBytes?: number | undefined
  /** Default the CPU. */
  readonly gpu?: string | undefined
}

/** llama.cpp's context sizes are multiples of this, tokens. */
const windowStep = 256
const floatBytes = 4

/** Bytes of an entry: quantized types pack 32 entries into a block, with the block sizes of ggml. */
const kvEntryBytes = {
  f32: 4,
  f16: 2,
  q8_0: 34 / 32,
  q5_1: 24 / 32,
  q5_0: 22 / 32,
  q4_1: 20 / 32,
  q4_0: 18 / 32
}

/** The figures of a model's shape that memory depends on. */
export interface Shape {
  /** Tokens that the model was trained for; undefined if its file does not say. */
  readonly trainedWindow: number | undefined
  /** Entries of keys and values per token, over all layers. */
  readonly kvEntriesPerToken: number
  readonly heads: number
  readonly embeddingLength: number
  readonly feedForwardLength: number
  readonly vocabulary: number
}

const add = (left: number, right: number): number => left + right

/** Heads of keys and values, over all layers. The header has one number for all layers, or one per layer. */
const kvHeadsOf = (header: Header, key: string, layers: number, heads: number): number => {
  const value = header.metadata.get(key)
  return Array.isArray(value) ? value.map(Number).reduce(add, 0) : layers * (numberOf(header, key) ?? heads)
}

const vocabularyOf = (header: Header, architecture: string): number => {
  const tokens = header.metadata.get("tokenizer.ggml.tokens")
  const listed = typeof tokens === "object" && "skipped" in tokens ? tokens.skipped : 0
  return numberOf(header, `${architecture}.vocab_size`) ?? listed
}

/** The shape in a GGUF header; a missing figure counts as 0. */
export const shapeOf = (header: Header): Shape => {
  const architecture = architectureOf(header)
  const figure = (name: string) => numberOf(header, `${architecture}.${name}`)
  const layers = figure("block_count") ?? 0
  const heads = figure("attention.head_count") ?? 0
  const embeddingLength = figure("embedding_length") ?? 0
  const headDimension = heads > 0 ? embeddingLength / heads : 0
  const kvHeads = kvHeadsOf(header, `${architecture}.attention.head_count_kv`, layers, heads)
  return {
    trainedWindow: figure("context_length"),
    kvEntriesPerToken: kvHeads *
      ((figure("attention.key_length") ?? headDimension) + (figure("attention.value_length") ?? headDimension)),
    heads,
    embeddingLength,
    feedForwardLength: figure("feed_forward_length") ?? 0,
    vocabulary: vocabularyOf(header, architecture)
  }
}

/** Tokens per slot. */
export const contextSizeOf = (shape: Shape, contextSize: number | undefined): number =>
  contextSize ?? Math.min(shape.trainedWindow ?? largestDefaultWindow, largestDefaultWindow)

const summed = (weightsBytes: number, kvCacheBytes: number, computeBytes: number): MemoryEstimate => {
  const parts = [weightsBytes, kvCacheBytes, computeBytes].map((bytes) => Math.ceil(bytes))
  return {
    weightsBytes: parts[0]!,
    kvCacheBytes: parts[1]!,
    computeBytes: parts[2]!,
    totalBytes: parts.reduce(add, 0)
  }
}

/** Results of one batch without attention scores, bytes. */
const batchBytes = (shape: Shape, batch: number): number =>
  // Two copies of the logits, the graph's and the caller's, and the activations of two layers.
  batch * floatBytes * 2 * (shape.vocabulary + shape.embeddingLength + shape.feedForwardLength)

/**
 * Of a GGUF file in llama.cpp.
 *
 * @param fileBytes size of the whole file, used if a tensor's type is unknown
 */
export const ofGguf = (header: Header, fileBytes: number, use: Use): MemoryEstimate => {
  const shape = shapeOf(header)
  const contextSize = contextSizeOf(shape, use.contextSize)
  const window = Math.ceil(contextSize / windowStep) * windowStep
  const weights = header.tensors.every((tensor) => tensor.bytes !== undefined)
    ? weightsBytesOf(header)
    : fileBytes - header.weightsOffset
  const kvCache = shape.kvEntriesPerToken * window * use.slots * kvEntryBytes[use.kvCacheType ?? "f16"]
  const batch = batchOf(contextSize, use)
  const scores = use.flashAttention === true ? 0 : batch * window * shape.heads * floatBytes
  return summed(
    Math.max(weights, 0) * (use.useMmap === false ? use.replicas : 1) + (use.adapterBytes ?? 0) * use.replicas,
    kvCache * use.replicas,
    (batchBytes(shape, batch) + scores) * use.replicas
  )
}

const figureOf = (config: Readonly<Record<string, unknown>>, ...names: ReadonlyArray<string>): number | undefined =>
  names.map((name) => config[name]).find((value): value is number => typeof value === "number" && value >= 0)

/** The shape in `config.json`, by the field names of the Llama and GPT-2 families. */
export const shapeOfConfig = (config: Readonly<Record<string, unknown>>): Shape => {
  const layers = figureOf(config, "num_hidden_layers", "n_layer") ?? 0
  const heads = figureOf(config, "num_attention_heads", "n_head") ?? 0
  const embeddingLength = figureOf(config, "hidden_size", "n_embd") ?? 0
  const headDimension = figureOf(config, "head_dim") ?? (heads > 0 ? embeddingLength / heads : 0)
  return {
    trainedWindow: figureOf(config, "max_position_embeddings", "n_positions"),
    kvEntriesPerToken: 2 * layers * (figureOf(config, "num_key_value_heads") ?? heads) * headDimension,
    heads,
    embeddingLength,
    feedForwardLength: figureOf(config, "intermediate_size", "n_inner") ?? 4 * embeddingLength,
    vocabulary: figureOf(config, "vocab_size") ?? 0
  }
}

/**
 * Of an ONNX folder in onnxruntime, which has a copy of the weights in each thread and a KV cache in F32.
 *
 * @param weightsBytes size of the model file and its external data
 */
export const ofOnnx = (
  config: Readonly<Record<string, unknown>>,
  weightsBytes: number,
  use: Use
): MemoryEstimate => {
  const shape = shapeOfConfig(config)
  const contextSize = contextSizeOf(shape, use.contextSize)
  const kvCache = shape.kvEntriesPerToken * contextSize * use.slots * floatBytes
  // A prompt is one batch, with the scores of every token against every other.
  const compute = batchBytes(shape, contextSize) + contextSize * contextSize * shape.heads * floatBytes
  return summed(weightsBytes * use.replicas, kvCache * use.replicas, compute * use.replicas)
}

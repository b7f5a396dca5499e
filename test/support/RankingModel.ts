/** A reranking GGUF model whose output a test can compute: BERT with one score as output. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import type { TensorShape } from "../../bench/GgufWriter.ts"
import { f32, headerOf, i32s, paddingAfter, strings, u32 } from "../../bench/GgufWriter.ts"

const width = 8

/** Limit of a query and a document together, with three control tokens, tokens. */
export const contextWindow = 64

const controls = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
const words = ["red", "fox", "blue", "whale", "a", "the"]
/** A word begins with this letter. */
const vocabulary = [...controls, ...words.map((word) => `\u2581${word}`)]

const [, unknown, first, separator] = controls.map((_, id) => id) as [number, number, number, number, number]

const idOf = (word: string): number => vocabulary.indexOf(`\u2581${word}`)

/** Pseudo-random numbers from -1 to 1. */
const weights = (seed: number, length: number) =>
  Float32Array.from({ length }, (_, index) => Math.sin(index * 1.7 + seed * 2.3 + 1))

const ofTokens = weights(1, vocabulary.length * width)
const ofTypes = weights(2, 2 * width)
const ofPositions = weights(3, contextWindow * width)
const head = weights(4, width * width)
const headBias = weights(5, width)
const output = weights(6, width)

const identity = Float32Array.from(
  { length: width * width },
  (_, index) => index % width === Math.floor(index / width) ? 1 : 0
)

interface Tensor extends TensorShape {
  readonly values: Float32Array<ArrayBuffer>
}

const matrix = (name: string, columns: number, rows: number, values = new Float32Array(columns * rows)): Tensor => ({
  name,
  dimensions: [columns, rows],
  type: "f32",
  values
})

const vector = (name: string, values = new Float32Array(width)): Tensor => ({
  name,
  dimensions: [values.length],
  type: "f32",
  values
})

const norm = (name: string): ReadonlyArray<Tensor> => [
  vector(`${name}.weight`, new Float32Array(width).fill(1)),
  vector(`${name}.bias`)
]

const linear = (name: string, values?: Float32Array<ArrayBuffer>): ReadonlyArray<Tensor> => [
  matrix(`${name}.weight`, width, width, values),
  vector(`${name}.bias`)
]

/** Attention is uniform over all tokens, and the feed-forward part adds nothing. */
const tensors: ReadonlyArray<Tensor> = [
  matrix("token_embd.weight", width, vocabulary.length, ofTokens),
  matrix("token_types.weight", width, 2, ofTypes),
  matrix("position_embd.weight", width, contextWindow, ofPositions),
  ...norm("token_embd_norm"),
  ...linear("blk.0.attn_q"),
  ...linear("blk.0.attn_k"),
  ...linear("blk.0.attn_v", identity),
  ...linear("blk.0.attn_output", identity),
  ...norm("blk.0.attn_output_norm"),
  ...linear("blk.0.ffn_up"),
  ...linear("blk.0.ffn_down"),
  ...norm("blk.0.layer_output_norm"),
  matrix("cls.weight", width, width, head),
  vector("cls.bias", headBias),
  matrix("cls.output.weight", width, 1, output),
  vector("cls.output.bias", new Float32Array(1))
]

const header = headerOf([
  ["general.architecture", "bert"],
  ["general.name", "ranks"],
  // F32
  ["general.file_type", u32(0)],
  ["bert.block_count", u32(1)],
  ["bert.context_length", u32(contextWindow)],
  ["bert.embedding_length", u32(width)],
  ["bert.feed_forward_length", u32(width)],
  ["bert.attention.head_count", u32(1)],
  ["bert.attention.layer_norm_epsilon", f32(1e-12)],
  ["bert.attention.causal", false],
  // By rank
  ["bert.pooling_type", u32(4)],
  ["tokenizer.ggml.model", "bert"],
  ["tokenizer.ggml.pre", "default"],
  ["tokenizer.ggml.token_type_count", u32(2)],
  ["tokenizer.ggml.tokens", strings(vocabulary)],
  ["tokenizer.ggml.token_type", i32s(vocabulary.map((_, id) => id < controls.length ? 3 : 1))],
  ["tokenizer.ggml.padding_token_id", u32(0)],
  ["tokenizer.ggml.unknown_token_id", u32(unknown)],
  ["tokenizer.ggml.bos_token_id", u32(first)],
  // The spelling of the format.
  ["tokenizer.ggml.seperator_token_id", u32(separator)],
  ["tokenizer.ggml.mask_token_id", u32(controls.indexOf("[MASK]"))]
], tensors)

/** Writes the model and returns its path. */
export const writeRankingModel = (folder: string): string => {
  const file = join(folder, "ranks.gguf")
  const data = tensors.flatMap((tensor) => [Buffer.from(tensor.values.buffer), paddingAfter(tensor)])
  writeFileSync(file, Buffer.concat([header, ...data]))
  return file
}

/** The tokens of words separated by spaces. */
export const tokensOf = (query: string, document: string): ReadonlyArray<number> => [
  first,
  ...query.split(" ").map(idOf),
  separator,
  ...document.split(" ").map(idOf),
  separator
]

const normal = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const mean = values.reduce((sum, value) => sum + value, 0) / width
  const centred = values.map((value) => value - mean)
  const deviation = Math.sqrt(centred.reduce((sum, value) => sum + value * value, 0) / width)
  return centred.map((value) => value / deviation)
}

const dot = (row: Float32Array, values: ReadonlyArray<number>): number =>
  values.reduce((sum, value, axis) => sum + row[axis]! * value, 0)

/** The model's expected score, from 0 to 1. */
export const scoreOf = (query: string, document: string): number => {
  const read = tokensOf(query, document).map((token, position) =>
    normal(Array.from(
      { length: width },
      (_, axis) => ofTokens[token * width + axis]! + ofTypes[axis]! + ofPositions[position * width + axis]!
    ))
  )
  const seen = read[0]!.map((value, axis) => value + read.reduce((sum, one) => sum + one[axis]!, 0) / read.length)
  const pooled = normal(normal(seen))
  const hidden = Array.from(
    { length: width },
    (_, row) => Math.tanh(dot(head.subarray(row * width), pooled) + headBias[row]!)
  )
  return 1 / (1 + Math.exp(-dot(output, hidden)))
}

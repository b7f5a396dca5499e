/**
 * A synthetic GGUF model: a llama with the size and the speed of a real model, and pseudo-random weights.
 *
 * **Details**
 *
 * Its vocabulary is words of two syllables, one token each with the space before it, besides the 256 bytes. The weights
 * are pseudo-random and the same on every machine. The blocks compute all that a real model's blocks do and add little
 * to the stream; the output matrix is the embedding's with its rows moved, so that each word has one certain successor,
 * with a wide margin. Hence every answer to every prompt is the same text, however requests share a batch, and no
 * answer ends before its `max_tokens`: tokens that are not words are never generated.
 *
 * The file is kept in `bench/results` under a name with its shape and version.
 *
 * **Gotchas**
 *
 * `version` is part of the name: raise it with every change of the weights.
 */
import { createHash } from "node:crypto"
import { createWriteStream, existsSync } from "node:fs"
import { mkdir, rename, rm } from "node:fs/promises"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { fileURLToPath } from "node:url"
import type { GgufValue, TensorShape } from "./GgufWriter.ts"
import { f32, headerOf, i32s, paddingAfter, q8_0, strings, u32 } from "./GgufWriter.ts"

/** The dimensions of a model. */
export interface Shape {
  readonly name: string
  readonly blocks: number
  readonly embedding: number
  readonly feedForward: number
  readonly heads: number
  readonly keyValueHeads: number
  readonly contextLength: number
  /** The first letters of the syllables in the vocabulary. */
  readonly consonants: string
}

/** 136 M parameters, 22,520 tokens, 144 MB. */
export const whole: Shape = {
  name: "136m",
  blocks: 31,
  embedding: 576,
  feedForward: 1536,
  heads: 9,
  keyValueHeads: 3,
  contextLength: 2048,
  consonants: "bcdfghjklmnpqrstvwxyz"
}

/** 0.3 M parameters, for smoke runs. */
export const small: Shape = {
  name: "small",
  blocks: 2,
  embedding: 128,
  feedForward: 256,
  heads: 4,
  keyValueHeads: 2,
  contextLength: 2048,
  consonants: "bdkl"
}

const version = 1
const folder = fileURLToPath(new URL("results/", import.meta.url))
const vowels = ["a", "e", "i", "o", "u"]
const specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
const normal = 1
const control = 3
/** GPT-2's letter for a space within a token. */
const space = "Ġ"

const template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/** Tokens that the template adds to a message of a user. */
export const templateTokens = 16

/** GPT-2's letters for the 256 bytes: printable ones stand for themselves, the others for those from 256 on. */
const byteLetters = (): ReadonlyArray<string> => {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    return String.fromCodePoint(printable ? byte : next++)
  })
}

const syllablesOf = ({ consonants }: Shape): ReadonlyArray<string> =>
  Array.from(consonants).flatMap((consonant) => vowels.map((vowel) => `${consonant}${vowel}`))

interface Vocabulary {
  readonly tokens: ReadonlyArray<string>
  readonly merges: ReadonlyArray<string>
  /** The first of the words, which are the last tokens. */
  readonly firstWord: number
  readonly words: number
}

/** No vowel is merged with the letter after it, so each word has exactly one tokenization. */
const vocabularyOf = (shape: Shape): Vocabulary => {
  const syllables = syllablesOf(shape)
  const pairs = syllables.flatMap((first) => syllables.map((second) => [first, second] as const))
  const fragments = [...specials, ...byteLetters(), ...syllables, ...syllables.map((one) => `${space}${one}`)]
  return {
    tokens: [
      ...fragments,
      ...pairs.map(([first, second]) => `${first}${second}`),
      ...pairs.map(([first, second]) => `${space}${first}${second}`)
    ],
    merges: [
      ...syllables.map((one) => `${one[0]} ${one[1]}`),
      ...syllables.map((one) => `${space} ${one}`),
      ...pairs.map(([first, second]) => `${first} ${second}`),
      ...pairs.map(([first, second]) => `${space}${first} ${second}`)
    ],
    firstWord: fragments.length + pairs.length,
    words: pairs.length
  }
}

/** A prompt with this number of tokens, besides those of the chat template; a different one for every number. */
export const textOf = (shape: Shape, number: number, words: number): string => {
  const syllables = syllablesOf(shape)
  const random = makeRandom(number)
  const syllable = () => syllables[(random() >>> 0) % syllables.length]!
  return Array.from({ length: words }, () => ` ${syllable()}${syllable()}`).join("")
}

/** A 32-bit generator (xorshift, Marsaglia 2003) that starts far from zero for every seed. */
const makeRandom = (seed: number): () => number => {
  let state = Math.imul(seed + 1, 0x9e3779b1) ^ 0x2545f491 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state
  }
}

/** One tensor: its name and shape, and its rows one by one. */
interface Tensor extends TensorShape {
  readonly row: (index: number) => Buffer
}

/** Standard deviation of a block's output, relative to that of the stream, which is 1. */
const whisper = 0.02

/** A matrix whose products have about `gain` times the standard deviation of their input. */
const matrixOf = (seed: number, name: string, columns: number, rows: number, gain: number): Tensor => ({
  name,
  dimensions: [columns, rows],
  type: "q8_0",
  row: (index) => q8_0(makeRandom(Math.imul(seed, 0x10001) + index), columns, gain / Math.sqrt(columns))
})

const normOf = (name: string, width: number): Tensor => ({
  name,
  dimensions: [width],
  type: "f32",
  row: () => Buffer.from(new Float32Array(width).fill(1).buffer)
})

const blockOf = (shape: Shape, block: number): ReadonlyArray<Tensor> => {
  const { embedding, feedForward, heads, keyValueHeads } = shape
  const keyValue = embedding / heads * keyValueHeads
  const matrix = (place: number, name: string, columns: number, rows: number, gain: number) =>
    matrixOf(1_000 + block * 10 + place, `blk.${block}.${name}.weight`, columns, rows, gain)
  return [
    normOf(`blk.${block}.attn_norm.weight`, embedding),
    matrix(0, "attn_q", embedding, embedding, 1),
    matrix(1, "attn_k", embedding, keyValue, 1),
    matrix(2, "attn_v", embedding, keyValue, 1),
    matrix(3, "attn_output", embedding, embedding, whisper),
    normOf(`blk.${block}.ffn_norm.weight`, embedding),
    matrix(4, "ffn_gate", embedding, feedForward, 1),
    matrix(5, "ffn_up", embedding, feedForward, 1),
    matrix(6, "ffn_down", feedForward, embedding, whisper)
  ]
}

/** Distance from a word to the next word of an answer; a prime that divides no vocabulary's number of words. */
const stride = 4_999

const tensorsOf = (shape: Shape, { firstWord, tokens, words }: Vocabulary): ReadonlyArray<Tensor> => {
  const { blocks, embedding } = shape
  const wordRow = (word: number) => q8_0(makeRandom(word % words), embedding, 1)
  const dimensions = [embedding, tokens.length] as const
  const silent = q8_0(() => 0, embedding, 0)
  return [
    // Other tokens are mapped to words, so that the token after a prompt is also certain.
    { name: "token_embd.weight", dimensions, type: "q8_0", row: (token) => wordRow(token + words) },
    ...Array.from({ length: blocks }, (_, block) => blockOf(shape, block)).flat(),
    normOf("output_norm.weight", embedding),
    {
      name: "output.weight",
      dimensions,
      type: "q8_0",
      row: (token) => token < firstWord ? silent : wordRow(token + words * stride - stride)
    }
  ]
}

const metadataOf = (shape: Shape, { firstWord, merges, tokens }: Vocabulary): ReadonlyArray<[string, GgufValue]> => [
  ["general.architecture", "llama"],
  ["general.name", `Troupe's synthetic ${shape.name}, version ${version}`],
  ["general.quantization_version", u32(2)],
  // Q8_0
  ["general.file_type", u32(7)],
  ["llama.block_count", u32(shape.blocks)],
  ["llama.context_length", u32(shape.contextLength)],
  ["llama.embedding_length", u32(shape.embedding)],
  ["llama.feed_forward_length", u32(shape.feedForward)],
  ["llama.attention.head_count", u32(shape.heads)],
  ["llama.attention.head_count_kv", u32(shape.keyValueHeads)],
  ["llama.attention.layer_norm_rms_epsilon", f32(1e-5)],
  ["llama.rope.freq_base", f32(10_000)],
  ["llama.rope.dimension_count", u32(shape.embedding / shape.heads)],
  ["llama.vocab_size", u32(tokens.length)],
  ["tokenizer.ggml.model", "gpt2"],
  ["tokenizer.ggml.pre", "gpt-2"],
  ["tokenizer.ggml.tokens", strings(tokens)],
  ["tokenizer.ggml.token_type", i32s(tokens.map((_, index) => index < specials.length ? control : normal))],
  ["tokenizer.ggml.merges", strings(merges)],
  ["tokenizer.ggml.bos_token_id", u32(0)],
  ["tokenizer.ggml.eos_token_id", u32(2)],
  ["tokenizer.ggml.padding_token_id", u32(0)],
  ["tokenizer.ggml.unknown_token_id", u32(firstWord)],
  ["tokenizer.ggml.add_bos_token", false],
  ["tokenizer.chat_template", template]
]

const rowsPerChunk = 512

const rowsOf = ({ dimensions }: TensorShape): number => dimensions[1] ?? 1

/** The file in pieces, since it need not fit into memory. */
function* chunksOf(header: Buffer, tensors: ReadonlyArray<Tensor>): Generator<Buffer> {
  yield header
  for (const tensor of tensors) {
    const rows = rowsOf(tensor)
    for (let from = 0; from < rows; from += rowsPerChunk) {
      const count = Math.min(rowsPerChunk, rows - from)
      yield Buffer.concat(Array.from({ length: count }, (_, index) => tensor.row(from + index)))
    }
    yield paddingAfter(tensor)
  }
}

/** The path of the model, which is written first if it does not exist. */
export const ensure = async (shape: Shape): Promise<string> => {
  const vocabulary = vocabularyOf(shape)
  const tensors = tensorsOf(shape, vocabulary)
  const header = headerOf(metadataOf(shape, vocabulary), tensors)
  const digest = createHash("sha256").update(header).digest("hex").slice(0, 12)
  const file = `${folder}synthetic-${shape.name}-${digest}.gguf`
  if (existsSync(file)) return file
  await mkdir(folder, { recursive: true })
  const unfinished = `${file}.${process.pid}`
  try {
    await pipeline(Readable.from(chunksOf(header, tensors), { objectMode: false }), createWriteStream(unfinished))
    await rename(unfinished, file)
  } finally {
    await rm(unfinished, { force: true })
  }
  return file
}

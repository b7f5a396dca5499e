/**
 * Writes GGUF files whose answers are scripts, for the real engine.
 *
 * **Details**
 *
 * The graph is GPT-2's with one block of zeros, so that the embedding of a position alone decides the next token. The
 * vocabulary is the 256 bytes and the control tokens of the script: a prompt has one token for each byte.
 */
import { writeFileSync } from "node:fs"
import * as Gguf from "../../bench/GgufWriter.ts"
import { byteOfLetter } from "../../src/workers/job/TextJoiner.ts"
import { makeRandom } from "../../src/workers/model/Sampler.ts"

const width = 128
const positions = 512
const blockBytes = 34

/** A model, and what it says. */
export interface Script {
  /** The template of a chat, in Jinja. */
  readonly template: string
  /** The texts of control tokens; the first ends an answer. */
  readonly control: ReadonlyArray<string>
  /** The prompt that the template renders. */
  readonly prompt: string
  readonly answer: string
}

const letterOfByte = new Map([...byteOfLetter].map(([letter, byte]) => [byte, letter]))

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

/** Rows of signs, which are nearly orthogonal: each token's own row has the largest product with itself. */
const signsOf = (tokens: number): Int8Array => {
  const random = makeRandom(7)
  return Int8Array.from({ length: tokens * width }, () => random() < 0.5 ? -1 : 1)
}

/** The embeddings of tokens, in blocks of q8_0: a scale of 2^-8, and 32 weights. */
const embeddingsOf = (signs: Int8Array): Buffer => {
  const blocks = signs.length / 32
  const rows = Buffer.alloc(blocks * blockBytes)
  for (let block = 0; block < blocks; block++) {
    rows.writeUInt16LE(0x1c00, block * blockBytes)
    for (let at = 0; at < 32; at++) rows.writeInt8(signs[block * 32 + at]! * 64, block * blockBytes + 2 + at)
  }
  return rows
}

/** Writes the model, and returns nothing: its answer to `prompt` is `answer` at temperature 0. */
export const writeScriptedGguf = (file: string, { answer, control, prompt, template }: Script): void => {
  const bytes = Array.from({ length: 256 }, (_, byte) => letterOfByte.get(byte)!)
  const tokens = [...bytes, ...control]
  const marked = new RegExp(`(${control.map(escape).join("|")})`)
  const idsOf = (text: string): ReadonlyArray<number> =>
    text.split(marked).flatMap((part) =>
      control.includes(part) ? [256 + control.indexOf(part)] : [...Buffer.from(part)]
    )
  const shape = (name: string, dimensions: readonly [number, number?], type: "f32" | "q8_0" = "f32") => ({
    name,
    dimensions,
    type
  })
  const tensors = [
    shape("token_embd.weight", [width, tokens.length], "q8_0"),
    shape("position_embd.weight", [width, positions]),
    shape("output_norm.weight", [width]),
    shape("output_norm.bias", [width]),
    shape("blk.0.attn_norm.weight", [width]),
    shape("blk.0.attn_norm.bias", [width]),
    shape("blk.0.attn_qkv.weight", [width, 3 * width]),
    shape("blk.0.attn_qkv.bias", [3 * width]),
    shape("blk.0.attn_output.weight", [width, width]),
    shape("blk.0.attn_output.bias", [width]),
    shape("blk.0.ffn_norm.weight", [width]),
    shape("blk.0.ffn_norm.bias", [width]),
    shape("blk.0.ffn_up.weight", [width, 4 * width]),
    shape("blk.0.ffn_up.bias", [4 * width]),
    shape("blk.0.ffn_down.weight", [4 * width, width]),
    shape("blk.0.ffn_down.bias", [width])
  ]
  const header = Gguf.headerOf([
    ["general.architecture", "gpt2"],
    ["general.name", "scripted"],
    ["general.file_type", Gguf.u32(7)],
    ["general.quantization_version", Gguf.u32(2)],
    ["gpt2.block_count", Gguf.u32(1)],
    ["gpt2.context_length", Gguf.u32(positions)],
    ["gpt2.embedding_length", Gguf.u32(width)],
    ["gpt2.feed_forward_length", Gguf.u32(4 * width)],
    ["gpt2.attention.head_count", Gguf.u32(4)],
    ["gpt2.attention.layer_norm_epsilon", Gguf.f32(1e-5)],
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.pre", "gpt-2"],
    ["tokenizer.ggml.tokens", Gguf.strings(tokens)],
    ["tokenizer.ggml.token_type", Gguf.i32s(tokens.map((_, id) => id < 256 ? 1 : 3))],
    ["tokenizer.ggml.merges", Gguf.strings([])],
    ["tokenizer.ggml.eos_token_id", Gguf.u32(256)],
    ["tokenizer.ggml.add_bos_token", false],
    ["tokenizer.chat_template", template]
  ], tensors)
  const signs = signsOf(tokens.length)
  const start = idsOf(prompt).length
  const script = [...idsOf(answer), 256]
  const byPosition = new Float32Array(positions * width)
  for (const [index, token] of script.entries()) {
    const row = (start - 1 + index) * width
    for (let at = 0; at < width; at++) byPosition[row + at] = 20 * signs[token * width + at]!
  }
  const weights = tensors.slice(1).map((tensor) => {
    const length = tensor.dimensions[0] * (tensor.dimensions[1] ?? 1)
    if (tensor.name.startsWith("position_embd")) return Buffer.from(byPosition.buffer)
    const values = new Float32Array(length)
    return Buffer.from(tensor.name.endsWith("norm.weight") ? values.fill(1).buffer : values.buffer)
  })
  writeFileSync(
    file,
    Buffer.concat([
      header,
      embeddingsOf(signs),
      Gguf.paddingAfter(tensors[0]!),
      ...weights.flatMap((bytes, index) => [bytes, Gguf.paddingAfter(tensors[index + 1]!)])
    ])
  )
}

/**
 * Writes GGUF files of GPT-2's graph with one block of zeros: the embedding of a position alone decides the logits of the next
 * token, whatever the vocabulary.
 *
 * **Details**
 *
 * The embedding of a token is a row of random signs. Such rows are nearly orthogonal, so that a position with the row of a
 * token is followed by that token, and random positions have logits with a normal distribution.
 */
import { writeFileSync } from "node:fs"
import type { GgufValue } from "./GgufWriter.ts"
import * as Gguf from "./GgufWriter.ts"

/** Numbers in a row. */
export const width = 128
export const positions = 512
const blockBytes = 34

export interface Model {
  /** Token texts in GPT-2's letters for bytes. */
  readonly tokens: ReadonlyArray<string>
  readonly isControl: (token: number) => boolean
  /** The token that ends an answer. */
  readonly end: number
  readonly template: string
  /** The template for prompts with tools; left out, `template`. */
  readonly toolUse?: string
  /** See `signsOf`. */
  readonly signs: Int8Array
  /** A row for each position. */
  readonly byPosition: Float32Array<ArrayBuffer>
  /** Standard deviation of the logits of a random position; left out, 2.8. */
  readonly spread?: number
}

/** The rows of so many tokens. */
export const signsOf = (tokens: number, random: () => number): Int8Array =>
  Int8Array.from({ length: tokens * width }, () => random() < 0.5 ? -1 : 1)

/** The embeddings of tokens, in blocks of q8_0: a scale of 2^-8, and 32 weights of 64. */
const embeddingsOf = (signs: Int8Array): Buffer => {
  const blocks = signs.length / 32
  const rows = Buffer.alloc(blocks * blockBytes)
  for (let block = 0; block < blocks; block++) {
    rows.writeUInt16LE(0x1c00, block * blockBytes)
    for (let at = 0; at < 32; at++) rows.writeInt8(signs[block * 32 + at]! * 64, block * blockBytes + 2 + at)
  }
  return rows
}

const shape = (name: string, dimensions: readonly [number, number?], type: "f32" | "q8_0" = "f32") => ({
  name,
  dimensions,
  type
})

const tensorsOf = (tokens: number) => [
  shape("token_embd.weight", [width, tokens], "q8_0"),
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

const metadataOf = ({ end, isControl, template, tokens, toolUse }: Model): ReadonlyArray<[string, GgufValue]> => [
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
  ["tokenizer.ggml.token_type", Gguf.i32s(tokens.map((_, id) => isControl(id) ? 3 : 1))],
  ["tokenizer.ggml.merges", Gguf.strings([])],
  ["tokenizer.ggml.eos_token_id", Gguf.u32(end)],
  ["tokenizer.ggml.add_bos_token", false],
  ["tokenizer.chat_template", template],
  ...(toolUse === undefined ? [] : [["tokenizer.chat_template.tool_use", toolUse] as [string, GgufValue]])
]

/** Writes the model, without merges: a prompt has one token for each byte. */
export const write = (file: string, model: Model): void => {
  const tensors = tensorsOf(model.tokens.length)
  const scale = (model.spread ?? Math.sqrt(width) / 4) / (Math.sqrt(width) / 4)
  const bytesOf = ({ dimensions: [columns, rows = 1], name }: (typeof tensors)[number]): Buffer => {
    if (name === "token_embd.weight") return embeddingsOf(model.signs)
    if (name === "position_embd.weight") return Buffer.from(model.byPosition.buffer)
    const values = new Float32Array(columns * rows)
    if (name.endsWith("norm.weight")) values.fill(name === "output_norm.weight" ? scale : 1)
    return Buffer.from(values.buffer)
  }
  writeFileSync(
    file,
    Buffer.concat([
      Gguf.headerOf(metadataOf(model), tensors),
      ...tensors.flatMap((tensor) => [bytesOf(tensor), Gguf.paddingAfter(tensor)])
    ])
  )
}

/** Small ONNX models whose output a test can compute, with tiny-chat's tokenizer. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Constant, ElementType, Graph, Node, Value } from "./OnnxWriter.ts"
import { castTo, writeOnnx } from "./OnnxWriter.ts"

export const tinyChat = fileURLToPath(new URL("../../models/tiny-chat-onnx", import.meta.url))

export const vocabulary = 1024

const numbers = (name: string, dims: ReadonlyArray<number>, at: (index: number) => number): Constant => ({
  name,
  dims,
  values: Float32Array.from({ length: dims.reduce((size, dim) => size * dim, 1) }, (_, index) => at(index))
})

const axis = (name: string, value: number): Constant => ({ name, dims: [1], values: BigInt64Array.of(BigInt(value)) })

const tokens = (name: string): Value => ({ name, type: "int64", shape: ["batch_size", "sequence_length"] })

/** A token's vector along one axis: different for each token and axis, from -1 to 1. */
export const embedding = (token: number, axis: number): number => Math.fround(Math.sin(token * 1.7 + axis * 2.3 + 1))

/** The weight of a text's second part, by its token types. */
export const typeWeight = (type: number): number => type === 1 ? -0.5 : 1

const embeddings = (dimensions: number): Constant =>
  numbers("E", [vocabulary, dimensions], (index) => embedding(Math.floor(index / dimensions), index % dimensions))

/** Every token's vector unchanged, in `output`. */
export const vectorGraph = (dimensions: number, output: string): Graph => ({
  inputs: [tokens("input_ids"), tokens("attention_mask")],
  outputs: [{ name: output, type: "float32", shape: ["batch_size", "sequence_length", dimensions] }],
  constants: [embeddings(dimensions)],
  nodes: [{ op: "Gather", inputs: ["E", "input_ids"], output }]
})

/** The sum of the vectors within the mask, weighted by token type, one number per label. */
export const logitGraph = (labels: number, output = "logits"): Graph => ({
  inputs: [tokens("input_ids"), tokens("attention_mask"), tokens("token_type_ids")],
  outputs: [{ name: output, type: "float32", shape: ["batch_size", labels] }],
  constants: [embeddings(labels), numbers("T", [2, 1], typeWeight), axis("last", 2), axis("middle", 1)],
  nodes: [
    { op: "Gather", inputs: ["E", "input_ids"], output: "vectors" },
    { op: "Gather", inputs: ["T", "token_type_ids"], output: "weights" },
    castTo("attention_mask", "mask", "float32"),
    { op: "Unsqueeze", inputs: ["mask", "last"], output: "mask3" },
    { op: "Mul", inputs: ["vectors", "weights"], output: "weighted" },
    { op: "Mul", inputs: ["weighted", "mask3"], output: "masked" },
    { op: "ReduceSum", inputs: ["masked", "middle"], output, attributes: { keepdims: 0 } }
  ]
})

/**
 * A decoder that stores `token + position` of every token in a KV cache of one number, and whose logits are the sum of
 * the stored numbers times `1, 1/2, 1/4, ...`.
 */
export const decoderGraph = (type: "float32" | "float16", logits: number): Graph => {
  const past = (name: string): Value => ({ name, type, shape: ["batch_size", 1, "past_sequence_length", 1] })
  const present = (name: string): Value => ({ name, type, shape: ["batch_size", 1, "total_sequence_length", 1] })
  const cast = (input: string, output: string, to: ElementType): Node => castTo(input, output, to)
  return {
    inputs: [
      tokens("input_ids"),
      { name: "attention_mask", type: "int64", shape: ["batch_size", "total_sequence_length"] },
      tokens("position_ids"),
      past("past_key_values.0.key"),
      past("past_key_values.0.value")
    ],
    outputs: [
      { name: "logits", type, shape: ["batch_size", 1, logits] },
      present("present.0.key"),
      present("present.0.value")
    ],
    constants: [
      numbers("W", [1, 1, logits], (index) => 2 ** -index),
      { name: "axes", dims: [2], values: BigInt64Array.of(1n, 3n) },
      axis("rows", 2),
      axis("heads", 1)
    ],
    nodes: [
      { op: "Add", inputs: ["input_ids", "position_ids"], output: "both" },
      cast("both", "number", type),
      { op: "Unsqueeze", inputs: ["number", "axes"], output: "row" },
      { op: "Concat", inputs: ["past_key_values.0.key", "row"], output: "present.0.key", attributes: { axis: 2 } },
      { op: "Concat", inputs: ["past_key_values.0.value", "row"], output: "present.0.value", attributes: { axis: 2 } },
      cast("present.0.key", "keys", "float32"),
      { op: "ReduceSum", inputs: ["keys", "rows"], output: "sums", attributes: { keepdims: 0 } },
      { op: "Mul", inputs: ["sums", "W"], output: "products" },
      cast("products", "logits", type)
    ]
  }
}

const readTinyChat = (file: string) => JSON.parse(readFileSync(join(tinyChat, file), "utf8")) as Record<string, unknown>

const special = (id: string, type: number) => ({ SpecialToken: { id, type_id: type } })
const text = (id: "A" | "B", type: number) => ({ Sequence: { id, type_id: type } })

/** Puts a control token before and after each text, like encoders' tokenizers. */
const postProcessor = {
  type: "TemplateProcessing",
  single: [special("<|im_start|>", 0), text("A", 0), special("<|im_end|>", 0)],
  pair: [
    special("<|im_start|>", 0),
    text("A", 0),
    special("<|im_end|>", 0),
    text("B", 1),
    special("<|im_end|>", 1)
  ],
  special_tokens: {
    "<|im_start|>": { id: "<|im_start|>", ids: [1], tokens: ["<|im_start|>"] },
    "<|im_end|>": { id: "<|im_end|>", ids: [2], tokens: ["<|im_end|>"] }
  }
}

/** Writes a model folder; `files` replace tiny-chat's, a value other than a text as JSON. */
export const writeModel = (
  folder: string,
  config: Record<string, unknown>,
  model: Graph | Uint8Array,
  files: Readonly<Record<string, unknown>> = {}
): string => {
  const all: Record<string, unknown> = {
    "config.json": { max_position_embeddings: 64, pad_token_id: 3, ...config },
    "tokenizer.json": { ...readTinyChat("tokenizer.json"), post_processor: postProcessor },
    "tokenizer_config.json": readTinyChat("tokenizer_config.json"),
    "onnx/model.onnx": model instanceof Uint8Array ? model : writeOnnx(model),
    ...files
  }
  for (const [name, content] of Object.entries(all)) {
    const path = join(folder, name)
    mkdirSync(join(path, ".."), { recursive: true })
    writeFileSync(
      path,
      content instanceof Uint8Array || typeof content === "string" ? content : JSON.stringify(content)
    )
  }
  return folder
}

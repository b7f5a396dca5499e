/**
 * A decoder with a KV cache in the layout of transformers.js models: tokens in, logits of the last one out.
 *
 * **Details**
 *
 * `past_key_values.<layer>.<key or value>` is the input and `present.<...>` the output, one set per sequence. A decoder has
 * no state: the caller keeps the cache of the last step, and may drop it at any time.
 */
import type { InferenceSession, Tensor } from "onnxruntime-node"
import { refuse } from "../../domain/Job.ts"
import type { Library, Session } from "./OnnxRuntime.ts"

/** The KV cache of one sequence. */
export interface Cache {
  readonly length: number
  readonly tensors: Readonly<Record<string, Tensor>>
}

export interface Decoder {
  /** Number of logits per step. */
  readonly vocabulary: number
  readonly empty: () => Cache
  /** The cache of the first `length` tokens. */
  readonly cut: (cache: Cache, length: number) => Cache
  /** Computes tokens without logits. */
  readonly read: (cache: Cache, tokens: ReadonlyArray<number>) => Promise<Cache>
  /** Computes tokens, and the logits of the next one. */
  readonly step: (
    cache: Cache,
    tokens: ReadonlyArray<number>
  ) => Promise<{ readonly cache: Cache; readonly logits: Float32Array }>
}

const pastPrefix = "past_key_values."
const presentPrefix = "present."

/** Inputs of every step, besides the cache. */
const filled = new Set(["input_ids", "attention_mask", "position_ids", "num_logits_to_keep"])

/** The value of a half-precision number (IEEE 754 binary16), for a Node without `Float16Array`. */
export const floatOfHalf = (half: number): number => {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0) return sign * 2 ** -24 * fraction
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
}

/** A tensor's numbers from `from` on. */
export const floatsOf = ({ data, type }: Tensor, from = 0): Float32Array => {
  if (type === "float32") return (data as Float32Array).subarray(from)
  if (type !== "float16") return refuse({ kind: "failed", message: `The model computes ${type}, not floating point.` })
  const halves = (data as Uint16Array).subarray(from)
  // A Node with `Float16Array` returns the values.
  return halves instanceof Uint16Array ? Float32Array.from(halves, floatOfHalf) : Float32Array.from(halves)
}

/** An int64 tensor, the type of all integer inputs. */
export const integers = (
  { Tensor }: Library,
  values: ReadonlyArray<number>,
  dims: ReadonlyArray<number>
): Tensor => new Tensor("int64", BigInt64Array.from(values, BigInt), dims)

/**
 * The same tensor, with half-precision numbers as their bits: onnxruntime-node returns `Float16Array` on a Node with that
 * type, but reads one as empty.
 */
const withBits = (tensor: Tensor): Tensor => {
  const { data, type } = tensor
  if (type !== "float16" || data instanceof Uint16Array) return tensor
  const { buffer, byteOffset, length } = data as unknown as Uint16Array
  return Object.defineProperty(tensor, "data", { value: new Uint16Array(buffer, byteOffset, length) })
}

const shapeOf = (metadata: InferenceSession.ValueMetadata) =>
  metadata.isTensor
    ? metadata
    : refuse({ kind: "load_failed", message: `The model's ${metadata.name} is not a tensor.` })

/** The cache before the first token: named axes have the length 0. */
const emptyTensor = ({ Tensor }: Library, metadata: InferenceSession.ValueMetadata): Tensor => {
  const { shape, type } = shapeOf(metadata)
  const dims = shape.map((size, axis) => typeof size === "number" ? size : axis === 0 ? 1 : 0)
  if (!dims.includes(0) || (type !== "float32" && type !== "float16")) {
    refuse({
      kind: "load_failed",
      message: `The model's KV cache ${metadata.name} is ${type}[${shape.join(", ")}], ` +
        "and Troupe requires float32 or float16 with a dynamic axis."
    })
  }
  return type === "float16"
    ? new Tensor("float16", new Uint16Array(), dims)
    : new Tensor("float32", new Float32Array(), dims)
}

const sizeOf = (dims: ReadonlyArray<number>): number => dims.reduce((size, dim) => size * dim, 1)

/** A copy of a tensor's first rows along an axis. */
const firstRows = ({ Tensor }: Library, { data, dims, type }: Tensor, axis: number, length: number): Tensor => {
  const from = data as Float32Array
  const inner = sizeOf(dims.slice(axis + 1))
  const outer = sizeOf(dims.slice(0, axis))
  const step = dims[axis]! * inner
  const to = type === "float16" ? new Uint16Array(outer * length * inner) : new Float32Array(outer * length * inner)
  for (let index = 0; index < outer; index++) {
    to.set(from.subarray(index * step, index * step + length * inner), index * length * inner)
  }
  const cut = dims.with(axis, length)
  return to instanceof Uint16Array ? withBits(new Tensor("float16", to, cut)) : new Tensor("float32", to, cut)
}

const checkInputs = ({ inputNames, outputNames }: Session): void => {
  const unknown = inputNames.find((name) => !filled.has(name) && !name.startsWith(pastPrefix))
  if (unknown !== undefined) {
    refuse({ kind: "load_failed", message: `The model requires the input ${unknown}, which Troupe does not support.` })
  }
  const past = inputNames.filter((name) => name.startsWith(pastPrefix))
  const lost = past.find((name) => !outputNames.includes(name.replace(pastPrefix, presentPrefix)))
  if (past.length === 0 || lost !== undefined) {
    refuse({
      kind: "load_failed",
      message: "The model has no KV cache with inputs past_key_values.* and outputs present.*. Export it for " +
        "text generation with past."
    })
  }
}

/** Throws `load_failed` for a graph that is not such a decoder. */
export const makeDecoder = (library: Library, session: Session): Decoder => {
  checkInputs(session)
  const { inputMetadata, inputNames, outputMetadata, outputNames } = session
  const pastInputs = inputMetadata.filter(({ name }) => name.startsWith(pastPrefix))
  const presentOutputs = outputNames.filter((name) => name.startsWith(presentPrefix))
  const { shape } = shapeOf(outputMetadata.find(({ name }) => name === "logits")!)
  const vocabulary = shape.at(-1)
  if (typeof vocabulary !== "number") {
    return refuse({ kind: "load_failed", message: "The model does not specify the number of its logits." })
  }
  const start = Object.fromEntries(pastInputs.map((metadata) => [metadata.name, emptyTensor(library, metadata)]))
  const empty = (): Cache => ({ length: 0, tensors: start })
  const ones = (length: number) => new library.Tensor("int64", new BigInt64Array(length).fill(1n), [1, length])
  const integer = (values: ReadonlyArray<number>) => integers(library, values, [1, values.length])

  const run = async ({ length, tensors }: Cache, tokens: ReadonlyArray<number>, outputs: ReadonlyArray<string>) => {
    const total = length + tokens.length
    const feeds: Record<string, Tensor> = { ...tensors }
    feeds["input_ids"] = integer(tokens)
    if (inputNames.includes("attention_mask")) feeds["attention_mask"] = ones(total)
    if (inputNames.includes("position_ids")) feeds["position_ids"] = integer(tokens.map((_, at) => length + at))
    if (inputNames.includes("num_logits_to_keep")) feeds["num_logits_to_keep"] = integers(library, [1], [])
    const results = await session.run(feeds, outputs)
    const next = presentOutputs.map((name) =>
      [name.replace(presentPrefix, pastPrefix), withBits(results[name]!)] as const
    )
    const cache: Cache = { length: total, tensors: Object.fromEntries(next) }
    return { cache, results }
  }
  const withLogits = ["logits", ...presentOutputs]
  return {
    vocabulary,
    empty,
    cut(cache, length) {
      if (length === cache.length) return cache
      if (length === 0) return empty()
      const tensors = Object.entries(cache.tensors).map(([name, tensor]) =>
        [name, firstRows(library, tensor, start[name]!.dims.indexOf(0), length)] as const
      )
      return { length, tensors: Object.fromEntries(tensors) }
    },
    read: async (cache, tokens) => (await run(cache, tokens, presentOutputs)).cache,
    async step(cache, tokens) {
      const { cache: next, results } = await run(cache, tokens, withLogits)
      const logits = results["logits"]!
      return { cache: next, logits: floatsOf(logits, logits.size - vocabulary) }
    }
  }
}

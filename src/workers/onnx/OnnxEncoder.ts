/**
 * A model that reads a whole text at once: texts in, numbers out.
 *
 * **Details**
 *
 * Texts of about the same length are computed together, padded to the longest, and a cancellation is seen between
 * batches.
 */
import { setImmediate as turn } from "node:timers/promises"
import type { Each, EngineFailure } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Watch } from "../job/JobRunner.ts"
import { floatsOf, integers } from "./OnnxDecoder.ts"
import type { Library, Session } from "./OnnxRuntime.ts"
import type { ModelInput, OnnxTokenizer } from "./OnnxTokenizer.ts"

export interface EncoderOptions {
  readonly library: Library
  readonly session: Session
  readonly tokenizer: OnnxTokenizer
  readonly contextWindow: number
  /** The token that shorter texts of a batch are filled up with. */
  readonly pad: number
}

/** What is to be read, and where the request has it. */
export interface Text {
  readonly path: string
  readonly text: string
  readonly pair?: string
}

/** One text's part of an output. */
export interface Row {
  /** `Float32Array[dimensions]`, or `[tokens × dimensions]` where the output has them for each token. */
  readonly numbers: Float32Array
  readonly dimensions: number
}

export interface Encoder {
  /** Each text, or pair, as the model reads it, or what is wrong with what is at its path; fewer when cancelled. */
  readonly read: (texts: ReadonlyArray<Text>, watch: Watch) => Promise<ReadonlyArray<Each<ModelInput>>>
  /** One output for every input, in their order; some are missing when cancelled. */
  readonly forward: (
    inputs: ReadonlyArray<ModelInput>,
    output: string,
    watch: Watch
  ) => Promise<ReadonlyArray<Row>>
}

const mostTextsInBatch = 16
const mostTokensInBatch = 4096

/** Outputs that hold a vector a token, and the one that holds a vector a text. */
const tokenOutputs = ["last_hidden_state", "token_embeddings"]
const textOutput = "sentence_embedding"

/** What sentence vectors can be read from, or undefined. */
export const vectorOutputOf = ({ outputNames }: Session): string | undefined =>
  [textOutput, ...tokenOutputs].find((name) => outputNames.includes(name))

const filled = new Set(["input_ids", "attention_mask", "token_type_ids", "position_ids"])

/** Throws `load_failed` for a graph that wants what nobody gives. */
export const checkEncoder = ({ inputNames }: Session): void => {
  const unknown = inputNames.find((name) => !filled.has(name))
  if (unknown !== undefined) {
    refuse({ kind: "load_failed", message: `The model wants the input ${unknown}, which Troupe does not fill.` })
  }
}

/** Indexes in batches, the longest texts first, so that little is padded. */
const batchesOf = (lengths: ReadonlyArray<number>): ReadonlyArray<ReadonlyArray<number>> => {
  const order = lengths.map((_, index) => index).sort((a, b) => lengths[b]! - lengths[a]! || a - b)
  const batches: Array<Array<number>> = []
  for (const index of order) {
    const batch = batches.at(-1)
    const fits = batch !== undefined && batch.length < mostTextsInBatch &&
      (batch.length + 1) * lengths[batch[0]!]! <= mostTokensInBatch
    if (fits) batch.push(index)
    else batches.push([index])
  }
  return batches
}

/** Computes one output for a batch; a row of numbers a text, of all its tokens where the output has them. */
const compute = async (
  { library, pad, session }: EncoderOptions,
  inputs: ReadonlyArray<ModelInput>,
  output: string
): Promise<ReadonlyArray<Row>> => {
  const longest = inputs.reduce((most, { ids }) => Math.max(most, ids.length), 0)
  const dims = [inputs.length, longest]
  const fill = (valueAt: (input: ModelInput, at: number) => number) =>
    integers(library, inputs.flatMap((input) => Array.from({ length: longest }, (_, at) => valueAt(input, at))), dims)
  const all = {
    input_ids: () => fill(({ ids }, at) => ids[at] ?? pad),
    attention_mask: () => fill(({ ids }, at) => at < ids.length ? 1 : 0),
    token_type_ids: () => fill(({ types }, at) => types[at] ?? 0),
    position_ids: () => fill((_, at) => at)
  }
  const feeds = Object.entries(all).filter(([name]) => session.inputNames.includes(name))
  const results = await session.run(Object.fromEntries(feeds.map(([name, tensor]) => [name, tensor()])), [output])
  const tensor = results[output]!
  const numbers = floatsOf(tensor)
  const dimensions = tensor.dims.at(-1)!
  const each = numbers.length / inputs.length
  return inputs.map(({ ids }, index) => ({
    dimensions,
    numbers: numbers.subarray(index * each, index * each + (each === dimensions ? each : ids.length * dimensions))
  }))
}

/** A text as the model reads it, or what is wrong with it. */
const readOne = ({ contextWindow, tokenizer }: EncoderOptions, { pair, path, text }: Text): Each<ModelInput> => {
  const bad = (failure: EngineFailure) => ({ ok: false, failure }) as const
  const empty = bad({ kind: "invalid_request", path, message: "Expected a text, which is not empty" })
  const tooLong = (promptTokens: number, atLeast: boolean) =>
    bad({ kind: "context_length_exceeded", promptTokens, contextWindow, ...(atLeast ? { atLeast } : {}) })
  if ((pair ?? text) === "") return empty
  // All jobs wait while a text becomes tokens, so one of megabytes is not made into any.
  const least = Math.ceil((text.length + (pair?.length ?? 0)) / tokenizer.longestToken)
  if (least > contextWindow) return tooLong(least, true)
  const value = tokenizer.encodeInput(text, pair)
  if (value.ids.length === 0) return empty
  return value.ids.length > contextWindow ? tooLong(value.ids.length, false) : { ok: true, value }
}

/** Texts to read before other jobs get their turn. */
const textsATurn = 16

const read = async (
  options: EncoderOptions,
  texts: ReadonlyArray<Text>,
  { isCancelled, progress }: Watch
): Promise<ReadonlyArray<Each<ModelInput>>> => {
  const found: Array<Each<ModelInput>> = []
  for (const text of texts) {
    found.push(readOne(options, text))
    if (found.length % textsATurn > 0) continue
    progress()
    await turn()
    if (isCancelled()) break
  }
  return found
}

/** An encoder over a loaded graph. */
export const makeEncoder = (options: EncoderOptions): Encoder => ({
  read: (texts, watch) => read(options, texts, watch),
  async forward(inputs, output, watch) {
    const found: Array<Row> = []
    for (const batch of batchesOf(inputs.map(({ ids }) => ids.length))) {
      if (watch.isCancelled()) break
      watch.progress()
      const rows = await compute(options, batch.map((index) => inputs[index]!), output)
      batch.forEach((index, at) => found[index] = rows[at]!)
    }
    return found
  }
})

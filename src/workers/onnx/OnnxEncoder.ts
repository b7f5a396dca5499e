/**
 * An encoder model: it computes vectors or scores of complete texts.
 *
 * **Details**
 *
 * Texts of similar length are computed together, padded to the longest. Cancellation is checked between batches.
 */
import { setImmediate as turn } from "node:timers/promises"
import type { Each, EmbedInput, EngineFailure } from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import { refuseUnknownToken } from "../model/TextLimits.ts"
import { floatsOf, integers } from "./OnnxDecoder.ts"
import type { Library, Session } from "./OnnxRuntime.ts"
import type { ModelInput, OnnxTokenizer } from "./OnnxTokenizer.ts"

export interface EncoderOptions {
  readonly library: Library
  readonly session: Session
  readonly tokenizer: OnnxTokenizer
  readonly contextWindow: number
  /** The padding token for shorter texts of a batch. */
  readonly pad: number
}

/** A text, and its path in the request. */
export interface Text {
  readonly path: string
  /** The ids of its tokens where the caller has them. */
  readonly text: EmbedInput
  readonly pair?: string
}

/** The part of an output for one text. */
export interface Row {
  /** `Float32Array[dimensions]`, or `[tokens × dimensions]` if the output has a vector per token. */
  readonly numbers: Float32Array
  readonly dimensions: number
}

export interface Encoder {
  /** The tokens of each text or pair, or its failure; fewer if cancelled. */
  readonly read: (texts: ReadonlyArray<Text>, signals: JobSignals) => Promise<ReadonlyArray<Each<ModelInput>>>
  /** One output per input, in their order; fewer if cancelled. */
  readonly forward: (
    inputs: ReadonlyArray<ModelInput>,
    output: string,
    signals: JobSignals
  ) => Promise<ReadonlyArray<Row>>
}

const mostTextsInBatch = 16
const mostTokensInBatch = 4096

const filled = new Set(["input_ids", "attention_mask", "token_type_ids", "position_ids"])

/** Throws `load_failed` for a graph with an unsupported input. */
export const checkEncoder = ({ inputNames }: Session): void => {
  const unknown = inputNames.find((name) => !filled.has(name))
  if (unknown !== undefined) {
    refuse({ kind: "load_failed", message: `The model requires the input ${unknown}, which Troupe does not support.` })
  }
}

/** Indexes in batches, the longest texts first, to keep the padding short. */
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

/** Computes one output for a batch: one row of numbers per text, with all its tokens if the output has them. */
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

/** Tokens that a caller has given, or their failure. */
const readTokens = (
  ids: ReadonlyArray<number>,
  path: string,
  contextWindow: number,
  { size }: OnnxTokenizer
): Each<ModelInput> => {
  try {
    refuseUnknownToken(ids, size, path)
  } catch (cause) {
    return { ok: false, failure: failureFrom(cause, "failed") }
  }
  return ids.length > contextWindow
    ? { ok: false, failure: { kind: "context_length_exceeded", promptTokens: ids.length, contextWindow } }
    : { ok: true, value: { ids, types: ids.map(() => 0) } }
}

/** The tokens of a text, or its failure. */
const readOne = ({ contextWindow, tokenizer }: EncoderOptions, { pair, path, text }: Text): Each<ModelInput> => {
  if (typeof text !== "string") return readTokens(text, path, contextWindow, tokenizer)
  const bad = (failure: EngineFailure) => ({ ok: false, failure }) as const
  const empty = bad({ kind: "invalid_request", path, message: "Expected a text that is not empty" })
  const tooLong = (promptTokens: number, atLeast: boolean) =>
    bad({ kind: "context_length_exceeded", promptTokens, contextWindow, ...(atLeast ? { atLeast } : {}) })
  if ((pair ?? text) === "") return empty
  // All jobs wait while a text is tokenized, so a text of megabytes is refused first.
  const least = Math.ceil((text.length + (pair?.length ?? 0)) / tokenizer.longestToken)
  if (least > contextWindow) return tooLong(least, true)
  const value = tokenizer.encodeInput(text, pair)
  if (value.ids.length === 0) return empty
  return value.ids.length > contextWindow ? tooLong(value.ids.length, false) : { ok: true, value }
}

/** Texts to tokenize before other jobs run. */
const textsATurn = 16

const read = async (
  options: EncoderOptions,
  texts: ReadonlyArray<Text>,
  { isCancelled, progress }: JobSignals
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
  read: (texts, signals) => read(options, texts, signals),
  async forward(inputs, output, signals) {
    const found: Array<Row> = []
    for (const batch of batchesOf(inputs.map(({ ids }) => ids.length))) {
      if (signals.isCancelled()) break
      signals.progress()
      const rows = await compute(options, batch.map((index) => inputs[index]!), output)
      batch.forEach((index, at) => found[index] = rows[at]!)
    }
    return found
  }
})

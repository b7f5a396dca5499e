/**
 * Tasks of the onnx engine, from an encoder's outputs: sentence vectors, scores of documents, and labels.
 *
 * **Details**
 *
 * An empty or too long text fails alone; in a ranking, the first such document fails the ranking.
 */
import type {
  Classification,
  Each,
  EmbedInput,
  EngineFailure,
  JobResult,
  Ranking,
  RankingInput
} from "../../domain/Job.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import { checkScore, checkVector } from "../model/ModelCheck.ts"
import type { Encoder, Row } from "./OnnxEncoder.ts"
import type { ModelInput } from "./OnnxTokenizer.ts"

/** How the token vectors of a text are combined into one. */
export type Pooling = "mean" | "cls" | "max" | "lasttoken"

export interface TaskOptions {
  readonly encoder: Encoder
  /** The output with vectors, if the model has one. */
  readonly vectors: string | undefined
  readonly pooling: Pooling
  readonly labels: ReadonlyArray<string>
}

type Scores = (inputs: ReadonlyArray<EmbedInput>, signals: JobSignals) => Promise<JobResult>

/** The tasks of one model. */
export interface OnnxTasks {
  readonly embed: Scores
  readonly rerank: (requests: ReadonlyArray<RankingInput>, signals: JobSignals) => Promise<JobResult>
  readonly classify: Scores
}

const unitLength = (vector: Float32Array): Float32Array => {
  checkVector(vector)
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

/**
 * One vector of a text's token vectors.
 *
 * @param rows `Float32Array[tokens × dimensions]`, without padding
 */
const pool = (rows: Float32Array, dimensions: number, pooling: Pooling): Float32Array => {
  if (pooling === "cls") return rows.slice(0, dimensions)
  if (pooling === "lasttoken") return rows.slice(rows.length - dimensions)
  const pooled = rows.slice(0, dimensions)
  for (let at = dimensions; at < rows.length; at++) {
    const axis = at % dimensions
    pooled[axis] = pooling === "max" ? Math.max(pooled[axis]!, rows[at]!) : pooled[axis]! + rows[at]!
  }
  return pooling === "max" ? pooled : pooled.map((sum) => sum * dimensions / rows.length)
}

const softmax = (logits: Float32Array): Array<number> => {
  const most = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY)
  const weights = Array.from(logits, (logit) => Math.exp(logit - most))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

const sigmoid = (logit: number): number => 1 / (1 + Math.exp(-logit))

/** The result of each text, or its failure. */
const forEach = async <A>(
  { forward, read }: Encoder,
  texts: ReadonlyArray<EmbedInput>,
  output: string,
  signals: JobSignals,
  make: (row: Row, promptTokens: number) => A
): Promise<ReadonlyArray<Each<A>>> => {
  const inputs = await read(texts.map((text, index) => ({ path: `inputs[${index}]`, text })), signals)
  const readable = inputs.flatMap((input) => input.ok ? [input.value] : [])
  const rows = (await forward(readable, output, signals))[Symbol.iterator]()
  return inputs.map((input): Each<A> => {
    if (!input.ok) return input
    const { value } = rows.next()
    // Missing only for a cancelled job; its result is not read.
    return value === undefined
      ? { ok: false, failure: { kind: "stopped" } }
      : { ok: true, value: make(value, input.value.ids.length) }
  })
}

const labelled = (row: Float32Array, labels: ReadonlyArray<string>): Classification["labels"] =>
  softmax(row).map((score, index) => ({ label: labels[index] ?? `LABEL_${index}`, score }))
    .sort((a, b) => b.score - a.score)

const emptyQuery: EngineFailure = {
  kind: "invalid_request",
  path: "query",
  message: "Expected a text that is not empty"
}

/** The model's inputs of one ranking, or the first failure among them. */
const readRanking = async (
  { read }: Encoder,
  { documents, query }: RankingInput,
  signals: JobSignals
): Promise<Each<ReadonlyArray<ModelInput>>> => {
  if (query === "") return { ok: false, failure: emptyQuery }
  const pairs = documents.map((pair, index) => ({ path: `documents[${index}]`, text: query, pair }))
  const inputs: Array<ModelInput> = []
  for (const input of await read(pairs, signals)) {
    if (!input.ok) return input
    inputs.push(input.value)
  }
  return { ok: true, value: inputs }
}

const scoreOf = ({ numbers }: Row): number => {
  checkScore(numbers[0]!)
  return sigmoid(numbers[0]!)
}

const rerank = async (
  encoder: Encoder,
  requests: ReadonlyArray<RankingInput>,
  signals: JobSignals
): Promise<JobResult> => {
  const read: Array<Each<ReadonlyArray<ModelInput>>> = []
  for (const request of requests) read.push(await readRanking(encoder, request, signals))
  const rows = await encoder.forward(read.flatMap((inputs) => inputs.ok ? inputs.value : []), "logits", signals)
  let from = 0
  return {
    kind: "rerank",
    rankings: read.map((inputs): Each<Ranking> => {
      if (!inputs.ok) return inputs
      const own = rows.slice(from, from + inputs.value.length)
      from += inputs.value.length
      return {
        ok: true,
        value: { scores: own.map(scoreOf), promptTokens: inputs.value.reduce((sum, { ids }) => sum + ids.length, 0) }
      }
    })
  }
}

/** The three tasks over one encoder, which supports one of them. */
export const makeOnnxTasks = ({ encoder, labels, pooling, vectors = "" }: TaskOptions): OnnxTasks => ({
  embed: async (inputs, signals) => ({
    kind: "embed",
    embeddings: await forEach(encoder, inputs, vectors, signals, ({ dimensions, numbers }, promptTokens) => ({
      vector: unitLength(pool(numbers, dimensions, pooling)),
      promptTokens
    }))
  }),
  rerank: (requests, signals) => rerank(encoder, requests, signals),
  classify: async (inputs, signals) => ({
    kind: "classify",
    classifications: await forEach(encoder, inputs, "logits", signals, ({ numbers }, promptTokens) => {
      numbers.forEach(checkScore)
      return { labels: labelled(numbers, labels), promptTokens }
    })
  })
})

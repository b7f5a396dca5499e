/** Tasks of the llama engine: vectors, rankings and tokens. */
import type { LlamaEmbeddingContext, LlamaModel, LlamaRankingContext, Token } from "node-llama-cpp"
import type {
  Each,
  Embedding,
  EmbedInput,
  EmbedJob,
  EngineFailure,
  JobResult,
  Ranking,
  RankingInput,
  RerankJob,
  TaskJob,
  TokenizeJob
} from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import { notCapable } from "../job/JobRunner.ts"
import { checkScore, checkVector } from "../model/ModelCheck.ts"
import { refuseUnknownToken } from "../model/TextLimits.ts"
import type { Loaded } from "./LlamaLoad.ts"

/** Made at the first call; made again after a failure. */
const once = <A>(make: () => Promise<A>): () => Promise<A> => {
  let made: Promise<A> | undefined
  return () => {
    made ??= make().catch((cause) => {
      made = undefined
      throw cause
    })
    return made
  }
}

const refuseIfTooLong = (promptTokens: number, contextWindow: number) => {
  if (promptTokens >= contextWindow) refuse({ kind: "context_length_exceeded", promptTokens, contextWindow })
}

const unitOf = (vector: ReadonlyArray<number>): Float32Array => {
  const length = Math.hypot(...vector)
  return Float32Array.from(vector, (value) => value / length)
}

const refuseIfEmpty = (path: string, text: string) => {
  if (text === "") refuse({ kind: "invalid_request", path, message: "Expected a text that is not empty" })
}

const embedOne = async (
  { checks, description, model }: Loaded,
  context: () => Promise<LlamaEmbeddingContext>,
  input: EmbedInput,
  index: number
): Promise<Embedding> => {
  if (input === "") {
    refuse({ kind: "invalid_request", path: `inputs[${index}]`, message: "An empty text has no embedding" })
  }
  if (typeof input === "string") checks.fit(input.length)
  else refuseUnknownToken(input, model.fileInfo.metadata.tokenizer.ggml.tokens.length, `inputs[${index}]`)
  const embedder = await context()
  const tokens = typeof input === "string" ? model.tokenize(input) : input as Array<Token>
  const promptTokens = embedder.calculateInputLength(tokens)
  refuseIfTooLong(promptTokens, description.contextWindow)
  const { vector } = await embedder.getEmbeddingFor(tokens)
  checkVector(vector)
  return { vector: unitOf(vector), promptTokens }
}

const isInputFault = (failure: EngineFailure): boolean =>
  failure.kind === "invalid_request" || failure.kind === "context_length_exceeded"

/** The result of one input, or its failure. A failure that the input did not cause fails all inputs. */
const eachOf = async <A>(work: Promise<A>): Promise<Each<A>> => {
  try {
    return { ok: true, value: await work }
  } catch (cause) {
    const failure = failureFrom(cause, "failed")
    if (!isInputFault(failure)) throw cause
    return { ok: false, failure }
  }
}

const embed = async (
  loaded: Loaded,
  context: () => Promise<LlamaEmbeddingContext>,
  { inputs }: EmbedJob,
  { isCancelled, progress }: JobSignals
): Promise<JobResult> => {
  const embeddings: Array<Each<Embedding>> = []
  for (const [index, input] of inputs.entries()) {
    if (isCancelled()) break
    embeddings.push(await eachOf(embedOne(loaded, context, input, index)))
    progress()
  }
  return { kind: "embed", embeddings }
}

const rank = async (
  { checks, description }: Loaded,
  context: () => Promise<LlamaRankingContext>,
  { documents, query }: RankingInput,
  { isCancelled, progress }: JobSignals
): Promise<Ranking> => {
  refuseIfEmpty("query", query)
  documents.forEach((document, index) => refuseIfEmpty(`documents[${index}]`, document))
  const ranker = await context()
  const scores: Array<number> = []
  let promptTokens = 0
  for (const document of documents) {
    if (isCancelled()) break
    checks.fit(query.length + document.length)
    const tokens = ranker.calculateInputLength(query, document)
    refuseIfTooLong(tokens, description.contextWindow)
    promptTokens += tokens
    const score = await ranker.rank(query, document)
    checkScore(score)
    scores.push(score)
    progress()
  }
  return { scores, promptTokens }
}

const rerank = async (
  loaded: Loaded,
  context: () => Promise<LlamaRankingContext>,
  { requests }: RerankJob,
  signals: JobSignals
): Promise<JobResult> => {
  const rankings: Array<Each<Ranking>> = []
  for (const request of requests) {
    if (signals.isCancelled()) break
    rankings.push(await eachOf(rank(loaded, context, request, signals)))
  }
  return { kind: "rerank", rankings }
}

/**
 * The template of a query and a document, if the library would use a wrong one.
 *
 * A vocabulary without an end-of-text token is BERT's, whose models were trained on `[CLS] query [SEP] document [SEP]`
 * (Devlin et al., 2019, figure 1); the library would leave out the last `[SEP]`.
 */
const rankingTemplateOf = ({ fileInfo: { metadata: { tokenizer } }, tokens: { eos, sepString } }: LlamaModel) =>
  eos === null && sepString !== null && tokenizer["chat_template.rerank"] === undefined
    ? { template: `{{query}}${sepString}{{document}}${sepString}` as const }
    : {}

/** One batch per text: encoder models cannot compute a text in pieces. */
const optionsOf = ({ description: { contextWindow }, threads }: Loaded) => ({
  contextSize: contextWindow,
  batchSize: contextWindow,
  threads: threads.prompts
})

const tokenize = ({ checks: { count }, model, prompts }: Loaded, input: TokenizeJob["input"]): JobResult => {
  if (typeof input !== "string") {
    const prefixTokens = prompts.prefixTokens(count, input.assistantPrefix ?? "")
    return { kind: "tokenize", tokens: [...prompts.tokensOf(count, input.messages, input.tools), ...prefixTokens] }
  }
  count(input.length)
  return { kind: "tokenize", tokens: model.tokenize(input) }
}

/** Runs tasks, in contexts of their own that are created at first use. */
export const makeLlamaTasks = (loaded: Loaded) => {
  const { description, model } = loaded
  const options = optionsOf(loaded)
  const embedder = once(() => model.createEmbeddingContext(options))
  const ranker = once(() => model.createRankingContext({ ...options, ...rankingTemplateOf(model) }))
  return async (job: TaskJob, signals: JobSignals): Promise<JobResult> => {
    if (!description.capabilities.includes(job.kind)) return notCapable(job.kind)
    switch (job.kind) {
      case "embed":
        return embed(loaded, embedder, job, signals)
      case "rerank":
        return rerank(loaded, ranker, job, signals)
      case "tokenize":
        return tokenize(loaded, job.input)
      case "classify":
        return notCapable(job.kind)
    }
  }
}

/** Jobs of the llama engine that are answered whole: vectors, rankings and tokens. */
import type { LlamaEmbeddingContext, LlamaModel, LlamaRankingContext } from "node-llama-cpp"
import type {
  Each,
  Embedding,
  EmbedJob,
  EngineFailure,
  JobResult,
  RerankJob,
  TokenizeJob,
  WholeJob
} from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { Watch } from "../job/JobRunner.ts"
import { notAble } from "../job/JobRunner.ts"
import { checkScore, checkVector } from "../model/OutputCheck.ts"
import type { LlamaSpec, Loaded } from "./LlamaLoad.ts"

/** Made when first asked for, once; asked for again after a failure. */
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
  if (text === "") refuse({ kind: "invalid_request", path, message: "Expected a text, which is not empty" })
}

const embedOne = async (
  { checks, description, model }: Loaded,
  context: () => Promise<LlamaEmbeddingContext>,
  text: string,
  index: number
): Promise<Embedding> => {
  if (text === "") {
    refuse({ kind: "invalid_request", path: `inputs[${index}]`, message: "An empty text has no embedding" })
  }
  checks.fit(text.length)
  const embedder = await context()
  const tokens = model.tokenize(text)
  const promptTokens = embedder.calculateInputLength(tokens)
  refuseIfTooLong(promptTokens, description.contextWindow)
  const { vector } = await embedder.getEmbeddingFor(tokens)
  checkVector(vector)
  return { vector: unitOf(vector), promptTokens }
}

const ownFault = (failure: EngineFailure): boolean =>
  failure.kind === "invalid_request" || failure.kind === "context_length_exceeded"

/** A result, or why this one input has none; what is not the input's fault fails them all. */
const eachOf = async <A>(work: Promise<A>): Promise<Each<A>> => {
  try {
    return { ok: true, value: await work }
  } catch (cause) {
    const failure = failureFrom(cause, "failed")
    if (!ownFault(failure)) throw cause
    return { ok: false, failure }
  }
}

const embed = async (
  loaded: Loaded,
  context: () => Promise<LlamaEmbeddingContext>,
  { inputs }: EmbedJob,
  { isCancelled, progress }: Watch
): Promise<JobResult> => {
  const embeddings: Array<Each<Embedding>> = []
  for (const [index, text] of inputs.entries()) {
    if (isCancelled()) break
    embeddings.push(await eachOf(embedOne(loaded, context, text, index)))
    progress()
  }
  return { kind: "embed", embeddings }
}

const rerank = async (
  { checks, description }: Loaded,
  context: () => Promise<LlamaRankingContext>,
  { documents, query }: RerankJob,
  { isCancelled, progress }: Watch
): Promise<JobResult> => {
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
  return { kind: "rerank", scores, promptTokens }
}

/**
 * How a query and a document are put together where the library does not know.
 *
 * A vocabulary without a token for a text's end has BERT's, whose models saw `[CLS] query [SEP] document [SEP]` (Devlin
 * et al., 2019, figure 1); the library would leave out the last one.
 */
const rankingTemplateOf = ({ fileInfo: { metadata: { tokenizer } }, tokens: { eos, sepString } }: LlamaModel) =>
  eos === null && sepString !== null && tokenizer["chat_template.rerank"] === undefined
    ? { template: `{{query}}${sepString}{{document}}${sepString}` as const }
    : {}

/** A text is one batch: models that see all of it at once cannot see it in pieces. */
const optionsOf = (spec: LlamaSpec, contextSize: number) => ({
  contextSize,
  batchSize: contextSize,
  threads: spec.threads
})

const tokenize = ({ checks: { count }, model, prompts }: Loaded, input: TokenizeJob["input"]): JobResult => {
  if (typeof input !== "string") {
    const goesOn = prompts.goesOn(count, input.assistantPrefix ?? "")
    return { kind: "tokenize", tokens: [...prompts.tokensOf(count, input.messages, input.tools), ...goesOn] }
  }
  count(input.length)
  return { kind: "tokenize", tokens: model.tokenize(input) }
}

/** Answers jobs that are answered whole, with contexts of their own that are made when first needed. */
export const makeWhole = (loaded: Loaded, spec: LlamaSpec) => {
  const { description, model } = loaded
  const options = optionsOf(spec, description.contextWindow)
  const embedder = once(() => model.createEmbeddingContext(options))
  const ranker = once(() => model.createRankingContext({ ...options, ...rankingTemplateOf(model) }))
  return async (job: WholeJob, watch: Watch): Promise<JobResult> => {
    if (!description.abilities.includes(job.kind)) return notAble(job.kind)
    switch (job.kind) {
      case "embed":
        return embed(loaded, embedder, job, watch)
      case "rerank":
        return rerank(loaded, ranker, job, watch)
      case "tokenize":
        return tokenize(loaded, job.input)
      case "classify":
        return notAble(job.kind)
    }
  }
}

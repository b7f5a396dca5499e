/** Tasks with one buffered result: embeddings, reranking, classification and tokenization. */
import type { Scope } from "effect"
import { Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type {
  ClassifyRequest,
  CountRequest,
  Embeddings,
  EmbedRequest,
  RerankRequest,
  TokenizeRequest
} from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { notCapable } from "../../domain/InferenceError.ts"
import type { Ranking } from "../../domain/Job.ts"
import {
  bytesPerToken,
  pathOfTokenize,
  pathsOf,
  promptLengthOf,
  requiredByCount,
  requiredByEmbedding,
  requiredByTokenize
} from "../../domain/RoutingRequest.ts"
import type { Source } from "../../domain/Source.ts"
import { dialectOf } from "../../domain/Source.ts"
import type { Engine } from "../engines/Engine.ts"
import { TaskMeter } from "../engines/Engine.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import type { Pipeline } from "./Pipeline.ts"
import { answeredByOf, validated } from "./Pipeline.ts"
import type { AttemptStats } from "./RequestTelemetry.ts"
import * as Validation from "./Validation.ts"

/** A task of an attempt's engine, which is charged as soon as it is sent. */
const metered = <A>(
  { lease, stats }: AttemptContext,
  task: (engine: Engine) => Effect.Effect<A, InferenceError>
): Effect.Effect<A, InferenceError, Scope.Scope> =>
  Effect.flatMap(lease, (engine) => Effect.provideService(task(engine), TaskMeter, stats))

/** The prompt tokens of a result. */
type Counted = Pick<Ranking, "isEstimated" | "promptTokens">

const sumOf = (results: ReadonlyArray<Counted>): number => results.reduce((sum, one) => sum + one.promptTokens, 0)

/** Records the prompt tokens of a complete attempt. */
const finish = (stats: AttemptStats, ...results: ReadonlyArray<Counted>): number => {
  stats.promptTokens = sumOf(results)
  stats.isEstimated = results.some(({ isEstimated }) => isEstimated === true)
  stats.done = true
  return stats.promptTokens
}

/** The fields of a request for embeddings that a shared one carries, or that only its answer depends on. */
const sharedFields: ReadonlySet<string> = new Set(["model", "input", "encoding_format"])

const lengthOf = (texts: ReadonlyArray<string>): number => texts.reduce((sum, text) => sum + promptLengthOf(text), 0)

/**
 * Whether a request in the provider's dialect shares one with others: its deployment has `batches`, and the body has no field that
 * a shared request would lose.
 */
const sharesRequests = ({ options }: Deployment, { body }: Source): boolean =>
  options.batches !== undefined && Object.keys(body).every((field) => sharedFields.has(field))

/** Embeds in a batch, or, for a provider of the caller's dialect, with the caller's own request. */
const embedding =
  ({ batched: { embed } }: Pipeline, { inputs, source, tokens }: EmbedRequest) =>
  (context: AttemptContext): Effect.Effect<
    Pick<Embeddings, "native" | "promptTokens" | "vectors">,
    InferenceError,
    Scope.Scope
  > => {
    const { deployment, stats } = context
    if (
      source === undefined || dialectOf(deployment.options) !== source.dialect || sharesRequests(deployment, source)
    ) {
      return Effect.map(embed(context, tokens ?? inputs), (embeddings) => ({
        vectors: embeddings.map(({ vector }) => vector),
        promptTokens: finish(stats, ...embeddings)
      }))
    }
    return metered(context, ({ embedNative }) =>
      embedNative === undefined
        ? Effect.fail(notCapable(deployment.id, "embed"))
        : Effect.map(embedNative(source), (embedded) => ({
          vectors: [],
          native: embedded.native,
          promptTokens: finish(stats, embedded)
        })))
  }

/** As `embed`, for a request that needs no validation. */
export const embedChecked = (pipeline: Pipeline) =>
  Effect.fnUntraced(function*(request: EmbedRequest) {
    const { inputs, tokens } = request
    const routing = {
      ...request,
      capabilities: requiredByEmbedding(request),
      pathsOf: (capability: string) => [capability === "embedTokens" ? "inputs" : "model"],
      promptLength: tokens === undefined ? lengthOf(inputs) : bytesPerToken * tokens.flat().length
    }
    const routed = yield* pipeline.begin("embeddings", request, routing)
    const winner = yield* pipeline.execute(routed, embedding(pipeline, request))
    return { ...winner.value, ...answeredByOf(winner) }
  }, Effect.scoped)

export const embed = (pipeline: Pipeline) => {
  const embedded = embedChecked(pipeline)
  return (input: EmbedRequest) => Effect.flatMap(validated(input, Validation.embeddings), embedded)
}

export const rerank = (pipeline: Pipeline) =>
  Effect.fnUntraced(function*(input: RerankRequest) {
    const request = yield* validated(input, Validation.rerank)
    const { documents, query } = request
    const routed = yield* pipeline.begin("rerank", request, {
      ...request,
      capabilities: ["rerank"],
      // The query is read with each document.
      promptLength: documents.length * promptLengthOf(query) + lengthOf(documents)
    })
    const winner = yield* pipeline.execute(routed, (context) =>
      Effect.map(
        // A provider takes one query in a request.
        isRemote(context.deployment.options)
          ? metered(context, (engine) => engine.rerank(query, documents))
          : Effect.map(pipeline.batched.rank(context, [{ documents, query }]), ([ranking]) => ranking!),
        (ranking) => ({ scores: ranking.scores, promptTokens: finish(context.stats, ranking) })
      ))
    return { ...winner.value, ...answeredByOf(winner) }
  }, Effect.scoped)

export const classifyTexts = (pipeline: Pipeline) =>
  Effect.fnUntraced(function*(input: ClassifyRequest) {
    const request = yield* validated(input, Validation.classify)
    const { inputs } = request
    const routed = yield* pipeline.begin("classify", request, {
      ...request,
      capabilities: ["classify"],
      promptLength: lengthOf(inputs)
    })
    const winner = yield* pipeline.execute(routed, (context) =>
      Effect.map(pipeline.batched.classify(context, inputs), (classifications) => {
        finish(context.stats, ...classifications)
        return { classifications }
      }))
    return { ...winner.value, ...answeredByOf(winner) }
  }, Effect.scoped)

export const tokenize = (pipeline: Pipeline) =>
  Effect.fnUntraced(function*(input: TokenizeRequest) {
    const request = yield* validated(input, Validation.tokenize)
    const routed = yield* pipeline.begin("tokenize", request, {
      ...request,
      capabilities: requiredByTokenize(request),
      pathsOf: (capability: string) => [pathOfTokenize(request, capability)]
    })
    const winner = yield* pipeline.execute(routed, ({ lease, stats }) =>
      Effect.gen(function*() {
        const tokens = yield* (yield* lease).tokenize(request.input)
        finish(stats, { promptTokens: tokens.length })
        return tokens
      }))
    return { tokens: winner.value, ...answeredByOf(winner) }
  }, Effect.scoped)

/** Counts the prompt's tokens; an engine without a counter tokenizes it. */
export const count = (pipeline: Pipeline) =>
  Effect.fnUntraced(function*(given: CountRequest) {
    const request = yield* validated(given, Validation.count)
    const { input, source } = request
    const conversation = { messages: input.messages, source }
    const routing = {
      ...request,
      capabilities: requiredByCount(conversation),
      pathsOf: (capability: string) => pathsOf(conversation, capability)
    }
    const routed = yield* pipeline.begin("tokenize", request, routing)
    const winner = yield* pipeline.execute(routed, ({ lease, stats }) =>
      Effect.gen(function*() {
        const engine = yield* lease
        const promptTokens = engine.count === undefined
          ? (yield* engine.tokenize(input)).length
          : yield* engine.count(source === undefined ? input : { ...input, source })
        return finish(stats, { promptTokens })
      }))
    return { promptTokens: winner.value, ...answeredByOf(winner) }
  }, Effect.scoped)

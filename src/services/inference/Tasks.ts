/** What is answered whole: embeddings, reranking, labels and tokens. */
import type { Scope } from "effect"
import { Effect } from "effect"
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
import {
  needsOfCount,
  needsOfEmbedding,
  needsOfTokenize,
  pathOfTokenize,
  pathsOf
} from "../../domain/RequiredCapabilities.ts"
import { dialectOf } from "../../domain/Source.ts"
import type { Engaged, Stage } from "./Pipeline.ts"
import type { Tally } from "./RequestTelemetry.ts"
import { check } from "./Validation.ts"

/** Sums up what was counted of prompts, and that the attempt came to its end. */
const close = (tally: Tally, ...promptTokens: ReadonlyArray<number>): number => {
  tally.promptTokens = promptTokens.reduce((sum, tokens) => sum + tokens, 0)
  tally.done = true
  return tally.promptTokens
}

const lengthOf = (texts: ReadonlyArray<string>): number => texts.reduce((sum, { length }) => sum + length, 0)

/** In one call for several callers, or as the caller's own dialect has it. */
const embedding = ({ inputs, source }: EmbedRequest) =>
({ borrow, deployment, embed, tally }: Engaged): Effect.Effect<
  Pick<Embeddings, "native" | "promptTokens" | "vectors">,
  InferenceError,
  Scope.Scope
> => {
  if (source === undefined || dialectOf(deployment.options) !== source.dialect) {
    return Effect.map(embed(inputs), (embeddings) => ({
      vectors: embeddings.map(({ vector }) => vector),
      promptTokens: close(tally, ...embeddings.map((one) => one.promptTokens))
    }))
  }
  return Effect.flatMap(borrow, ({ embedNative }) =>
    embedNative === undefined
      ? Effect.fail(notCapable(deployment.id, "embed"))
      : Effect.map(embedNative(source), ({ native, promptTokens }) => ({
        vectors: [],
        native,
        promptTokens: close(tally, promptTokens)
      })))
}

export const embed = (stage: Stage) =>
  Effect.fnUntraced(function*(given: EmbedRequest) {
    const request = yield* check.embeddings(given)
    const wish = { ...request, capabilities: needsOfEmbedding(request), promptLength: lengthOf(request.inputs) }
    const begun = yield* stage.begin("embeddings", wish)
    const { value, ...by } = yield* stage.attempt(begun, request, embedding(request))
    return { ...value, ...by }
  }, Effect.scoped)

export const rerank = (stage: Stage) =>
  Effect.fnUntraced(function*(given: RerankRequest) {
    const request = yield* check.rerank(given)
    const begun = yield* stage.begin("rerank", { ...request, capabilities: ["rerank"] })
    const { value, ...by } = yield* stage.attempt(begun, request, ({ borrow, tally }) =>
      Effect.gen(function*() {
        const { promptTokens, scores } = yield* (yield* borrow).rerank(request.query, request.documents)
        return { scores, promptTokens: close(tally, promptTokens) }
      }))
    return { ...value, ...by }
  }, Effect.scoped)

export const classifyTexts = (stage: Stage) =>
  Effect.fnUntraced(function*(given: ClassifyRequest) {
    const request = yield* check.classify(given)
    const begun = yield* stage.begin("classify", { ...request, capabilities: ["classify"] })
    const { value, ...by } = yield* stage.attempt(begun, request, ({ borrow, tally }) =>
      Effect.gen(function*() {
        const results = yield* (yield* borrow).classify(request.inputs)
        const classifications = yield* Effect.forEach(results, Effect.fromResult)
        close(tally, ...classifications.map((one) => one.promptTokens))
        return { classifications }
      }))
    return { ...value, ...by }
  }, Effect.scoped)

export const tokenize = (stage: Stage) =>
  Effect.fnUntraced(function*(given: TokenizeRequest) {
    const request = yield* check.tokenize(given)
    const begun = yield* stage.begin("tokenize", {
      ...request,
      capabilities: needsOfTokenize(request),
      pathsOf: (need: string) => [pathOfTokenize(request, need)]
    })
    const { value, ...by } = yield* stage.attempt(begun, request, ({ borrow, tally }) =>
      Effect.gen(function*() {
        const tokens = yield* (yield* borrow).tokenize(request.input)
        close(tally, tokens.length)
        return tokens
      }))
    return { tokens: value, ...by }
  }, Effect.scoped)

/** An engine that cannot count makes the prompt into tokens. */
export const count = (stage: Stage) =>
  Effect.fnUntraced(function*(given: CountRequest) {
    const request = yield* check.count(given)
    const { input, source } = request
    const asked = { messages: input.messages, source }
    const wish = { ...request, capabilities: needsOfCount(asked), pathsOf: (need: string) => pathsOf(asked, need) }
    const begun = yield* stage.begin("tokenize", wish)
    const { value, ...by } = yield* stage.attempt(begun, request, ({ borrow, tally }) =>
      Effect.gen(function*() {
        const engine = yield* borrow
        const promptTokens = engine.count === undefined
          ? (yield* engine.tokenize(input)).length
          : yield* engine.count(source === undefined ? input : { ...input, source })
        return close(tally, promptTokens)
      }))
    return { promptTokens: value, ...by }
  }, Effect.scoped)

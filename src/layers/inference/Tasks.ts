/** What is answered whole: embeddings, reranking, labels and tokens. */
import { Effect } from "effect"
import type { ClassifyRequest, EmbedRequest, RerankRequest, TokenizeRequest } from "../../services/Inference.ts"
import { check } from "./Check.ts"
import type { Progress } from "./Operation.ts"
import type { Stage } from "./Stage.ts"

/** Sums up what was counted of prompts, and that the request came to its end. */
const close = (progress: Progress, ...promptTokens: ReadonlyArray<number>): number => {
  progress.promptTokens = promptTokens.reduce((sum, tokens) => sum + tokens, 0)
  progress.done = true
  return progress.promptTokens
}

export const embed = (stage: Stage) =>
  Effect.fnUntraced(function*(given: EmbedRequest) {
    const request = yield* check.embeddings(given)
    const { progress, route } = yield* stage.begin("embeddings", { ...request, needs: ["embed"] })
    const [deployment] = route.deployments
    const embeddings = yield* stage.embedder(deployment, request, request.inputs)
    const promptTokens = close(progress, ...embeddings.map((one) => one.promptTokens))
    return { vectors: embeddings.map(({ vector }) => vector), promptTokens, deployment: deployment.id }
  }, Effect.scoped)

export const rerank = (stage: Stage) =>
  Effect.fnUntraced(function*(given: RerankRequest) {
    const request = yield* check.rerank(given)
    const begun = yield* stage.begin("rerank", { ...request, needs: ["rerank"] })
    return yield* stage.attempt(begun, request, ({ deployment, engine }) =>
      Effect.map(engine.rerank(request.query, request.documents), ({ promptTokens, scores }) => ({
        scores,
        promptTokens: close(begun.progress, promptTokens),
        deployment: deployment.id
      })))
  }, Effect.scoped)

export const classifyTexts = (stage: Stage) =>
  Effect.fnUntraced(function*(given: ClassifyRequest) {
    const request = yield* check.classify(given)
    const begun = yield* stage.begin("classify", { ...request, needs: ["classify"] })
    return yield* stage.attempt(begun, request, ({ deployment, engine }) =>
      Effect.gen(function*() {
        const classifications = yield* Effect.forEach(yield* engine.classify(request.inputs), Effect.fromResult)
        close(begun.progress, ...classifications.map((one) => one.promptTokens))
        return { classifications, deployment: deployment.id }
      }))
  }, Effect.scoped)

export const tokenize = (stage: Stage) =>
  Effect.fnUntraced(function*(given: TokenizeRequest) {
    const request = yield* check.tokenize(given)
    const begun = yield* stage.begin("tokenize", request)
    return yield* stage.attempt(begun, request, ({ engine }) =>
      Effect.map(engine.tokenize(request.input), (tokens) => {
        close(begun.progress, tokens.length)
        return tokens
      }))
  }, Effect.scoped)

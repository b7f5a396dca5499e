/**
 * The entry of the runtime: one request in, one answer out, from whichever deployment the router chooses.
 *
 * **When to use**
 *
 * Use `generate` for a whole answer and `stream` for one as it is generated; `open` is `stream` with its first event awaited.
 */
import type { Scope, Stream } from "effect"
import { Context, Effect, Layer } from "effect"
import type {
  Answer,
  Classifications,
  ClassifyRequest,
  Count,
  CountRequest,
  Embeddings,
  EmbedRequest,
  Event,
  Opened,
  Request,
  Reranking,
  RerankRequest,
  TokenizeRequest,
  Tokens
} from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Chat from "./Chat.ts"
import { makeStage } from "./Pipeline.ts"
import * as Tasks from "./Tasks.ts"

export type * from "../../domain/Inference.ts"

/** Requests and answers. */
export class Inference extends Context.Service<Inference, {
  /** An answer from its first event on. What comes before that fails here, and what comes after it in `events`. */
  readonly open: (request: Request) => Effect.Effect<Opened, InferenceError, Scope.Scope>
  /** The answer as it is generated. Fails before the first event, or in its middle with what came before it given. */
  readonly stream: (request: Request) => Stream.Stream<Event, InferenceError>
  /** The whole answer. */
  readonly generate: (request: Request) => Effect.Effect<Answer, InferenceError>
  /** Fails with the first wrong input's error. */
  readonly embed: (request: EmbedRequest) => Effect.Effect<Embeddings, InferenceError>
  readonly rerank: (request: RerankRequest) => Effect.Effect<Reranking, InferenceError>
  /** Fails with the first wrong input's error. */
  readonly classify: (request: ClassifyRequest) => Effect.Effect<Classifications, InferenceError>
  readonly tokenize: (request: TokenizeRequest) => Effect.Effect<Tokens, InferenceError>
  /** Counts a prompt's tokens; a provider counts its own. */
  readonly count: (request: CountRequest) => Effect.Effect<Count, InferenceError>
}>()("troupe/domain/Inference") {}

/** Requires the services that a request passes: the router, models, circuits, metrics and decision records. */
export const layer = Layer.effect(
  Inference,
  Effect.map(makeStage, (stage) =>
    Inference.of({
      open: Chat.open(stage),
      stream: Chat.stream(stage),
      generate: Chat.generate(stage),
      embed: Tasks.embed(stage),
      rerank: Tasks.rerank(stage),
      classify: Tasks.classifyTexts(stage),
      tokenize: Tasks.tokenize(stage),
      count: Tasks.count(stage)
    }))
)

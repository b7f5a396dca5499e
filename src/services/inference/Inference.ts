/**
 * The entry of the runtime: one request in, one answer out, from whichever deployment the router chooses.
 *
 * **When to use**
 *
 * Use `generate` for a complete answer and `stream` for an answer as it is generated; `open` waits for the first event of
 * the stream.
 */
import type { Scope, Stream } from "effect"
import { Context, Effect, Equal, Layer } from "effect"
import type {
  Answer,
  AnswerSink,
  Classifications,
  ClassifyRequest,
  Count,
  CountRequest,
  Embeddings,
  EmbedRequest,
  Event,
  OpenedAnswer,
  Request,
  Reranking,
  RerankRequest,
  TokenizeRequest,
  Tokens
} from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { GuardPolicy } from "../guard/RequestGuard.ts"
import { Registry } from "../models/Registry.ts"
import { Shadows } from "../rollout/Shadows.ts"
import type { GuardSettings } from "../settings/GuardSettings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import * as AnswerPull from "./AnswerPull.ts"
import * as CachedChat from "./CachedChat.ts"
import * as Chat from "./Chat.ts"
import * as GuardedInference from "./GuardedInference.ts"
import * as Pipeline from "./Pipeline.ts"
import * as ShadowedChat from "./ShadowedChat.ts"
import * as Tasks from "./Tasks.ts"

export type * from "../../domain/Inference.ts"

/** Requests and answers. */
export class Inference extends Context.Service<Inference, {
  /** The answer after its first event. An earlier failure fails the effect, a later one the stream `events`. */
  readonly open: (request: Request) => Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
  /** The answer as it is generated. A failure after the first event ends the stream; earlier events are delivered. */
  readonly stream: (request: Request) => Stream.Stream<Event, InferenceError>
  /**
   * As `open`, for a receiver that takes events at once: no fiber waits for each of them. Ends with the answer. It fails
   * before `begin`, or with the failure of the answer after it.
   */
  readonly deliver: (request: Request, sink: AnswerSink) => Effect.Effect<void, InferenceError>
  /** The complete answer. */
  readonly generate: (request: Request) => Effect.Effect<Answer, InferenceError>
  /** Fails with the error of the first invalid input. */
  readonly embed: (request: EmbedRequest) => Effect.Effect<Embeddings, InferenceError>
  readonly rerank: (request: RerankRequest) => Effect.Effect<Reranking, InferenceError>
  /** Fails with the error of the first invalid input. */
  readonly classify: (request: ClassifyRequest) => Effect.Effect<Classifications, InferenceError>
  readonly tokenize: (request: TokenizeRequest) => Effect.Effect<Tokens, InferenceError>
  /** Counts a prompt's tokens; remote deployments are counted by their provider. */
  readonly count: (request: CountRequest) => Effect.Effect<Count, InferenceError>
}>()("troupe/domain/Inference") {}

/** `deliver` for an implementation that has `open`: passes the opened answer on to the sink. */
export const deliverOpened: (
  sink: AnswerSink,
  opened: Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
) => Effect.Effect<void, InferenceError> = AnswerPull.deliverOpened

type Service = Inference["Service"]

/** What the operations are made of. */
interface Basis {
  readonly guard: GuardSettings
  readonly caches: CachedChat.Caches
  /** Whether requests of a model are copied. */
  readonly hasCopies: boolean
}

const isSame = (one: Basis, other: Basis): boolean =>
  Equal.equals(one.guard, other.guard) && one.caches === CachedChat.most(one.caches, other.caches) &&
  one.hasCopies === other.hasCopies

/** Makes the operations. What runs beside them ends with the layer. */
const makeBuild = Effect.gen(function*() {
  const pipeline = yield* Pipeline.make()
  const chat = Chat.make(pipeline)
  const tasks = {
    embed: Tasks.embed(pipeline),
    rerank: Tasks.rerank(pipeline),
    classify: Tasks.classifyTexts(pipeline),
    tokenize: Tasks.tokenize(pipeline),
    count: Tasks.count(pipeline)
  }
  const registry = yield* Registry
  return Effect.fnUntraced(function*({ caches, guard, hasCopies }: Basis) {
    const shadowed = hasCopies ? yield* ShadowedChat.make(chat, registry, pipeline.makers) : chat
    const cached = yield* CachedChat.make(pipeline, shadowed, caches)
    const guarded = GuardedInference.make({ ...cached, ...tasks })
    const operations = yield* Effect.provideService(guarded, GuardPolicy, guard)
    return { ...operations, stream: Chat.stream(operations) } satisfies Service
  })
})

/** Requires the services that requests use: router, models, circuits, metrics, decision records, cache and others. */
export const layer = Layer.effect(
  Inference,
  Effect.gen(function*() {
    const build = yield* makeBuild
    const registry = yield* Registry
    const shadows = yield* Shadows
    let basis: Basis = {
      guard: yield* GuardPolicy,
      caches: CachedChat.cachesOf(registry.models()),
      hasCopies: shadows?.of !== undefined
    }
    const first = build(basis)
    const services = yield* Effect.context<Effect.Services<typeof first>>()
    // Requests read each operation when they begin: replacing them costs nothing per request.
    const current: Service = { ...(yield* first) }
    const changes = yield* SettingsChanges
    changes.join(({ guard, models, shadows }) => {
      const next: Basis = {
        guard,
        caches: CachedChat.most(basis.caches, CachedChat.cachesOf(models)),
        hasCopies: shadows !== undefined
      }
      const built = isSame(basis, next) ? Effect.succeed(current) : Effect.provideContext(build(next), services)
      return Effect.map(built, (operations) => ({
        commit: () => {
          basis = next
          Object.assign(current, operations)
        },
        cancel: Effect.void
      }))
    })
    return Inference.of(current)
  })
)

/**
 * Answers to similar requests: embeds the question of a request, finds the nearest question with an answer, and keeps the
 * questions of new answers.
 *
 * **Details**
 *
 * The embedding is a request like any other, of the same caller: it counts in limits, budgets, the ledger and the records.
 * If it fails, or is not there within the configured time, no similar request is found; the first failure of each model is
 * logged.
 */
import type { Exit, Fiber } from "effect"
import { Cause, Effect, Exit as Exits } from "effect"
import type { SemanticSettings } from "../../domain/CacheControl.ts"
import type { Embeddings, EmbedRequest, Event, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as CacheKey from "../cache/CacheKey.ts"
import type { Lookup } from "../cache/CacheLookup.ts"
import { factsOf } from "../cache/QuestionFacts.ts"
import { askingOf } from "../cache/QuestionOf.ts"
import type { Found, ResponseCache, Similar } from "../cache/ResponseCache.ts"
import { normalized } from "../cache/SemanticIndex.ts"

/** A question that was embedded. */
export interface Asked {
  readonly settings: SemanticSettings
  readonly words: Uint32Array
  readonly vector: Float32Array
  /** The scope of answers by these weights. */
  readonly scopeOf: (weights: string) => string
}

/** An answer to a similar request. */
export interface FoundSimilar {
  readonly found: Found
  readonly similarity: number
}

/** What an answer says, for the comparison with others. */
const contentOf = (events: ReadonlyArray<Event>): string => {
  let text = ""
  for (const event of events) {
    if (event.type === "text") text += event.text
    if (event.type === "tool_call") text += `\u0000${event.name ?? ""}\u0000${event.arguments}`
  }
  return text
}

/** The result of an effect, or undefined after the time. A slow interruption of the effect delays nothing. */
const within = <A, E>(effect: Effect.Effect<A, E>, ms: number): Effect.Effect<Exit.Exit<A, E> | undefined> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const fork = Effect.runForkWith(fiber.context)
      const work: Fiber.Fiber<A, E> = fork(effect)
      const timer: Fiber.Fiber<void> = fork(Effect.sleep(ms))
      work.addObserver((exit) => {
        timer.interruptUnsafe()
        resume(Effect.succeed(exit))
      })
      timer.addObserver((exit) => {
        if (!Exits.isSuccess(exit)) return
        resume(Effect.undefined)
        work.interruptUnsafe()
      })
      return Effect.sync(() => {
        timer.interruptUnsafe()
        work.interruptUnsafe()
      })
    })
  )

export class SimilarQuestions {
  readonly #cache: ResponseCache["Service"]
  readonly #similar: Similar
  readonly #embed: (request: EmbedRequest) => Effect.Effect<Embeddings, InferenceError>
  readonly #logged = new Set<string>()

  constructor(
    cache: ResponseCache["Service"],
    similar: Similar,
    embed: (request: EmbedRequest) => Effect.Effect<Embeddings, InferenceError>
  ) {
    this.#cache = cache
    this.#similar = similar
    this.#embed = embed
  }

  /** Embeds the question of a request; undefined if it has none, or has no embedding in time. */
  ask(request: Request, { model, settings: { semantic } }: Lookup): Effect.Effect<Asked | undefined> {
    const asking = semantic && askingOf(request)
    const facts = asking && factsOf(asking.question)
    if (semantic === undefined || asking === undefined || facts === undefined) return Effect.undefined
    const { identity, priority, tenant } = request
    const embedded = this.#embed({
      model: semantic.embeddings,
      inputs: [asking.question],
      ...(tenant === undefined ? {} : { tenant }),
      ...(identity === undefined ? {} : { identity }),
      ...(priority === undefined ? {} : { priority })
    })
    return Effect.flatMap(within(embedded, semantic.timeoutMs), (exit) => {
      if (exit === undefined || Exits.isFailure(exit)) return Effect.as(this.#log(semantic, exit), undefined)
      const { deployment, vectors: [vector] } = exit.value
      const direction = vector && normalized(vector)
      if (direction === undefined) return Effect.undefined
      const rest = CacheKey.identify(asking.rest, model)
      return Effect.succeed({
        settings: semantic,
        words: facts.words,
        vector: direction,
        scopeOf: (weights) => this.#cache.hash(CacheKey.canonical([weights, deployment, rest, facts.text]))
      })
    })
  }

  /** The answer to the nearest question. */
  find(
    asked: Asked,
    { model: { name: model }, weights }: Lookup,
    tenant: string
  ): Effect.Effect<FoundSimilar | undefined> {
    return Effect.suspend(() => {
      const { settings, vector, words } = asked
      const near = this.#similar.find({ model, tenant, scope: asked.scopeOf(weights), words, vector }, settings)
      if (near === undefined) return Effect.undefined
      return Effect.map(this.#recall(near.key), (found) => {
        // The scope has the tenant and the model already.
        if (found === undefined || found.answer.tenant !== tenant || found.answer.model !== model) return undefined
        this.#similar.count({ model, tenant })
        return { found, similarity: near.similarity }
      })
    })
  }

  /**
   * Keeps the question of an answer.
   *
   * @param ttlMs of the answer, from now
   */
  keep(
    { settings, scopeOf, vector, words }: Asked,
    { model, tenant, weights }: { readonly model: string; readonly tenant: string; readonly weights: string },
    { events, key, ttlMs }: { readonly events: ReadonlyArray<Event>; readonly key: string; readonly ttlMs: number }
  ): void {
    const question = { model, tenant, scope: scopeOf(weights), words, vector }
    this.#similar.add(question, key, this.#cache.hash(contentOf(events)), ttlMs, settings)
  }

  #recall(key: string): Effect.Effect<Found | undefined> {
    const found = this.#cache.recall(key)
    return found !== undefined || this.#cache.recallStored === undefined
      ? Effect.succeed(found)
      : this.#cache.recallStored(key)
  }

  #log({ embeddings, timeoutMs }: SemanticSettings, exit: Exit.Failure<unknown, InferenceError> | undefined) {
    const isSlow = exit === undefined
    const name = `${embeddings} ${isSlow ? "slow" : "failed"}`
    if (this.#logged.has(name) || (exit !== undefined && Cause.hasInterruptsOnly(exit.cause))) return Effect.void
    this.#logged.add(name)
    return isSlow
      ? Effect.logWarning(
        `The embedding of a question by ${embeddings} took longer than cache.semantic.timeout (${timeoutMs} ms). ` +
          "The request had no answer of a similar one. Later ones are not logged."
      )
      : Effect.logWarning(
        `The embedding of a question by ${embeddings} failed. The request had no answer of a similar one. ` +
          "Later ones are not logged.",
        exit.cause
      )
  }
}

/**
 * Clears what is no longer right or affordable: answers of a model that was replaced, questions that it embedded, and memory
 * in an emergency.
 */
import { Effect, Stream, SubscriptionRef } from "effect"
import { Pressure, sheds } from "../models/MemoryPressure.ts"
import type { ActorEvent } from "../models/Models.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import type { CacheLookup } from "./CacheLookup.ts"
import type { ResponseCache } from "./ResponseCache.ts"

/** Recognizes replaced deployments: another instance loads, without a crash, while one is loaded. */
export class Replacements {
  readonly #loaded = new Set<string>()
  readonly #replacing = new Set<string>()

  /** Whether the deployment answers with another instance from now on. */
  note({ cause, deployment, state }: Pick<ActorEvent, "cause" | "deployment" | "state">): boolean {
    if (state === "loading" && cause === undefined && this.#loaded.has(deployment)) this.#replacing.add(deployment)
    if (state === "gone" || state === "failed") {
      this.#loaded.delete(deployment)
      this.#replacing.delete(deployment)
    }
    if (state !== "ready") return false
    this.#loaded.add(deployment)
    return this.#replacing.delete(deployment)
  }
}

/** Runs until the scope ends. */
export const run = Effect.fnUntraced(function*(cache: ResponseCache["Service"], lookup: CacheLookup) {
  const models = yield* Models
  const registry = yield* Registry
  const pressure = yield* Pressure
  const replacements = new Replacements()
  const replaced = (event: ActorEvent) => {
    const isReplaced = replacements.note(event)
    // Its files may have changed while it was not loaded.
    if (event.state === "ready") lookup.forgetVersions()
    if (!isReplaced) return Effect.void
    const model = registry.models().find(({ deployments }) => deployments.some(({ id }) => id === event.deployment))
    if (model === undefined) return Effect.void
    // Another instance may embed questions otherwise.
    for (const { cache: settings, name } of registry.models()) {
      if (settings?.semantic?.embeddings === model.name) cache.similar?.clear({ model: name })
    }
    return cache.clear({ model: model.name })
  }
  yield* Effect.forkScoped(Stream.runForEach(models.events, replaced))
  yield* Effect.forkScoped(
    Stream.runForEach(
      SubscriptionRef.changes(pressure),
      (level) => Effect.sync(() => cache.turnMemoryOff(sheds[level].clearCaches))
    )
  )
})

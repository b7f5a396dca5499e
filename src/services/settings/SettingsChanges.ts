/**
 * Lets a running program change to another configuration: every part that follows the settings prepares itself, and all of
 * them change in one step, or none does.
 *
 * **Details**
 *
 * `prepare` does what may fail or wait, such as loading a changed model beside the one in use. `commit` is synchronous: no
 * request begins between the commits of two parts, so that each request has one configuration from its route to its end.
 *
 * **Gotchas**
 *
 * An application without this service keeps the settings that it was built with.
 */
import { Context, Effect, Layer } from "effect"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Resolved } from "./Settings.ts"

/** A part that is ready for other settings. One of the two is called, once. */
export interface Prepared {
  readonly commit: () => void
  /** The part stays as it is. */
  readonly cancel: Effect.Effect<void>
}

/** Makes a part ready for the next settings. */
export type Participant = (next: Resolved, before: Resolved) => Effect.Effect<Prepared, InferenceError>

/** Makes parts ready, one after another; if one fails, those before it are canceled. */
export const prepareAll = (
  all: ReadonlyArray<Effect.Effect<Prepared, InferenceError>>
): Effect.Effect<Prepared, InferenceError> => {
  const ready: Array<Prepared> = []
  const cancel = Effect.suspend(() => Effect.forEach(ready.toReversed(), (one) => one.cancel, { discard: true }))
  return Effect.forEach(all, (one) => Effect.map(one, (prepared) => void ready.push(prepared)), { discard: true }).pipe(
    Effect.onExit((exit) => exit._tag === "Failure" ? cancel : Effect.void),
    Effect.as({
      commit: () => {
        for (const one of ready) one.commit()
      },
      cancel
    })
  )
}

/** The parts that follow the settings. */
export class Participants {
  readonly #all: Array<Participant> = []

  /** Adds a part. It is prepared after those that were added before it. */
  join(participant: Participant): void {
    this.#all.push(participant)
  }

  /** Adds a part that only has to know the settings. */
  follow(change: (next: Resolved) => void): void {
    this.join((next) => Effect.succeed({ commit: () => change(next), cancel: Effect.void }))
  }

  /** Makes all parts ready. */
  prepare(next: Resolved, before: Resolved): Effect.Effect<Prepared, InferenceError> {
    return prepareAll(this.#all.map((participant) => participant(next, before)))
  }
}

/** Those of the application; without them, parts that are never prepared. */
export const SettingsChanges = Context.Reference<Pick<Participants, "follow" | "join" | "prepare">>(
  "troupe/services/settings/SettingsChanges",
  {
    defaultValue: () => ({
      join: () => {},
      follow: () => {},
      prepare: () => Effect.succeed({ commit: () => {}, cancel: Effect.void })
    })
  }
)

/** Those of one application. */
export const layer = Layer.sync(SettingsChanges, () => new Participants())

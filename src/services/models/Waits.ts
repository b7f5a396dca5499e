/**
 * Where a request waits for a slot, for a caller that asked to see it.
 *
 * **Details**
 *
 * A request that asks provides `RequestWaits` to its fibers; each mailbox it waits in adds a look at its place there. Nothing
 * is computed before `look` is called, and a request that does not ask has none.
 */
import { Context } from "effect"
import * as Actor from "./Actor.ts"
import type { Waiting } from "./Mailbox.ts"

/** Why a request waits, and how far it is. */
export interface WaitProgress {
  /** The model of the deployment. */
  readonly model: string
  readonly deployment: string
  /** `loading`: its engine has to be loaded first. */
  readonly state: "queued" | "loading"
  /** The number of requests before it in the queue of the deployment now, plus 1. */
  readonly position: number
  /** Of the load; null if nothing loads, or no load came before to measure against. See `Actor.Loading`. */
  readonly progress: number | null
  /** Time in this queue, whole ms. */
  readonly waitedMs: number
}

/** The place of a caller in an actor's mailbox; undefined if it does not wait there any more. */
export const progressOf = (
  actor: Actor.Actor,
  waiting: Waiting<Actor.SlotRequest>,
  now: number
): WaitProgress | undefined => {
  const position = actor.mailbox.positionOf(waiting, now)
  if (position === undefined) return undefined
  const { id, model } = actor.deployment
  return {
    model,
    deployment: id,
    state: Actor.stateOf(actor) === "ready" ? "queued" : "loading",
    position,
    progress: Actor.loadingOf(actor, now)?.progress ?? null,
    waitedMs: Math.round(now - waiting.since)
  }
}

type Look = () => WaitProgress | undefined

/** The waits of one request, until its first content. */
export class Waits {
  #looks: Array<Look> = []
  isOver = false

  /** @param look undefined once the wait has ended */
  add(look: Look): void {
    if (!this.isOver) this.#looks.push(look)
  }

  /** The longest wait that has not ended: a request waits for several deployments while it hedges. */
  look(): WaitProgress | undefined {
    while (this.#looks.length > 0) {
      const found = this.#looks[0]!()
      if (found !== undefined) return found
      this.#looks.shift()
    }
    return undefined
  }

  /** The answer begins. */
  end(): void {
    this.isOver = true
    this.#looks = []
  }
}

/** The waits of the request of a fiber; undefined if it did not ask for them. */
export const RequestWaits = Context.Reference<Waits | undefined>("troupe/services/models/Waits/RequestWaits", {
  defaultValue: () => undefined
})

/**
 * Where a request waits for a slot, for a caller that asked to see it.
 *
 * **Details**
 *
 * A request that asks provides `RequestWaits` to its fibers; each mailbox it waits in adds a look at its place there. Nothing
 * is computed before `look` is called, and a request that does not ask has none. Another instance of this service behind a
 * deployment is asked, too, and says about every second where the request waits there.
 */
import { Context } from "effect"
import * as Actor from "./Actor.ts"
import type { Waiting } from "./Mailbox.ts"

/** The header of a request that asks where it waits; also to another instance of this service. */
export const progressHeader = "x-troupe-progress"

/** The name of the events that say it, which is also the `type` of their data. */
export const progressEvent = "troupe.progress"

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

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const isPart = (value: unknown): value is number => typeof value === "number" && value >= 0 && value <= 1

/**
 * What an event of another instance says, with the names that callers of this one know; undefined if it says something else.
 *
 * @param data parsed JSON
 */
export const progressIn = (
  data: unknown,
  { deployment, model }: Pick<WaitProgress, "deployment" | "model">
): WaitProgress | undefined => {
  const { position, progress, state, waitedMs } = (data ?? {}) as Readonly<Record<string, unknown>>
  if ((state !== "queued" && state !== "loading") || !isCount(position) || !isCount(waitedMs)) return undefined
  return { model, deployment, state, position, progress: isPart(progress) ? progress : null, waitedMs }
}

type Look = () => WaitProgress | undefined

/** Looks at what another instance has said, after which it counts as over: it says so every second. */
const mostLooks = 3

/** The waits of one request, until its first content. */
export class Waits {
  #looks: Array<Look> = []
  #told: WaitProgress | undefined
  #looksAtTold = 0
  isOver = false

  /** @param look undefined once the wait has ended */
  add(look: Look): void {
    if (!this.isOver) this.#looks.push(look)
  }

  /** Another instance says where the request waits there. */
  tell(progress: WaitProgress): void {
    this.#told = progress
    this.#looksAtTold = 0
  }

  /** The longest wait that has not ended: a request waits for several deployments while it hedges. */
  look(): WaitProgress | undefined {
    while (this.#looks.length > 0) {
      const found = this.#looks[0]!()
      if (found !== undefined) return found
      this.#looks.shift()
    }
    return this.#looksAtTold++ < mostLooks ? this.#told : undefined
  }

  /** The answer begins. */
  end(): void {
    this.isOver = true
    this.#looks = []
    this.#told = undefined
  }
}

/** The waits of the request of a fiber; undefined if it did not ask for them. */
export const RequestWaits = Context.Reference<Waits | undefined>("troupe/services/models/Waits/RequestWaits", {
  defaultValue: () => undefined
})

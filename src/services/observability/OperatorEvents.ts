/**
 * The changes of the service that an operator acts on: alerts, circuits, models, engines, settings, rollouts.
 *
 * **Details**
 *
 * `publish` is synchronous and keeps the latest events in memory. In a service of several processes each process has the events of
 * all: publish an event in the process where it happens, once.
 *
 * **Example**
 *
 * ```ts
 * const events = yield* OperatorEvents
 * events.publish({ kind: "model", severity: "info", message: "Loaded chat#0 in 2.1 s.", deployment: "chat#0" })
 * ```
 */
import { Clock, Context, Effect, Layer, Random, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"

/** What an event is about. */
export const kinds = [
  "alert",
  "circuit",
  "engine",
  "memory",
  "model",
  "process",
  "rollout",
  "security",
  "settings",
  "store"
] as const
export type Kind = typeof kinds[number]

/** From the least severe. */
export const severities = ["info", "warning", "critical"] as const

/** One event. It has no text of requests or answers, no key and no address of a caller. */
export const OperatorEvent = Schema.Struct({
  id: Schema.String,
  /** ms since 1970 */
  at: Schema.Finite,
  kind: Schema.Literals(kinds),
  severity: Schema.Literals(severities),
  /** One sentence. */
  message: Schema.String,
  model: Schema.optionalKey(Schema.String),
  deployment: Schema.optionalKey(Schema.String),
  /** The process of the service in which it happened, from 1; left out where there is only one. */
  process: Schema.optionalKey(Schema.Int),
  /** Figures and names, by kind of event. */
  details: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json))
}).annotate({ identifier: "OperatorEvent" })
export type OperatorEvent = typeof OperatorEvent.Type

/** An event as it is published. */
export type NewEvent = Omit<OperatorEvent, "at" | "id" | "process">

/** Which events are listed. */
export interface Selection {
  /** At or after this time, ms since 1970. */
  readonly since?: number | undefined
  readonly kind?: Kind | undefined
  /** Default: all that are kept. */
  readonly limit?: number | undefined
}

export interface Events {
  readonly publish: (event: NewEvent) => void
  /** The latest first. */
  readonly latest: (which?: Selection) => ReadonlyArray<OperatorEvent>
  /**
   * Calls this listener with each event from now on, at once: it must not wait.
   *
   * @returns ends the subscription
   */
  readonly subscribe: (listener: (event: OperatorEvent) => void) => () => void
}

/** Default: nothing is kept. */
export const OperatorEvents = Context.Reference<Events>("troupe/services/observability/OperatorEvents", {
  defaultValue: () => ({ publish: () => {}, latest: () => [], subscribe: () => () => {} })
})

const isSelected = ({ kind, since = 0 }: Selection) => (event: OperatorEvent): boolean =>
  event.at >= since && (kind === undefined || event.kind === kind)

/** Keeps the latest events of all processes. */
export const layer = Layer.effect(
  OperatorEvents,
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const member = yield* ProcessGroup
    // So that the ids of processes, and of runs, differ.
    const run = (yield* Random.nextIntBetween(0, 36 ** 6)).toString(36).padStart(6, "0")
    const kept: Array<OperatorEvent> = []
    const listeners = new Set<(event: OperatorEvent) => void>()
    let count = 0
    const add = (event: OperatorEvent) => {
      kept.push(event)
      if (kept.length > Defaults.keptEvents) kept.shift()
      for (const listener of listeners) listener(event)
    }
    member?.listen((message) => {
      if (message.type === "news" && message.news.type === "event") add(message.news.event)
    })
    const ofProcess = member === undefined ? {} : { process: member.index }
    return {
      publish(published) {
        const event = { id: `evt-${run}-${count++}`, at: clock.currentTimeMillisUnsafe(), ...ofProcess, ...published }
        add(event)
        member?.send({ type: "news", news: { type: "event", event } })
      },
      latest: (which = {}) => kept.toReversed().filter(isSelected(which)).slice(0, which.limit),
      subscribe(listener) {
        listeners.add(listener)
        return () => void listeners.delete(listener)
      }
    }
  })
)

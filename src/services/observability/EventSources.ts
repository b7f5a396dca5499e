/**
 * Publishes what happens to circuits, local models, memory and the configuration as events for operators. Alerts and rollouts
 * publish theirs themselves.
 *
 * **Details**
 *
 * Of several processes, the first one publishes: it has the local models, learns of all circuits, and changes its configuration with
 * the others. A remote deployment has nothing that is loaded.
 */
import { Effect, Layer, Stream, SubscriptionRef } from "effect"
import { Breaker } from "../health/Breaker.ts"
import type { Transition } from "../health/Circuit.ts"
import type { Level } from "../models/MemoryPressure.ts"
import { Pressure } from "../models/MemoryPressure.ts"
import type { ActorEvent } from "../models/Models.ts"
import { Models } from "../models/Models.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"
import { first } from "../processes/Shares.ts"
import type { Resolved } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import * as SettingsDiff from "../settings/SettingsDiff.ts"
import type { NewEvent } from "./OperatorEvents.ts"
import { OperatorEvents } from "./OperatorEvents.ts"

/** A circuit that opens and one that closes; a failed probe is none of both. */
export const ofCircuit = ({ deployment, from, to }: Transition): NewEvent | undefined => {
  if (to === "closed") {
    return { kind: "circuit", severity: "info", message: `The circuit of "${deployment}" closed.`, deployment }
  }
  return to === "open" && from === "closed"
    ? { kind: "circuit", severity: "warning", message: `The circuit of "${deployment}" opened.`, deployment }
    : undefined
}

const sentence = (text: string): string => /[.!?]$/.test(text) ? text : `${text}.`

/** Loads, unloads, restarts and failures of local models. */
export const ofModel = ({ cause, deployment, isRemote = false, state }: ActorEvent): NewEvent | undefined => {
  if (state === "failed") {
    const why = cause === undefined ? "" : ` ${sentence(cause)}`
    return { kind: "engine", severity: "critical", message: `"${deployment}" failed.${why}`, deployment }
  }
  if (isRemote) return undefined
  switch (state) {
    case "ready":
      return { kind: "model", severity: "info", message: `Loaded "${deployment}".`, deployment }
    case "gone":
      return { kind: "model", severity: "info", message: `Unloaded "${deployment}".`, deployment }
    case "loading":
      return cause === undefined ? undefined : {
        kind: "engine",
        severity: "warning",
        message: `The engine of "${deployment}" is started again. ${sentence(cause)}`,
        deployment
      }
    default:
      return undefined
  }
}

const severityOf: Readonly<Record<Level, NewEvent["severity"]>> = {
  normal: "info",
  warning: "warning",
  critical: "critical",
  emergency: "critical"
}

/** A change of the memory pressure. */
export const ofPressure = (level: Level): NewEvent => ({
  kind: "memory",
  severity: severityOf[level],
  message: `Memory pressure is ${level}.`,
  details: { level }
})

/** Paths that an event lists. */
const mostPaths = 20

/** Another configuration has been applied. */
export const ofSettings = (before: Resolved, after: Resolved): NewEvent => {
  const paths = SettingsDiff.shown(SettingsDiff.diff(before, after)).map(({ path }) => path)
  const count = paths.length === 1 ? "1 change" : `${paths.length} changes`
  return {
    kind: "settings",
    severity: "info",
    message: `Applied another configuration with ${count}.`,
    details: { paths: paths.slice(0, mostPaths) }
  }
}

/** Publishes until the scope ends. */
export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const member = yield* ProcessGroup
  if (member !== undefined && member.index !== first) return
  const { publish } = yield* OperatorEvents
  const publishIf = (event: NewEvent | undefined) => Effect.sync(() => event === undefined ? undefined : publish(event))
  const models = yield* Models
  const breaker = yield* Breaker
  const pressure = yield* Pressure
  const changes = yield* SettingsChanges
  changes.join((next, before) =>
    Effect.succeed({ commit: () => publish(ofSettings(before, next)), cancel: Effect.void })
  )
  yield* Effect.forkScoped(Stream.runForEach(models.events, (event) => publishIf(ofModel(event))))
  yield* Effect.forkScoped(Stream.runForEach(breaker.transitions, (transition) => publishIf(ofCircuit(transition))))
  // The first one is the level at the start.
  const levels = Stream.drop(SubscriptionRef.changes(pressure), 1)
  yield* Effect.forkScoped(Stream.runForEach(levels, (level) => publishIf(ofPressure(level))))
}))

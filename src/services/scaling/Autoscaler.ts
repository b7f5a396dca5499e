/**
 * Follows the load of local deployments with their replicas, as the section `scaling` of the settings says.
 *
 * **Details**
 *
 * A fiber reads the machine and the deployments every `scaling.every`, and asks `ScalingPolicy` for each loaded deployment of
 * a local engine. A decision is carried out beside it: while a replica loads there is no further decision for its
 * deployment. Neither a failed reading nor a failed load ends the fiber.
 *
 * A deployment has at least the `replicas` of its configuration, which are the threads of its first engine. Without the section
 * nothing runs; if another configuration removes it, the added replicas drain, those that load included.
 */
import { Cause, Clock, Effect, Fiber, Layer, Metric } from "effect"
import type { Deployment, EngineDeployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import { Memory } from "../models/Memory.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import { scaling as metrics } from "../observability/Metrics.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { ProcessorReading } from "./Machine.ts"
import { Machine, usedBetween } from "./Machine.ts"
import type { Bounds, Decision, Direction, Readings, State } from "./ScalingPolicy.ts"
import * as ScalingPolicy from "./ScalingPolicy.ts"
import type { Change, ScalingReport } from "./ScalingReport.ts"
import { reasonOf, ScalingReports } from "./ScalingReport.ts"
import type { Scaling } from "./ScalingSettings.ts"
import { rulesOf } from "./ScalingSettings.ts"

/** A local deployment, and how many replicas it may have. */
interface Scalable {
  readonly deployment: Deployment
  readonly bounds: Bounds
  readonly usesGpu: boolean
}

/** What is known of one deployment. */
interface Followed {
  readonly bounds: Bounds
  state: State
  /** Of the last decision. */
  reason: string
  replicas: number
  changed: Change | undefined
  /** A decision is carried out. */
  isChanging: boolean
}

interface Parts {
  readonly machine: Machine["Service"]
  readonly memory: Memory["Service"]
  readonly models: Models["Service"]
  readonly registry: Registry["Service"]
  /** Runs until the application ends. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly followed: Map<string, Followed>
  scaling: Scaling | undefined
  processors: ProcessorReading | undefined
}

const usesGpu = ({ device, gpu }: EngineDeployment): boolean =>
  gpu !== undefined || device === "cuda" || device === "webgpu"

const scalableIn = ({ registry }: Parts, usual: number): ReadonlyArray<Scalable> =>
  registry.models().flatMap(({ deployments }) => deployments).flatMap((deployment) => {
    const { options } = deployment
    if (isRemote(options) || EngineKinds.kindOf(options).spec === undefined) return []
    const { maxReplicas = usual, replicas: least = 1 } = options
    return [{ deployment, bounds: { least, most: Math.max(least, maxReplicas) }, usesGpu: usesGpu(options) }]
  })

const readMachine = Effect.fnUntraced(function*(parts: Parts, withGpu: boolean) {
  const { availableBytes, totalBytes } = yield* parts.memory.read
  const before = parts.processors
  const after = { at: yield* Time.now, pools: yield* parts.machine.processors }
  parts.processors = after
  const cpu = before === undefined ? undefined : usedBetween(before, after)
  const gpu = withGpu ? yield* parts.machine.gpu : undefined
  return {
    ...(totalBytes > 0 ? { memory: 1 - availableBytes / totalBytes } : {}),
    ...(cpu === undefined ? {} : { cpu }),
    ...(gpu === undefined ? {} : { gpu })
  } satisfies Readings["machine"]
})

/** The cool-down outlasts an unload. */
const followedOf = ({ followed }: Parts, { bounds, deployment }: Scalable, replicas: number): Followed => {
  const known = followed.get(deployment.id)
  const next: Followed = known === undefined
    ? { bounds, state: ScalingPolicy.initial, reason: "", replicas, changed: undefined, isChanging: false }
    : Object.assign(known, { bounds, replicas })
  followed.set(deployment.id, next)
  return next
}

/** Counts and logs a change that was made. */
const record = Effect.fnUntraced(
  function*(one: Followed, { id }: Deployment, direction: Direction, { cause, limit, measure, value }: Decision) {
    const before = one.replicas
    one.replicas += direction === "up" ? 1 : -1
    one.changed = { direction, reason: one.reason, at: yield* Clock.currentTimeMillis }
    const labels = { deployment: id, direction, cause }
    yield* Metric.update(Metric.withAttributes(metrics.changes, labels), 1)
    yield* Metric.update(Metric.withAttributes(metrics.replicas, { deployment: id }), one.replicas)
    yield* Effect.annotateLogs(
      Effect.logInfo(`${id} has ${one.replicas} instead of ${before} replicas: ${one.reason}.`),
      { ...labels, before, replicas: one.replicas, measure, used: value, limit }
    )
  }
)

/** Why a replica is not added while nothing is wrong. */
const expected: ReadonlySet<InferenceError["reason"]["_tag"]> = new Set(["InsufficientMemory", "EngineStopped"])

/** Says why a replica was not added; the next attempt is as far away as the next addition. */
const notAdded = (one: Followed, { id }: Deployment, { message, reason: { _tag } }: InferenceError) =>
  Effect.suspend(() => {
    one.reason = `${one.reason}; a replica was not added: ${message}`
    const text = `${id} has ${one.replicas} replicas: ${one.reason}`
    return expected.has(_tag) ? Effect.logInfo(text) : Effect.logWarning(text)
  })

const carryOut = (
  { models }: Parts,
  one: Followed,
  deployment: Deployment,
  direction: Direction,
  decision: Decision
): Effect.Effect<void> => {
  const change = direction === "up" ? models.addReplica(deployment) : models.removeReplica(deployment)
  return change.pipe(
    Effect.flatMap((done) => done ? record(one, deployment, direction, decision) : Effect.void),
    Effect.catch((error) => notAdded(one, deployment, error)),
    Effect.ensuring(Effect.sync(() => {
      one.isChanging = false
    }))
  )
}

/** The next decision for a deployment that is loaded, and its beginning. */
const decide = Effect.fnUntraced(
  function*(parts: Parts, scaling: Scaling, { bounds, deployment }: Scalable, one: Followed, readings: Readings) {
    const next = ScalingPolicy.step(rulesOf(scaling), bounds, one.state, readings, yield* Time.now)
    const { action } = next.decision
    one.state = next.state
    one.reason = reasonOf(next.decision, bounds)
    if (action === "stay") return
    one.isChanging = true
    parts.fork(carryOut(parts, one, deployment, action, next.decision))
  }
)

/** A deployment that may have one number of replicas only is followed until it has that number. */
const isFixed = ({ bounds: { least, most } }: Scalable, replicas: number): boolean => most === least && replicas <= most

const follow = Effect.fnUntraced(
  function*(parts: Parts, scaling: Scaling, scalable: Scalable, machine: Readings["machine"]) {
    const { deployment: { id }, usesGpu } = scalable
    const occupancy = yield* parts.models.occupancy(id)
    const { replicas } = occupancy ?? { replicas: 0 }
    if (isFixed(scalable, replicas)) return void parts.followed.delete(id)
    const one = followedOf(parts, scalable, replicas)
    yield* Metric.update(Metric.withAttributes(metrics.replicas, { deployment: id }), replicas)
    if (occupancy === undefined || one.isChanging || occupancy.isLoading) return
    const { gpu: _, ...withoutGpu } = machine
    yield* decide(parts, scaling, scalable, one, { ...occupancy, machine: usesGpu ? machine : withoutGpu })
  }
)

/** One reading, and a decision for each deployment. */
const tick = Effect.fnUntraced(
  function*(parts: Parts, scaling: Scaling) {
    const all = scalableIn(parts, scaling.maxReplicas)
    const machine = yield* readMachine(parts, all.some(({ usesGpu }) => usesGpu))
    const ids = new Set(all.map(({ deployment }) => deployment.id))
    for (const id of parts.followed.keys()) if (!ids.has(id)) parts.followed.delete(id)
    yield* Effect.forEach(all, (one) => follow(parts, scaling, one, machine), { discard: true })
  },
  Effect.catchCauseIf(
    (cause) => !Cause.hasInterruptsOnly(cause),
    (cause) => Effect.logWarning("The load could not be read; the replicas stay as they are.", cause)
  )
)

const run = (parts: Parts): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { scaling } = parts
    return scaling === undefined ? Effect.void : Effect.andThen(tick(parts, scaling), Effect.sleep(scaling.every))
  }).pipe(Effect.forever)

/** Each deployment has the replicas of its configuration again, whatever loads now. */
const removeAdded = (parts: Parts): Effect.Effect<void> =>
  Effect.suspend(() => {
    parts.followed.clear()
    return Effect.forEach(
      scalableIn(parts, 1),
      ({ bounds, deployment }) => parts.models.keepReplicas(deployment, bounds.least),
      { discard: true }
    )
  })

const reportOf = ({ bounds, changed, reason, replicas }: Followed): ScalingReport => ({
  replicas,
  minReplicas: bounds.least,
  maxReplicas: bounds.most,
  reason,
  ...(changed === undefined ? {} : { changed })
})

/** Follows the load, and changes of the settings, until the scope ends. */
export const layer = Layer.effect(
  ScalingReports,
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const services = yield* Effect.context()
    const parts: Parts = {
      machine: yield* Machine,
      memory: yield* Memory,
      models: yield* Models,
      registry: yield* Registry,
      fork: (effect) => Fiber.runIn(Effect.runForkWith(services)(effect), scope),
      followed: new Map(),
      scaling: (yield* Settings).scaling,
      processors: undefined
    }
    let fiber = parts.scaling === undefined ? undefined : parts.fork(run(parts))
    const changes = yield* SettingsChanges
    changes.follow(({ scaling }) => {
      parts.scaling = scaling
      if (scaling !== undefined) {
        fiber ??= parts.fork(run(parts))
        return
      }
      fiber?.interruptUnsafe()
      if (fiber !== undefined) parts.fork(removeAdded(parts))
      fiber = undefined
    })
    return {
      of: (id: string) => {
        const one = parts.followed.get(id)
        return one === undefined || one.replicas === 0 || one.reason === "" ? undefined : reportOf(one)
      }
    }
  })
)

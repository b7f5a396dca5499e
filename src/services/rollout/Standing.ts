/**
 * Which deployments of a model take requests, by its rollouts. Pure.
 *
 * **Details**
 *
 * A deployment with `rollout: candidate` takes none until a rollout gives it some. A rollout that was promoted takes all
 * from the deployments that it has replaced; one that was rolled back or aborted takes all from its candidate. Both hold
 * after the end of the rollout and of the process, until a later rollout or the configuration says otherwise: a deployment is
 * recognized by what it serves (`optionsText`), because its id changes with its place in the list.
 *
 * **Gotchas**
 *
 * Where nothing would be left of a model, all its deployments take requests, but for one that gets copies of them.
 */
import { Effect, Layer } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { traits } from "../../domain/Fields.ts"
import type { Version } from "../../domain/ModelCard.ts"
import { adaptersOf, capabilitiesOf, pathOf } from "../engines/EngineKinds.ts"
import { Registry } from "../models/Registry.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Experiments } from "./Experiments.ts"
import type { Rollout } from "./Rollout.ts"
import type { Known, Stored } from "./RolloutStore.ts"
import type { ShadowTable } from "./Shadows.ts"
import { Shadows } from "./Shadows.ts"
import type { Entry, Observer, Withheld } from "./Split.ts"
import { Splits, SplitTable, varied, weighted, withholding } from "./Split.ts"

/** Options that do not change what is served. */
const incidental: ReadonlySet<string> = new Set([
  ...Object.keys(traits),
  "key",
  "keys",
  "headers",
  "maxConcurrent",
  "maxReplicas",
  "maxResponseBytes",
  "replicas",
  "slots",
  "stream",
  "timeouts"
])

/** What a deployment serves, as text, by which it is recognized. */
export const optionsText = ({ options }: Pick<Deployment, "options">): string =>
  JSON.stringify(
    Object.entries(options).filter(([name]) => !incidental.has(name)).toSorted(([a], [b]) => a < b ? -1 : 1)
  )

export const knownOf = (deployment: Deployment): Known => ({ id: deployment.id, options: optionsText(deployment) })

/** The deployment as the model has it now: that of the same id, if it serves the same, else another that does. */
export const findKnown = ({ deployments }: Model, { id, options }: Known): Deployment | undefined => {
  const equal = deployments.filter((one) => optionsText(one) === options)
  return equal.find((one) => one.id === id) ?? equal[0]
}

const idsOf = (model: Model, known: ReadonlyArray<Known>): ReadonlyArray<string> =>
  known.flatMap((one) => findKnown(model, one)?.id ?? [])

/** Whether both have the model of the same name, or the same file and adapters, whose vectors can be compared. */
const haveSameModel = ({ options: a }: Deployment, { options: b }: Deployment): boolean => {
  if (isRemote(a) || isRemote(b)) return isRemote(a) && isRemote(b) && a.model === b.model
  return pathOf(a) === pathOf(b) && JSON.stringify(adaptersOf(a)) === JSON.stringify(adaptersOf(b))
}

/** The deployment whose vectors cannot be compared with those of a candidate that only embeds. */
export const otherVectorsThan = (candidate: Deployment, stable: ReadonlyArray<Deployment>): Deployment | undefined => {
  const capabilities = capabilitiesOf(candidate.options)
  return capabilities.includes("embed") && !capabilities.includes("generate")
    ? stable.find((one) => !haveSameModel(one, candidate))
    : undefined
}

/** Whether the rollout has not ended. */
export const isRunning = ({ phase }: Rollout): boolean => phase._tag !== "Ended"

/** The candidate's share of requests, from 0 to 1. */
export const weightOf = ({ phase, plan, step }: Rollout): number => {
  switch (phase._tag) {
    case "Checking":
      return 0
    case "Stepping":
    case "Paused":
      return plan.steps[step] ?? 0
    case "Draining":
    case "Ended":
      return phase.outcome.result === "promoted" ? 1 : 0
  }
}

/** Whether one version has all requests for good. */
const isDecided = ({ phase }: Rollout): boolean => phase._tag === "Draining" || phase._tag === "Ended"

/** Knows the deployment of a model that gets copies of requests. */
type Shadowing = Pick<ShadowTable, "copiesOf">

const copiedTo = (model: Model, shadows: Shadowing | undefined): ReadonlyArray<string> => {
  const candidate = shadows?.copiesOf(model)?.candidate
  return candidate === undefined ? [] : [candidate]
}

/** The deployments that no rollout has decided against, by the newest rollout of each. */
const waitingOf = (model: Model, rollouts: ReadonlyArray<Stored>): ReadonlySet<string> => {
  const waiting = new Set(model.deployments.flatMap(({ id, options }) => options.rollout === "candidate" ? [id] : []))
  for (const { candidate, rollout } of rollouts) {
    const found = findKnown(model, candidate)?.id
    if (found === undefined) continue
    if (isDecided(rollout)) waiting.delete(found)
    else waiting.add(found)
  }
  return waiting
}

/** The deployments of a model that take no requests, oldest rollout first. */
const withheldBy = (model: Model, rollouts: ReadonlyArray<Stored>, shadows: Shadowing | undefined): Set<string> => {
  const copied = copiedTo(model, shadows)
  const waiting = model.deployments.filter(({ options }) => options.rollout === "candidate")
  const out = new Set([...copied, ...waiting.map(({ id }) => id)])
  for (const { added, candidate, rollout, stable } of rollouts) {
    // One that is still to be added gets no requests before its weight says so.
    const found = findKnown(model, candidate)?.id ?? (added && candidate.id)
    if (found === undefined) continue
    if (weightOf(rollout) === 0) {
      out.add(found)
    } else if (isDecided(rollout)) {
      for (const id of idsOf(model, stable)) out.add(id)
      out.delete(found)
    }
  }
  return model.deployments.every(({ id }) => out.has(id)) ? new Set(copied) : out
}

/** The deployments that a new rollout of the model would replace by the candidate. */
export const stableOf = (
  model: Model,
  rollouts: ReadonlyArray<Stored>,
  candidate: string,
  shadows?: Shadowing
): ReadonlyArray<Deployment> => {
  const out = withheldBy(model, rollouts, shadows)
  return model.deployments.filter(({ id }) => id !== candidate && !out.has(id))
}

/** The deployments of a model that take no requests, and why. */
interface Out extends Withheld {
  /** A later rollout may give them some. */
  readonly waiting: ReadonlySet<string>
  /** The share of requests that is copied. */
  readonly share: number
}

/** The place of a deployment that takes no requests. */
const versionIn = ({ copied, share, waiting }: Out, id: string): Version => {
  if (id === copied) return { deployment: id, role: "shadow", weight: share }
  return { deployment: id, role: waiting.has(id) ? "candidate" : "withheld", weight: 0 }
}

/** The deployments with a share of their own: those of a rollout or a test, and those that are withheld. */
const sharesOf = ({ deployments }: Model, out: Out, divided: ReadonlyArray<Version>): ReadonlyArray<Version> => [
  ...divided,
  ...deployments.filter(({ id }) => out.withheld.includes(id) && divided.every(({ deployment }) => deployment !== id))
    .map(({ id }) => versionIn(out, id))
]

/** The A/B test of a model, if it has one: its variants take requests. */
const testOf = (model: Model, out: Out, experiments?: Experiments): Entry | undefined => {
  const plan = experiments?.planOf(model)
  if (experiments === undefined || plan === undefined) return undefined
  const others = out.withheld.filter((id) => plan.variants.every(({ deployment }) => deployment !== id))
  const total = plan.variants.reduce((sum, { weight }) => sum + weight, 0)
  const variants = plan.variants.map(({ deployment, weight }): Version => ({
    deployment,
    role: "variant",
    weight: weight / total
  }))
  return {
    ...varied(model.name, plan, { ...out, withheld: others }, experiments.observer(model.name)),
    shares: sharesOf(model, out, variants)
  }
}

/**
 * How the requests of a model are divided; undefined where nothing divides them.
 *
 * @param rollouts of the model, oldest first
 */
export const entryOf = (
  model: Model,
  rollouts: ReadonlyArray<Stored>,
  observer: (rollout: string) => Observer,
  experiments?: Experiments,
  shadows?: Shadowing
): Entry | undefined => {
  const withheld = withheldBy(model, rollouts, shadows)
  const copies = shadows?.copiesOf(model)
  const outOf = (): Out => ({
    withheld: [...withheld],
    copied: copies?.candidate,
    share: copies?.share ?? 0,
    waiting: waitingOf(model, rollouts)
  })
  const running = rollouts.find(({ rollout }) => !isDecided(rollout))
  const candidate = running && findKnown(model, running.candidate)
  const weight = running === undefined ? 0 : weightOf(running.rollout)
  if (running === undefined || candidate === undefined || weight === 0) {
    const out = outOf()
    const test = testOf(model, out, experiments)
    return test !== undefined || withheld.size === 0 ? test : { ...withholding(out), shares: sharesOf(model, out, []) }
  }
  withheld.delete(candidate.id)
  const out = outOf()
  const { id, plan: { sticky } } = running.rollout
  const stable = idsOf(model, running.stable)
  const entry = weighted({
    rollout: id,
    candidate: candidate.id,
    weight,
    withheld: out.withheld,
    copied: out.copied,
    sticky,
    hasOtherVectors: model.deployments.some((one) => stable.includes(one.id) && !haveSameModel(one, candidate)),
    observer: observer(id)
  })
  return { ...entry, shares: sharesOf(model, out, [{ deployment: candidate.id, role: "candidate", weight }]) }
}

/** The entries of all models that need one. */
export const entriesOf = (
  models: ReadonlyArray<Model>,
  rollouts: ReadonlyArray<Stored>,
  observer: (rollout: string) => Observer,
  experiments?: Experiments,
  shadows?: Shadowing
): ReadonlyMap<string, Entry> =>
  new Map(models.flatMap((model) => {
    const own = rollouts.filter(({ rollout }) => rollout.model === model.name)
    const entry = entryOf(model, own, observer, experiments, shadows)
    return entry === undefined ? [] : [[model.name, entry] as const]
  }))

const noObserver: Observer = { observe: () => {} }

/** The table of the configured models, without rollouts: `Rollouts` replaces its entries. */
export const layer: Layer.Layer<never, never, Registry> = Layer.effect(
  Splits,
  Effect.gen(function*() {
    const { models, onReplace } = yield* Registry
    const shadows = yield* Shadows
    const table = new SplitTable()
    const write = (all: ReadonlyArray<Model>) => table.replace(entriesOf(all, [], () => noObserver, undefined, shadows))
    write(models())
    onReplace?.(write)
    const changes = yield* SettingsChanges
    changes.follow(() => write(models()))
    return table
  })
)

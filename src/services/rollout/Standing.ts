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
import type { Entry, Observer } from "./Split.ts"
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
type Shadowing = Pick<ShadowTable, "candidateOf">

const copiedTo = (model: Model, shadows: Shadowing | undefined): ReadonlyArray<string> => {
  const candidate = shadows?.candidateOf(model)
  return candidate === undefined ? [] : [candidate]
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

/** The deployments with a share of their own: those of a rollout or a test, and those that are withheld. */
const sharesOf = (
  { deployments }: Model,
  withheld: ReadonlySet<string>,
  divided: ReadonlyArray<Version>
): ReadonlyArray<Version> => [
  ...divided,
  ...deployments.filter(({ id }) => withheld.has(id) && divided.every(({ deployment }) => deployment !== id)).map(
    ({ id, options }): Version => ({
      deployment: id,
      role: options.rollout === "candidate" ? "candidate" : "withheld",
      weight: 0
    })
  )
]

/** The A/B test of a model, if it has one: its variants take requests. */
const testOf = (model: Model, withheld: ReadonlySet<string>, experiments?: Experiments): Entry | undefined => {
  const plan = experiments?.planOf(model)
  if (experiments === undefined || plan === undefined) return undefined
  const others = [...withheld].filter((id) => plan.variants.every(({ deployment }) => deployment !== id))
  const total = plan.variants.reduce((sum, { weight }) => sum + weight, 0)
  const variants = plan.variants.map(({ deployment, weight }): Version => ({
    deployment,
    role: "variant",
    weight: weight / total
  }))
  return {
    ...varied(model.name, plan, others, experiments.observer(model.name)),
    shares: sharesOf(model, withheld, variants)
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
  const out = withheldBy(model, rollouts, shadows)
  const running = rollouts.find(({ rollout }) => !isDecided(rollout))
  const candidate = running && findKnown(model, running.candidate)
  const weight = running === undefined ? 0 : weightOf(running.rollout)
  if (running === undefined || candidate === undefined || weight === 0) {
    const test = testOf(model, out, experiments)
    if (test !== undefined || out.size === 0) return test
    return { ...withholding([...out]), shares: sharesOf(model, out, []) }
  }
  out.delete(candidate.id)
  const { id, plan: { sticky } } = running.rollout
  const stable = idsOf(model, running.stable)
  const entry = weighted({
    rollout: id,
    candidate: candidate.id,
    weight,
    withheld: [...out],
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

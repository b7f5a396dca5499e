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
import type { Version, WithheldReason } from "../../domain/Version.ts"
import { withheldVersion } from "../../domain/Version.ts"
import { adaptersOf, capabilitiesOf, pathOf } from "../engines/EngineKinds.ts"
import { Registry } from "../models/Registry.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Experiments } from "./Experiments.ts"
import { findKnown, idsOf } from "./KnownDeployment.ts"
import type { Rollout } from "./Rollout.ts"
import type { Known, Stored } from "./RolloutStore.ts"
import type { ShadowTable } from "./Shadows.ts"
import { Shadows } from "./Shadows.ts"
import type { Entry, Observer, Withheld } from "./Split.ts"
import { Splits, SplitTable, varied, weighted, withholding } from "./Split.ts"
import { heldIn, outcomeOf, reasonOf } from "./VariantHold.ts"

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
const isDecided = (rollout: Rollout): boolean => outcomeOf(rollout) !== undefined

const noObserver: Observer = { observe: () => {} }

/** The A/B tests of models, and what observes their requests. */
type Tests = Pick<Experiments, "observer" | "planOf">

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

/** By deployment, the result that withholds it; undefined: none does, it waits. */
type Reasons = Map<string, WithheldReason | undefined>

/** What one rollout adds to the deployments without requests, and takes from them. */
const withhold = (out: Reasons, model: Model, { added, candidate, rollout, stable }: Stored): void => {
  // One that is still to be added gets no requests before its weight says so.
  const found = findKnown(model, candidate)?.id ?? (added && candidate.id)
  if (found === undefined) return
  const outcome = outcomeOf(rollout)
  const reason = outcome && reasonOf(outcome)
  if (weightOf(rollout) === 0) {
    out.set(found, reason)
  } else if (reason !== undefined) {
    for (const id of idsOf(model, stable)) out.set(id, reason)
    out.delete(found)
  }
}

/** The deployments of a model that take no requests, oldest rollout first. */
const withheldBy = (model: Model, rollouts: ReadonlyArray<Stored>, shadows: Shadowing | undefined): Reasons => {
  const copied = copiedTo(model, shadows)
  const waiting = model.deployments.filter(({ options }) => options.rollout === "candidate")
  const out: Reasons = new Map([...copied, ...waiting.map(({ id }) => id)].map((id) => [id, undefined]))
  for (const stored of rollouts) withhold(out, model, stored)
  return model.deployments.every(({ id }) => out.has(id)) ? new Map(copied.map((id) => [id, undefined])) : out
}

/** The deployments of a model that take no requests, and why. */
interface Out extends Withheld {
  /** A later rollout may give them some. */
  readonly waiting: ReadonlySet<string>
  readonly reasons: ReadonlyMap<string, WithheldReason | undefined>
  /** The share of requests that is copied. */
  readonly share: number
}

const outOf = (
  model: Model,
  rollouts: ReadonlyArray<Stored>,
  reasons: Reasons,
  shadows: Shadowing | undefined
): Out => {
  const copies = shadows?.copiesOf(model)
  return {
    withheld: [...reasons.keys()],
    reasons,
    copied: copies?.candidate,
    share: copies?.share ?? 0,
    waiting: waitingOf(model, rollouts)
  }
}

/** The place of a deployment that takes no requests. */
const versionIn = ({ copied, reasons, share, waiting }: Out, id: string): Version => {
  if (id === copied) return { deployment: id, role: "shadow", weight: share }
  return waiting.has(id) ? { deployment: id, role: "candidate", weight: 0 } : withheldVersion(id, reasons.get(id))
}

/** The deployments with a share of their own: those of a rollout or a test, and those that are withheld. */
const sharesOf = ({ deployments }: Model, out: Out, divided: ReadonlyArray<Version>): ReadonlyArray<Version> => [
  ...divided,
  ...deployments.filter(({ id }) => out.withheld.includes(id) && divided.every(({ deployment }) => deployment !== id))
    .map(({ id }) => versionIn(out, id))
]

/** The A/B test of a model, if it has one: its variants take requests, but for those that a rollout has decided against. */
const testOf = (
  model: Model,
  rollouts: ReadonlyArray<Stored>,
  out: Out,
  experiments?: Tests
): Entry | undefined => {
  const plan = experiments?.planOf(model)
  if (experiments === undefined || plan === undefined) return undefined
  const held = heldIn(model, plan, rollouts)
  const variants = plan.variants.map((one) => held.has(one.deployment) ? { ...one, weight: 0 } : one)
  const total = variants.reduce((sum, { weight }) => sum + weight, 0)
  if (total === 0) return undefined
  const others = out.withheld.filter((id) => variants.every(({ deployment }) => deployment !== id))
  const versions = variants.map(({ deployment, weight }): Version =>
    held.has(deployment)
      ? withheldVersion(deployment, held.get(deployment))
      : { deployment, role: "variant", weight: weight / total }
  )
  const observer = experiments.observer(model.name)
  return {
    ...varied(model.name, plan, { ...out, withheld: others }, observer, new Set(held.keys())),
    shares: sharesOf(model, out, versions)
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
  experiments?: Tests,
  shadows?: Shadowing
): Entry | undefined => {
  const reasons = withheldBy(model, rollouts, shadows)
  const running = rollouts.find(({ rollout }) => !isDecided(rollout) && weightOf(rollout) > 0)
  const candidate = running && findKnown(model, running.candidate)
  if (running === undefined || candidate === undefined) {
    const out = outOf(model, rollouts, reasons, shadows)
    const test = testOf(model, rollouts, out, experiments)
    return test !== undefined || reasons.size === 0 ? test : { ...withholding(out), shares: sharesOf(model, out, []) }
  }
  const stable = idsOf(model, running.stable)
  // A variant may take requests though a rollout has ended without it: where that was aborted, or the test resumed.
  const variants = experiments?.planOf(model)?.variants.map(({ deployment }) => deployment) ?? []
  for (const id of [candidate.id, ...stable.filter((id) => variants.includes(id))]) reasons.delete(id)
  const out = outOf(model, rollouts, reasons, shadows)
  const { id, plan: { sticky } } = running.rollout
  const weight = weightOf(running.rollout)
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

/** The deployments that a new rollout of the model would replace by the candidate. */
export const stableOf = (
  model: Model,
  rollouts: ReadonlyArray<Stored>,
  candidate: string,
  shadows?: Shadowing,
  experiments?: Tests
): ReadonlyArray<Deployment> => {
  const out = entryOf(model, rollouts, () => noObserver, experiments, shadows)?.split({}, 0).withheld
  return model.deployments.filter(({ id }) => id !== candidate && out?.has(id) !== true)
}

/**
 * The share of its model's requests that a deployment has now. Undefined where the model no longer has it, or where it is one of
 * several that are equal.
 */
export const shareNow = (model: Model | undefined, known: Known, entry: Entry | undefined): number | undefined => {
  const id = model && findKnown(model, known)?.id
  if (model === undefined || id === undefined) return undefined
  const shares = entry?.shares?.map((one) => one.role === "shadow" ? { ...one, weight: 0 } : one) ?? []
  const own = shares.find(({ deployment }) => deployment === id)
  if (own !== undefined) return own.weight
  const isLast = model.deployments.length === shares.length + 1
  return isLast ? 1 - shares.reduce((sum, { weight }) => sum + weight, 0) : undefined
}

/** The entries of all models that need one. */
export const entriesOf = (
  models: ReadonlyArray<Model>,
  rollouts: ReadonlyArray<Stored>,
  observer: (rollout: string) => Observer,
  experiments?: Tests,
  shadows?: Shadowing
): ReadonlyMap<string, Entry> =>
  new Map(models.flatMap((model) => {
    const own = rollouts.filter(({ rollout }) => rollout.model === model.name)
    const entry = entryOf(model, own, observer, experiments, shadows)
    return entry === undefined ? [] : [[model.name, entry] as const]
  }))

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

/**
 * Which variants of an A/B test take no requests because of the result of a rollout, and what that means for the test. Pure.
 *
 * **Details**
 *
 * A rollback withholds its candidate, a promotion all variants but the promoted one. An aborted rollout decides nothing.
 *
 * The variants that a result withholds are kept with the rollout, with the variants and weights of the test, when it is
 * decided (`decided`). The result holds until these change, or what the deployment serves, or until an operator resumes the
 * test (`resumed`).
 *
 * **Gotchas**
 *
 * A version that drains takes no requests whatever the test says: the drain would not end.
 */
import type { Model } from "../../domain/Deployment.ts"
import type { Version, WithheldReason } from "../../domain/Version.ts"
import { reasonTexts } from "../../domain/Version.ts"
import { findKnown, idsOf, knownOf } from "./KnownDeployment.ts"
import type { Outcome, Rollout } from "./Rollout.ts"
import type { ExperimentPlan } from "./RolloutSettings.ts"
import type { Known, Stored } from "./RolloutStore.ts"

/** How a rollout has ended or is about to end; undefined while both versions may have requests. */
export const outcomeOf = ({ phase }: Rollout): Outcome | undefined => "outcome" in phase ? phase.outcome : undefined

type Variants = Pick<ExperimentPlan, "variants">

const textOf = ({ variants }: Variants): string =>
  JSON.stringify(variants.map(({ deployment, weight }) => [deployment, weight]))

const withheldBy = (model: Model, { variants }: Variants, candidate: Known, { result }: Outcome) => {
  if (result === "aborted") return []
  const id = findKnown(model, candidate)?.id
  return model.deployments.filter((one) =>
    variants.some(({ deployment }) => deployment === one.id) && (one.id === id) === (result === "rolledBack")
  ).map(knownOf)
}

/** The rollout in its next state. If that decides it, it keeps what the result means for the test of its model. */
export const decided = (
  stored: Stored,
  next: Rollout,
  model: Model | undefined,
  plan: Variants | undefined
): Stored => {
  const { rollout, ...others } = stored
  const outcome = outcomeOf(next)
  if (model === undefined || plan === undefined || outcome === undefined || outcomeOf(rollout) !== undefined) {
    return { ...others, rollout: next }
  }
  const withheld = withheldBy(model, plan, stored.candidate, outcome)
  return {
    ...others,
    rollout: next,
    ...(withheld.length === 0 ? {} : { test: { variants: textOf(plan), withheld } })
  }
}

export const reasonOf = ({ result }: Outcome): WithheldReason => result === "promoted" ? "replaced" : result

/** The deployments that one result withholds from the test. */
const namesIn = ({ candidate, rollout, stable, test }: Stored, variants: string): ReadonlyArray<Known> => {
  if (test?.variants === variants) return test.withheld
  if (rollout.phase._tag !== "Draining") return []
  return rollout.phase.outcome.result === "promoted" ? stable : [candidate]
}

/** What one result adds to the held deployments, and takes from them. */
const hold = (held: Map<string, WithheldReason>, model: Model, variants: string, stored: Stored): void => {
  const outcome = outcomeOf(stored.rollout)
  if (outcome === undefined) return
  const taking = outcome.result === "promoted" ? findKnown(model, stored.candidate)?.id : undefined
  // Where the promoted deployment is gone, its result does not hold.
  if (outcome.result === "promoted" && taking === undefined) return
  for (const id of idsOf(model, namesIn(stored, variants))) held.set(id, reasonOf(outcome))
  if (taking !== undefined) held.delete(taking)
}

/**
 * The deployments of a model that its test gives no requests, and why.
 *
 * @param rollouts of the model, oldest first
 */
export const heldIn = (
  model: Model,
  plan: Variants,
  rollouts: ReadonlyArray<Stored>
): ReadonlyMap<string, WithheldReason> => {
  const held = new Map<string, WithheldReason>()
  const variants = textOf(plan)
  for (const stored of rollouts) hold(held, model, variants, stored)
  return held
}

/** The rollout whose result the test no longer follows. */
export const released = ({ test: _, ...others }: Stored): Stored => others

/** As `released`, with a line in its history. */
export const resumed = (stored: Stored, { variants }: Variants, at: number): Stored => {
  const { rollout, ...others } = released(stored)
  const total = variants.reduce((sum, { weight }) => sum + weight, 0)
  const own = variants.find(({ deployment }) => deployment === rollout.candidate)?.weight ?? 0
  const { phase: { _tag: phase } } = rollout
  const line = { at, what: "The A/B test is resumed.", phase, weight: own / total, evidence: null }
  return { ...others, rollout: { ...rollout, history: [...rollout.history, line] } }
}

/** What the A/B test of a model does because of a rollout. */
export interface TestState {
  /** `paused`: a rollout divides the requests. `stopped`: fewer than two variants are left. */
  readonly state: "running" | "paused" | "stopped"
  /** The variants that a result withholds. */
  readonly withheld: ReadonlyArray<string>
  /** A sentence for people. */
  readonly message: string
}

/**
 * What the test does, by the shares that the deployments of its model have now.
 *
 * @param rollout as an operator looks at it
 */
export const testState = (
  { candidate, model, phase }: Pick<Rollout, "candidate" | "model" | "phase">,
  { variants }: Variants,
  shares: ReadonlyArray<Version> = []
): TestState => {
  const own = shares.filter(({ deployment }) => variants.some((one) => one.deployment === deployment))
  const withheld = own.filter(({ role }) => role === "withheld")
  const ids = withheld.map(({ deployment }) => deployment)
  if (phase._tag === "Checking") {
    const after = "A rollback or a promotion holds afterwards; after an abort the test goes on as before."
    const message = `It goes on until ${candidate} has passed its check, then pauses until the rollout ends. ${after}`
    return { state: "running", withheld: ids, message }
  }
  if (shares.some(({ role, weight }) => role === "candidate" && weight > 0)) {
    return { state: "paused", withheld: ids, message: "It pauses until the rollout ends." }
  }
  if (ids.length === 0) return { state: "running", withheld: ids, message: "It goes on with all variants." }
  const which = withheld.map(({ deployment, reason }) =>
    `${deployment} (${reason === undefined ? "withheld" : reasonTexts[reason]})`
  ).join(", ")
  const isStopped = variants.length - ids.length < 2
  const message = `It ${isStopped ? "has stopped" : "goes on"} without ${which}. ` +
    `\`troupe rollout resume ${model}\` or other variants in the configuration let it go on with all.`
  return { state: isStopped ? "stopped" : "running", withheld: ids, message }
}

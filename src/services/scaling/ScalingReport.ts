/** What operators see of the replicas that follow the load: the last decision of each deployment, and why. */
import { Context } from "effect"
import { durationText } from "../../domain/Fields.ts"
import type { Bounds, Cause, Decision, Direction, Measure } from "./ScalingPolicy.ts"

/** A change that was made. */
export interface Change {
  readonly direction: Direction
  readonly reason: string
  /** ms since 1970 */
  readonly at: number
}

/** The replicas of one deployment. */
export interface ScalingReport {
  readonly replicas: number
  readonly minReplicas: number
  readonly maxReplicas: number
  /** The last decision, and why. */
  readonly reason: string
  /** The last change; left out, none since the start. */
  readonly changed?: Change
}

/** The reports by the ids of deployments; without scaling there are none. */
export const ScalingReports = Context.Reference<{
  readonly of: (deployment: string) => ScalingReport | undefined
}>("troupe/services/scaling/ScalingReport", { defaultValue: () => ({ of: () => undefined }) })

const names: Readonly<Record<Measure, string>> = {
  slots: "slots",
  cpu: "processor",
  memory: "memory",
  gpu: "GPU"
}

const percent = (share: number): string => `${Math.round(100 * share)} %`

const second = 1_000

/** Whole seconds, such as `20 seconds` or `5 minutes`. */
const waitText = (ms: number): string => durationText(second * Math.max(1, Math.round(ms / second)))

/** What is used, and the threshold or the target. */
const usedText = ({ cause, limit, measure, value }: Decision): string => {
  const beside = value > limit ? "above" : "below"
  const relation = cause === "within" || cause === "room" || cause === "most" && value <= limit ? "target" : beside
  return `${percent(value)} of the ${names[measure]} used, ${relation} ${percent(limit)}`
}

const replicasText = (count: number): string => count === 1 ? "1 replica" : `${count} replicas`

/** What follows from the measure, by cause. */
const consequences: Readonly<Record<Cause, (decision: Decision, bounds: Bounds) => string>> = {
  within: () => "",
  demand: () => "",
  relief: () => "",
  sustain: ({ remainingMs = 0 }) => `; a change in ${waitText(remainingMs)} if this lasts`,
  cooldown: ({ remainingMs = 0 }) => `; the next change is possible in ${waitText(remainingMs)}`,
  most: (_, { most }) => `; the maximum is ${replicasText(most)}`,
  least: (_, { least }) => `; the minimum is ${replicasText(least)}`,
  room: () => "; no room for another replica"
}

/** Why a decision is as it is, for operators. */
export const reasonOf = (decision: Decision, bounds: Bounds): string =>
  `${usedText(decision)}${consequences[decision.cause](decision, bounds)}`

/**
 * Recognizes a deployment after the configuration has changed: by what it serves, because its id changes with its place in the
 * list. Pure.
 */
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { traits } from "../../domain/Fields.ts"
import type { Known } from "./RolloutStore.ts"

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

/** The ids that the model has now of those that it still has. */
export const idsOf = (model: Model, known: ReadonlyArray<Known>): ReadonlyArray<string> =>
  known.flatMap((one) => findKnown(model, one)?.id ?? [])

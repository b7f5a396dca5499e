/** What selection knows of a deployment for good: what its configuration says, and then what its provider publishes. */
import * as Capability from "../../domain/Capability.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment, DeploymentOptions } from "../../domain/Deployment.ts"
import { defaultSlots, isRemote } from "../../domain/Deployment.ts"
import type { DeploymentFacts } from "../../domain/DeploymentFacts.ts"
import type { Ability } from "../../domain/EngineProtocol.ts"
import type { KnownModel } from "../../domain/KnownModels.ts"
import * as KnownModels from "../../domain/KnownModels.ts"
import type { RequiredCapability } from "../../domain/RoutingRequest.ts"
import * as Source from "../../domain/Source.ts"
import { capabilitiesOf, kindOf } from "../engines/EngineKinds.ts"

const free = { input: 0, output: 0 }

/** Another host than the provider's own has prices of its own. */
const publishedOf = (options: DeploymentOptions): KnownModel | undefined =>
  isRemote(options) && options.baseUrl === undefined
    ? KnownModels.find(options.provider, options.model)
    : undefined

/** Requests that it works on side by side. */
const slotsOf = (options: DeploymentOptions): number => {
  if (isRemote(options)) return options.maxConcurrent ?? Policies.maxConcurrent
  return (options.slots ?? defaultSlots) * (options.replicas ?? 1)
}

/** Engines whose models somebody else runs, or may. */
const isElsewhere = (options: DeploymentOptions): boolean => isRemote(options) || kindOf(options).isElsewhere

/** Fields of a dialect that the deployment does not speak, and counting where it has neither tokens nor an endpoint. */
const lacksOf = (
  options: DeploymentOptions,
  abilities: ReadonlyArray<Ability>,
  counts: boolean
): ReadonlyArray<RequiredCapability> => {
  const dialect = Source.dialectOf(options)
  const lacks: Array<RequiredCapability> = Source.needs.filter((need) => need !== `${dialect} fields`)
  if (!counts || !Capability.counts(options, abilities)) lacks.push("count")
  return lacks
}

/**
 * The facts of one deployment, which has these abilities. What runs on this machine is free of charge unless its configuration says otherwise; the
 * price of what somebody else runs is not known unless it is told or published.
 *
 * @param counts false where it has turned out that it cannot count tokens
 */
export const factsOf = (
  { id, options }: Deployment,
  abilities = capabilitiesOf(options),
  counts = true
): DeploymentFacts => {
  const published = publishedOf(options)
  return {
    deployment: id,
    price: options.price ?? published?.price ?? (isElsewhere(options) ? undefined : free),
    quality: options.quality,
    contextWindow: options.contextSize ?? published?.contextWindow,
    capabilities: abilities,
    missing: lacksOf(options, abilities, counts),
    tasks: options.tasks,
    weight: options.weight,
    slots: slotsOf(options)
  }
}

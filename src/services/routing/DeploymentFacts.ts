/** The constant facts of a deployment: from its configuration, its files, or as its provider publishes them. */
import { Effect } from "effect"
import { mostConcurrent } from "../../domain/AdaptiveConcurrency.ts"
import * as Capability from "../../domain/Capability.ts"
import type { Deployment, DeploymentOptions, Model } from "../../domain/Deployment.ts"
import { defaultSlots, isRemote } from "../../domain/Deployment.ts"
import type { DeploymentFacts, KnownPrice } from "../../domain/DeploymentFacts.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import type { KnownModel } from "../../domain/KnownModels.ts"
import * as KnownModels from "../../domain/KnownModels.ts"
import type { RequiredCapability } from "../../domain/RoutingRequest.ts"
import * as Source from "../../domain/Source.ts"
import { capabilitiesOf, kindOf } from "../engines/EngineKinds.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"

const free = { input: 0, output: 0 }

/** Published figures hold only for the provider's own host. */
const publishedOf = (options: DeploymentOptions): KnownModel | undefined =>
  isRemote(options) && options.baseUrl === undefined
    ? KnownModels.find(options.provider, options.model)
    : undefined

const publishedPriceOf = (published: KnownModel | undefined): KnownPrice | undefined =>
  published && { ...published.price, asOf: published.asOf, source: published.source }

/** Requests that it processes at the same time. */
const slotsOf = (options: DeploymentOptions): number => {
  if (isRemote(options)) return mostConcurrent(options.maxConcurrent)
  return (options.slots ?? defaultSlots) * (options.replicas ?? 1)
}

/** Whether another service runs the model, or may. */
const isExternal = (options: DeploymentOptions): boolean => isRemote(options) || kindOf(options).isExternal

/** Unknown fields of other dialects, and token counting without a tokenizer or an endpoint. */
const missingOf = (
  options: DeploymentOptions,
  capabilities: ReadonlyArray<EngineCapability>,
  canCount: boolean
): ReadonlyArray<RequiredCapability> => {
  const dialect = Source.dialectOf(options)
  const hasResponses = Source.hasResponses(options)
  const missing: Array<RequiredCapability> = Source.capabilities.filter((one) =>
    one === "responses fields" ? !hasResponses : one !== `${dialect} fields`
  )
  if (!canCount || !Capability.canCount(options, capabilities)) missing.push("count")
  return missing
}

/**
 * The facts of one deployment, which has these capabilities. A model on this machine is free of charge unless its price is
 * configured; the price of any other is unknown unless it is configured or published.
 *
 * @param canCount false if it has refused to count tokens
 * @param contextWindow tokens, as its loaded engine or its files have it
 */
export const factsOf = (
  { id, options }: Deployment,
  capabilities = capabilitiesOf(options),
  canCount = true,
  contextWindow?: number
): DeploymentFacts => {
  const published = publishedOf(options)
  return {
    deployment: id,
    price: options.price ?? publishedPriceOf(published) ?? (isExternal(options) ? undefined : free),
    quality: options.quality,
    contextWindow: contextWindow ?? options.contextSize ?? published?.contextWindow,
    capabilities,
    missing: missingOf(options, capabilities, canCount),
    tasks: options.tasks,
    weight: options.weight,
    slots: slotsOf(options)
  }
}

/** By deployment; null: unknown. */
const prices = new WeakMap<Deployment, KnownPrice | null>()

/** The price of a deployment, as `factsOf` has it; undefined: unknown. */
export const priceOf = (deployment: Deployment): KnownPrice | undefined => {
  const known = prices.get(deployment)
  if (known !== undefined) return known ?? undefined
  const { price } = factsOf(deployment)
  prices.set(deployment, price ?? null)
  return price
}

/**
 * The context windows, tokens, and capabilities that the files of the models have. A file that cannot be read is an error of
 * the load, not of the routing.
 */
export const factsInFiles = (models: ReadonlyArray<Model>) =>
  factsOfFiles(models.flatMap(({ deployments }) => deployments))

/** As `factsInFiles`, of these deployments. */
export const factsOfFiles = Effect.fnUntraced(function*(deployments: ReadonlyArray<Deployment>) {
  const files = yield* ModelFiles
  const windows = new Map<string, number>()
  const capabilities = new Map<string, ReadonlyArray<EngineCapability>>()
  yield* Effect.forEach(
    deployments,
    ({ id, options }) =>
      Effect.match(files.describe(options), {
        onSuccess: (facts) => {
          if (facts.window !== undefined) windows.set(id, facts.window)
          if (facts.capabilities !== undefined) capabilities.set(id, facts.capabilities)
        },
        onFailure: () => {}
      }),
    { concurrency: 8, discard: true }
  )
  return { windows, capabilities }
})

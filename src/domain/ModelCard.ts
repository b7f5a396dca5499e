/**
 * What a caller can know of a model before a request: its window, capabilities, modalities, state, owner and price.
 *
 * **Details**
 *
 * A model with several deployments can do what any of them can, since the router chooses one that fits the request. Its
 * price is that of its most expensive deployment, so that no request costs more; it is unknown if one is unknown. It
 * belongs to the owner of its first deployment.
 */
import type { Model } from "./Deployment.ts"
import { isRemote } from "./Deployment.ts"
import type { DeploymentFacts, KnownPrice } from "./DeploymentFacts.ts"
import type { EngineCapability } from "./EngineProtocol.ts"
import { providerNameOf } from "./ProviderKind.ts"
import type { Version } from "./Version.ts"

/** The states of a deployment on this machine, as its actor has them. */
type ActorState = "cold" | "loading" | "ready" | "draining" | "failed"

/**
 * `loaded`: an engine is ready. `remote`: another host serves it. `loading`. `unloaded`: the next request loads it.
 * `failed`: the last load failed, or its engine has crashed too often; a later request tries again.
 */
export const modelStates = ["loaded", "remote", "loading", "unloaded", "failed"] as const
export type ModelState = typeof modelStates[number]

export const inputModalities = ["text", "image"] as const
export const outputModalities = ["text", "embeddings", "scores"] as const

export interface ModelCard {
  readonly name: string
  /** The model's own name, if `name` is an alias of it. */
  readonly aliasOf?: string
  /** The provider of a remote model, as OpenTelemetry names it; `troupe` for a model on this machine. */
  readonly owner: string
  /** Tokens that prompt and answer share; undefined: unknown. */
  readonly contextWindow: number | undefined
  /** The limit of an answer's tokens by the configuration; undefined: only the window limits it. */
  readonly maxOutput: number | undefined
  readonly capabilities: ReadonlyArray<EngineCapability>
  readonly input: ReadonlyArray<typeof inputModalities[number]>
  readonly output: ReadonlyArray<typeof outputModalities[number]>
  readonly state: ModelState
  /** The name of the loaded file, of a model on this machine that has several: of its first deployment that does. */
  readonly variant?: string
  /** The LoRA adapters of its deployments, by the names of their files, without their folders; left out, none. */
  readonly lora?: ReadonlyArray<{ readonly file: string; readonly scale: number }>
  /** The deployments of a rollout or an A/B test that have a share of their own; left out, none. */
  readonly versions?: ReadonlyArray<Version>
  readonly price: KnownPrice | undefined
}

const stateNames: Readonly<Record<ActorState, ModelState>> = {
  ready: "loaded",
  loading: "loading",
  draining: "unloaded",
  cold: "unloaded",
  failed: "failed"
}

const greatest = (values: ReadonlyArray<number | undefined>): number | undefined => {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? undefined : Math.max(...known)
}

const highestPrice = (facts: ReadonlyArray<DeploymentFacts>): KnownPrice | undefined => {
  const prices = facts.map(({ price }) => price)
  if (!prices.every((price) => price !== undefined)) return undefined
  return prices.reduce<KnownPrice | undefined>(
    (highest, price) =>
      highest === undefined || price.input + price.output > highest.input + highest.output ? price : highest,
    undefined
  )
}

/** Engines of models that generate can compute embeddings too, which is not what such a model is for. */
const outputOf = (has: (capability: EngineCapability) => boolean): ModelCard["output"] => {
  if (has("generate")) return ["text"]
  return [
    ...(has("embed") ? ["embeddings" as const] : []),
    ...(has("rerank") || has("classify") ? ["scores" as const] : [])
  ]
}

/**
 * @param facts of its deployments, in their order
 * @param actorState of a deployment by its id
 */
export const cardOf = (
  { deployments, name }: Model,
  facts: ReadonlyArray<DeploymentFacts>,
  actorState: (deployment: string) => ActorState
): ModelCard => {
  const has = (capability: EngineCapability): boolean =>
    facts.some(({ capabilities }) => capabilities === undefined || capabilities.includes(capability))
  const states = new Set(
    deployments.map(({ id, options }) => isRemote(options) ? "remote" : stateNames[actorState(id)])
  )
  const capabilities = new Set(facts.flatMap(({ capabilities = [] }) => capabilities))
  return {
    name,
    owner: isRemote(deployments[0].options) ? providerNameOf(deployments[0]) : "troupe",
    contextWindow: greatest(facts.map(({ contextWindow }) => contextWindow)),
    maxOutput: greatest(deployments.map(({ options }) => isRemote(options) ? options.maxTokens : undefined)),
    capabilities: [...capabilities],
    input: has("images") ? inputModalities : ["text"],
    output: outputOf(has),
    state: modelStates.find((state) => states.has(state)) ?? "unloaded",
    price: highestPrice(facts)
  }
}

/** Models as `GET /v1/models` lists them: schemas and encoding. Pure. */
import { Schema } from "effect"
import type { KnownPrice } from "../../domain/DeploymentFacts.ts"
import { engineCapabilities } from "../../domain/EngineProtocol.ts"
import type { ModelCard } from "../../domain/ModelCard.ts"
import { inputModalities, modelStates, outputModalities } from "../../domain/ModelCard.ts"
import { versionRoles, withheldReasons } from "../../domain/Version.ts"

/** USD per million tokens; a price that is left out is that of `input`, or for reasoning of `output`. */
const Pricing = Schema.Struct({
  input: Schema.Finite,
  output: Schema.Finite,
  cached_input: Schema.optionalKey(Schema.Finite),
  cache_write: Schema.optionalKey(Schema.Finite),
  cache_write_hour: Schema.optionalKey(Schema.Finite),
  reasoning: Schema.optionalKey(Schema.Finite),
  /** The month or day of the source. */
  as_of: Schema.optionalKey(Schema.String),
  source: Schema.optionalKey(Schema.String)
}).annotate({ identifier: "Pricing" })

export const Model = Schema.Struct({
  id: Schema.String,
  /** Not in OpenAI's API: the model's own name, if `id` is an alias. */
  alias_of: Schema.optionalKey(Schema.String),
  object: Schema.Literal("model"),
  /** Seconds since 1970. */
  created: Schema.Int,
  /** `troupe` for a model on this machine, else the provider of its first deployment. */
  owned_by: Schema.String,
  /** Not in OpenAI's API, as all below: tokens that prompt and answer share; null if unknown. */
  context_length: Schema.NullOr(Schema.Int),
  /** The configured limit of an answer's tokens; null if only the window limits it. */
  max_output_tokens: Schema.NullOr(Schema.Int),
  /** Of a model that is not loaded, those of its kind. */
  capabilities: Schema.Array(Schema.Literals(engineCapabilities)),
  input_modalities: Schema.Array(Schema.Literals(inputModalities)),
  output_modalities: Schema.Array(Schema.Literals(outputModalities)),
  state: Schema.Literals(modelStates),
  /** The loaded file, of a model with `variants`. */
  variant: Schema.optionalKey(Schema.String),
  /** The LoRA adapters of its deployments, by the names of their files. */
  lora: Schema.optionalKey(Schema.Array(Schema.Struct({ file: Schema.String, scale: Schema.Finite }))),
  /** The deployments of a rollout or an A/B test that have a share of their own, from 0 to 1. */
  versions: Schema.optionalKey(
    Schema.Array(
      Schema.Struct({
        deployment: Schema.String,
        role: Schema.Literals(versionRoles),
        weight: Schema.Finite,
        reason: Schema.optionalKey(Schema.Literals(withheldReasons))
      })
    )
  ),
  /** The highest of its deployments, USD per million tokens; null if one is unknown. */
  pricing: Schema.NullOr(Pricing)
}).annotate({ identifier: "Model" })
export type Model = typeof Model.Type

export const ModelList = Schema.Struct({
  object: Schema.Literal("list"),
  data: Schema.Array(Model)
})

const priceNames = [
  ["cachedInput", "cached_input"],
  ["cacheWrite", "cache_write"],
  ["cacheWriteHour", "cache_write_hour"],
  ["reasoning", "reasoning"],
  ["asOf", "as_of"],
  ["source", "source"]
] as const satisfies ReadonlyArray<readonly [keyof KnownPrice, keyof NonNullable<Model["pricing"]>]>

const pricingOf = (price: KnownPrice): Model["pricing"] => ({
  input: price.input,
  output: price.output,
  ...Object.fromEntries(priceNames.flatMap(([from, to]) => price[from] === undefined ? [] : [[to, price[from]]]))
})

/** @param startedAt when the service started, ms since 1970 */
export const encode = (card: ModelCard, startedAt: number): Model => ({
  id: card.name,
  ...(card.aliasOf === undefined ? {} : { alias_of: card.aliasOf }),
  object: "model",
  created: Math.floor(startedAt / 1000),
  owned_by: card.owner,
  context_length: card.contextWindow ?? null,
  max_output_tokens: card.maxOutput ?? null,
  capabilities: card.capabilities,
  input_modalities: card.input,
  output_modalities: card.output,
  state: card.state,
  ...(card.variant === undefined ? {} : { variant: card.variant }),
  ...(card.lora === undefined ? {} : { lora: card.lora }),
  ...(card.versions === undefined ? {} : { versions: card.versions }),
  pricing: card.price === undefined ? null : pricingOf(card.price)
})

export const encodeList = (cards: ReadonlyArray<ModelCard>, startedAt: number): typeof ModelList.Type => ({
  object: "list",
  data: cards.map((card) => encode(card, startedAt))
})

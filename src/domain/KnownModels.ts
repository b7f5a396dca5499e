/**
 * What providers publish of their models: prices and context windows. Small on purpose, and only what is beyond doubt.
 *
 * **Gotchas**
 *
 * Prices change, and contracts differ: a deployment's own `price` and `contextSize` go before. A model that is not here is
 * not known, which is neither free nor dear. Quality is a matter of what it is for: only the configuration tells it.
 */
import type { Price } from "./DeploymentFacts.ts"

export interface KnownModel {
  readonly price: Price
  /** Tokens. */
  readonly contextWindow: number
  /** The month in which the source said so, as `2025-06`. */
  readonly asOf: string
  /** The provider's own page. */
  readonly source: string
}

const openai = (model: string, input: number, output: number, contextWindow: number): readonly [string, KnownModel] => [
  model,
  {
    price: { input, output },
    contextWindow,
    asOf: "2025-06",
    source: `https://platform.openai.com/docs/models/${model}`
  }
]

/** By the provider's dialect and its name of the model. */
const known: Readonly<Record<string, ReadonlyMap<string, KnownModel>>> = {
  openai: new Map([
    openai("gpt-4o", 2.5, 10, 128_000),
    openai("gpt-4o-mini", 0.15, 0.6, 128_000),
    openai("gpt-4.1", 2, 8, 1_047_576),
    openai("gpt-4.1-mini", 0.4, 1.6, 1_047_576),
    openai("gpt-4.1-nano", 0.1, 0.4, 1_047_576)
  ]),
  anthropic: new Map([
    ["claude-3-haiku-20240307", {
      price: { input: 0.25, output: 1.25 },
      contextWindow: 200_000,
      asOf: "2025-06",
      source: "https://docs.anthropic.com/en/docs/about-claude/models/overview"
    }],
    ["claude-sonnet-4-20250514", {
      price: { input: 3, output: 15 },
      contextWindow: 200_000,
      asOf: "2025-06",
      source: "https://docs.anthropic.com/en/docs/about-claude/models/overview"
    }]
  ])
}

/**
 * What the provider publishes; `undefined` where nothing is known.
 *
 * @param provider as a remote deployment names it, at its own address: another host of the dialect has other prices
 */
export const find = (provider: string, model: string): KnownModel | undefined =>
  Object.hasOwn(known, provider) ? known[provider]?.get(model) : undefined

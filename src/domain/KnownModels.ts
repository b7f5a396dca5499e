/**
 * Prices and context windows that providers publish for their models. A short list of figures with a source.
 *
 * **Gotchas**
 *
 * Prices change, and contracts differ: a deployment's own `price` and `contextSize` take precedence. The figures of a
 * model that is not listed are unknown, which is neutral. Quality depends on the use, so only the configuration has it.
 */
import type { Price } from "./DeploymentFacts.ts"

export interface KnownModel {
  readonly price: Price
  /** Tokens. */
  readonly contextWindow: number
  /** The month in which the source had these figures, as `2025-06`. */
  readonly asOf: string
  /** The provider's own page. */
  readonly source: string
}

const openai = (
  model: string,
  input: number,
  cachedInput: number,
  output: number,
  contextWindow: number
): readonly [string, KnownModel] => [
  model,
  {
    price: { input, output, cachedInput },
    contextWindow,
    asOf: "2025-06",
    source: `https://platform.openai.com/docs/models/${model}`
  }
]

/** By the provider's dialect and its name of the model. */
const known: Readonly<Record<string, ReadonlyMap<string, KnownModel>>> = {
  openai: new Map([
    openai("gpt-4o", 2.5, 1.25, 10, 128_000),
    openai("gpt-4o-mini", 0.15, 0.075, 0.6, 128_000),
    openai("gpt-4.1", 2, 0.5, 8, 1_047_576),
    openai("gpt-4.1-mini", 0.4, 0.1, 1.6, 1_047_576),
    openai("gpt-4.1-nano", 0.1, 0.025, 0.4, 1_047_576)
  ]),
  anthropic: new Map([
    ["claude-3-haiku-20240307", {
      price: { input: 0.25, output: 1.25, cachedInput: 0.03, cacheWrite: 0.3, cacheWriteHour: 0.5 },
      contextWindow: 200_000,
      asOf: "2025-06",
      source: "https://docs.anthropic.com/en/docs/about-claude/models/overview"
    }],
    ["claude-sonnet-4-20250514", {
      price: { input: 3, output: 15, cachedInput: 0.3, cacheWrite: 3.75, cacheWriteHour: 6 },
      contextWindow: 200_000,
      asOf: "2025-06",
      source: "https://docs.anthropic.com/en/docs/about-claude/models/overview"
    }]
  ])
}

/**
 * The published figures of a model; `undefined` if it is not listed.
 *
 * @param provider as a remote deployment names it, at its own address: another host of the dialect has other prices
 */
export const find = (provider: string, model: string): KnownModel | undefined =>
  Object.hasOwn(known, provider) ? known[provider]?.get(model) : undefined

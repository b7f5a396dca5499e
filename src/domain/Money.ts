/**
 * Money as a whole number of nano-dollars, so that sums are exact: a number holds up to 9 million USD of them. Pure.
 *
 * **Gotchas**
 *
 * A price that is unknown makes a cost unknown, not 0. A `Sum` has the known part of several costs.
 */
import type { Price } from "./DeploymentFacts.ts"
import type { TokenUsage } from "./Job.ts"

/** Nano-dollars. */
export type Nano = number

const nanoPerUsd = 1e9

/** Prices are USD per million tokens. */
const nanoPerToken = (price: number): number => price * (nanoPerUsd / 1e6)

export const nanoOf = (usd: number): Nano => Math.round(usd * nanoPerUsd)

export const usdOf = (nano: Nano): number => nano / nanoPerUsd

/** What several attempts have cost together. */
export class Sum {
  #known: Nano = 0
  #unpriced = 0

  /** @param cost undefined: its price is unknown */
  add(cost: Nano | undefined): void {
    if (cost === undefined) this.#unpriced++
    else this.#known += cost
  }

  /** The known part; undefined if there is none. */
  get known(): Nano | undefined {
    return this.#unpriced > 0 && this.#known === 0 ? undefined : this.#known
  }

  /** How many have an unknown cost; undefined if none has. */
  get unpriced(): number | undefined {
    return this.#unpriced === 0 ? undefined : this.#unpriced
  }
}

/** As `0.0123`, without an exponent and without zeros at the end. */
export const format = (nano: Nano): string => {
  if (nano < 0) return `-${format(-nano)}`
  const rounded = Math.round(nano)
  let rest = rounded % nanoPerUsd
  const whole = String((rounded - rest) / nanoPerUsd)
  if (rest === 0) return whole
  let digits = 9
  while (rest % 10 === 0) {
    rest /= 10
    digits--
  }
  return `${whole}.${String(rest).padStart(digits, "0")}`
}

/** What an answer costs. Cached tokens, cache writes and reasoning count once, at their own prices where those are known. */
export const costOf = (price: Price, usage: TokenUsage): Nano => {
  const { cachedInput, cacheWrite, input, output, reasoning = output } = price
  const { cachedTokens, cacheWriteTokens = 0, completionTokens, promptTokens, reasoningTokens = 0 } = usage
  const cached = Math.min(cachedTokens, promptTokens)
  const written = Math.min(cacheWriteTokens, promptTokens - cached)
  const forAnHour = Math.min(usage.cacheWriteHourTokens ?? 0, written)
  const reasoned = Math.min(reasoningTokens, completionTokens)
  return Math.round(
    nanoPerToken(input) * (promptTokens - cached - written) +
      nanoPerToken(cachedInput ?? input) * cached +
      nanoPerToken(cacheWrite ?? input) * (written - forAnHour) +
      nanoPerToken(price.cacheWriteHour ?? cacheWrite ?? input) * forAnHour +
      nanoPerToken(output) * (completionTokens - reasoned) +
      nanoPerToken(reasoning) * reasoned
  )
}

/** The most that an answer of at most so many tokens costs. */
export const mostOf = (
  { cachedInput = 0, cacheWrite = 0, cacheWriteHour = 0, input, output, reasoning = output }: Price,
  promptTokens: number,
  answerTokens: number
): Nano =>
  Math.ceil(
    nanoPerToken(Math.max(input, cachedInput, cacheWrite, cacheWriteHour)) * promptTokens +
      nanoPerToken(Math.max(output, reasoning)) * answerTokens
  )

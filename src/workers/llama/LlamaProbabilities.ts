/**
 * The probabilities of a token and of the likeliest ones, over the whole vocabulary, before any sampling.
 *
 * **Details**
 *
 * The library can hand over the probabilities of all tokens that a sampler leaves: of a vocabulary of 151,000 tokens, that
 * takes tens of milliseconds. So three samplers that leave few tokens are asked:
 *
 * - top-k has the weights of the likeliest tokens, `exp(logit - highest logit)`;
 * - the confidence of a token that is drawn from all is its weight divided by the sum of all weights, which gives the sum.
 *   Tokens of less than `leastWeight` are left out of it: with 32-bit floats they do not change a sum of 1 or more;
 * - a token that is not among the likeliest has its weight from a bias that makes it so.
 *
 * The draw begins with the same seed each time, so that equal logits have equal probabilities.
 */
import type { Token } from "node-llama-cpp"

/** A native sampler, which holds its options and its random state. */
export interface Sampler {
  readonly applyConfig: (config: object) => void
  readonly dispose: () => void
}

/** Tokens and their probabilities by turns, likeliest first. */
type Pairs = ReadonlyArray<number>

/** A token; as a list, with the probabilities of the tokens that the sampler leaves, and its own among them. */
export type Sampled = Token | readonly [token: Token, pairs?: Pairs, confidence?: number]

export type Sample = (
  logits: number,
  sampler: Sampler,
  probabilities?: boolean,
  confidence?: boolean
) => Promise<Sampled>

/** Likeliest first, and the chosen token. */
export type Probabilities = ReadonlyMap<Token, number>

/** The most of the likeliest tokens that are reported. */
const mostReported = 20

const leastWeight = 2 ** -25

/** Added to a logit: `exp` of it and of its negative are 32-bit floats. */
const boost = 80

const unchanged = { temperature: 1, topP: 1, minP: 0, seed: 0 }

const tokenOf = (sampled: Sampled): Token => typeof sampled === "number" ? sampled : sampled[0]

/** Calls of one function, one after another. */
export const oneAfterAnother = <In extends ReadonlyArray<unknown>, Out>(
  work: (...given: In) => Promise<Out>
): (...given: In) => Promise<Out> => {
  let last: Promise<unknown> = Promise.resolve()
  return (...given) => {
    const next = last.then(() => work(...given))
    last = next.catch(() => {})
    return next
  }
}

/** Reads the probabilities of unchanged logits: the likeliest tokens', and that of one token. */
export const makeReadProbabilities = (
  sample: Sample,
  makeSampler: () => Sampler
): (logits: number, token: Token) => Promise<Probabilities> => {
  let made: Sampler | undefined
  const samplerWith = (config: object): Sampler => {
    made ??= makeSampler()
    made.applyConfig({ ...unchanged, ...config })
    return made
  }

  const pairsWith = async (logits: number, config: object): Promise<Pairs> => {
    const sampled = await sample(logits, samplerWith(config), true)
    return typeof sampled === "number" ? [] : sampled[1] ?? []
  }

  const likeliest = async (logits: number): Promise<Map<Token, number>> => {
    const pairs = await pairsWith(logits, { topK: mostReported })
    const weights = new Map<Token, number>()
    for (let at = 0; at < pairs.length; at += 2) weights.set(pairs[at] as Token, pairs[at + 1]! / pairs[1]!)
    return weights
  }

  const weigh = async (logits: number, token: Token): Promise<number> => {
    const [first, ofFirst = 0, second, ofSecond = 0] = await pairsWith(logits, {
      topK: 2,
      tokenBiasKeys: Uint32Array.of(token),
      tokenBiasValues: Float32Array.of(boost)
    })
    const weight = first === token ? ofFirst / ofSecond : second === token ? ofSecond / ofFirst : 0
    return weight * Math.exp(-boost)
  }

  // The sampler's options must not change while it samples.
  return oneAfterAnother(async (logits: number, token: Token) => {
    const top = await likeliest(logits)
    // Another seed in between starts the random numbers again.
    samplerWith({ seed: 1 })
    const drawn = await sample(logits, samplerWith({ minP: leastWeight }), false, true)
    const confidence = typeof drawn === "number" ? Number.NaN : drawn[2] ?? Number.NaN
    const weightOf = async (one: Token) => top.get(one) ?? await weigh(logits, one)
    const sum = await weightOf(tokenOf(drawn)) / confidence
    return new Map([...top, [token, await weightOf(token)] as const].map(([one, weight]) => [one, weight / sum]))
  })
}

/**
 * Samples the next token from a model's logits, with penalties, biases, filters, temperature and a seed.
 *
 * **Details**
 *
 * The order is llama.cpp's: bias, penalties, top-k, top-p, min-p, then temperature, so that options have the same effect
 * in every engine. At temperature 0 the likeliest token is chosen, of equal ones the first.
 *
 * A caller may reject a token and gets the next choice without repeated computation; its distribution is that of the
 * remaining tokens. After all tokens that passed the filters, the others follow, likeliest first.
 */
import type { SamplingOptions } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"

/** The number of the answer's last tokens that count for the penalties. */
export const penaltyWindow = 64

/** OpenAI's API bans a token with -100. */
const banned = -100

/**
 * The biases, by token id; minus infinity bans a token. An id outside the vocabulary is refused.
 *
 * @param vocabulary number of tokens
 */
export const biasesOf = (
  { logitBias = {} }: SamplingOptions,
  vocabulary: number
): ReadonlyArray<readonly [number, number]> =>
  Object.entries(logitBias).map(([id, bias]) => {
    if (Number(id) >= vocabulary) {
      refuse({
        kind: "invalid_request",
        path: `logitBias.${id}`,
        message: `Expected a token id below ${vocabulary}, the size of the model's vocabulary`
      })
    }
    return [Number(id), bias <= banned ? Number.NEGATIVE_INFINITY : bias]
  })

/** Numbers from 0 to below 1 from a 32-bit seed: mulberry32 (Tommy Ettinger, public domain). Not for secrets. */
export const makeRandom = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

type Allows = (token: number) => boolean

/** The sampler of one answer. */
export interface Sampler {
  /**
   * The next token; undefined if every token is banned or rejected.
   *
   * @param allows called for each candidate in turn; it should be cheap for likely ones
   */
  readonly choose: (logits: Float32Array, allows?: Allows) => number | undefined
  /** Records that the answer contains this token. */
  readonly accept: (token: number) => void
}

/** A token and the natural logarithm of its probability. */
export interface Likelihood {
  readonly token: number
  readonly logprob: number
}

/** The number of occurrences of each of the answer's last tokens. */
const countsOf = (recent: ReadonlyArray<number>): ReadonlyMap<number, number> => {
  const counts = new Map<number, number>()
  for (const token of recent) counts.set(token, (counts.get(token) ?? 0) + 1)
  return counts
}

const penalise = (
  scores: Float32Array,
  recent: ReadonlyArray<number>,
  { frequencyPenalty = 0, presencePenalty = 0, repeatPenalty = 1 }: SamplingOptions
): void => {
  for (const [token, count] of countsOf(recent)) {
    const score = scores[token]!
    const divided = score > 0 ? score / repeatPenalty : score * repeatPenalty
    scores[token] = divided - count * frequencyPenalty - presencePenalty
  }
}

/** The highest logit; minus infinity if every token is banned or no logit is a number. */
const highest = (scores: Float32Array): number => {
  let most = Number.NEGATIVE_INFINITY
  for (const score of scores) if (score > most) most = score
  return most
}

/** Sorts token ids, the likeliest first and equal ones by id. */
const sort = (scores: Float32Array, ids: Array<number>): Array<number> =>
  ids.sort((a, b) => scores[b]! - scores[a]! || a - b)

/** The `count` likeliest tokens, sorted, in one pass: vocabularies are large and counts small. */
const likeliest = (scores: Float32Array, count: number): Array<number> => {
  const ids: Array<number> = []
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!
    if (ids.length === count && score <= scores[ids[count - 1]!]!) continue
    let low = 0
    let high = ids.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (scores[ids[middle]!]! >= score) low = middle + 1
      else high = middle
    }
    ids.splice(low, 0, id)
    if (ids.length > count) ids.pop()
  }
  return ids
}

const possible = (scores: Float32Array): Array<number> => {
  const ids: Array<number> = []
  for (let id = 0; id < scores.length; id++) if (scores[id]! > Number.NEGATIVE_INFINITY) ids.push(id)
  return ids
}

/** The smallest set of likeliest tokens whose probabilities, among `ids`, sum to `topP`. */
const nucleus = (scores: Float32Array, ids: Array<number>, most: number, topP: number): Array<number> => {
  const weight = (id: number) => Math.exp(scores[id]! - most)
  const total = ids.reduce((sum, id) => sum + weight(id), 0)
  // Tokens below this probability sum to less than 1 - topP, so they need no sorting.
  const least = total * (1 - topP) / ids.length
  const sorted = sort(scores, ids.filter((id) => weight(id) >= least))
  let sum = 0
  const end = sorted.findIndex((id) => (sum += weight(id)) >= total * topP)
  return end === -1 ? sorted : sorted.slice(0, end + 1)
}

/** The tokens that pass top-k, top-p and min-p: at least one, unless all are banned. */
const filtered = (scores: Float32Array, options: SamplingOptions, most: number): Array<number> => {
  const { minP = 0, topK = 0, topP } = options
  const first = topK > 0 && topK < scores.length
    ? likeliest(scores, topK).filter((id) => scores[id]! > Number.NEGATIVE_INFINITY)
    : possible(scores)
  const second = topP < 1 && first.length > 0 ? nucleus(scores, first, most, topP) : first
  if (minP <= 0) return second
  const floor = most + Math.log(minP)
  return second.filter((id) => scores[id]! >= floor)
}

/** Every token that is not banned and not among `tried`, likeliest first. */
const others = (scores: Float32Array, tried: ReadonlySet<number>): Array<number> =>
  sort(scores, possible(scores).filter((id) => !tried.has(id)))

function* greedily(scores: Float32Array, most: number): Generator<number, void, undefined> {
  const first = scores.indexOf(most)
  yield first
  yield* others(scores, new Set([first]))
}

/** Rejections after which all remaining candidates are checked at once, since each single draw visits all of them. */
const mostRefusals = 32

function* randomly(
  scores: Float32Array,
  most: number,
  options: SamplingOptions,
  random: () => number,
  allows: Allows
): Generator<number, void, undefined> {
  let ids = filtered(scores, options, most)
  const tried = new Set(ids)
  const weightsOver = (base: number) => ids.map((id) => Math.exp((scores[id]! - base) / options.temperature))
  let weights = weightsOver(most)
  for (let refusals = 0; ids.length > 0; refusals++) {
    if (refusals === mostRefusals) {
      ids = ids.filter(allows)
      if (ids.length === 0) break
      weights = weightsOver(most)
    }
    let total = weights.reduce((sum, weight) => sum + weight, 0)
    if (total === 0) {
      // The remaining tokens are so much less likely than the rejected ones that their weight was rounded to 0.
      weights = weightsOver(ids.reduce((most, id) => Math.max(most, scores[id]!), Number.NEGATIVE_INFINITY))
      total = weights.reduce((sum, weight) => sum + weight, 0)
    }
    let rest = random() * total
    const found = weights.findIndex((weight) => (rest -= weight) < 0)
    // By rounding, the sum may exceed the subtracted weights slightly.
    const at = found === -1 ? weights.findLastIndex((weight) => weight > 0) : found
    yield ids[at]!
    ids.splice(at, 1)
    weights.splice(at, 1)
  }
  yield* others(scores, tried)
}

/**
 * A sampler for one answer; throws an `EngineFailure` for a bias of an unknown token.
 *
 * @param vocabulary number of logits
 */
export const makeSampler = (options: SamplingOptions, vocabulary: number): Sampler => {
  const biases = biasesOf(options, vocabulary)
  const random = makeRandom(options.seed)
  const recent: Array<number> = []
  const scores = new Float32Array(vocabulary)
  return {
    choose(logits, allows = () => true) {
      scores.set(logits)
      for (const [token, bias] of biases) scores[token]! += bias
      penalise(scores, recent, options)
      const most = highest(scores)
      if (most === Number.NEGATIVE_INFINITY) return undefined
      const order = options.temperature === 0 ? greedily(scores, most) : randomly(scores, most, options, random, allows)
      for (const token of order) if (allows(token)) return token
      return undefined
    },
    accept(token) {
      recent.push(token)
      if (recent.length > penaltyWindow) recent.shift()
    }
  }
}

/** The natural logarithms of a token's probability and of the `count` likeliest, before any sampling. */
export const likelihoods = (
  logits: Float32Array,
  token: number,
  count: number
): Likelihood & { readonly top: ReadonlyArray<Likelihood> } => {
  const most = highest(logits)
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - most)
  const norm = most + Math.log(sum)
  const of = (token: number): Likelihood => ({ token, logprob: logits[token]! - norm })
  return { ...of(token), top: count === 0 ? [] : likeliest(logits, count).map(of) }
}

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
import * as WeightedDraw from "./WeightedDraw.ts"

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
type Mask = () => Uint32Array

/** The sampler of one answer. */
export interface Sampler {
  /**
   * The next token; undefined if every token is banned or rejected.
   *
   * @param allows called for each candidate in turn; it should be cheap for likely ones
   * @param mask which of all tokens are allowed, a bit each, the first token's the lowest: called once several candidates were
   *   rejected. Left out, all candidates are asked
   */
  readonly choose: (logits: Float32Array, allows?: Allows, mask?: Mask) => number | undefined
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
  for (let id = 0; id < scores.length; id++) if (scores[id]! > most) most = scores[id]!
  return most
}

/** Ids are below this: with the bits of a score, they make a whole number that a double holds. */
const mostIds = 2 ** 21

const oneFloat = new Float32Array(1)
const itsBits = new Uint32Array(oneFloat.buffer)

/** Smaller for a higher score; of equal scores, for a lower id. */
const keyOf = (score: number, id: number): number => {
  // Zero and minus zero are equal.
  oneFloat[0] = score + 0
  const bits = itsBits[0]!
  const ascending = bits >= 2 ** 31 ? 2 ** 32 - 1 - bits : bits + 2 ** 31
  return (2 ** 32 - 1 - ascending) * mostIds + id
}

/** Token ids by score, the likeliest first and equal ones by id. Numbers are sorted natively, far faster than by a function. */
const sort = (scores: Float32Array, ids: Int32Array): Int32Array => {
  const keys = new Float64Array(ids.length)
  for (let at = 0; at < ids.length; at++) keys[at] = keyOf(scores[ids[at]!]!, ids[at]!)
  keys.sort()
  return Int32Array.from(keys, (key) => key % mostIds)
}

let idsKept = new Int32Array()
let weightsKept = new Float64Array()

/** Memory for weights, valid until the next call: a new array of a vocabulary's size costs more than the sampling. */
const weightsFor = (length: number): Float64Array => {
  if (weightsKept.length < length) weightsKept = new Float64Array(length)
  return weightsKept.subarray(0, length)
}

/** The ids of tokens that are not banned; valid until the next call. */
const possible = (scores: Float32Array): Int32Array => {
  if (idsKept.length < scores.length) idsKept = new Int32Array(scores.length)
  const ids = idsKept
  let count = 0
  for (let id = 0; id < scores.length; id++) if (scores[id]! > Number.NEGATIVE_INFINITY) ids[count++] = id
  return ids.subarray(0, count)
}

/** More than these are sorted; fewer are kept sorted in one pass. */
const fewTokens = 2_048

/** The `count` likeliest tokens that are not banned, sorted: vocabularies are large and counts small. */
const likeliest = (scores: Float32Array, count: number): Int32Array => {
  if (count > fewTokens) return sort(scores, possible(scores)).subarray(0, count)
  const ids = new Int32Array(count + 1)
  let length = 0
  let least = Number.NEGATIVE_INFINITY
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!
    if (!(score > least)) continue
    let low = 0
    let high = length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (scores[ids[middle]!]! >= score) low = middle + 1
      else high = middle
    }
    ids.copyWithin(low + 1, low, length)
    ids[low] = id
    length = Math.min(length + 1, count)
    if (length === count) least = scores[ids[count - 1]!]!
  }
  return ids.subarray(0, length)
}

/** The first tokens of a nucleus have at least this share of the likeliest one's weight. */
const firstShare = 2 ** -8

/** The smallest set of likeliest tokens whose probabilities, among `ids`, sum to `topP`. */
const nucleus = (scores: Float32Array, ids: Int32Array, most: number, topP: number): Int32Array => {
  const weights = weightsFor(ids.length)
  let total = 0
  for (let at = 0; at < ids.length; at++) total += weights[at] = Math.exp(scores[ids[at]!]! - most)
  // Few tokens are sorted first: most nuclei are small.
  for (let share = firstShare; share > 2 ** -64; share **= 2) {
    const sorted = sort(scores, ids.filter((_, at) => weights[at]! >= share))
    let sum = 0
    for (let end = 0; end < sorted.length; end++) {
      sum += Math.exp(scores[sorted[end]!]! - most)
      if (sum >= total * topP) return sorted.subarray(0, end + 1)
    }
    if (sorted.length === ids.length) return sorted
  }
  return sort(scores, ids)
}

/** The tokens that pass top-k, top-p and min-p: at least one, unless all are banned. */
const filtered = (scores: Float32Array, options: SamplingOptions, most: number): Int32Array => {
  const { minP = 0, topK = 0, topP } = options
  const first = topK > 0 && topK < scores.length
    ? likeliest(scores, topK)
    : possible(scores)
  const second = topP < 1 && first.length > 0 ? nucleus(scores, first, most, topP) : first
  if (minP <= 0) return second
  const floor = most + Math.log(minP)
  return second.filter((id) => scores[id]! >= floor)
}

const isIn = (mask: Uint32Array, token: number): boolean => (mask[token >>> 5]! >>> (token & 31) & 1) === 1

/** The likeliest token of a mask that is not among `tried`, the first of equal ones. */
const bestOf = (scores: Float32Array, mask: Uint32Array, tried: ReadonlySet<number>): number | undefined => {
  let best: number | undefined
  let most = Number.NEGATIVE_INFINITY
  for (let id = 0; id < scores.length; id++) {
    if (scores[id]! > most && isIn(mask, id) && !tried.has(id)) {
      best = id
      most = scores[id]!
    }
  }
  return best
}

/** Every token that is not banned and not among `tried`, likeliest first; with a mask, the first allowed one only. */
function* others(
  scores: Float32Array,
  tried: ReadonlySet<number>,
  mask: Mask | undefined
): Generator<number, void, undefined> {
  if (mask === undefined) {
    yield* sort(scores, possible(scores).filter((id) => !tried.has(id)))
    return
  }
  const best = bestOf(scores, mask(), tried)
  if (best !== undefined) yield best
}

function* greedily(
  scores: Float32Array,
  most: number,
  mask: Mask | undefined
): Generator<number, void, undefined> {
  const first = scores.indexOf(most)
  yield first
  yield* others(scores, new Set([first]), mask)
}

/** Rejections after which all remaining candidates are checked at once. */
const mostRefusals = 32

function* randomly(
  scores: Float32Array,
  most: number,
  options: SamplingOptions,
  random: () => number,
  allows: Allows,
  mask: Mask | undefined
): Generator<number, void, undefined> {
  let ids = filtered(scores, options, most)
  const weightsOver = (base: number): Float64Array => {
    const weights = weightsFor(ids.length)
    for (let at = 0; at < ids.length; at++) weights[at] = Math.exp((scores[ids[at]!]! - base) / options.temperature)
    return weights
  }
  const all = ids
  const removed = new Set<number>()
  let draws = WeightedDraw.make(weightsOver(most))
  for (let refusals = 0; removed.size < ids.length; refusals++) {
    const isMasked = refusals === mostRefusals
    if (isMasked) {
      const allowed = mask?.()
      ids = ids.filter((id, at) => !removed.has(at) && (allowed === undefined ? allows(id) : isIn(allowed, id)))
      removed.clear()
      if (ids.length === 0) break
      draws = WeightedDraw.make(weightsOver(most))
    }
    if (draws.total() === 0) {
      // The remaining tokens are so much less likely than the rejected ones that their weight was rounded to 0.
      ids = ids.filter((_, at) => !removed.has(at))
      removed.clear()
      draws = WeightedDraw.make(
        weightsOver(ids.reduce((most, id) => Math.max(most, scores[id]!), Number.NEGATIVE_INFINITY))
      )
    }
    const at = draws.draw(random())
    yield ids[at]!
    removed.add(at)
    draws.remove(at)
  }
  yield* others(scores, new Set(all), mask)
}

/**
 * A sampler for one answer; throws an `EngineFailure` for a bias of an unknown token.
 *
 * @param vocabulary number of logits
 * @param window how many of the answer's last tokens count for the penalties
 */
export const makeSampler = (options: SamplingOptions, vocabulary: number, window = penaltyWindow): Sampler => {
  const biases = biasesOf(options, vocabulary)
  const random = makeRandom(options.seed)
  const recent: Array<number> = []
  const scores = new Float32Array(vocabulary)
  return {
    choose(logits, allows = () => true, mask) {
      scores.set(logits)
      for (const [token, bias] of biases) scores[token]! += bias
      penalise(scores, recent, options)
      const most = highest(scores)
      if (most === Number.NEGATIVE_INFINITY) return undefined
      const order = options.temperature === 0
        ? greedily(scores, most, mask)
        : randomly(scores, most, options, random, allows, mask)
      for (const token of order) if (allows(token)) return token
      return undefined
    },
    accept(token) {
      recent.push(token)
      if (recent.length > window) recent.shift()
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
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id]! - most)
  const norm = most + Math.log(sum)
  const of = (token: number): Likelihood => ({ token, logprob: logits[token]! - norm })
  return { ...of(token), top: count === 0 ? [] : Array.from(likeliest(logits, count), of) }
}

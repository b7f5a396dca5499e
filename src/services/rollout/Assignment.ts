/**
 * Which version gets a request: a pure function of the session, or a draw.
 *
 * **Details**
 *
 * A session has a fixed place between 0 and 1, other in each rollout. It is at the candidate while its place is below
 * the candidate's weight: a session that has moved stays while the weight grows, and all return when it is 0. An A/B
 * test divides the same interval among its variants.
 *
 * **Gotchas**
 *
 * The shares of sessions follow the weights, those of requests do so only where no session has most of them.
 */
import { combine, draw } from "../../domain/Hashing.ts"

/** Separates these places from those of other draws over the same hashes. */
const purpose = 0x726f6c6c

/** The place of a session, above 0 and below 1. */
const placeOf = (seed: number, key: number): number => draw(combine(combine(seed, purpose), key), 0)

/**
 * Whether a request goes to the candidate.
 *
 * @param seed the hash of the rollout's id
 * @param weight the candidate's share, from 0 to 1
 * @param key the hash of the session; undefined for a request without one
 * @param random from 0 to below 1, for a request without a session
 */
export const toCandidate = (seed: number, weight: number, key: number | undefined, random: number): boolean =>
  weight > 0 && (weight >= 1 || (key === undefined ? random : placeOf(seed, key)) < weight)

/**
 * The index of the variant that gets a request.
 *
 * @param weights shares of the variants, 0 or more, with a sum above 0
 */
export const variantOf = (
  weights: ReadonlyArray<number>,
  seed: number,
  key: number | undefined,
  random: number
): number => {
  const place = key === undefined ? random : placeOf(seed, key)
  let left = place * weights.reduce((sum, weight) => sum + weight, 0)
  for (const [index, weight] of weights.entries()) {
    if (left < weight) return index
    left -= weight
  }
  // The last that gets requests: rounding may leave a rest.
  return weights.findLastIndex((weight) => weight > 0)
}

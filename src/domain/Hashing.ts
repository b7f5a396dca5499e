/**
 * Hashes of 32 bits, and pseudo-random numbers that are a pure function of a seed, so that a routing decision can be
 * replayed.
 *
 * **Gotchas**
 *
 * The functions are fast, not cryptographic: a caller can construct texts with equal hashes, so a collision must not
 * reveal or change an answer.
 */

/** The finalizer of MurmurHash3 (Austin Appleby): every bit of the result depends on every bit of the input. */
const scatter = (value: number): number => {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** The bits of the golden ratio, as in Knuth's multiplicative hashing: consecutive numbers get distant hashes. */
const golden = 0x9e3779b1

/** A hash of two hashes, as a 32-bit unsigned integer. The order counts. */
export const combine = (a: number, b: number): number => scatter(Math.imul(a ^ scatter(b), golden) ^ b)

/** A hash of the text, as a 32-bit unsigned integer (FNV-1a over its UTF-16 units). */
export const hashText = (text: string, from = 0, to = text.length): number => {
  let hash = 0x811c9dc5
  for (let index = from; index < to; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return scatter(hash)
}

/** The pseudo-random number at `index` of the sequence of a seed, above 0 and below 1. */
export const draw = (seed: number, index: number): number => (combine(seed, index) + 0.5) / 2 ** 32

/** Two different pseudo-random integers from 0 to below `count`, which is 2 or more. */
export const drawTwo = (count: number, seed: number): readonly [number, number] => {
  const first = Math.floor(draw(seed, 0) * count)
  const second = Math.floor(draw(seed, 1) * (count - 1))
  return [first, second >= first ? second + 1 : second]
}

/** Random numbers as a pure function of a seed, and hashes that spread alike everywhere: for policy that can be replayed. */

/** The finalizer of MurmurHash3 (Austin Appleby): every bit of the result depends on every bit of the input. */
const scatter = (value: number): number => {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** The golden ratio's bits, as in Knuth's multiplicative hashing: consecutive numbers land far apart. */
const golden = 0x9e3779b1

/** Both together, as a 32-bit unsigned integer. */
export const combine = (a: number, b: number): number => scatter(Math.imul(a ^ scatter(b), golden) ^ b)

/** The `index`th number of this seed, above 0 and below 1. */
export const draw = (seed: number, index: number): number => (combine(seed, index) + 0.5) / 2 ** 32

/** A text, as a 32-bit unsigned integer (FNV-1a over its UTF-16 units). */
export const hashText = (text: string, from = 0, to = text.length): number => {
  let hash = 0x811c9dc5
  for (let index = from; index < to; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return scatter(hash)
}

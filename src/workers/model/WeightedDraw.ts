/**
 * Draws from weights without replacement.
 *
 * **Details**
 *
 * The weights of blocks are summed once, so that a draw reads the sums and one block, not all of a vocabulary.
 */

const blockSize = 256

export interface WeightedDraw {
  readonly total: () => number
  /**
   * The place of the weight that a random number falls on, in the order of the weights.
   *
   * @param random from 0 to below 1
   */
  readonly draw: (random: number) => number
  /** Sets a weight to 0. */
  readonly remove: (place: number) => void
}

/** The last place before `end` with a weight, not before `begin`; -1 if there is none. */
const lastWeighted = (weights: Float64Array, begin: number, end: number): number => {
  for (let place = end - 1; place >= begin; place--) if (weights[place]! > 0) return place
  return -1
}

/** @param weights are changed by `remove` */
export const make = (weights: Float64Array): WeightedDraw => {
  const sums = new Float64Array(Math.ceil(weights.length / blockSize))
  let total = 0
  const addBlock = (block: number): void => {
    let sum = 0
    const end = Math.min(weights.length, (block + 1) * blockSize)
    for (let place = block * blockSize; place < end; place++) sum += weights[place]!
    sums[block] = sum
  }
  const addAll = (): void => {
    total = 0
    for (const sum of sums) total += sum
  }
  for (let block = 0; block < sums.length; block++) addBlock(block)
  addAll()

  return {
    total: () => total,
    draw(random) {
      let rest = random * total
      for (let block = 0; block < sums.length; block++) {
        if (rest >= sums[block]!) {
          rest -= sums[block]!
          continue
        }
        const begin = block * blockSize
        const end = Math.min(weights.length, begin + blockSize)
        for (let place = begin; place < end; place++) if ((rest -= weights[place]!) < 0) return place
        // By rounding, the sum may exceed the subtracted weights slightly.
        return lastWeighted(weights, begin, end)
      }
      return lastWeighted(weights, 0, weights.length)
    },
    remove(place) {
      weights[place] = 0
      addBlock(Math.floor(place / blockSize))
      addAll()
    }
  }
}

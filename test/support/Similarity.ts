/** Measures of vectors and of rankings. */

export const cosine = (one: ArrayLike<number>, other: ArrayLike<number>): number => {
  let [product, first, second] = [0, 0, 0]
  for (let index = 0; index < one.length; index++) {
    product += one[index]! * other[index]!
    first += one[index]! ** 2
    second += other[index]! ** 2
  }
  return product / Math.sqrt(first * second)
}

/** Ranks from 0; equal values have the mean of their ranks. */
const ranksOf = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const sorted = values.toSorted((one, other) => one - other)
  return values.map((value) => (sorted.indexOf(value) + sorted.lastIndexOf(value)) / 2)
}

const deviations = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return values.map((value) => value - mean)
}

/** Spearman's rank correlation, from -1 to 1. */
export const rankCorrelation = (one: ReadonlyArray<number>, other: ReadonlyArray<number>): number =>
  cosine(deviations(ranksOf(one)), deviations(ranksOf(other)))

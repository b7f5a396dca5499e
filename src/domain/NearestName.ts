/**
 * The known name that is nearest to an unknown one, for "Did you mean ...?".
 *
 * **Details**
 *
 * Case, hyphens and underscores do not count: `context_size` equals `contextSize`. The distance is the number of
 * letters to insert, leave out, replace or swap with their neighbor (optimal string alignment).
 */

const lettersOf = (name: string): string => name.toLowerCase().replaceAll(/[-_]/g, "")

const distanceBetween = (one: string, other: string): number => {
  let beforeLast: Array<number> = []
  let last = Array.from({ length: other.length + 1 }, (_, column) => column)
  for (let row = 1; row <= one.length; row++) {
    const current = [row]
    for (let column = 1; column <= other.length; column++) {
      const isSame = one[row - 1] === other[column - 1]
      const isSwapped = one[row - 1] === other[column - 2] && one[row - 2] === other[column - 1]
      current[column] = Math.min(
        last[column]! + 1,
        current[column - 1]! + 1,
        last[column - 1]! + (isSame ? 0 : 1),
        isSwapped ? beforeLast[column - 2]! + 1 : Number.POSITIVE_INFINITY
      )
    }
    beforeLast = last
    last = current
  }
  return last[other.length]!
}

/** Longer names get no suggestion. */
const longestName = 64

const lettersInCommon = (one: string, other: string): number => {
  let count = 0
  while (count < one.length && one[count] === other[count]) count++
  return count
}

/**
 * The nearest of these names: at most a third of the letters may differ, and at most two. Undefined if no name is that
 * near. Of equally near names, the one that shares the longest beginning.
 */
export const nearestName = (name: string, names: ReadonlyArray<string>): string | undefined => {
  if (name.length > longestName) return undefined
  const letters = lettersOf(name)
  let nearest: string | undefined
  let least = Math.min(2, Math.floor(letters.length / 3)) + 1
  for (const known of names) {
    const other = lettersOf(known)
    const distance = distanceBetween(letters, other)
    const isNearer = distance < least || (distance === least && nearest !== undefined &&
      lettersInCommon(letters, other) > lettersInCommon(letters, lettersOf(nearest)))
    if (isNearer) [nearest, least] = [known, distance]
  }
  return nearest
}

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

/** Letters of the beginning and of the end that both have. */
const lettersInCommon = (one: string, other: string): number => {
  const most = Math.min(one.length, other.length)
  let first = 0
  while (first < most && one[first] === other[first]) first++
  let last = 0
  while (last < most - first && one.at(-1 - last) === other.at(-1 - last)) last++
  // The beginning counts more.
  return first * longestName + last
}

/**
 * The nearest of these names: at most a third of the letters may differ, and at most two. Undefined if no name is that
 * near. Of equally near names, the one that shares the longest beginning, then the longest end.
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

/** Letters that the beginning of a name must have to stand for it. */
const leastBeginning = 3

/**
 * As `nearestName`, but less strict, for a name that is refused in any case. It also finds a name whose beginning is given
 * (`gpuMem` for `gpuMemory`), and a name with the same first letter of which at most two letters differ, and at most a third
 * of the given ones (`eror` for `errors`).
 */
export const likelyName = (name: string, names: ReadonlyArray<string>): string | undefined => {
  const nearest = nearestName(name, names)
  if (nearest !== undefined || name.length > longestName) return nearest
  const letters = lettersOf(name)
  const begun = letters.length < leastBeginning
    ? []
    : names.filter((known) => lettersOf(known).startsWith(letters)).toSorted((one, other) => one.length - other.length)
  if (begun[0] !== undefined) return begun[0]
  const alike = names.filter((known) => lettersOf(known)[0] === letters[0] && nearestName(known, [name]) === name)
  return alike.toSorted((one, other) =>
    distanceBetween(letters, lettersOf(one)) - distanceBetween(letters, lettersOf(other))
  )[0]
}

/** The sentence about the name that an unknown one stands for, such as ` Did you mean chat?`; empty where none is near. */
export const didYouMean = (name: string, names: ReadonlyArray<string>): string => {
  const likely = likelyName(name, names)
  return likely === undefined ? "" : ` Did you mean ${likely}?`
}

const beforeNumber = (id: string): string => id.slice(0, id.lastIndexOf("#"))

/** As `didYouMean`, for ids such as `chat#1`; empty where only the number is unknown. */
export const didYouMeanId = (id: string, ids: ReadonlyArray<string>): string =>
  ids.some((one) => beforeNumber(one) === beforeNumber(id)) ? "" : didYouMean(id, ids)

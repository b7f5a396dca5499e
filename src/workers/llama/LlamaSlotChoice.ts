/**
 * Chooses the slot of a job that no slot has computed a beginning for.
 *
 * **Details**
 *
 * llama.cpp computes the tokens of sequences together whose numbers have no gap between them (see `LlamaBatches`), so a slot next to those
 * in use is cheaper. But its computation is lost, which the next turn of its conversation may need. A slot without a
 * computation is therefore preferred, then the half of the slots that was free for longest, and among these the
 * place.
 */

/** A free slot. */
export interface Place {
  /** The number of its sequence, from 0. */
  readonly number: number
  /** Tokens that it has computed. */
  readonly length: number
}

/** By how many runs more the numbers in use have with this one: 1, 0, or -1 if it fills a gap. */
const addedRuns = (number: number, isFree: (number: number) => boolean): number =>
  1 - (isFree(number - 1) ? 0 : 1) - (isFree(number + 1) ? 0 : 1)

/**
 * The index of the chosen one.
 *
 * @param free ordered by last use, the latest at the end; at least one
 * @param slots of the engine
 */
export const chooseSlot = (free: ReadonlyArray<Place>, slots: number): number => {
  if (free.length === slots && free.every(({ length }) => length > 0)) return 0
  const numbers = new Set(free.map(({ number }) => number))
  const isFree = (number: number) => number < 0 || number >= slots || numbers.has(number)
  const empty = free.filter(({ length }) => length === 0)
  const candidates = empty.length > 0 ? empty : free.slice(0, Math.ceil(free.length / 2))
  const [best] = candidates.toSorted((one, other) =>
    addedRuns(one.number, isFree) - addedRuns(other.number, isFree) || one.number - other.number
  )
  return free.indexOf(best!)
}

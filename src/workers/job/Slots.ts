/**
 * Chooses the slot for a prompt. Each slot keeps its last computation, and a prompt with the same beginning continues it.
 */

/** A slot's computation, compared with a prompt. */
export interface Cached {
  /** Tokens that it has computed. */
  readonly length: number
  /** How many of them are the beginning of the prompt. */
  readonly shared: number
}

/** Chooses one of the slots whose computation is not used, the one free for longest first; returns its index. */
export type Choice<Slot> = (slots: ReadonlyArray<Slot>) => number

const longestFree = (): number => 0

/**
 * Removes a slot from `free`: the one that shares most tokens with the prompt, of several the one free for longest.
 *
 * If that is less than half of the prompt and less than half of the slot's computation, the slot was probably used by
 * another conversation: then another slot is chosen, and this one keeps its computation.
 *
 * @param free ordered by last use, the latest at the end
 * @param promptTokens length of the prompt
 * @param choose default the slot that was free for longest
 */
export const takeSlot = <Slot>(
  free: Array<Slot>,
  promptTokens: number,
  cachedOf: (slot: Slot) => Cached,
  choose: Choice<Slot> = longestFree
): Slot | undefined => {
  let best: number | undefined
  let most = 0
  for (const [index, slot] of free.entries()) {
    const { length, shared } = cachedOf(slot)
    if (shared <= most || 2 * shared < Math.min(promptTokens, length)) continue
    best = index
    most = shared
  }
  return free.splice(best ?? choose(free), 1)[0]
}

/** A slot's computation is reused for its owner only, so that `cachedTokens` reveals no other tenant's prompts. */
export interface Owned {
  owner: string
}

/** A slot of another owner shares nothing. */
const foreign: Cached = { length: 0, shared: 0 }

/**
 * Takes a slot for an owner. A slot of another owner is cleared.
 *
 * @param clear discards what the slot has computed
 */
export const takeOwnedSlot = <Slot extends Owned>(
  free: Array<Slot>,
  promptTokens: number,
  owner: string,
  cachedOf: (slot: Slot) => Cached,
  clear: (slot: Slot) => void,
  choose?: Choice<Slot>
): Slot | undefined => {
  const slot = takeSlot(free, promptTokens, (one) => one.owner === owner ? cachedOf(one) : foreign, choose)
  if (slot === undefined || slot.owner === owner) return slot
  clear(slot)
  slot.owner = owner
  return slot
}

/**
 * Which slot a prompt takes: each keeps what it computed last, and a prompt that begins alike goes on from there.
 */

/** Of a slot, what picking one takes. */
export interface Kept {
  /** How many tokens it has computed. */
  readonly length: number
  /** How many of them the prompt begins with. */
  readonly shared: number
}

/**
 * Takes a slot out of `free`: the one that shares most with the prompt, of several the one that was free for longest.
 *
 * Where that is less than half of the prompt, and less than half of what the slot has, it is more likely another
 * conversation's beginning, and the slot that was free for longest is taken so that the other's stays.
 *
 * @param free the one that was used last at the end
 * @param promptTokens the prompt's length
 */
export const takeSlot = <Slot>(
  free: Array<Slot>,
  promptTokens: number,
  keptOf: (slot: Slot) => Kept
): Slot | undefined => {
  let best = 0
  let most = 0
  for (const [index, slot] of free.entries()) {
    const { length, shared } = keptOf(slot)
    if (shared <= most || 2 * shared < Math.min(promptTokens, length)) continue
    best = index
    most = shared
  }
  return free.splice(best, 1)[0]
}

/** What a slot computed is used for its owner's jobs alone, so that `cachedTokens` shows no other tenant's prompts. */
export interface Owned {
  owner: string
}

/** Of another owner's slot, a prompt finds nothing. */
const foreign: Kept = { length: 0, shared: 0 }

/**
 * Takes a slot for an owner; one that was another's keeps nothing.
 *
 * @param forget has the slot keep nothing of what it computed
 */
export const takeOwned = <Slot extends Owned>(
  free: Array<Slot>,
  promptTokens: number,
  owner: string,
  keptOf: (slot: Slot) => Kept,
  forget: (slot: Slot) => void
): Slot | undefined => {
  const slot = takeSlot(free, promptTokens, (one) => one.owner === owner ? keptOf(one) : foreign)
  if (slot === undefined || slot.owner === owner) return slot
  forget(slot)
  slot.owner = owner
  return slot
}

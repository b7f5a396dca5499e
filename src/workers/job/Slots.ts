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

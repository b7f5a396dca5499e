/** Waiting for what only looking can tell. */
import { setTimeout as sleep } from "node:timers/promises"

/** ms between two looks */
const pause = 5
/** ms */
const limit = 30_000

/** Looks until `isSo`; rejects after half a minute. */
export const until = async (what: string, isSo: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = performance.now() + limit
  while (!await isSo()) {
    if (performance.now() > deadline) throw new Error(`Waited ${limit} ms in vain until ${what}`)
    await sleep(pause)
  }
}

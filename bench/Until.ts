/** Waits for a condition by polling. */
import { setTimeout as sleep } from "node:timers/promises"

/** Time between two polls, ms. */
const pause = 5
/** ms */
const limit = 30_000

/** Polls until `isSo` returns true; rejects after half a minute. */
export const until = async (what: string, isSo: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = performance.now() + limit
  while (!await isSo()) {
    if (performance.now() > deadline) throw new Error(`Not within ${limit} ms: ${what}`)
    await sleep(pause)
  }
}

/**
 * Which failures are repetitions: of a session that has failed at the same version a short while ago.
 *
 * **Details**
 *
 * The comparison of versions counts requests as independent. A conversation with something that a version cannot do fails
 * again with every request, and would count ten times what another version would have done as well. Such a repetition is
 * not an observation: a session counts as one failure a minute.
 *
 * The table has a fixed size. A session takes the place of another one now and then, whose next failure then counts.
 */
import { combine } from "../../domain/Hashing.ts"

/** After this time, ms, a failure of the same session counts again. */
export const apartMs = 60_000

const slots = 1_024

export class RepeatedFailures {
  /** Sessions, as hashes, and the times from which their failures count again. */
  readonly #sessions = new Uint32Array(slots)
  readonly #until = new Float64Array(slots)
  #now = 0

  /** Time passes, ms. */
  pass(ms: number): void {
    this.#now += ms
  }

  /**
   * Whether a failure is a repetition. If it is not, later ones of the session are.
   *
   * @param version a hash of the rollout and the version
   * @param session the hash of the session; undefined for a request without one, which is never a repetition
   */
  isRepeated(version: number, session: number | undefined): boolean {
    if (session === undefined) return false
    const key = combine(version, session)
    const slot = key % slots
    if (this.#sessions[slot] === key && this.#until[slot]! > this.#now) return true
    this.#sessions[slot] = key
    this.#until[slot] = this.#now + apartMs
    return false
  }
}

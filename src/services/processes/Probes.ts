/**
 * Counts the calls of all processes that probe one deployment through its half-open circuit. Pure.
 *
 * **Gotchas**
 *
 * A permit counts from its grant until it is released, or its process has ended.
 */

/** The permits of one deployment. */
export class Probes {
  /** By the process that holds them. */
  readonly #held = new Map<number, number>()

  get held(): number {
    let sum = 0
    for (const held of this.#held.values()) sum += held
    return sum
  }

  /**
   * Grants a permit; false if as many are held.
   *
   * @param most permits of all processes, with this one
   */
  take(process: number, most: number): boolean {
    if (this.held >= most) return false
    this.#held.set(process, (this.#held.get(process) ?? 0) + 1)
    return true
  }

  release(process: number): void {
    const held = this.#held.get(process)
    if (held !== undefined && held > 0) this.#held.set(process, held - 1)
  }

  /** A process has ended, and its calls with it. */
  leave(process: number): void {
    this.#held.delete(process)
  }
}

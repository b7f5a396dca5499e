/**
 * Waits after a batch until its answers have requested their next tokens, so that the next batch has all of them.
 *
 * **Details**
 *
 * The library takes what is queued as soon as the last answer of a batch has its token, a moment before that answer
 * requests the next one: each batch would be without the answer sampled last. An answer that goes on at all requests its
 * token in the same turn of the event loop. One that does not (its reader is slow, another job needs the context, or it has
 * been cancelled) therefore delays the others by no more than a turn.
 */
export class Rejoin<Answer> {
  /** Answers of the latest batch that may request a token in this turn. */
  readonly #due = new Set<Answer>()
  #over: (() => void) | undefined

  /** A token of the answer has been sampled. */
  sampled(answer: Answer): void {
    this.#due.add(answer)
  }

  /** The answer has requested its next token, or ended. */
  settled(answer: Answer): void {
    if (this.#due.delete(answer) && this.#due.size === 0) this.#over?.()
  }

  /** Resolves when no answer is due, and at the latest in the next turn; undefined if none is due now. */
  wait(): Promise<void> | undefined {
    if (this.#due.size === 0) return undefined
    return new Promise((resolve) => {
      const turn = setImmediate(() => {
        this.#due.clear()
        this.#over?.()
      })
      this.#over = () => {
        this.#over = undefined
        clearImmediate(turn)
        resolve()
      }
    })
  }
}

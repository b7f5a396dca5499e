/**
 * Sends the events of all jobs of a thread over its one port: those of one turn of the event loop in one message.
 *
 * **Details**
 *
 * A message costs more than a token of a small model. Parts that wait for more text therefore wait together, and leave in
 * one message.
 */
import type { FromThread } from "../../domain/EngineProtocol.ts"
import type { JobEvent } from "../../domain/Job.ts"

/** Events of one job, sent before the end of the turn: an engine may compute many tokens in one. */
const mostEvents = 4

export class JobOutbox {
  readonly #post: (message: FromThread) => void
  #turn: Array<readonly [id: number, events: Array<JobEvent>]> = []
  #waiting: Array<() => void> = []
  /** When those that wait are called, ms. */
  #dueAt = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  readonly #sendDue = (): void => {
    const due = this.#waiting
    this.#waiting = []
    this.#dueAt = Number.POSITIVE_INFINITY
    for (const send of due) send()
    this.flush()
  }

  /** @param post sends a message to the host */
  constructor(post: (message: FromThread) => void) {
    this.#post = post
  }

  /** Sends an event at the end of this turn. */
  add(id: number, event: JobEvent): void {
    const job = this.#turn.find(([other]) => other === id)
    if (job === undefined) {
      this.#turn.push([id, [event]])
      if (this.#turn.length === 1) setImmediate(() => this.flush())
    } else if (job[1].push(event) >= mostEvents) this.flush()
  }

  /** Calls `send` at the next common time, at most `ms` from now, and sends what it adds in one message. */
  later(send: () => void, ms: number): void {
    this.#waiting.push(send)
    const at = performance.now() + ms
    if (at >= this.#dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = at
    this.#timer = setTimeout(this.#sendDue, ms)
  }

  /** Sends what was added: an engine calls it before it blocks the thread. */
  flush(): void {
    if (this.#turn.length === 0) return
    const turn = this.#turn
    this.#turn = []
    this.#post(turn)
  }
}

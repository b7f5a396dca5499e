/**
 * Reports crashes of service processes to the others as events for operators and to the alert `engine_restarts`: the supervisor has
 * neither.
 *
 * **Details**
 *
 * A process that does not take requests yet, such as the one that takes the place of a crashed one, gets what was reported meanwhile when
 * it does.
 */
import { processRestarted } from "../../services/alerts/AlertReadings.ts"
import type { OperatorEvent } from "../../services/observability/OperatorEvents.ts"
import type { News } from "../../services/processes/ProcessGroup.ts"

/** A crash that waits for a process, at most this many. */
const mostWaiting = 100

export class Crashes {
  readonly #inform: (index: number, news: News) => void
  readonly #count: number
  readonly #waiting = new Map<number, Array<News>>()
  #reported = 0

  /**
   * @param count of processes, from 1
   * @param inform passes news to a process that takes requests
   */
  constructor(count: number, inform: (index: number, news: News) => void) {
    this.#count = count
    this.#inform = inform
  }

  /**
   * A process has ended that had taken requests, and another one starts.
   *
   * @param at ms since 1970
   * @param ready the processes that take requests
   */
  report(
    crash: { readonly process: number; readonly message: string; readonly at: number },
    ready: ReadonlySet<number>
  ): void {
    const { at, message, process } = crash
    const event: OperatorEvent = {
      id: `evt-process-${at.toString(36)}-${this.#reported++}`,
      at,
      kind: "process",
      severity: "critical",
      message: `${message} Another one starts.`,
      process
    }
    const all: ReadonlyArray<News> = [
      { type: "event", event },
      { type: "increases", increases: [...processRestarted(process)] }
    ]
    for (let index = 1; index <= this.#count; index++) {
      if (ready.has(index)) { for (const news of all) this.#inform(index, news) }
      else this.#wait(index, all)
    }
  }

  #wait(index: number, all: ReadonlyArray<News>): void {
    const waiting = this.#waiting.get(index) ?? []
    this.#waiting.set(index, [...waiting, ...all].slice(-2 * mostWaiting))
  }

  /** A process takes requests. */
  ready(index: number): void {
    for (const news of this.#waiting.get(index) ?? []) this.#inform(index, news)
    this.#waiting.delete(index)
  }
}

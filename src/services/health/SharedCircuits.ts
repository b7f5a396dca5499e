/**
 * The circuits of a service of several processes: a circuit opens and closes in all of them, and the calls that probe a
 * half-open one are counted together.
 *
 * **Details**
 *
 * Each process has circuits of its own (`Breaker`) and sends their changes to the others. Before a half-open circuit lets a call
 * through, the process asks the supervisor for a permit (`services/processes/Probes`), and returns it at the first content or the end
 * of the call.
 */
import { Context, Effect } from "effect"
import type { CircuitNews, ToProcess, ToSupervisor } from "../processes/ProcessGroup.ts"

/** The circuits of the other processes. */
export class SharedCircuits {
  readonly #send: (message: ToSupervisor) => void
  /** Questions for a permit, in the order of their answers. */
  readonly #asked: Array<(isGranted: boolean) => void> = []
  #change: (news: CircuitNews) => void = () => {}

  constructor(send: (message: ToSupervisor) => void) {
    this.#send = send
  }

  /**
   * Whether one more call may probe the deployment. Its permit is to be released once.
   *
   * @param most calls of all processes that may probe it at once
   */
  take(deployment: string, most: number): Effect.Effect<boolean> {
    return Effect.callback((resume) => {
      this.#asked.push((isGranted) => resume(Effect.succeed(isGranted)))
      this.#send({ type: "probe", deployment, most })
    })
  }

  release(deployment: string): void {
    this.#send({ type: "probed", deployment })
  }

  /** A circuit of this process has changed. */
  publish(news: CircuitNews): void {
    this.#send({ type: "news", news })
  }

  /** @param change called when a circuit of another process has changed */
  listen(change: (news: CircuitNews) => void): void {
    this.#change = change
  }

  receive(message: ToProcess): void {
    if (message.type === "probe") this.#asked.shift()!(message.isGranted)
    else if (message.type === "news" && message.news.type === "circuit") this.#change(message.news)
  }
}

/** The circuits of the other processes; undefined where there are none. */
export const CircuitsOfOthers = Context.Reference<SharedCircuits | undefined>("troupe/services/health/SharedCircuits", {
  defaultValue: () => undefined
})

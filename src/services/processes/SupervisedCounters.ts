/**
 * The counters of limits and budgets of a service of several processes, as one process reaches them: the supervisor has them.
 *
 * **Details**
 *
 * The channel keeps the order of messages, and the supervisor answers each question at once. So answers need no name: the
 * first is that of the oldest question.
 */
import { Effect } from "effect"
import type { Counters, Hold, Outcome, Spend } from "../admission/Counters.ts"
import type { ToProcess, ToSupervisor } from "./ProcessGroup.ts"

type Answer = Extract<ToProcess, { readonly type: "reserved" | "settled" }>

export class SupervisedCounters implements Counters {
  readonly place = "the supervisor"
  readonly #send: (message: ToSupervisor) => void
  /** Takes the answers of questions, oldest first. */
  readonly #asked: Array<(answer: Answer) => void> = []

  constructor(send: (message: ToSupervisor) => void) {
    this.#send = send
  }

  reserve(id: string, holds: ReadonlyArray<Hold>): Effect.Effect<Outcome> {
    return this.#ask(
      { type: "reserve", id, holds },
      (answer) => (answer as Extract<Answer, { type: "reserved" }>).outcome
    )
  }

  settle(id: string, spends: ReadonlyArray<Spend>): Effect.Effect<ReadonlyArray<number>> {
    return this.#ask({ type: "settle", id, spends }, (answer) => (answer as Extract<Answer, { type: "settled" }>).spent)
  }

  /** An answer without a caller that still waits is dropped. */
  #ask<A>(message: ToSupervisor, read: (answer: Answer) => A): Effect.Effect<A> {
    return Effect.callback((resume) => {
      this.#asked.push((answer) => resume(Effect.succeed(read(answer))))
      this.#send(message)
    })
  }

  receive(message: ToProcess): void {
    if (message.type === "reserved" || message.type === "settled") this.#asked.shift()?.(message)
  }
}

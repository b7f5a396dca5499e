/** The answer of a local engine for a receiver: a job's events as they arrive. */
import type { SendCommand } from "../../domain/EngineProtocol.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { EngineFailure, JobEvent } from "../../domain/Job.ts"
import { isTerminal } from "../../domain/Job.ts"
import type { StreamLimits } from "../../domain/StreamLimits.ts"
import type { EventReceiver, StartedAnswer } from "../../services/engines/Engine.ts"
import { TokenGrants } from "./TokenGrants.ts"

const stopped: EngineFailure = { kind: "stopped" }
const unexpectedResult: EngineFailure = { kind: "failed", message: "The engine returned a result of another kind." }

/** The failure of a job that ends without its result. */
export const failureOf = (event: JobEvent): EngineFailure => {
  if (event.type === "failed") return event.failure
  // This consumer did not cancel the job, or it would not read the result.
  return event.type === "cancelled" ? stopped : unexpectedResult
}

/** The event for the consumer; undefined if it does not belong to the answer. */
export const contentOf = (event: JobEvent): Event | undefined => {
  switch (event.type) {
    case "tokens": {
      const { count, logprobs, text } = event
      return { type: "text", text, tokens: count, ...(logprobs === undefined ? {} : { logprobs }) }
    }
    case "thoughts":
      return { type: "thoughts", text: event.text, tokens: event.count }
    case "tool_call": {
      const { count, ...call } = event
      return { ...call, tokens: count }
    }
    case "finished": {
      const { reason, stop, usage } = event
      return { type: "finish", reason, usage, ...(stop === undefined ? {} : { stop }) }
    }
    default:
      return undefined
  }
}

export class LocalAnswer implements StartedAnswer {
  readonly #receiver: EventReceiver
  readonly #errorOf: (failure: EngineFailure) => InferenceError
  /** Called when the engine has ended the job. */
  readonly #release: (() => void) | undefined
  /** Monotonic ms. */
  readonly #now: () => number
  /** Undefined until the job has started. */
  #send: SendCommand | undefined
  #grants: TokenGrants | undefined
  /** Events that arrived while paused. */
  #held: Array<Event> = []
  #last: JobEvent | undefined
  #isPaused = false
  #pausedAt = 0
  #isOver = false

  constructor(
    receiver: EventReceiver,
    errorOf: (failure: EngineFailure) => InferenceError,
    release: (() => void) | undefined,
    now: () => number
  ) {
    this.#receiver = receiver
    this.#errorOf = errorOf
    this.#release = release
    this.#now = now
  }

  /** The job has started; events before this are passed on later, since the caller does not expect them yet. */
  follow(send: SendCommand, limits: StreamLimits): void {
    this.#send = send
    this.#grants = new TokenGrants(send, limits)
    if (this.#held.length > 0 || this.#last !== undefined) queueMicrotask(() => this.#passOn())
  }

  onEvents(events: ReadonlyArray<JobEvent>): void {
    for (const event of events) {
      const content = contentOf(event)
      if (content !== undefined) this.#held.push(content)
      if (isTerminal(event)) this.#last = event
    }
    if (this.#last !== undefined) this.#release?.()
    if (this.#send !== undefined) this.#passOn()
  }

  pause(): void {
    if (!this.#isPaused) this.#pausedAt = this.#now()
    this.#isPaused = true
  }

  resume(): void {
    if (this.#isPaused) this.#grants?.waited(this.#now() - this.#pausedAt)
    this.#isPaused = false
    this.#passOn()
  }

  close(): void {
    this.#isOver = true
    this.#held = []
    if (this.#last === undefined) this.#send?.({ type: "cancel" })
  }

  /** A defect must not reach the host, which serves other jobs. */
  #passOn(): void {
    if (this.#isOver || this.#isPaused) return
    try {
      this.#passEvents()
      if (this.#isOver || this.#isPaused) return
      if (this.#last === undefined) this.#grants!.send()
      else this.#end(this.#last)
    } catch (defect) {
      this.close()
      this.#receiver.died(defect)
    }
  }

  #passEvents(): void {
    if (this.#held.length === 0) return
    const events = this.#held
    this.#held = []
    this.#receiver.events(events)
    this.#grants!.take(events)
  }

  #end(last: JobEvent): void {
    this.#isOver = true
    if (last.type === "finished") this.#receiver.end()
    else this.#receiver.failed(this.#errorOf(failureOf(last)))
  }
}

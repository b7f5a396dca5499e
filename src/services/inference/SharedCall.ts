/** A call whose answer every request for the same gets, and the requests that follow it. */
import { Cause, Context, Effect, Exit, Fiber, Option } from "effect"
import type { CacheUse } from "../../domain/CacheControl.ts"
import type { AnsweredBy } from "../../domain/Inference.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import type { Ticket } from "../admission/Admission.ts"
import { free, TicketReceiver } from "../admission/Admission.ts"
import type { Ending, Reader } from "../cache/Flight.ts"
import { Flight } from "../cache/Flight.ts"
import type { Passenger } from "../cache/FlightReaders.ts"
import type { Found } from "../cache/ResponseCache.ts"
import type { RequestState } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"
import type { Asked } from "./SimilarQuestions.ts"

/** The work of a shared call, and the callbacks of its ends. */
export interface CallActions {
  /** The work: it gives the events to the call's flight. */
  readonly run: (call: SharedCall) => Effect.Effect<void, InferenceError>
  /** No more requests may join: the call has ended, all have left, or its answer is too large. */
  readonly closed: (call: SharedCall) => void
  readonly ended: (ending: Ending) => void
}

/** A call on a fiber of its own. */
export class SharedCall {
  readonly flight: Flight
  /** When it began, ms since 1970. */
  readonly at: number
  /** The answer of the store, where it has one: nothing is called then. */
  found: Found | undefined
  /** What was asked, where similar requests share answers. */
  asked: Asked | undefined
  readonly #actions: CallActions
  #fiber: Fiber.Fiber<void, InferenceError> | undefined
  /** The reader whose request the call is made for. */
  #first: Reader | undefined
  /** What that request was admitted with. */
  #ticket: Ticket | undefined
  #hasFirstLeft = false

  constructor(at: number, actions: CallActions) {
    this.at = at
    this.#actions = actions
    this.flight = new Flight(() => actions.closed(this))
  }

  /**
   * Begins to give the answer to a reader. The first one starts the call.
   *
   * @param context of the request
   */
  follow(reader: Reader, context: Context.Context<never>): void {
    this.flight.join(reader)
    if (this.#fiber !== undefined) return
    this.#first = reader
    this.#start(context)
  }

  /** Ends the call if no other reader is left. */
  leave(reader: Reader): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.flight.leave(reader)
      if (reader === this.#first) this.#leaveFirst()
      if (this.flight.readers > 0 || this.flight.ending !== undefined || this.#fiber === undefined) return Effect.void
      this.#actions.closed(this)
      return Fiber.interrupt(this.#fiber)
    })
  }

  #leaveFirst(): void {
    this.#hasFirstLeft = true
    this.#ticket?.leave()
  }

  #admitted(ticket: Ticket): void {
    this.#ticket = ticket
    if (this.#hasFirstLeft) ticket.leave()
  }

  #start(context: Context.Context<never>): void {
    const own = Context.add(context, TicketReceiver, (ticket: Ticket) => this.#admitted(ticket))
    this.#fiber = Effect.runForkWith(own)(Effect.suspend(() => this.#actions.run(this)))
    this.#fiber.addObserver((ending) => {
      this.#actions.closed(this)
      this.#actions.ended(ending)
      this.flight.end(ending)
    })
  }
}

/** The failure of a shared call as that of one of its requests. */
const ownCause = (cause: Cause.Cause<InferenceError>, { record }: RequestState): Cause.Cause<InferenceError> => {
  const error = Cause.findErrorOption(cause)
  if (Option.isNone(error)) return cause
  const { attempts, reason, started } = error.value
  return Cause.fail(
    new InferenceError({
      reason,
      decision: record.id,
      ...(attempts === undefined ? {} : { attempts }),
      ...(started === undefined ? {} : { started })
    })
  )
}

/** An answer that no deployment generates for the request. */
export const answeredFrom = (deployment: string, { record, ticket }: RequestState, cache: CacheUse): AnsweredBy => ({
  deployment,
  attempts: 0,
  decision: record.id,
  cache,
  ...(ticket === free ? {} : { admitted: ticket })
})

/** A request that follows a call. */
export class Follower implements Passenger {
  /** How the cache takes part. */
  use: CacheUse
  /** Of a request that the call is not counted for; undefined for the first one, unless the store has the answer. */
  state: RequestState | undefined
  readonly #flight: Flight

  constructor(flight: Flight, use: CacheUse, state?: RequestState) {
    this.#flight = flight
    this.use = use
    this.state = state
  }

  answeredBy(): AnsweredBy {
    const by = this.#flight.by!
    return this.state === undefined
      ? { ...by, cache: this.use }
      : answeredFrom(by.deployment, this.state, this.use)
  }

  endOf(ending: Ending): Ending {
    const { state } = this
    if (state === undefined) return ending
    if (Exit.isSuccess(ending)) {
      RequestTelemetry.recordReplay(state, this.#flight.by!.deployment, this.#flight.last!)
      return ending
    }
    state.failure = ownCause(ending.cause, state)
    return Exit.failCause(state.failure)
  }
}

/** Engines whose `generate` is implemented over `Engine.start`, so that the same tests cover both. */
import type { Pull } from "effect"
import { Cause, Effect, Layer, Scope, Stream } from "effect"
import { HopCount } from "../../src/domain/Caller.ts"
import type { Event } from "../../src/domain/Inference.ts"
import type { InferenceError } from "../../src/domain/InferenceError.ts"
import type { Engine, EventReceiver, StartedAnswer } from "../../src/services/engines/Engine.ts"
import { Engines } from "../../src/services/engines/Engine.ts"

type Events = Stream.Stream<Event, InferenceError>

/** Receives an answer for a reader. It pauses the answer while the reader does not read. */
class Inbox {
  answer: StartedAnswer | undefined
  #events: Array<Event> = []
  #end: Pull.Pull<never, InferenceError> | undefined
  #rest: Events = Stream.empty
  #isClosed = false
  #wake: (() => void) | undefined

  /** Reads what has arrived; waits if there is nothing. */
  readonly pull: Pull.Pull<readonly [Event, ...Array<Event>], InferenceError> = Effect.suspend(() => {
    const [first, ...others] = this.#events
    if (first !== undefined) {
      this.#events = []
      return Effect.succeed([first, ...others])
    }
    return this.#end ?? Effect.callback((resume) => {
      this.#wake = () => resume(this.pull)
      this.answer!.resume()
    })
  })

  get rest(): Events {
    return Stream.suspend(() => this.#rest)
  }

  #check(): void {
    if (this.answer === undefined) throw new Error("The receiver was called before `start` had returned.")
    if (this.#isClosed) throw new Error("The receiver was called after `close`.")
    if (this.#end !== undefined) throw new Error("The receiver was called after the end of the answer.")
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  #finish(end: Pull.Pull<never, InferenceError>): void {
    this.#check()
    this.#end = end
    this.#notify()
  }

  events(events: ReadonlyArray<Event>): void {
    this.#check()
    this.#events.push(...events)
    if (this.#wake === undefined) this.answer!.pause()
    else this.#notify()
  }

  end(): void {
    this.#finish(Cause.done())
  }

  failed(error: InferenceError): void {
    this.#finish(Effect.fail(error))
  }

  died(defect: unknown): void {
    this.#finish(Effect.die(defect))
  }

  restIs(rest: Events): void {
    this.#rest = rest
    this.#finish(Cause.done())
  }

  close(): void {
    this.answer!.close()
    this.#isClosed = true
  }
}

const receiverOf = (inbox: Inbox): EventReceiver => ({
  events: (events) => inbox.events(events),
  end: () => inbox.end(),
  failed: (error) => inbox.failed(error),
  died: (defect) => inbox.died(defect),
  rest: (events) => inbox.restIs(events)
})

/** The engine with `generate` over its `start`, where that is possible. */
export const startedEngine = (engine: Engine): Engine => ({
  ...engine,
  generate: (generation, retain) =>
    Stream.unwrap(Effect.gen(function*() {
      const inbox = new Inbox()
      const hops = yield* HopCount
      const answer = engine.start!(generation, hops, receiverOf(inbox))
      if (answer === undefined) return engine.generate(generation, retain)
      inbox.answer = answer
      const release = retain?.()
      yield* Scope.addFinalizer(
        yield* Effect.scope,
        Effect.sync(() => {
          inbox.close()
          release?.()
        })
      )
      return Stream.concat(Stream.fromPull(Effect.succeed(inbox.pull)), inbox.rest)
    }))
})

/** The engines of a layer, each with `generate` over its `start`. */
export const layerStarted = (engines: Layer.Layer<Engines>): Layer.Layer<Engines> =>
  Layer.effect(
    Engines,
    Effect.map(Engines, ({ start }) =>
      Engines.of({ start: (deployment) => Effect.map(start(deployment), startedEngine) }))
  ).pipe(Layer.provide(engines))

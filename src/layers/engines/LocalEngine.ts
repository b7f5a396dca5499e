/**
 * The Engine seam over a host: slots, streams and cancellation.
 *
 * **Details**
 *
 * A job waits for a slot here, not in the pool, so that a caller who leaves gives up his place at once. A slot goes
 * back when the engine has let go of the job, which may be a token after its caller has left.
 */
import { Cause, Effect, Exit, Queue, Scope, Semaphore, Stream } from "effect"
import type { Engine, Generation } from "../../services/Engine.ts"
import type {
  EngineDescription,
  EngineFailure,
  EngineHost,
  JobEvent,
  SendCommand
} from "../../services/EngineProtocol.ts"
import type { Event } from "../../services/Inference.ts"
import type { InferenceError } from "../../services/InferenceError.ts"
import * as Policies from "../../services/Policies.ts"

type ErrorOf = (failure: EngineFailure) => InferenceError

const stopped: EngineFailure = { kind: "stopped" }

/** A count of slots, who has them and who waits. */
const makeSlots = (count: number) => {
  const semaphore = Semaphore.makeUnsafe(count)
  const load = { running: 0, queued: 0 }
  const queued = Effect.acquireRelease(
    Effect.sync(() => load.queued++),
    () => Effect.sync(() => load.queued--)
  )
  return {
    load,
    /** Waits for a slot, which is held until `slot` closes; counted as queued until `waiting` does. */
    take: (slot: Scope.Scope, waiting: Scope.Scope) =>
      Effect.andThen(Scope.provide(queued, waiting), Scope.provide(semaphore.takeScoped(1), slot))
  }
}

/** Puts a job's events into a queue, and tells when the last one has come. */
const listener =
  (queue: Queue.Queue<Event, InferenceError | Cause.Done>, errorOf: ErrorOf, onLast: () => void) =>
  (event: JobEvent): void => {
    if (event.type === "tokens") {
      Queue.offerUnsafe(queue, { type: "text", text: event.text, tokens: event.count })
      return
    }
    onLast()
    switch (event.type) {
      case "finished":
        Queue.offerUnsafe(queue, { type: "finish", reason: event.reason, usage: event.usage })
        Queue.endUnsafe(queue)
        break
      case "failed":
        Queue.failCauseUnsafe(queue, Cause.fail(errorOf(event.failure)))
        break
      case "cancelled":
        // Not by this consumer, who would not be here to hear it.
        Queue.failCauseUnsafe(queue, Cause.fail(errorOf(stopped)))
    }
  }

/** Tells the engine, once for many tokens, that the consumer has taken them. */
const granting = (send: SendCommand) => {
  let taken = 0
  return <Events extends ReadonlyArray<Event>>(events: Events): Events => {
    for (const event of events) if (event.type === "text") taken += event.tokens
    if (taken >= Policies.streamGrant) {
      send({ type: "grant", tokens: taken })
      taken = 0
    }
    return events
  }
}

/**
 * An engine over a host that is ready.
 *
 * @param slots jobs that may run at once, over all threads of the host
 */
export const make = (
  host: EngineHost,
  description: EngineDescription,
  slotCount: number,
  errorOf: ErrorOf
): Engine => {
  const slots = makeSlots(slotCount)

  /** Starts the job; the scope's end cancels it, and its last event gives the slot back. */
  const start = Effect.fnUntraced(function*(generation: Generation, slot: Scope.Closeable) {
    const queue = yield* Queue.unbounded<Event, InferenceError | Cause.Done>()
    slots.load.running++
    let live = true
    const onEvent = listener(queue, errorOf, () => {
      live = false
      slots.load.running--
      Effect.runFork(Scope.close(slot, Exit.void))
    })
    const send = host.start({ ...generation, window: Policies.streamWindow }, (events) => events.forEach(onEvent))
    const cancel = Effect.sync(() => {
      if (live) send({ type: "cancel" })
    })
    // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
    yield* Scope.addFinalizer(yield* Effect.scope, cancel)
    return { queue, send }
  })

  // The slot has a scope of its own, since the engine may hold it longer than its caller stays; and no interruption
  // may come between the slot and the job, as the slot would be lost.
  const begin = (generation: Generation) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const slot = Scope.makeUnsafe()
        const waiting = Scope.makeUnsafe()
        yield* restore(slots.take(slot, waiting)).pipe(
          Effect.ensuring(Scope.close(waiting, Exit.void)),
          Effect.onInterrupt(() => Scope.close(slot, Exit.void))
        )
        return yield* start(generation, slot)
      })
    )

  return {
    describe: description,
    load: Effect.sync(() => ({ ...slots.load, memoryBytes: host.memoryBytes() })),
    generate: (generation) =>
      Stream.unwrap(
        Effect.map(begin(generation), ({ queue, send }) => Stream.mapArray(Stream.fromQueue(queue), granting(send)))
      ),
    stop: Effect.promise(() => host.close()),
    crashed: Effect.flatMap(Effect.promise(() => host.exited), (failure) => Effect.fail(errorOf(failure)))
  }
}

/** Reads a provider's answer as events, and checks that it is complete. */
import type { Pull } from "effect"
import { Cause, Effect, Result, Stream } from "effect"
import { empty, malformed, readable } from "../../dialects/shared/ErrorMapping.ts"
import * as FrameDecoder from "../../dialects/shared/FrameDecoder.ts"
import { makePrefixStopMatcher } from "../../dialects/shared/PrefixStopMatcher.ts"
import type { DecodeResult, Dialect, Frame, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Policies from "../../domain/Defaults.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason } from "../../domain/Job.ts"
import type { HttpExchange } from "./HttpExchange.ts"
import type { ResponseBody } from "./ResponseBody.ts"

/** Reads the bytes of an answer up to its finish. */
export interface EventReader {
  readonly push: (bytes: Uint8Array) => void
  readonly end: () => void
  /** Whether the finish has come. */
  readonly isOver: () => boolean
  /** Whether reasoning has come. */
  readonly hasThoughts: () => boolean
  /** The events since the last call, and the failure after them. */
  readonly take: () => { readonly events: ReadonlyArray<Event>; readonly failure: InferenceError.Reason | undefined }
}

/** Checks that an answer has content or reasoning, and the calls that it ends in. */
export const makeCheck = (target: Target, { assistantPrefix, stop }: Generation) => {
  let hasContent = false
  let hasCalls = false
  // A stop sequence may come first, a text so far may be all, and reasoning may use up the length.
  const mayBeEmpty = stop.length > 0 || assistantPrefix !== undefined
  const atEnd = (reason: FinishReason): InferenceError.Reason | undefined => {
    if (reason === "tool_calls" && !hasCalls) return malformed(target, "finish reason `tool_calls` without a tool call")
    return reason === "stop" && !hasContent && !mayBeEmpty ? empty(target) : undefined
  }
  return (events: ReadonlyArray<Event>): InferenceError.Reason | undefined => {
    for (const event of events) {
      const maybeCalls = event.type === "native" ? event.content : event.type === "tool_call"
      hasCalls ||= maybeCalls
      hasContent ||= maybeCalls || event.type === "text" || event.type === "thoughts"
    }
    const last = events.at(-1)
    return last?.type === "finish" ? atEnd(last.reason) : undefined
  }
}

/** Encrypted reasoning shows that the model is at work, and has no text to pass on. */
export const isEncrypted = (event: Event): boolean => event.type === "thoughts" && event.text === ""

export const makeEventReader = (dialect: Dialect, target: Target, generation: Generation): EventReader => {
  const decoder = dialect.generate.events(generation, target)
  const frameDecoder = FrameDecoder.make(dialect.framing, target.options.maxResponseBytes ?? Policies.maxResponseBytes)
  const check = makeCheck(target, generation)
  const join = makePrefixStopMatcher(generation, target.options)
  let events: Array<Event> = []
  let failure: InferenceError.Reason | undefined
  let over = false
  let hasThoughts = false

  const add = (told: DecodeResult) => {
    if (Result.isFailure(told)) {
      failure = told.failure
      return
    }
    failure = check(told.success)
    if (failure !== undefined) return
    const joined = join(told.success)
    for (const event of joined) {
      hasThoughts ||= event.type === "thoughts"
      if (!isEncrypted(event)) events.push(event)
    }
    over = joined.at(-1)?.type === "finish"
  }
  const addAll = (frames: () => ReadonlyArray<Frame>) => {
    try {
      for (const frame of frames()) {
        if (over || failure !== undefined) return
        add(readable(target, () => decoder.push(frame)))
      }
    } catch (error) {
      if (!(error instanceof FrameDecoder.Unreadable)) throw error
      failure = malformed(target, error.message)
    }
  }
  return {
    push: (bytes) => addAll(() => frameDecoder.push(bytes)),
    end: () => {
      addAll(() => frameDecoder.end())
      if (!over && failure === undefined) add(decoder.end())
    },
    isOver: () => over,
    hasThoughts: () => hasThoughts,
    take: () => {
      const taken = { events, failure }
      events = []
      return taken
    }
  }
}

type EventPull = Pull.Pull<readonly [Event, ...Array<Event>], InferenceError.InferenceError>

/** The events of a streamed body. A failure comes after the events before it. */
export const eventsOf = (
  { clean, isOver, note, pull, watch }: ResponseBody & Pick<HttpExchange, "clean">,
  reader: EventReader
): Stream.Stream<Event, InferenceError.InferenceError> => {
  let failure: InferenceError.Reason | undefined
  const settle = (): EventPull => {
    const taken = reader.take()
    failure = taken.failure
    const [first, ...others] = taken.events
    if (first !== undefined || reader.hasThoughts()) watch.content()
    if (first === undefined) return next
    return Effect.succeed([first, ...others])
  }
  /** Reads the rest of a body whose answer is complete, so that its connection can be reused. */
  const drain = Effect.forever(pull).pipe(
    Effect.timeout(Policies.drainWait),
    Effect.ignore,
    Effect.andThen(Cause.done())
  )
  const next: EventPull = Effect.suspend(() => {
    if (failure !== undefined) return Effect.andThen(note(failure), InferenceError.make(clean(failure)))
    if (reader.isOver()) return isOver() ? Cause.done() : drain
    return Effect.matchEffect(pull, {
      onSuccess: (bytes) => {
        reader.push(bytes)
        return settle()
      },
      onFailure: (error) => {
        if (!Cause.isDone(error)) return Effect.fail(error)
        reader.end()
        return settle()
      }
    })
  })
  return Stream.fromPull(Effect.succeed(next))
}

/** An answer as a pull of its events: how those of an attempt are read, and passed on to a sink. */
import type { Scope } from "effect"
import { Cause, Channel, Deferred, Effect, Pull, Stream } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { AnswerSink, Event, OpenedAnswer } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, make } from "../../domain/InferenceError.ts"
import * as SignedReasoning from "../../domain/SignedReasoning.ts"
import * as Time from "../../domain/Time.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import type { Start } from "../resilience/AttemptPlan.ts"
import * as Deadlines from "../resilience/Deadlines.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import { within } from "./AttemptScope.ts"
import type { AnswerBuilder } from "./DirectAnswer.ts"
import { answeredByOf } from "./Pipeline.ts"
import type { AttemptStats, RequestState, RoutedRequest } from "./RequestTelemetry.ts"
import { count } from "./RequestTelemetry.ts"
import type { EventsPull } from "./StreamFailover.ts"
import * as StreamFailover from "./StreamFailover.ts"

/** A stream that ends without `finish` is not an answer. */
const brokeOff = ({ id }: Deployment): EventsPull =>
  Effect.fail(make(new EngineFailed({ deployment: id, detail: "Its answer broke off." }))) as EventsPull

/** The end of a pull. A defect after a complete answer, as when the engine's resources are released, is logged only. */
export const endOf = (
  { deployment, stats: { done } }: Pick<AttemptContext, "deployment" | "stats">,
  cause: Cause.Cause<InferenceError | Cause.Done>
): EventsPull => {
  if (Pull.isDoneCause(cause)) return done ? Cause.done() : brokeOff(deployment)
  const isDefect = !isCancellation(cause) && Cause.findErrorOption(cause)._tag === "None"
  return done && isDefect
    ? Effect.andThen(
      Effect.logError(`The engine of "${deployment.id}" ended in a defect after a complete answer.`, cause),
      Cause.done()
    )
    : Effect.failCause(cause)
}

/** The rest of an answer that has begun. */
export type Rest = Stream.Stream<Event, InferenceError>

/** The engine's events, counted and within the time limits; they must end in a `finish`. */
const pullOf = Effect.fnUntraced(
  function*(
    context: AttemptContext,
    generation: Generation,
    rest: Rest | undefined
  ) {
    const { content, deadlines, lease, stats } = context
    const given = context.loss === undefined ? generation : SignedReasoning.withoutIt(generation, context.loss)
    const stream = rest ?? (yield* lease).generate(given, undefined, stats)
    // Not `Stream.toPull`, which synchronizes concurrent pulls.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(stream), yield* Effect.scope)
    const events = Effect.map(pull, (events) => {
      // A buffered answer does not show when its first token was generated.
      if (generation.buffered !== true || events.at(-1)?.type !== "finish") content()
      return count(stats, events)
    })
    const ended: EventsPull = Effect.catchCause(events, (cause) => endOf(context, cause))
    return { first: within(deadlines.first, ended), next: within(deadlines.next, ended) }
  }
)

/** The first pull, and then the others. */
const inTurn = (first: EventsPull, next: EventsPull): EventsPull => {
  let pull = first
  return Effect.suspend(() => {
    const current = pull
    pull = next
    return current
  })
}

/** The events that follow what was sent; fails if the text does not. */
const following = (
  pull: EventsPull,
  join: StreamFailover.Join | undefined,
  { deployment }: AttemptContext
): EventsPull => {
  if (join === undefined) return pull
  const followed: EventsPull = Effect.flatMap(pull, (events) => {
    const [first, ...others] = join.follow(events)
    if (join.hasDiverged) return Effect.fail(StreamFailover.diverged(deployment)) as EventsPull
    return first === undefined ? followed : Effect.succeed([first, ...others])
  })
  return followed
}

/** Keeps the cause of an answer that breaks off. */
export const recordFailure = <A, E extends InferenceError | Cause.Done>(
  stats: AttemptStats,
  state: RequestState,
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.tapCause(effect, (cause) =>
    Effect.sync(() => {
      if (Pull.isDoneCause(cause)) return
      stats.failure = cause as Cause.Cause<InferenceError>
      state.failure = stats.failure
    }))

/** Whether an attempt gets the request's generation as it is. */
const isUnchanged = ({ assistantPrefix, caller, maxTokens }: Generation, start: Start): boolean =>
  assistantPrefix === undefined && start.maxTokens === maxTokens &&
  (!start.lowPriority || caller?.priority === "low")

/** The generation of an attempt, and how its events follow what was sent; undefined: unchanged. */
const forAttempt = (
  generation: Generation,
  { deployment, start }: AttemptContext,
  sent?: StreamFailover.SentAnswer
) =>
  sent === undefined && isUnchanged(generation, start)
    ? [generation, undefined] as const
    : StreamFailover.next(generation, start, deployment, sent)

/** Waits for the first events of an attempt. */
export const firstEvents =
  (generation: Generation, state: RequestState, sent?: StreamFailover.SentAnswer, rest?: Rest) =>
  (context: AttemptContext) => {
    const { deadlines, stats } = context
    const [attempt, join] = forAttempt(generation, context, sent)
    return Effect.flatMap(pullOf(context, attempt, rest), ({ first, next }) => {
      const pull = following(inTurn(first, next), join, context)
      // A stream that ends without an event has failed.
      return Effect.map(
        Pull.catchDone(pull, () => Effect.never),
        (events) => inTurn(Effect.succeed(events), recordFailure(stats, state, within(deadlines.total, pull)))
      )
    })
  }

/** Reads an attempt's answer to its end. */
export const allEvents =
  (generation: Generation, makeAnswer: () => AnswerBuilder, rest?: Rest) => (context: AttemptContext) =>
    Effect.gen(function*() {
      const answer = makeAnswer()
      const [attempt, join] = forAttempt(generation, context)
      const { first, next } = yield* pullOf(context, attempt, rest)
      const pull = following(inTurn(first, next), join, context)
      const drained = Effect.whileLoop({
        while: () => true,
        body: () => pull,
        step: (events) => {
          for (const event of events) answer.add(event)
        }
      })
      yield* Pull.catchDone(drained, () => Effect.void)
      return answer.end()
    })

/** Waits for the sink until the end of the request. Subscribes at once: it may be drained before the effect runs. */
const untilDrained = (
  sink: AnswerSink,
  routed: RoutedRequest | undefined,
  deployment: string
): Effect.Effect<void, InferenceError> => {
  const drained = Deferred.makeUnsafe<void>()
  sink.whenDrained(() => Deferred.doneUnsafe(drained, Effect.void))
  if (routed === undefined) return Deferred.await(drained)
  const { route: { policy: { timeouts } }, state } = routed
  const { totalMs } = timeouts
  if (totalMs === undefined) return Deferred.await(drained)
  return Effect.flatMap(Time.now, (now) => {
    const deadline = Math.floor(state.attemptedAt ?? state.arrivedAt) + totalMs
    const { total } = Deadlines.make(deployment, timeouts, { deadline, now: () => now })
    return recordFailure(state.stats, state, within(total, Deferred.await(drained)))
  })
}

/** Passes events on to a sink, until the pull is done. */
const passOn = (
  sink: AnswerSink,
  routed: RoutedRequest | undefined,
  deployment: string,
  pull: EventsPull
): Effect.Effect<void, InferenceError> => {
  const rest: Effect.Effect<never, Effect.Error<EventsPull>> = Effect.flatMap(
    pull,
    (events) => sink.events(events) ? rest : Effect.andThen(untilDrained(sink, routed, deployment), rest)
  )
  return Pull.catchDone(rest, () => Effect.void)
}

export const deliverWinner = (sink: AnswerSink, routed: RoutedRequest) => (winner: WinningAttempt<EventsPull>) => {
  sink.begin(answeredByOf(winner))
  return passOn(sink, routed, winner.deployment, winner.value)
}

/** Passes on the rest of an answer that has begun. */
export const passOnRest = (
  sink: AnswerSink,
  generation: Generation,
  context: AttemptContext,
  routed: RoutedRequest,
  rest: Rest
): Effect.Effect<void, InferenceError> =>
  Effect.scoped(Effect.flatMap(
    pullOf(context, generation, rest),
    ({ first, next }) => {
      const { deadlines, deployment, stats } = context
      const pull = recordFailure(stats, routed.state, within(deadlines.total, inTurn(first, next)))
      return passOn(sink, routed, deployment.id, pull)
    }
  ))

/**
 * Passes an opened answer on to a sink.
 *
 * @param routed its policy limits the time of a slow sink; left out, nothing does
 */
export const deliverOpened = (
  sink: AnswerSink,
  opened: Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>,
  routed?: RoutedRequest
): Effect.Effect<void, InferenceError> =>
  Effect.scoped(Effect.gen(function*() {
    const { events, ...by } = yield* opened
    // Not `Stream.toPull`, which synchronizes concurrent pulls.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(events), yield* Effect.scope)
    sink.begin(by)
    yield* passOn(sink, routed, by.deployment, pull)
  }))

/** Chat completions, streamed and buffered. */
import type { Scope } from "effect"
import { Cause, Channel, Deferred, Effect, Pull, Stream } from "effect"
import { HopCount } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Answer, AnswerSink, Event, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, make } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, ToolCall } from "../../domain/Job.ts"
import * as Message from "../../domain/Message.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import { pathsOf, promptLengthOf, requiredByChat } from "../../domain/RoutingRequest.ts"
import type { Native } from "../../domain/Source.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import type { Start } from "../resilience/AttemptPlan.ts"
import type { AttemptContext } from "./AttemptScope.ts"
import { within } from "./AttemptScope.ts"
import type { Direct, Pipeline } from "./Pipeline.ts"
import { answeredByOf, isChecked, validated } from "./Pipeline.ts"
import type { AttemptStats, RequestState, RoutedRequest } from "./RequestTelemetry.ts"
import type { EventsPull } from "./StreamFailover.ts"
import * as StreamFailover from "./StreamFailover.ts"
import * as Validation from "./Validation.ts"

type CallEvent = Extract<Event, { type: "tool_call" }>
type FinishEvent = Extract<Event, { type: "finish" }>

/** Empty if the caller sets none of the fields. */
const callerOf = ({ keepAlive, priority, tenant }: Request): Pick<Generation, "caller"> =>
  keepAlive === undefined && priority === undefined && tenant === undefined
    ? {}
    : { caller: { keepAlive, priority, tenant } }

/** The request without its routing, for an engine. */
const generationOf = (request: Request): Generation => {
  const { keepAlive: _, model: __, priority: ___, route: ____, tenant: _____, ...fields } = request
  const {
    assistantPrefix,
    format,
    logprobs,
    maxTokens,
    messages,
    parallelToolCalls,
    source,
    stop = [],
    toolChoice,
    tools,
    ...sampling
  } = fields
  return {
    messages,
    maxTokens,
    stop,
    sampling,
    ...(assistantPrefix === undefined ? {} : { assistantPrefix }),
    ...(tools === undefined ? {} : { tools, toolChoice }),
    ...(parallelToolCalls === undefined ? {} : { parallelToolCalls }),
    ...(format === undefined ? {} : { format }),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(source === undefined ? {} : { source }),
    ...callerOf(request)
  }
}

/** Span attributes of OpenTelemetry's GenAI conventions. */
const chatAttributes = (request: Request): Record<string, unknown> => ({
  "gen_ai.request.max_tokens": request.maxTokens,
  "gen_ai.request.temperature": request.temperature,
  "gen_ai.request.top_p": request.topP,
  "gen_ai.request.top_k": request.topK,
  "gen_ai.request.presence_penalty": request.presencePenalty,
  "gen_ai.request.frequency_penalty": request.frequencyPenalty,
  "gen_ai.request.seed": request.seed,
  "gen_ai.request.stop_sequences": request.stop,
  "gen_ai.output.type": request.format === undefined ? undefined : "json"
})

/** Counts the tokens of events in the attempt's statistics. */
const count = (stats: AttemptStats) => <Events extends ReadonlyArray<Event>>(events: Events): Events => {
  for (const event of events) {
    if (event.type === "finish") {
      stats.finish = event
      stats.done = true
      stats.tokens = event.usage.completionTokens
      stats.promptTokens = event.usage.promptTokens
    } else if (event.type !== "handoff") {
      stats.tokens += event.tokens
    }
  }
  return events
}

/** A call with the next piece of its arguments. */
const callWith = (known: ToolCall | undefined, { arguments: piece, id = "", name = "" }: CallEvent): ToolCall => ({
  ...known ?? { id, name },
  arguments: (known?.arguments ?? "") + piece
})

/** Builds a complete answer from its events. */
const makeAnswer = () => {
  let text = ""
  let thoughts = ""
  let finish: FinishEvent | undefined
  const logprobs: Array<ChosenLogprob> = []
  const toolCalls: Array<ToolCall> = []
  const native: Array<Native> = []
  return {
    add(event: Event) {
      switch (event.type) {
        case "native":
          native.push(event.native)
          return
        case "text":
          text += event.text
          if (event.logprobs !== undefined) logprobs.push(...event.logprobs)
          return
        case "thoughts":
          thoughts += event.text
          return
        case "tool_call":
          toolCalls[event.index] = callWith(toolCalls[event.index], event)
          return
        case "finish":
          finish = event
          if (event.native !== undefined) native.push(event.native)
      }
    },
    end() {
      const { reason, stop, usage } = finish!
      return {
        text,
        ...(thoughts === "" ? {} : { thoughts }),
        toolCalls,
        finishReason: reason,
        usage,
        ...(logprobs.length === 0 ? {} : { logprobs }),
        ...(stop === undefined ? {} : { stop }),
        ...(native.length === 0 ? {} : { native })
      }
    }
  }
}

/** A stream that ends without `finish` is not an answer. */
const brokeOff = ({ id }: Deployment): EventsPull =>
  Effect.fail(make(new EngineFailed({ deployment: id, detail: "Its answer broke off." }))) as EventsPull

/** The end of a pull. A defect after a complete answer, as when the engine's resources are released, is logged only. */
const endOf = (
  { deployment, stats: { done } }: AttemptContext,
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
type Rest = Stream.Stream<Event, InferenceError>

/** The engine's events, counted and within the time limits; they must end in a `finish`. */
const pullOf = Effect.fnUntraced(
  function*(
    context: AttemptContext,
    generation: Generation,
    join: StreamFailover.Join | undefined,
    rest: Rest | undefined
  ) {
    const { content, deadlines, lease, stats } = context
    const stream = rest ?? (yield* lease).generate(generation)
    // Not `Stream.toPull`, which synchronizes concurrent pulls.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(stream), yield* Effect.scope)
    const counted = count(stats)
    const events = Effect.map(pull, (events) => {
      // A buffered answer does not show when its first token was generated.
      if (generation.buffered !== true || events.at(-1)?.type !== "finish") content()
      return counted(join === undefined ? events : join(events))
    })
    const ended: EventsPull = Effect.catchCause(events, (cause) => endOf(context, cause))
    return { first: within(deadlines.first, ended), next: within(deadlines.next, ended) }
  }
)

/** Keeps the cause of an answer that breaks off. */
const recordFailure = (stats: AttemptStats, state: RequestState, pull: EventsPull): EventsPull =>
  Effect.tapCause(pull, (cause) =>
    Effect.sync(() => {
      if (Pull.isDoneCause(cause)) return
      stats.failure = cause as Cause.Cause<InferenceError>
      state.failure = stats.failure
    }))

/** The prompt as one text that begins as the engine's prompt does: with the tools. */
const textOf = ({ messages, tools = [] }: Request): string => JSON.stringify([tools, messages])

const lengthOf = ({ messages }: Request): number =>
  messages.reduce(
    (sum, { content }) => sum + promptLengthOf(typeof content === "string" ? content : Message.textOf(content)),
    0
  )

/** What the router needs to know of a request. */
const routingOf = (request: Request): RoutingRequest => ({
  ...request,
  capabilities: requiredByChat(request),
  pathsOf: (need: string) => pathsOf(request, need),
  promptLength: lengthOf(request),
  promptText: () => textOf(request)
})

/** Validates and routes a request. */
const route = Effect.fnUntraced(function*({ begin }: Pipeline, input: Request) {
  const request = yield* validated(input, Validation.chat)
  return yield* begin("chat", request, routingOf(request), () => chatAttributes(request))
})

/** A pull of events that were pulled already, and then of the rest. */
const startingWith = (first: Effect.Success<EventsPull>, rest: EventsPull): EventsPull => {
  let isFirst = true
  return Effect.suspend(() => {
    if (!isFirst) return rest
    isFirst = false
    return Effect.succeed(first)
  })
}

/** Whether an attempt gets the request's generation as it is. */
const isUnchanged = ({ assistantPrefix, caller, maxTokens }: Generation, start: Start): boolean =>
  assistantPrefix === undefined && start.maxTokens === maxTokens &&
  (!start.lowPriority || caller?.priority === "low")

/** Whether the first attempt gets the request's generation as it is. */
const isUnchangedFirst = ({ assistantPrefix }: Generation): boolean => assistantPrefix === undefined

/** The generation of an attempt, and how its events follow what was sent; undefined: unchanged. */
const forAttempt = (generation: Generation, start: Start, sent?: StreamFailover.SentAnswer) =>
  sent === undefined && isUnchanged(generation, start)
    ? [generation, undefined] as const
    : StreamFailover.next(generation, start, sent)

/** Waits for the first events of an attempt. */
const firstEvents =
  (generation: Generation, state: RequestState, sent?: StreamFailover.SentAnswer, rest?: Rest) =>
  (context: AttemptContext) => {
    const { deadlines, start, stats } = context
    const [attempt, join] = forAttempt(generation, start, sent)
    return Effect.flatMap(pullOf(context, attempt, join, rest), ({ first, next }) =>
      // A stream that ends without an event has failed.
      Effect.map(
        Pull.catchDone(first, () => Effect.never),
        (events) => startingWith(events, recordFailure(stats, state, within(deadlines.total, next)))
      ))
  }

/** An answer whose first event has arrived. A later failure is the request's, unless another deployment continues it. */
const start = ({ execute }: Pipeline) =>
  Effect.fnUntraced(function*(routed: RoutedRequest<Request>) {
    const { request, route: { policy }, state } = routed
    const generation = generationOf(request)
    const sent = policy.continue && StreamFailover.isPossible(generation) ? StreamFailover.nothingSent() : undefined
    const winner = yield* execute(routed, firstEvents(generation, state, sent))
    const pull = sent === undefined ? winner.value : StreamFailover.continued(winner, generation, sent, state)
    return { ...answeredByOf(winner), events: Stream.fromPull(Effect.succeed(pull)) } satisfies OpenedAnswer
  })

export const open = (pipeline: Pipeline) => {
  const answer = start(pipeline)
  return (input: Request) =>
    Effect.flatMap(
      route(pipeline, input),
      (routed) => routed.route.cached ? pipeline.cached.streamed(routed, makeAnswer, answer(routed)) : answer(routed)
    )
}

export const stream = (pipeline: Pipeline) => {
  const opened = open(pipeline)
  return (request: Request): Stream.Stream<Event, InferenceError> =>
    Stream.unwrap(Effect.map(opened(request), ({ events }) => events))
}

/** Whether the policy depends on the time of the first piece of an answer, or between two. */
const dependsOnPieces = ({ hedge, timeouts: { firstTokenMs, stallMs } }: Policy): boolean =>
  hedge !== undefined || firstTokenMs !== undefined || stallMs !== undefined

/** Reads an attempt's answer to its end. */
const allEvents =
  (generation: Generation, rest?: Rest, begun?: ReturnType<typeof makeAnswer>) => (context: AttemptContext) =>
    Effect.gen(function*() {
      const answer = begun ?? makeAnswer()
      const [attempt, join] = forAttempt(generation, context.start)
      const { first, next } = yield* pullOf(context, attempt, join, rest)
      let pull = first
      const drained = Effect.whileLoop({
        while: () => true,
        body: () => pull,
        step: (events) => {
          pull = next
          for (const event of events) answer.add(event)
        }
      })
      yield* Pull.catchDone(drained, () => Effect.void)
      return answer.end()
    })

/** The generation of a buffered answer, which an engine may send in one piece if no limit depends on pieces. */
const bufferedOf = ({ request, route: { policy } }: RoutedRequest<Request>): Generation => {
  const requested = generationOf(request)
  return dependsOnPieces(policy) ? requested : { ...requested, buffered: true }
}

type Response = ReturnType<ReturnType<typeof makeAnswer>["end"]>

const answerOf = (winner: WinningAttempt<Response>): Answer => ({ ...winner.value, ...answeredByOf(winner) })

/** A buffered answer. Another deployment may take over until it is complete, since the caller has received nothing. */
const complete = ({ execute }: Pipeline) => (routed: RoutedRequest<Request>) =>
  Effect.map(execute(routed, allEvents(bufferedOf(routed))), answerOf)

/** A buffered answer from a deployment that can start at once; undefined otherwise. */
const completeDirect = (
  pipeline: Pipeline,
  routed: RoutedRequest<Request>,
  hops: number,
  resume: (answer: Effect.Effect<Answer, InferenceError>) => void
): Direct | undefined => {
  const generation = bufferedOf(routed)
  if (!isUnchangedFirst(generation)) return undefined
  const answer = makeAnswer()
  const complete = (): Effect.Effect<Answer> => {
    const by = direct!.won()
    const recorded = direct!.end()
    const completed = Effect.succeed({ ...answer.end(), ...by })
    return recorded === undefined ? completed : Effect.andThen(recorded, completed)
  }
  /** Goes on with the rest of this attempt, and with other deployments. */
  const goOn = (rest: Rest) =>
    resume(Effect.scoped(Effect.map(
      direct!.resume(allEvents(generation), allEvents(generation, rest, answer)),
      answerOf
    )))
  const direct: Direct | undefined = pipeline.direct(routed, generation, hops, {
    events: (events) => {
      const { content, stats } = direct!.context
      // A buffered answer does not show when its first token was generated.
      if (generation.buffered !== true || events.at(-1)?.type !== "finish") content()
      for (const event of count(stats)(events)) answer.add(event)
    },
    end: () => direct!.context.stats.done ? resume(complete()) : goOn(Stream.empty),
    failed: (error) => goOn(Stream.fail(error)),
    died: (defect) => goOn(Stream.die(defect)),
    rest: goOn
  })
  return direct
}

/**
 * Begins a request, and completes it however it ends.
 *
 * @param direct answers without another fiber or a scope; undefined if something has to wait
 * @param answer any request
 */
const run = <A>(
  pipeline: Pipeline,
  direct: (
    routed: RoutedRequest<Request>,
    hops: number,
    resume: (answer: Effect.Effect<A, InferenceError>) => void
  ) => Direct | undefined,
  answer: (routed: RoutedRequest<Request>) => Effect.Effect<A, InferenceError, Scope.Scope>
) =>
(request: Request): Effect.Effect<A, InferenceError> =>
  Effect.withFiber((fiber) => {
    let state: RequestState | undefined
    const answered = Effect.callback<A, InferenceError>((resume) => {
      const begun = pipeline.beginNow(fiber, "chat", request, routingOf(request), () => chatAttributes(request))
      state = begun.state
      if ("error" in begun) return resume(Effect.fail(begun.error))
      const { routed } = begun
      const started = routed.route.cached ? undefined : direct(routed, fiber.getRef(HopCount), resume)
      if (started === undefined) return resume(Effect.scoped(answer(routed)))
      return Effect.suspend(() => {
        started.answer.close()
        return started.end() ?? Effect.void
      })
    })
    return Effect.onExitPrimitive(answered, () => {
      if (state !== undefined) pipeline.complete("chat", state)
      return undefined
    })
  })

/** Subscribes at once: the sink may be drained before the effect runs. */
const untilDrained = (sink: AnswerSink): Effect.Effect<void> => {
  const drained = Deferred.makeUnsafe<void>()
  sink.whenDrained(() => Deferred.doneUnsafe(drained, Effect.void))
  return Deferred.await(drained)
}

/** Passes events on to a sink, until the pull is done. */
const passOn = (sink: AnswerSink, pull: EventsPull): Effect.Effect<void, InferenceError> => {
  const rest: Effect.Effect<never, Effect.Error<EventsPull>> = Effect.flatMap(
    pull,
    (events) => sink.events(events) ? rest : Effect.andThen(untilDrained(sink), rest)
  )
  return Pull.catchDone(rest, () => Effect.void)
}

const deliverWinner = (sink: AnswerSink) => (winner: WinningAttempt<EventsPull>) => {
  sink.begin(answeredByOf(winner))
  return passOn(sink, winner.value)
}

/** Passes on the rest of an answer that has begun. */
const passOnRest = (
  sink: AnswerSink,
  generation: Generation,
  context: AttemptContext,
  state: RequestState,
  rest: Rest
): Effect.Effect<void, InferenceError> =>
  Effect.scoped(Effect.flatMap(
    pullOf(context, generation, undefined, rest),
    ({ next }) => passOn(sink, recordFailure(context.stats, state, next))
  ))

/** Passes an opened answer on to a sink. */
export const deliverOpened = (
  sink: AnswerSink,
  opened: Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
): Effect.Effect<void, InferenceError> =>
  Effect.scoped(Effect.gen(function*() {
    const { events, ...by } = yield* opened
    // Not `Stream.toPull`, which synchronizes concurrent pulls.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(events), yield* Effect.scope)
    sink.begin(by)
    yield* passOn(sink, pull)
  }))

/** The sink of one answer that a receiver follows. */
class Delivery {
  readonly #sink: AnswerSink
  #isPaused = false
  hasBegun = false
  /** A method of the sink threw: no failure of the deployment's. */
  hasThrown = false

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  /** Pauses the answer while the reader is slow. */
  pass(events: ReadonlyArray<Event>, { answer, won }: Direct): void {
    const isFirst = !this.hasBegun
    this.hasBegun = true
    this.hasThrown = true
    if (isFirst) this.#sink.begin(won())
    if (!this.#sink.events(events) && !this.#isPaused) this.#pause(answer)
    this.hasThrown = false
  }

  #pause(answer: Direct["answer"]): void {
    this.#isPaused = true
    answer.pause()
    this.#sink.whenDrained(() => {
      this.#isPaused = false
      answer.resume()
    })
  }
}

/** A streamed answer from a deployment that can start at once; undefined otherwise. */
const deliverDirect = (
  pipeline: Pipeline,
  routed: RoutedRequest<Request>,
  sink: AnswerSink,
  hops: number,
  resume: (delivered: Effect.Effect<void, InferenceError>) => void
): Direct | undefined => {
  const { request, route: { policy }, state } = routed
  const generation = generationOf(request)
  if (!isUnchangedFirst(generation) || (policy.continue && StreamFailover.isPossible(generation))) return undefined
  const others = firstEvents(generation, state)
  const delivery = new Delivery(sink)
  const recorded = Effect.suspend(() => direct!.end() ?? Effect.void)
  /** Goes on with the rest of this attempt, and with other deployments. */
  const goOn = (rest: Rest) =>
    resume(Effect.scoped(Effect.flatMap(
      direct!.resume(others, firstEvents(generation, state, undefined, rest)),
      deliverWinner(sink)
    )))
  /** Ends the attempt, unless it can go on elsewhere. */
  const end = (ending: Effect.Effect<never, InferenceError | Cause.Done>) => {
    if (!delivery.hasBegun) return goOn(Stream.fromPull(Effect.succeed(ending)))
    const { context } = direct!
    const ended = delivery.hasThrown
      ? ending
      : recordFailure(context.stats, state, Effect.catchCause(ending, (cause) => endOf(context, cause)))
    resume(Effect.ensuring(Pull.catchDone(Effect.asVoid(ended), () => Effect.void), recorded))
  }
  const direct: Direct | undefined = pipeline.direct(routed, generation, hops, {
    events: (events) => {
      const { content, stats } = direct!.context
      content()
      count(stats)(events)
      delivery.pass(events, direct!)
    },
    end: () => direct!.context.stats.done ? resume(direct!.end() ?? Effect.void) : end(Cause.done()),
    failed: (error) => end(Effect.fail(error)),
    died: (defect) => end(Effect.die(defect)),
    rest: (events) =>
      delivery.hasBegun
        // The usage, and the end of the connection.
        ? resume(Effect.ensuring(passOnRest(sink, generation, direct!.context, state, events), recorded))
        : goOn(events)
  })
  return direct
}

export const deliver = (pipeline: Pipeline) => {
  const answer = start(pipeline)
  return (input: Request, sink: AnswerSink): Effect.Effect<void, InferenceError> => {
    const delivered = run<void>(
      pipeline,
      (routed, hops, resume) => deliverDirect(pipeline, routed, sink, hops, resume),
      (routed) =>
        deliverOpened(
          sink,
          routed.route.cached ? pipeline.cached.streamed(routed, makeAnswer, answer(routed)) : answer(routed)
        )
    )
    return isChecked(input) ? delivered(input) : Effect.flatMap(validated(input, Validation.chat), delivered)
  }
}

export const generate = (pipeline: Pipeline) => {
  const answer = complete(pipeline)
  const answered = run<Answer>(
    pipeline,
    (routed, hops, resume) => completeDirect(pipeline, routed, hops, resume),
    (routed) => routed.route.cached ? pipeline.cached.buffered(routed, answer(routed)) : answer(routed)
  )
  return (input: Request) =>
    isChecked(input) ? answered(input) : Effect.flatMap(validated(input, Validation.chat), answered)
}

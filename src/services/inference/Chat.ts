/** Chat completions, streamed and buffered. */
import type { Scope } from "effect"
import { Cause, Channel, Deferred, Effect, Pull, Stream } from "effect"
import { HopCount } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Answer, AnsweredBy, AnswerSink, Event, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, make } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, ToolCall } from "../../domain/Job.ts"
import * as Message from "../../domain/Message.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import { pathsOf, promptLengthOf, requiredByChat } from "../../domain/RoutingRequest.ts"
import type { Native } from "../../domain/Source.ts"
import type { EventReceiver } from "../engines/Engine.ts"
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

type Mutable<A> = { -readonly [K in keyof A]: A[K] }
type CallEvent = Extract<Event, { type: "tool_call" }>
type FinishEvent = Extract<Event, { type: "finish" }>

/** Undefined if the caller sets none of the fields. */
const callerOf = ({ keepAlive, priority, tenant }: Request): Generation["caller"] =>
  keepAlive === undefined && priority === undefined && tenant === undefined
    ? undefined
    : { keepAlive, priority, tenant }

/** The request without its routing, for an engine. */
const generationOf = (request: Request): Mutable<Generation> => {
  const {
    assistantPrefix,
    format,
    keepAlive: _,
    logprobs,
    maxTokens,
    messages,
    model: __,
    parallelToolCalls,
    priority: ___,
    route: ____,
    source,
    stop = [],
    tenant: _____,
    toolChoice,
    tools,
    ...sampling
  } = request
  const caller = callerOf(request)
  const generation: Mutable<Generation> = { messages, maxTokens, stop, sampling }
  if (assistantPrefix !== undefined) generation.assistantPrefix = assistantPrefix
  if (tools !== undefined) {
    generation.tools = tools
    generation.toolChoice = toolChoice
  }
  if (parallelToolCalls !== undefined) generation.parallelToolCalls = parallelToolCalls
  if (format !== undefined) generation.format = format
  if (logprobs !== undefined) generation.logprobs = logprobs
  if (source !== undefined) generation.source = source
  if (caller !== undefined) generation.caller = caller
  return generation
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
const count = <Events extends ReadonlyArray<Event>>(stats: AttemptStats, events: Events): Events => {
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

type Response = Omit<Answer, keyof AnsweredBy>

/** Builds a complete answer from its events. */
class AnswerBuilder {
  #text = ""
  #thoughts = ""
  #finish: FinishEvent | undefined
  #logprobs: Array<ChosenLogprob> | undefined
  #native: Array<Native> | undefined
  readonly #toolCalls: Array<ToolCall> = []

  add(event: Event): void {
    switch (event.type) {
      case "native":
        this.#addNative(event.native)
        return
      case "text":
        this.#text += event.text
        if (event.logprobs !== undefined) (this.#logprobs ??= []).push(...event.logprobs)
        return
      case "thoughts":
        this.#thoughts += event.text
        return
      case "tool_call":
        this.#toolCalls[event.index] = callWith(this.#toolCalls[event.index], event)
        return
      case "finish":
        this.#finish = event
        if (event.native !== undefined) this.#addNative(event.native)
    }
  }

  #addNative(native: Native): void {
    ;(this.#native ??= []).push(native)
  }

  end(): Response {
    const { reason, stop, usage } = this.#finish!
    const response: Mutable<Response> = {
      text: this.#text,
      toolCalls: this.#toolCalls,
      finishReason: reason,
      usage
    }
    if (this.#thoughts !== "") response.thoughts = this.#thoughts
    if (this.#logprobs !== undefined && this.#logprobs.length > 0) response.logprobs = this.#logprobs
    if (stop !== undefined) response.stop = stop
    if (this.#native !== undefined) response.native = this.#native
    return response
  }
}

const makeAnswer = () => new AnswerBuilder()

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
    const events = Effect.map(pull, (events) => {
      // A buffered answer does not show when its first token was generated.
      if (generation.buffered !== true || events.at(-1)?.type !== "finish") content()
      return count(stats, join === undefined ? events : join(events))
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
const allEvents = (generation: Generation, rest?: Rest, begun?: AnswerBuilder) => (context: AttemptContext) =>
  Effect.gen(function*() {
    const answer = begun ?? new AnswerBuilder()
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
  const generation = generationOf(request)
  if (!dependsOnPieces(policy)) generation.buffered = true
  return generation
}

const answerOf = (winner: WinningAttempt<Response>): Answer => ({ ...winner.value, ...answeredByOf(winner) })

/** A buffered answer. Another deployment may take over until it is complete, since the caller has received nothing. */
const complete = ({ execute }: Pipeline) => (routed: RoutedRequest<Request>) =>
  Effect.map(execute(routed, allEvents(bufferedOf(routed))), answerOf)

type Resume<A> = (answer: Effect.Effect<A, InferenceError>) => void

/** Follows the first attempt of a buffered answer. */
class Completion implements EventReceiver {
  readonly #generation: Generation
  readonly #resume: Resume<Answer>
  readonly #answer = new AnswerBuilder()
  #direct: Direct | undefined

  constructor(generation: Generation, resume: Resume<Answer>) {
    this.#generation = generation
    this.#resume = resume
  }

  follow(direct: Direct): Direct {
    this.#direct = direct
    return direct
  }

  events(events: ReadonlyArray<Event>): void {
    const { content, stats } = this.#direct!.attempt.context
    // A buffered answer does not show when its first token was generated.
    if (this.#generation.buffered !== true || events.at(-1)?.type !== "finish") content()
    for (const event of count(stats, events)) this.#answer.add(event)
  }

  end(): void {
    const { attempt } = this.#direct!
    if (!attempt.context.stats.done) return this.rest(Stream.empty)
    const completed = Effect.succeed({ ...this.#answer.end(), ...this.#direct!.won() })
    const recorded = attempt.end()
    this.#resume(recorded === undefined ? completed : Effect.andThen(recorded, completed))
  }

  failed(error: InferenceError): void {
    this.rest(Stream.fail(error))
  }

  died(defect: unknown): void {
    this.rest(Stream.die(defect))
  }

  /** Goes on with the rest of this attempt, and with other deployments. */
  rest(rest: Rest): void {
    const generation = this.#generation
    this.#resume(Effect.scoped(Effect.map(
      this.#direct!.resume(allEvents(generation), allEvents(generation, rest, this.#answer)),
      answerOf
    )))
  }
}

/** Starts the first attempt of a request at once; undefined if something has to wait. */
type StartDirect<A> = (
  pipeline: Pipeline,
  routed: RoutedRequest<Request>,
  hops: number,
  resume: Resume<A>
) => Direct | undefined

const completeDirect: StartDirect<Answer> = (pipeline, routed, hops, resume) => {
  const generation = bufferedOf(routed)
  if (!isUnchangedFirst(generation)) return undefined
  const completion = new Completion(generation, resume)
  const direct = pipeline.direct(routed, generation, hops, completion)
  return direct && completion.follow(direct)
}

/**
 * Begins a request, and completes it however it ends.
 *
 * @param direct answers without another fiber or a scope; undefined if something has to wait
 * @param answer any request
 */
const run = <A>(
  pipeline: Pipeline,
  direct: StartDirect<A>,
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
      const started = routed.route.cached ? undefined : direct(pipeline, routed, fiber.getRef(HopCount), resume)
      if (started === undefined) return resume(Effect.scoped(answer(routed)))
      return Effect.suspend(() => {
        started.attempt.answer.close()
        return started.attempt.end() ?? Effect.void
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
  pass(events: ReadonlyArray<Event>, direct: Direct): void {
    const isFirst = !this.hasBegun
    this.hasBegun = true
    this.hasThrown = true
    if (isFirst) this.#sink.begin(direct.won())
    if (!this.#sink.events(events) && !this.#isPaused) this.#pause(direct.attempt.answer)
    this.hasThrown = false
  }

  #pause(answer: Direct["attempt"]["answer"]): void {
    this.#isPaused = true
    answer.pause()
    this.#sink.whenDrained(() => {
      this.#isPaused = false
      answer.resume()
    })
  }
}

/** Follows the first attempt of a streamed answer. */
class DirectDelivery implements EventReceiver {
  readonly #sink: AnswerSink
  readonly #state: RequestState
  readonly #generation: Generation
  readonly #resume: Resume<void>
  readonly #delivery: Delivery
  #direct: Direct | undefined

  constructor(sink: AnswerSink, state: RequestState, generation: Generation, resume: Resume<void>) {
    this.#sink = sink
    this.#state = state
    this.#generation = generation
    this.#resume = resume
    this.#delivery = new Delivery(sink)
  }

  follow(direct: Direct): Direct {
    this.#direct = direct
    return direct
  }

  events(events: ReadonlyArray<Event>): void {
    const { content, stats } = this.#direct!.attempt.context
    content()
    count(stats, events)
    this.#delivery.pass(events, this.#direct!)
  }

  end(): void {
    const { attempt } = this.#direct!
    if (attempt.context.stats.done) this.#resume(attempt.end() ?? Effect.void)
    else this.#end(Cause.done())
  }

  failed(error: InferenceError): void {
    this.#end(Effect.fail(error))
  }

  died(defect: unknown): void {
    this.#end(Effect.die(defect))
  }

  rest(events: Rest): void {
    if (!this.#delivery.hasBegun) return this.#goOn(events)
    // The usage, and the end of the connection.
    const { context } = this.#direct!.attempt
    this.#resume(
      Effect.ensuring(passOnRest(this.#sink, this.#generation, context, this.#state, events), this.#recorded())
    )
  }

  /** Ends the attempt, unless it can go on elsewhere. */
  #end(ending: Effect.Effect<never, InferenceError | Cause.Done>): void {
    if (!this.#delivery.hasBegun) return this.#goOn(Stream.fromPull(Effect.succeed(ending)))
    const { context } = this.#direct!.attempt
    const ended = this.#delivery.hasThrown
      ? ending
      : recordFailure(context.stats, this.#state, Effect.catchCause(ending, (cause) => endOf(context, cause)))
    this.#resume(Effect.ensuring(Pull.catchDone(Effect.asVoid(ended), () => Effect.void), this.#recorded()))
  }

  /** Goes on with the rest of this attempt, and with other deployments. */
  #goOn(rest: Rest): void {
    const others = firstEvents(this.#generation, this.#state)
    this.#resume(Effect.scoped(Effect.flatMap(
      this.#direct!.resume(others, firstEvents(this.#generation, this.#state, undefined, rest)),
      deliverWinner(this.#sink)
    )))
  }

  #recorded(): Effect.Effect<unknown> {
    return Effect.suspend(() => this.#direct!.attempt.end() ?? Effect.void)
  }
}

const deliverDirect = (sink: AnswerSink): StartDirect<void> => (pipeline, routed, hops, resume) => {
  const { request, route: { policy }, state } = routed
  const generation = generationOf(request)
  if (!isUnchangedFirst(generation) || (policy.continue && StreamFailover.isPossible(generation))) return undefined
  const delivery = new DirectDelivery(sink, state, generation, resume)
  const direct = pipeline.direct(routed, generation, hops, delivery)
  return direct && delivery.follow(direct)
}

export const deliver = (pipeline: Pipeline) => {
  const answer = start(pipeline)
  return (input: Request, sink: AnswerSink): Effect.Effect<void, InferenceError> => {
    const delivered = run<void>(
      pipeline,
      deliverDirect(sink),
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
    completeDirect,
    (routed) => routed.route.cached ? pipeline.cached.buffered(routed, answer(routed)) : answer(routed)
  )
  return (input: Request) =>
    isChecked(input) ? answered(input) : Effect.flatMap(validated(input, Validation.chat), answered)
}

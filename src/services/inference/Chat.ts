/** Chat: an answer as it is generated, or whole. */
import { Cause, Channel, Effect, Pull, Stream } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Answer, Event, Opened, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, make } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, ToolCall } from "../../domain/Job.ts"
import * as Content from "../../domain/Message.ts"
import { needsOf, pathsOf } from "../../domain/RequiredCapabilities.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { Native } from "../../domain/Source.ts"
import type { Engaged, Stage } from "./Pipeline.ts"
import type { Progress, Tally } from "./RequestTelemetry.ts"
import type { EventsPull } from "./StreamFailover.ts"
import * as Continuation from "./StreamFailover.ts"
import { check } from "./Validation.ts"

type CallEvent = Extract<Event, { type: "tool_call" }>
type FinishEvent = Extract<Event, { type: "finish" }>

/** Nothing where nothing is said. */
const standingOf = ({ keepAlive, priority, tenant }: Request): Pick<Generation, "standing"> =>
  keepAlive === undefined && priority === undefined && tenant === undefined
    ? {}
    : { standing: { keepAlive, priority, tenant } }

/** What an engine is asked: what the request says, without its routing. */
const generationOf = (request: Request): Generation => {
  const { keepAlive: _, model: __, priority: ___, route: ____, tenant: _____, ...asked } = request
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
  } = asked
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
    ...standingOf(request)
  }
}

/** By name as in OpenTelemetry's GenAI conventions. */
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

/** Keeps the request's books while its events pass. */
const note = (tally: Tally) => <Events extends ReadonlyArray<Event>>(events: Events): Events => {
  for (const event of events) {
    if (event.type === "finish") {
      tally.finish = event
      tally.done = true
      tally.tokens = event.usage.completionTokens
      tally.promptTokens = event.usage.promptTokens
    } else if (event.type !== "handoff") {
      tally.tokens += event.tokens
    }
  }
  return events
}

/** A call with the next piece of its arguments. */
const callWith = (known: ToolCall | undefined, { arguments: piece, id = "", name = "" }: CallEvent): ToolCall => ({
  ...known ?? { id, name },
  arguments: (known?.arguments ?? "") + piece
})

/** A whole answer out of its events. */
const makeWhole = () => {
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

/** A stream that just ends is not an answer. */
const brokeOff = ({ id }: Deployment): EventsPull =>
  Effect.fail(make(new EngineFailed({ deployment: id, detail: "Its answer broke off." }))) as EventsPull

/** An answer that has come to its end stays whole, also where its engine dies of giving back what it held. */
const endOf = (
  { deployment, tally: { done } }: Engaged,
  cause: Cause.Cause<InferenceError | Cause.Done>
): EventsPull => {
  if (Pull.isDoneCause(cause)) return done ? Cause.done() : brokeOff(deployment)
  const isDefect = !isCancellation(cause) && Cause.findErrorOption(cause)._tag === "None"
  return done && isDefect
    ? Effect.andThen(
      Effect.logError(`The engine of "${deployment.id}" ended in a defect after a whole answer.`, cause),
      Cause.done()
    )
    : Effect.failCause(cause)
}

/** An engine's events, with the attempt's books kept; they must end in a `finish`. */
const pullOf = Effect.fnUntraced(
  function*(engaged: Engaged, { generation, space }: Continuation.Asked) {
    const { borrow, content, limits, tally } = engaged
    const engine = yield* borrow
    // Not `Stream.toPull`, which guards each pull against others beside it.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(engine.generate(generation)), yield* Effect.scope)
    const keep = note(tally)
    const join = space === "" ? undefined : Continuation.makeJoin(space)
    const noted = Effect.map(pull, (events) => {
      // An answer in one piece tells nothing of when its first token was there.
      if (generation.buffered !== true || events.at(-1)?.type !== "finish") content()
      return keep(join === undefined ? events : join(events))
    })
    const whole: EventsPull = Effect.catchCause(noted, (cause) => endOf(engaged, cause))
    return { first: limits.first(whole), next: limits.next(whole) }
  }
)

/** Keeps why an answer breaks off; its end is no failure. */
const noteFailure = (tally: Tally, progress: Progress, pull: EventsPull): EventsPull =>
  Effect.tapCause(pull, (cause) =>
    Effect.sync(() => {
      if (Pull.isDoneCause(cause)) return
      tally.failure = cause as Cause.Cause<InferenceError>
      progress.failure = tally.failure
    }))

/** The prompt as one text, as engines begin it: what tools there are comes first. */
const textOf = ({ messages, tools = [] }: Request): string => JSON.stringify([tools, messages])

const lengthOf = ({ messages }: Request): number =>
  messages.reduce(
    (sum, { content }) => sum + (typeof content === "string" ? content : Content.textOf(content)).length,
    0
  )

const checkChat = Effect.fnUntraced(function*({ begin }: Stage, given: Request) {
  const request = yield* check.chat(given)
  const wish = {
    ...request,
    capabilities: needsOf(request),
    pathsOf: (need: string) => pathsOf(request, need),
    promptLength: lengthOf(request),
    promptText: () => textOf(request)
  }
  const begun = yield* begin("chat", wish, chatAttributes(request))
  return { begun, request, generation: generationOf(request) }
})

type Checked = Effect.Success<ReturnType<typeof checkChat>>

/**
 * The first of an answer, whoever brings it, and the rest of it: from here on a failure is the request's, unless another
 * may go on.
 */
const begin = (stage: Stage) =>
  Effect.fnUntraced(function*({ begun, generation, request }: Checked) {
    const said = Continuation.nothing()
    const committed = yield* stage.commit(begun, request, (engaged) =>
      Effect.flatMap(pullOf(engaged, Continuation.asked(generation, engaged.start, said)), ({ first, next }) =>
        // A stream that ends without an event has failed.
        Effect.map(
          Pull.catchDone(first, () =>
            Effect.never),
          (first): Continuation.Beginning => ({
            first,
            rest: noteFailure(engaged.tally, begun.progress, engaged.limits.total(next))
          })
        )))
    const pull = begun.route.policy.continue && Continuation.isPossible(generation)
      ? Continuation.over(committed, generation, said, begun.progress)
      : Continuation.whole(committed.value)
    return { ...committed.by, events: Stream.fromPull(Effect.succeed(pull)) } satisfies Opened
  })

/** With an earlier answer where all else fails, if the model has that. */
export const open = (stage: Stage) => {
  const answer = begin(stage)
  return (given: Request) =>
    Effect.flatMap(
      checkChat(stage, given),
      (checked) =>
        checked.begun.route.cached ? stage.cached.streamed(checked, makeWhole, answer(checked)) : answer(checked)
    )
}

export const stream = (stage: Stage) => {
  const begin = open(stage)
  return (request: Request): Stream.Stream<Event, InferenceError> =>
    Stream.unwrap(Effect.map(begin(request), ({ events }) => events))
}

/** Whether the policy looks at an answer's pieces: for its first one, or between two. */
const watchesPieces = ({ hedge, timeouts: { firstTokenMs, stallMs } }: Policy): boolean =>
  hedge !== undefined || firstTokenMs !== undefined || stallMs !== undefined

/** A whole answer: nobody has seen any of it before it is whole, so another may take over until then. */
const complete = (stage: Stage) =>
  Effect.fnUntraced(function*({ begun, generation: asked, request }: Checked) {
    const generation = watchesPieces(begun.route.policy) ? asked : { ...asked, buffered: true }
    const { value, ...by } = yield* stage.attempt(begun, request, (engaged) =>
      Effect.gen(function*() {
        const whole = makeWhole()
        const { first, next } = yield* pullOf(
          engaged,
          Continuation.asked(generation, engaged.start, Continuation.nothing())
        )
        let pull = first
        const drained = Effect.whileLoop({
          while: () => true,
          body: () => pull,
          step: (events) => {
            pull = next
            for (const event of events) whole.add(event)
          }
        })
        yield* Pull.catchDone(drained, () => Effect.void)
        return whole.end()
      }))
    return { ...value, ...by } satisfies Answer
  })

/** Likewise. */
export const generate = (stage: Stage) => {
  const answer = complete(stage)
  return (given: Request) =>
    Effect.scoped(
      Effect.flatMap(checkChat(stage, given), (checked) =>
        checked.begun.route.cached ? stage.cached.buffered(checked, answer(checked)) : answer(checked))
    )
}

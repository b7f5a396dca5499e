/** Chat completions, streamed and buffered. */
import type { Scope } from "effect"
import { Effect, Stream } from "effect"
import { HopCount } from "../../domain/Caller.ts"
import type { Generation, Sampling } from "../../domain/Generation.ts"
import type { Answer, AnswerSink, Event, OpenedAnswer, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Message from "../../domain/Message.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import { pathsOf, promptLengthOf, requiredByChat } from "../../domain/RoutingRequest.ts"
import { Later } from "../admission/Admission.ts"
import { allEvents, deliverOpened, firstEvents } from "./AnswerPull.ts"
import type { Resume } from "./DirectAnswer.ts"
import { answerOf, Completion, DirectDelivery, makeAnswer } from "./DirectAnswer.ts"
import type { Begun, Direct, Pipeline } from "./Pipeline.ts"
import { answeredByOf, isChecked, validated } from "./Pipeline.ts"
import type { RequestState, RoutedRequest } from "./RequestTelemetry.ts"
import * as StreamFailover from "./StreamFailover.ts"
import * as Validation from "./Validation.ts"

/** Chat completions. */
export interface Chat {
  readonly open: (request: Request) => Effect.Effect<OpenedAnswer, InferenceError, Scope.Scope>
  readonly deliver: (request: Request, sink: AnswerSink) => Effect.Effect<void, InferenceError>
  readonly generate: (request: Request) => Effect.Effect<Answer, InferenceError>
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** Undefined if the caller sets none of the fields. */
const callerOf = ({ keepAlive, priority, tenant }: Request): Generation["caller"] =>
  keepAlive === undefined && priority === undefined && tenant === undefined
    ? undefined
    : { keepAlive, priority, tenant }

const samplingOf = (request: Request): Sampling => {
  const { frequencyPenalty, logitBias, minP, presencePenalty, repeatPenalty, seed, temperature, topK, topP } = request
  const sampling: Mutable<Sampling> = {}
  if (temperature !== undefined) sampling.temperature = temperature
  if (topP !== undefined) sampling.topP = topP
  if (seed !== undefined) sampling.seed = seed
  if (topK !== undefined) sampling.topK = topK
  if (minP !== undefined) sampling.minP = minP
  if (repeatPenalty !== undefined) sampling.repeatPenalty = repeatPenalty
  if (presencePenalty !== undefined) sampling.presencePenalty = presencePenalty
  if (frequencyPenalty !== undefined) sampling.frequencyPenalty = frequencyPenalty
  if (logitBias !== undefined) sampling.logitBias = logitBias
  return sampling
}

const noStop: Generation["stop"] = []

const addForm = (generation: Mutable<Generation>, { completion, decoding, format }: Request): void => {
  if (decoding !== undefined) generation.decoding = decoding
  if (format !== undefined) generation.format = format
  if (completion !== undefined) generation.completion = completion
}

/** The request without its routing, for an engine. */
const generationOf = (request: Request): Mutable<Generation> => {
  const { assistantPrefix, logprobs, maxTokens, messages, parallelToolCalls, source, stop, tools } = request
  const caller = callerOf(request)
  const generation: Mutable<Generation> = {
    messages,
    maxTokens,
    stop: stop ?? noStop,
    sampling: samplingOf(request)
  }
  if (assistantPrefix !== undefined) generation.assistantPrefix = assistantPrefix
  if (tools !== undefined) {
    generation.tools = tools
    generation.toolChoice = request.toolChoice
  }
  if (parallelToolCalls !== undefined) generation.parallelToolCalls = parallelToolCalls
  if (request.reasoning !== undefined) generation.reasoning = request.reasoning
  if (logprobs !== undefined) generation.logprobs = logprobs
  if (source !== undefined) generation.source = source
  addForm(generation, request)
  if (caller !== undefined) generation.caller = caller
  return generation
}

const outputTypeOf = ({ format }: Request): "json" | "text" | undefined => {
  if (format === undefined) return undefined
  return format.type === "json_object" || format.type === "json_schema" ? "json" : "text"
}

/** Span attributes of OpenTelemetry's GenAI conventions. */
export const chatAttributes = (request: Request): Record<string, unknown> => ({
  "gen_ai.request.max_tokens": request.maxTokens,
  "gen_ai.request.temperature": request.temperature,
  "gen_ai.request.top_p": request.topP,
  "gen_ai.request.top_k": request.topK,
  "gen_ai.request.presence_penalty": request.presencePenalty,
  "gen_ai.request.frequency_penalty": request.frequencyPenalty,
  "gen_ai.request.seed": request.seed,
  "gen_ai.output.type": outputTypeOf(request)
})

/** The prompt as one text that begins as the engine's prompt does: with the tools. */
const textOf = ({ messages, tools = [] }: Request): string => JSON.stringify([tools, messages])

const lengthOf = ({ messages }: Request): number => {
  let length = 0
  for (const message of messages) {
    const { content } = message
    length += promptLengthOf(typeof content === "string" ? content : Message.textOf(content))
    if (message.thoughts !== undefined || message.reasoning !== undefined) {
      length += promptLengthOf(Message.thoughtsOf(message) ?? "")
    }
  }
  return length
}

/** What the router needs to know of a chat. */
class ChatRouting implements RoutingRequest {
  readonly model: string
  readonly capabilities: RoutingRequest["capabilities"]
  readonly source: Request["source"]
  readonly maxTokens: number | undefined
  readonly tenant: string | undefined
  readonly route: Request["route"]
  readonly promptLength: number
  /** Of a prompt that was given as tokens. */
  readonly promptTokens: number | undefined
  readonly #request: Request

  constructor(request: Request) {
    this.model = request.model
    this.capabilities = requiredByChat(request)
    this.source = request.source
    this.maxTokens = request.maxTokens
    this.tenant = request.tenant
    this.route = request.route
    this.promptLength = lengthOf(request)
    this.promptTokens = request.completion?.tokens?.length
    this.#request = request
  }

  pathsOf(need: string): ReadonlyArray<string> {
    return pathsOf(this.#request, need)
  }

  promptText(): string {
    return textOf(this.#request)
  }
}

export const routingOf = (request: Request): RoutingRequest => new ChatRouting(request)

/** Validates and routes a request. */
const route = Effect.fnUntraced(function*({ begin }: Pipeline, input: Request) {
  const request = yield* validated(input, Validation.chat)
  return yield* begin("chat", request, routingOf(request), () => chatAttributes(request))
})

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

const open = (pipeline: Pipeline): Chat["open"] => {
  const answer = start(pipeline)
  return (input: Request) =>
    Effect.flatMap(
      route(pipeline, input),
      (routed) => routed.route.cached ? pipeline.cached.streamed(routed, makeAnswer, answer(routed)) : answer(routed)
    )
}

/** Whether the policy depends on the time of the first piece of an answer, or between two. */
const dependsOnPieces = ({ hedge, timeouts: { firstTokenMs, stallMs } }: Policy): boolean =>
  hedge !== undefined || firstTokenMs !== undefined || stallMs !== undefined

/** The generation of a buffered answer, which an engine may send in one piece if no limit depends on pieces. */
const bufferedOf = ({ request, route: { policy } }: RoutedRequest<Request>): Generation => {
  const generation = generationOf(request)
  if (!dependsOnPieces(policy)) generation.buffered = true
  return generation
}

/** A buffered answer. Another deployment may take over until it is complete, since the caller has received nothing. */
const complete = ({ execute }: Pipeline) => (routed: RoutedRequest<Request>) =>
  Effect.map(execute(routed, allEvents(bufferedOf(routed), makeAnswer)), answerOf)

/** Whether the first attempt gets the request's generation as it is. */
const isUnchangedFirst = ({ assistantPrefix }: Generation): boolean => assistantPrefix === undefined

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
    const follow = (begun: Begun<Request>, resume: Resume<A>): Effect.Effect<void> | void => {
      state = begun.state
      if ("error" in begun) return resume(Effect.fail(begun.error))
      const { routed } = begun
      const started = routed.route.cached ? undefined : direct(pipeline, routed, fiber.getRef(HopCount), resume)
      if (started === undefined) return resume(Effect.scoped(answer(routed)))
      return Effect.suspend(() => {
        started.attempt.answer.close()
        return started.attempt.end() ?? Effect.void
      })
    }
    const answered = Effect.callback<A, InferenceError>((resume) => {
      const begun = pipeline.beginNow(fiber, "chat", request, routingOf(request), () => chatAttributes(request))
      if (!(begun instanceof Later)) return follow(begun, resume)
      // What was admitted is completed below, so it is known before the request can be interrupted.
      resume(Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(begun.outcome, (begun) => {
          state = begun.state
          return restore(Effect.callback<A, InferenceError>((resume) => follow(begun, resume)))
        })
      ))
    })
    return Effect.onExitPrimitive(answered, () => {
      if (state !== undefined) pipeline.complete("chat", state)
      return undefined
    })
  })

const deliverDirect = (sink: AnswerSink): StartDirect<void> => (pipeline, routed, hops, resume) => {
  const { request, route: { policy } } = routed
  const generation = generationOf(request)
  if (!isUnchangedFirst(generation) || (policy.continue && StreamFailover.isPossible(generation))) return undefined
  const delivery = new DirectDelivery(sink, routed, generation, resume)
  const direct = pipeline.direct(routed, generation, hops, delivery)
  return direct && delivery.follow(direct)
}

const deliver = (pipeline: Pipeline): Chat["deliver"] => {
  const answer = start(pipeline)
  return (input, sink) => {
    const delivered = run<void>(
      pipeline,
      deliverDirect(sink),
      (routed) =>
        deliverOpened(
          sink,
          routed.route.cached ? pipeline.cached.streamed(routed, makeAnswer, answer(routed)) : answer(routed),
          routed
        )
    )
    return isChecked(input) ? delivered(input) : Effect.flatMap(validated(input, Validation.chat), delivered)
  }
}

const generate = (pipeline: Pipeline): Chat["generate"] => {
  const answer = complete(pipeline)
  const answered = run<Answer>(
    pipeline,
    completeDirect,
    (routed) => routed.route.cached ? pipeline.cached.buffered(routed, makeAnswer, answer(routed)) : answer(routed)
  )
  return (input) => isChecked(input) ? answered(input) : Effect.flatMap(validated(input, Validation.chat), answered)
}

/** Chat completions without a cache. */
export const make = (pipeline: Pipeline): Chat => ({
  open: open(pipeline),
  deliver: deliver(pipeline),
  generate: generate(pipeline)
})

/** An answer as it is generated. */
export const stream = ({ open }: Chat) => (request: Request): Stream.Stream<Event, InferenceError> =>
  Stream.unwrap(Effect.map(open(request), ({ events }) => events))

/**
 * The front door, assembled: route, borrow, generate; measured and traced once a request.
 */
import {
  Cause,
  Clock,
  Duration,
  Effect,
  Exit,
  Layer,
  Option,
  Pull,
  Random,
  Result,
  Schema,
  Scope,
  Stream,
  SubscriptionRef
} from "effect"
import { Breaker } from "../../services/Breaker.ts"
import type { Engine, Generation } from "../../services/Engine.ts"
import type { Ability as Need } from "../../services/EngineProtocol.ts"
import type { Answer, Event, Request } from "../../services/Inference.ts"
import {
  ClassifyRequest,
  EmbedRequest,
  Inference,
  maxSeed,
  Request as RequestSchema,
  RerankRequest,
  TokenizeRequest
} from "../../services/Inference.ts"
import type { InferenceError } from "../../services/InferenceError.ts"
import { EngineFailed, InvalidRequest, make, Overloaded } from "../../services/InferenceError.ts"
import type { ChosenLogprob, ToolCall } from "../../services/Job.ts"
import type { Operation as OperationName } from "../../services/Metrics.ts"
import { Metrics } from "../../services/Metrics.ts"
import type { Deployment } from "../../services/Model.ts"
import type { Standing } from "../../services/Models.ts"
import { Models } from "../../services/Models.ts"
import type { Action } from "../../services/Plan.ts"
import * as Plan from "../../services/Plan.ts"
import { interval, Pressure, sheds } from "../../services/Pressure.ts"
import * as Problems from "../../services/Problem.ts"
import { classify } from "../../services/Retry.ts"
import type { Route, Trial, Wish } from "../../services/Selector.ts"
import { Selector } from "../../services/Selector.ts"
import * as Attempts from "./Attempts.ts"
import * as Embedder from "./Embedder.ts"
import type { Progress } from "./Operation.ts"
import * as Operation from "./Operation.ts"

type Start = Extract<Action, { type: "start" }>
type Attributes = Record<string, unknown>
type FinishEvent = Extract<Event, { type: "finish" }>

/** What an engine is asked: what the request says, and the defaults of what engines cannot go without. */
const withDefaults = (request: Request): Effect.Effect<Generation> =>
  Effect.map(
    request.seed === undefined ? Random.nextIntBetween(0, maxSeed) : Effect.succeed(request.seed),
    (seed) => {
      const { keepAlive: _, model: __, priority: ___, tenant: ____, ...asked } = request
      const { format, logprobs, maxTokens, messages, stop = [], toolChoice, tools, ...sampling } = asked
      return {
        messages,
        maxTokens,
        stop,
        sampling: { ...sampling, temperature: request.temperature ?? 1, topP: request.topP ?? 1, seed },
        ...(tools === undefined ? {} : { tools, toolChoice }),
        ...(format === undefined ? {} : { format }),
        ...(logprobs === undefined ? {} : { logprobs })
      }
    }
  )

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
const note = (progress: Progress) => <Events extends ReadonlyArray<Event>>(events: Events): Events => {
  for (const event of events) {
    if (event.type === "finish") {
      progress.finish = event
      progress.done = true
      progress.tokens = event.usage.completionTokens
      progress.promptTokens = event.usage.promptTokens
    } else {
      progress.tokens += event.tokens
    }
  }
  return events
}

/**
 * The request with only what a request has. Types cannot tell a temperature of 9, nor stop a program without them.
 */
const checker = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "all" })
  return (request: S["Type"]): Effect.Effect<S["Type"], InferenceError> => {
    const decoded = decode(request)
    if (Result.isSuccess(decoded)) return Effect.succeed(decoded.success)
    const [first, ...others] = Problems.fromSchemaError(decoded.failure)
    const detail = Problems.summary(first!, others)
    return Effect.fail(make(new InvalidRequest({ detail, ...(first!.path === "" ? {} : { path: first!.path }) })))
  }
}

const check = {
  chat: checker(RequestSchema),
  embeddings: checker(EmbedRequest),
  rerank: checker(RerankRequest),
  classify: checker(ClassifyRequest),
  tokenize: checker(TokenizeRequest)
}

/** An engine's stream that just ends is not an answer. */
const mustHaveFinished = (deployment: string, progress: Progress): Stream.Stream<never, InferenceError> =>
  Stream.suspend(() =>
    progress.done
      ? Stream.empty
      : Stream.fail(make(new EngineFailed({ deployment, detail: "Its answer broke off." })))
  )

/** A whole answer out of its events. */
const makeWhole = () => {
  let text = ""
  let finish: FinishEvent | undefined
  const logprobs: Array<ChosenLogprob> = []
  const toolCalls: Array<ToolCall> = []
  return {
    add(event: Event) {
      switch (event.type) {
        case "text":
          text += event.text
          if (event.logprobs !== undefined) logprobs.push(...event.logprobs)
          return
        case "tool_call": {
          const known = toolCalls[event.index] ?? { id: event.id ?? "", name: event.name ?? "", arguments: "" }
          toolCalls[event.index] = { ...known, arguments: known.arguments + event.arguments }
          return
        }
        case "finish":
          finish = event
      }
    },
    end() {
      const { reason, usage } = finish!
      return { text, toolCalls, finishReason: reason, usage, ...(logprobs.length === 0 ? {} : { logprobs }) }
    }
  }
}

/** Sums up what was counted of prompts, and that the request came to its end. */
const close = (progress: Progress, ...promptTokens: ReadonlyArray<number>): number => {
  progress.promptTokens = promptTokens.reduce((sum, tokens) => sum + tokens, 0)
  progress.done = true
  return progress.promptTokens
}

/** What an attempt gives the request. */
interface Engaged {
  readonly engine: Engine
  readonly deployment: Deployment
  /** What the plan asks otherwise than the caller. */
  readonly start: Start
  readonly trial: Trial
}

/** What an engine must be able to do. */
const needsOf = ({ format, logprobs, tools = [] }: Request): ReadonlyArray<Need> => [
  ...(tools.length > 0 ? ["tools"] as const : []),
  ...(format === undefined ? [] : ["format"] as const),
  ...(logprobs === undefined ? [] : ["logprobs"] as const)
]

/** What the end of an attempt says of its deployment. */
const outcomeOf = (
  exit: Exit.Exit<unknown, unknown>,
  { done, failure }: Progress
): Exit.Exit<void, InferenceError> | undefined => {
  const cause = Exit.isFailure(exit) ? exit.cause as Cause.Cause<InferenceError> : failure
  if (cause !== undefined) return Cause.hasInterruptsOnly(cause) ? undefined : Exit.failCause(cause)
  // A consumer that stops reading says nothing of who answers.
  return done ? Exit.void : undefined
}

const verdictOf = (outcome: Exit.Exit<void, InferenceError> | undefined): Parameters<Trial["end"]>[0] => {
  if (outcome === undefined) return "left"
  if (Exit.isSuccess(outcome)) return "success"
  const error = Cause.findErrorOption(outcome.cause)
  return Option.isSome(error) && classify(error.value.reason).counts ? "failure" : "left"
}

const makeStage = Effect.gen(function*() {
  const selector = yield* Selector
  const models = yield* Models
  const metrics = yield* Metrics
  const pressure = yield* Pressure
  const breaker = yield* Breaker
  const clock = yield* Clock.Clock

  /** The route, and the request's books, which the scope's end settles. */
  const begin = Effect.fnUntraced(
    function*(operation: OperationName, wish: Standing & Wish, attributes: Attributes = {}) {
      const route = yield* selector.route(wish)
      if (wish.priority === "low" && sheds[yield* SubscriptionRef.get(pressure)].refuseLowPriority) {
        return yield* make(new Overloaded({ retryAfterMs: Duration.toMillis(interval) }))
      }
      return { route, progress: yield* Operation.begin(metrics, operation, route, attributes) }
    }
  )

  /** An engine's slot for one attempt, which is measured to the end of its scope. */
  const engage = Effect.fnUntraced(function*(route: Route, progress: Progress, standing: Standing, start: Start) {
    const { fallbacks: { content, context, ordinary } } = route
    const all = [...route.deployments, ...ordinary, ...context, ...content]
    const deployment = all.find(({ id }) => id === start.deployment)!
    const settle = yield* breaker.enter(deployment.id)
    const trial = yield* selector.measure(deployment.id)
    yield* Scope.addFinalizerExit(yield* Effect.scope, (exit) => {
      const outcome = outcomeOf(exit, progress)
      trial.end(verdictOf(outcome), progress.tokens)
      return outcome === undefined ? Effect.void : settle(outcome)
    })
    const priority = start.lowPriority ? "low" : standing.priority
    const engine = yield* models.borrow(deployment, { ...standing, priority })
    return { engine, deployment, start, trial } satisfies Engaged
  })

  /** Tries the route's deployments as its plan says, until one has brought what `use` waits for. */
  const attempt = Effect.fnUntraced(function*<A>(
    { progress, route }: { readonly route: Route; readonly progress: Progress },
    request: Standing & { readonly maxTokens?: number | undefined },
    use: (engaged: Engaged) => Effect.Effect<A, InferenceError, Scope.Scope>
  ) {
    const stage: Attempts.Stage<A> = {
      attempt: (start) => Effect.flatMap(engage(route, progress, request, start), use),
      closedFor: (deployment) => breaker.closedFor(deployment, clock.currentTimeMillisUnsafe()),
      payHedge: Effect.succeed(false)
    }
    const { value } = yield* Attempts.drive(stage, planOf(route, request, clock.currentTimeMillisUnsafe()))
    return value
  })

  return { attempt, begin, embedder: Embedder.make(models) }
})

type Stage = Effect.Success<typeof makeStage>

/** A provider's keys are turned over by whoever calls it. */
const targetOf = ({ id }: Deployment): Plan.Target => ({ deployment: id, keys: 1 })

/** What may be tried for a request. */
const planOf = (
  { deployments, fallbacks: { content, context, ordinary }, model, policy, slowestFirstTokenMs }: Route,
  { maxTokens, priority }: Standing & { readonly maxTokens?: number | undefined },
  now: number
): Plan.Plan =>
  Plan.make({
    model,
    policy,
    lists: {
      ordinary: [...deployments, ...ordinary].map(targetOf),
      context: context.map(targetOf),
      content: content.map(targetOf)
    },
    slowestFirstTokenMs,
    now,
    maxTokens,
    lowPriority: priority === "low"
  })

const asked = (generation: Generation, { maxTokens }: Start): Generation =>
  maxTokens === undefined ? generation : { ...generation, maxTokens }

/** An engine's events, with the request's books kept; they must end in a `finish`. */
const eventsOf = ({ deployment, engine, start, trial }: Engaged, generation: Generation, progress: Progress) =>
  Stream.mapArray(engine.generate(asked(generation, start)), (events) => {
    trial.content()
    return note(progress)(events)
  }).pipe(Stream.concat(mustHaveFinished(deployment.id, progress)))

const checkChat = Effect.fnUntraced(function*({ begin }: Stage, given: Request) {
  const request = yield* check.chat(given)
  const wish = { ...request, needs: needsOf(request) }
  const begun = yield* begin("chat", wish, chatAttributes(request))
  return { begun, request, generation: yield* withDefaults(request) }
})

/** The first of an answer, whoever brings it, and the rest of it: from here on a failure is the request's. */
const stream = (stage: Stage) => (given: Request): Stream.Stream<Event, InferenceError> =>
  Stream.unwrap(Effect.gen(function*() {
    const { begun, generation, request } = yield* checkChat(stage, given)
    const { progress } = begun
    const { first, pull } = yield* stage.attempt(begun, request, (engaged) =>
      Effect.gen(function*() {
        const pull = yield* Stream.toPull(eventsOf(engaged, generation, progress))
        // A stream that ends without an event has failed before.
        const first = yield* Pull.catchDone(pull, () => Effect.never)
        return { first, pull }
      }))
    return Stream.concat(Stream.fromArray(first), Stream.fromPull(Effect.succeed(pull))).pipe(
      Stream.tapCause((cause) =>
        Effect.sync(() => {
          progress.failure = cause
        })
      )
    )
  }))

/** A whole answer: nobody has seen any of it before it is whole, so another may take over until then. */
const generate = (stage: Stage) =>
  Effect.fnUntraced(function*(given: Request) {
    const { begun, generation, request } = yield* checkChat(stage, given)
    const { progress } = begun
    return yield* stage.attempt(begun, request, (engaged) =>
      Effect.gen(function*() {
        progress.tokens = 0
        const whole = makeWhole()
        yield* Stream.runForEachArray(
          eventsOf(engaged, generation, progress),
          (some) => Effect.sync(() => some.forEach((event) => whole.add(event)))
        )
        return { ...whole.end(), deployment: engaged.deployment.id } satisfies Answer
      }))
  }, Effect.scoped)

const embed = (stage: Stage) =>
  Effect.fnUntraced(function*(given: EmbedRequest) {
    const request = yield* check.embeddings(given)
    const { progress, route } = yield* stage.begin("embeddings", { ...request, needs: ["embed"] })
    const [deployment] = route.deployments
    const embeddings = yield* stage.embedder(deployment, request, request.inputs)
    const promptTokens = close(progress, ...embeddings.map((one) => one.promptTokens))
    return { vectors: embeddings.map(({ vector }) => vector), promptTokens, deployment: deployment.id }
  }, Effect.scoped)

const rerank = (stage: Stage) =>
  Effect.fnUntraced(function*(given: RerankRequest) {
    const request = yield* check.rerank(given)
    const begun = yield* stage.begin("rerank", { ...request, needs: ["rerank"] })
    return yield* stage.attempt(begun, request, ({ deployment, engine }) =>
      Effect.map(engine.rerank(request.query, request.documents), ({ promptTokens, scores }) => ({
        scores,
        promptTokens: close(begun.progress, promptTokens),
        deployment: deployment.id
      })))
  }, Effect.scoped)

const classifyTexts = (stage: Stage) =>
  Effect.fnUntraced(function*(given: ClassifyRequest) {
    const request = yield* check.classify(given)
    const begun = yield* stage.begin("classify", { ...request, needs: ["classify"] })
    return yield* stage.attempt(begun, request, ({ deployment, engine }) =>
      Effect.gen(function*() {
        const classifications = yield* Effect.forEach(yield* engine.classify(request.inputs), Effect.fromResult)
        close(begun.progress, ...classifications.map((one) => one.promptTokens))
        return { classifications, deployment: deployment.id }
      }))
  }, Effect.scoped)

const tokenize = (stage: Stage) =>
  Effect.fnUntraced(function*(given: TokenizeRequest) {
    const request = yield* check.tokenize(given)
    const begun = yield* stage.begin("tokenize", request)
    return yield* stage.attempt(begun, request, ({ engine }) =>
      Effect.map(engine.tokenize(request.input), (tokens) => {
        close(begun.progress, tokens.length)
        return tokens
      }))
  }, Effect.scoped)

export const layer = Layer.effect(
  Inference,
  Effect.map(makeStage, (stage) =>
    Inference.of({
      stream: stream(stage),
      generate: generate(stage),
      embed: embed(stage),
      rerank: rerank(stage),
      classify: classifyTexts(stage),
      tokenize: tokenize(stage)
    }))
)

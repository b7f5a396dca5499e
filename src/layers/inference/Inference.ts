/**
 * The front door, assembled: route, borrow, generate; measured and traced once a request.
 */
import { Duration, Effect, Layer, Random, Result, Schema, Stream, SubscriptionRef } from "effect"
import type { Generation } from "../../services/Engine.ts"
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
import type { Standing } from "../../services/Models.ts"
import { Models } from "../../services/Models.ts"
import { interval, Pressure, sheds } from "../../services/Pressure.ts"
import * as Problems from "../../services/Problem.ts"
import { Selector } from "../../services/Selector.ts"
import * as Embedder from "./Embedder.ts"
import type { Progress } from "./Operation.ts"
import * as Operation from "./Operation.ts"

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

const makeStage = Effect.gen(function*() {
  const selector = yield* Selector
  const models = yield* Models
  const metrics = yield* Metrics
  const pressure = yield* Pressure

  /** The route, and the request's books, which the scope's end settles. */
  const begin = Effect.fnUntraced(function*(
    operation: OperationName,
    request: Standing & { readonly model: string },
    attributes: Record<string, unknown> = {}
  ) {
    const route = yield* selector.route(request)
    if (request.priority === "low" && sheds[yield* SubscriptionRef.get(pressure)].refuseLowPriority) {
      return yield* make(new Overloaded({ retryAfterMs: Duration.toMillis(interval) }))
    }
    return { deployment: route.deployment, progress: yield* Operation.begin(metrics, operation, route, attributes) }
  })

  /** The same with an engine, for what is answered whole. */
  const engage = Effect.fnUntraced(function*(operation: OperationName, request: Standing & { readonly model: string }) {
    const begun = yield* begin(operation, request)
    return { ...begun, engine: yield* models.borrow(begun.deployment, request) }
  })

  /** A generation and its stream. */
  const open = Effect.fnUntraced(function*(asked: Request) {
    const request = yield* check.chat(asked)
    const { deployment, progress } = yield* begin("chat", request, chatAttributes(request))
    const generation = yield* withDefaults(request)
    const engine = yield* models.borrow(deployment, request)
    const events = Stream.mapArray(engine.generate(generation), note(progress)).pipe(
      Stream.concat(mustHaveFinished(deployment.id, progress)),
      Stream.tapCause((cause) =>
        Effect.sync(() => {
          progress.failure = cause
        })
      )
    )
    return { deployment, events }
  })

  return { begin, engage, open, embedder: Embedder.make(models) }
})

type Stage = Effect.Success<typeof makeStage>

const generate = ({ open }: Stage) =>
  Effect.fnUntraced(function*(request: Request) {
    const { deployment, events } = yield* open(request)
    const whole = makeWhole()
    yield* Stream.runForEachArray(events, (some) => Effect.sync(() => some.forEach((event) => whole.add(event))))
    return { ...whole.end(), deployment: deployment.id } satisfies Answer
  }, Effect.scoped)

const embed = ({ begin, embedder }: Stage) =>
  Effect.fnUntraced(function*(asked: EmbedRequest) {
    const request = yield* check.embeddings(asked)
    const { deployment, progress } = yield* begin("embeddings", request)
    const embeddings = yield* embedder(deployment, request, request.inputs)
    const promptTokens = close(progress, ...embeddings.map((one) => one.promptTokens))
    return { vectors: embeddings.map(({ vector }) => vector), promptTokens, deployment: deployment.id }
  }, Effect.scoped)

const rerank = ({ engage }: Stage) =>
  Effect.fnUntraced(function*(asked: RerankRequest) {
    const request = yield* check.rerank(asked)
    const { deployment, engine, progress } = yield* engage("rerank", request)
    const { promptTokens, scores } = yield* engine.rerank(request.query, request.documents)
    return { scores, promptTokens: close(progress, promptTokens), deployment: deployment.id }
  }, Effect.scoped)

const classify = ({ engage }: Stage) =>
  Effect.fnUntraced(function*(asked: ClassifyRequest) {
    const request = yield* check.classify(asked)
    const { deployment, engine, progress } = yield* engage("classify", request)
    const classifications = yield* Effect.forEach(yield* engine.classify(request.inputs), Effect.fromResult)
    close(progress, ...classifications.map((one) => one.promptTokens))
    return { classifications, deployment: deployment.id }
  }, Effect.scoped)

const tokenize = ({ engage }: Stage) =>
  Effect.fnUntraced(function*(asked: TokenizeRequest) {
    const request = yield* check.tokenize(asked)
    const { engine, progress } = yield* engage("tokenize", request)
    const tokens = yield* engine.tokenize(request.input)
    close(progress, tokens.length)
    return tokens
  }, Effect.scoped)

export const layer = Layer.effect(
  Inference,
  Effect.map(makeStage, (stage) =>
    Inference.of({
      stream: (request) => Stream.unwrap(Effect.map(stage.open(request), ({ events }) => events)),
      generate: generate(stage),
      embed: embed(stage),
      rerank: rerank(stage),
      classify: classify(stage),
      tokenize: tokenize(stage)
    }))
)

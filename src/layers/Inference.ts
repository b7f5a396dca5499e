/**
 * The front door, assembled: route, borrow, generate; measured and traced once a request.
 *
 * **Details**
 *
 * One span a request, by the OpenTelemetry GenAI conventions, from the request to its last token. All of its
 * bookkeeping is in one finalizer, so it is done however the request ends.
 */
import { Cause, Clock, Effect, Exit, Layer, Random, Result, Schema, Scope, Stream } from "effect"
import type { Span } from "effect/Tracer"
import type { Generation } from "../services/Engine.ts"
import type {
  Answer,
  ClassifyRequest,
  EmbedRequest,
  Event,
  Request,
  RerankRequest,
  TokenizeRequest
} from "../services/Inference.ts"
import { Inference, maxSeed, Request as RequestSchema } from "../services/Inference.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import { EngineFailed, InvalidRequest, make } from "../services/InferenceError.ts"
import type { ChosenLogprob, SamplingOptions, ToolCall } from "../services/Job.ts"
import { Metrics } from "../services/Metrics.ts"
import type { Outcome } from "../services/Metrics.ts"
import type { Standing } from "../services/Models.ts"
import { Models } from "../services/Models.ts"
import * as Problems from "../services/Problem.ts"
import type { Route } from "../services/Selector.ts"
import { Selector } from "../services/Selector.ts"

type FinishEvent = Extract<Event, { type: "finish" }>

/** What is known of a request while it runs. */
interface Progress {
  tokens: number
  finish: FinishEvent | undefined
  /** Why the engine's stream failed. */
  failure: Cause.Cause<InferenceError> | undefined
}

const samplingOf = (request: Request, seed: number): SamplingOptions => ({
  temperature: request.temperature ?? 1,
  topP: request.topP ?? 1,
  seed,
  topK: request.topK,
  minP: request.minP,
  repeatPenalty: request.repeatPenalty,
  presencePenalty: request.presencePenalty,
  frequencyPenalty: request.frequencyPenalty,
  logitBias: request.logitBias
})

const withDefaults = (request: Request): Effect.Effect<Generation> =>
  Effect.map(
    request.seed === undefined ? Random.nextIntBetween(0, maxSeed) : Effect.succeed(request.seed),
    (seed) => {
      const { format, logprobs, maxTokens, messages, stop = [], toolChoice, tools } = request
      return { messages, maxTokens, stop, tools, toolChoice, format, logprobs, sampling: samplingOf(request, seed) }
    }
  )

/** By name as in OpenTelemetry's GenAI conventions. */
const requestAttributes = (request: Request, { deployment }: Route): Record<string, unknown> => ({
  "gen_ai.operation.name": "chat",
  "gen_ai.provider.name": `troupe.${deployment.options.engine}`,
  "gen_ai.request.model": request.model,
  "gen_ai.response.model": deployment.id,
  ...(request.maxTokens === undefined ? {} : { "gen_ai.request.max_tokens": request.maxTokens }),
  ...(request.temperature === undefined ? {} : { "gen_ai.request.temperature": request.temperature }),
  ...(request.topP === undefined ? {} : { "gen_ai.request.top_p": request.topP }),
  ...(request.topK === undefined ? {} : { "gen_ai.request.top_k": request.topK }),
  ...(request.presencePenalty === undefined ? {} : { "gen_ai.request.presence_penalty": request.presencePenalty }),
  ...(request.frequencyPenalty === undefined ? {} : { "gen_ai.request.frequency_penalty": request.frequencyPenalty }),
  ...(request.seed === undefined ? {} : { "gen_ai.request.seed": request.seed }),
  ...(request.stop === undefined ? {} : { "gen_ai.request.stop_sequences": request.stop })
})

const annotate = (span: Span, attributes: Record<string, unknown>) => {
  for (const [name, value] of Object.entries(attributes)) span.attribute(name, value)
}

const endOf = (exit: Exit.Exit<unknown, unknown>, progress: Progress): Outcome["end"] => {
  if (Exit.isFailure(exit)) return Cause.hasInterruptsOnly(exit.cause) ? "interruption" : "failure"
  // A consumer that stops reading ends its stream in success.
  return progress.finish === undefined ? "interruption" : "success"
}

/** What the span says at the end. */
const endAttributes = (exit: Exit.Exit<unknown, unknown>, { finish, tokens }: Progress): Record<string, unknown> => {
  const failure = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  const error = failure?._tag === "Some" ? failure.value as InferenceError : undefined
  return {
    "gen_ai.usage.output_tokens": finish?.usage.completionTokens ?? tokens,
    ...(finish === undefined ? {} : {
      "gen_ai.usage.input_tokens": finish.usage.promptTokens,
      "gen_ai.response.finish_reasons": [finish.reason]
    }),
    ...(error === undefined ? {} : { "error.type": error.reason._tag, "error.message": error.message })
  }
}

/** All of a request's bookkeeping, done however it ends. */
const settle =
  (metrics: Metrics["Service"], model: string, span: Span, progress: Progress, started: number) =>
  (closed: Exit.Exit<unknown, unknown>) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      // Who reads the stream may take its failure for an answer of his own, as a dialect does in mid-stream.
      const exit = progress.failure === undefined ? closed : Exit.failCause(progress.failure)
      annotate(span, endAttributes(exit, progress))
      return metrics.end({
        model,
        seconds: (now - started) / 1000,
        tokens: progress.finish?.usage.completionTokens ?? progress.tokens,
        end: endOf(exit, progress)
      })
    })

const count = (progress: Progress) => <Events extends ReadonlyArray<Event>>(events: Events): Events => {
  for (const event of events) {
    if (event.type === "finish") progress.finish = event
    else progress.tokens += event.tokens
  }
  return events
}

const decodeRequest = Schema.decodeUnknownResult(RequestSchema, { errors: "all" })

/** The request with only what a request has. Types cannot tell a temperature of 9, nor stop a program without them. */
const check = (request: Request): Effect.Effect<Request, InferenceError> => {
  const decoded = decodeRequest(request)
  if (Result.isSuccess(decoded)) return Effect.succeed(decoded.success)
  const [first, ...others] = Problems.fromSchemaError(decoded.failure)
  const detail = Problems.summary(first!, others)
  return Effect.fail(make(new InvalidRequest({ detail, ...(first!.path === "" ? {} : { path: first!.path }) })))
}

/** An engine's stream that just ends is not an answer. */
const mustHaveFinished = ({ deployment }: Route, progress: Progress): Stream.Stream<never, InferenceError> =>
  Stream.suspend(() =>
    progress.finish === undefined
      ? Stream.fail(make(new EngineFailed({ deployment: deployment.id, detail: "Its answer broke off." })))
      : Stream.empty
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

/** All results, or the first failure. */
const allOf = <A>(
  results: ReadonlyArray<Result.Result<A, InferenceError>>
): Effect.Effect<ReadonlyArray<A>, InferenceError> => Effect.forEach(results, Effect.fromResult)

export const layer = Layer.effect(
  Inference,
  Effect.gen(function*() {
    const selector = yield* Selector
    const models = yield* Models
    const metrics = yield* Metrics

    /** The route and its stream; the scope's end settles the request. */
    const open = Effect.fnUntraced(function*(asked: Request) {
      const request = yield* check(asked)
      const route = yield* selector.route(request)
      const span = yield* Effect.makeSpanScoped(`chat ${request.model}`, {
        kind: "internal",
        attributes: requestAttributes(request, route)
      })
      const progress: Progress = { tokens: 0, finish: undefined, failure: undefined }
      const started = yield* Clock.currentTimeMillis
      yield* metrics.begin(request.model)
      // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
      yield* Scope.addFinalizerExit(yield* Effect.scope, settle(metrics, request.model, span, progress, started))
      const generation = yield* withDefaults(request)
      const engine = yield* models.borrow(route.deployment, request)
      const events = Stream.mapArray(engine.generate(generation), count(progress))
      return {
        route,
        events: Stream.concat(events, mustHaveFinished(route, progress)).pipe(
          Stream.tapCause((cause) =>
            Effect.sync(() => {
              progress.failure = cause
            })
          )
        )
      }
    })

    const generate = Effect.fnUntraced(function*(request: Request) {
      const { events, route } = yield* open(request)
      const whole = makeWhole()
      yield* Stream.runForEachArray(events, (chunk) => Effect.sync(() => chunk.forEach(whole.add)))
      return { ...whole.end(), deployment: route.deployment.id } satisfies Answer
    }, Effect.scoped)

    const engineFor = Effect.fnUntraced(function*(request: Standing & { readonly model: string }) {
      const { deployment } = yield* selector.route(request)
      return { deployment: deployment.id, engine: yield* models.borrow(deployment, request) }
    })

    return Inference.of({
      stream: (request) => Stream.unwrap(Effect.map(open(request), ({ events }) => events)),
      generate,
      embed: Effect.fnUntraced(function*(request: EmbedRequest) {
        const { deployment, engine } = yield* engineFor(request)
        const embeddings = yield* allOf(yield* engine.embed(request.inputs))
        const promptTokens = embeddings.reduce((sum, one) => sum + one.promptTokens, 0)
        return { vectors: embeddings.map(({ vector }) => vector), promptTokens, deployment }
      }, Effect.scoped),
      rerank: Effect.fnUntraced(function*(request: RerankRequest) {
        const { deployment, engine } = yield* engineFor(request)
        const { promptTokens, scores } = yield* engine.rerank(request.query, request.documents)
        return { scores, promptTokens, deployment }
      }, Effect.scoped),
      classify: Effect.fnUntraced(function*(request: ClassifyRequest) {
        const { deployment, engine } = yield* engineFor(request)
        return { classifications: yield* allOf(yield* engine.classify(request.inputs)), deployment }
      }, Effect.scoped),
      tokenize: Effect.fnUntraced(function*(request: TokenizeRequest) {
        const { engine } = yield* engineFor(request)
        return yield* engine.tokenize(request.input)
      }, Effect.scoped)
    })
  })
)

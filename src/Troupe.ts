/**
 * Troupe for programs that do not use Effect: promises, async iterables and an `AbortSignal`.
 *
 * **Example**
 *
 * ```ts
 * const troupe = Troupe.start()
 * const answer = await troupe.generate({
 *   model: "tiny-chat",
 *   messages: [{ role: "user", content: "What is the capital of Japan?" }],
 *   temperature: 0
 * })
 * await troupe.close()
 * ```
 */
import type { Layer } from "effect"
import { Cause, Effect, Exit, ManagedRuntime, Stream } from "effect"
import * as App from "./App.ts"
import type {
  Answer,
  Classifications,
  ClassifyRequest,
  Count,
  CountRequest,
  Embeddings,
  EmbedRequest,
  Event,
  Request,
  Reranking,
  RerankRequest,
  TokenizeRequest,
  Tokens
} from "./domain/Inference.ts"
import * as InferenceError from "./domain/InferenceError.ts"
import * as Problem from "./domain/Problem.ts"
import type * as SettingsFile from "./layers/settings/SettingsFile.ts"
import { Inference } from "./services/inference/Inference.ts"
import * as Explanation from "./services/routing/Explanation.ts"
import * as ModelReport from "./services/routing/ModelReport.ts"

/** Options of one call. */
export interface CallOptions {
  /** Aborting it stops the engine within one token; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** A running Troupe. Every method rejects with an `InferenceError`, whose `reason` says what went wrong; after `close`, an `Error`. */
export interface Troupe {
  /** The buffered answer. */
  readonly generate: (request: Request, options?: CallOptions) => Promise<Answer>
  /** The answer as it is generated. Leaving the loop early stops the engine within one token. */
  readonly stream: (request: Request, options?: CallOptions) => AsyncIterable<Event>
  /** A vector of unit length for each text, in order. */
  readonly embed: (request: EmbedRequest, options?: CallOptions) => Promise<Embeddings>
  /** How relevant each document is to the query: a score from 0 to 1 for each, in order. */
  readonly rerank: (request: RerankRequest, options?: CallOptions) => Promise<Reranking>
  /** The labels of each text with their scores, in order. */
  readonly classify: (request: ClassifyRequest, options?: CallOptions) => Promise<Classifications>
  /** The token ids of a text, or of a conversation as the model's chat template writes it. */
  readonly tokenize: (request: TokenizeRequest, options?: CallOptions) => Promise<Tokens>
  /** The number of tokens in a conversation's prompt. */
  readonly count: (request: CountRequest, options?: CallOptions) => Promise<Count>
  /** The configured models: their deployments, with state, capabilities, context window and price. */
  readonly models: (options?: CallOptions) => Promise<ReadonlyArray<ModelReport.ModelReport>>
  /** How a request would be routed now, and which attempts it would have. No deployment is called. */
  readonly route: (
    request?: Explanation.ExplanationRequest,
    options?: CallOptions
  ) => Promise<Explanation.Explanation>
  /** Stops running calls, unloads the models, ends the threads. */
  readonly close: () => Promise<void>
}

const callNames = ["signal"] as const satisfies ReadonlyArray<keyof CallOptions>

const invalid = (path: string, detail: string) =>
  InferenceError.make(new InferenceError.InvalidRequest({ path: `options${path}`, detail }))

/** The signal of a call. Throws an `InvalidRequest` for wrong options: programs without types may misspell one. */
const signalOf = (options: CallOptions = {}): AbortSignal | undefined => {
  if (typeof options !== "object" || options === null) throw invalid("", "Expected an object")
  const unknown = Object.keys(options).find((name) => !callNames.some((known) => known === name))
  if (unknown !== undefined) throw invalid(`.${unknown}`, Problem.noSuchField(unknown, callNames))
  const { signal } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid(".signal", "Expected an AbortSignal")
  return signal
}

/** Ends with the signal's reason as a defect when the signal is aborted. */
const aborted = (signal: AbortSignal) =>
  Effect.callback<never>((resume) => {
    const abort = () => resume(Effect.die(signal.reason))
    if (signal.aborted) return abort()
    signal.addEventListener("abort", abort, { once: true })
    return Effect.sync(() => signal.removeEventListener("abort", abort))
  })

/** The value; a failure is thrown, as callers of promises expect. */
const unwrap = <A>(exit: Exit.Exit<A, unknown>, signal: AbortSignal | undefined): A => {
  if (Exit.isSuccess(exit)) return exit.value
  if (!Cause.hasInterruptsOnly(exit.cause)) throw Cause.squash(exit.cause)
  throw signal?.aborted === true ? signal.reason : new Error("Troupe was closed.")
}

/** What a running Troupe has. */
type Services = Layer.Success<ReturnType<typeof App.layer>>

/**
 * Starts a Troupe. A model is loaded by its first request.
 *
 * @param options `config`, the configuration as a value, or `file`; default `troupe.yaml` in the current folder, or the
 * embedded `tiny-chat`. A configuration that is wrong makes the first call throw a `SettingsError`.
 */
export const start = (options?: SettingsFile.Options): Troupe => {
  const runtime = ManagedRuntime.make(App.layer(options))
  let closed = false
  const open = () => {
    if (closed) throw new Error("Troupe was closed.")
  }
  /** Runs a call until its signal is aborted. */
  const run = async <A>(
    options: CallOptions | undefined,
    work: () => Effect.Effect<A, unknown, Services>
  ): Promise<A> => {
    open()
    const signal = signalOf(options)
    return unwrap(await runtime.runPromiseExit(work(), signal === undefined ? {} : { signal }), signal)
  }
  /** A call of a method of `Inference`. */
  const task =
    <R, A>(method: (inference: Inference["Service"], request: R) => Effect.Effect<A, unknown>) =>
    (request: R, options?: CallOptions): Promise<A> =>
      run(options, () => Effect.flatMap(Inference, (inference) => method(inference, request)))
  return {
    generate: task((inference, request: Request) => inference.generate(request)),
    embed: task((inference, request: EmbedRequest) => inference.embed(request)),
    rerank: task((inference, request: RerankRequest) => inference.rerank(request)),
    classify: task((inference, request: ClassifyRequest) => inference.classify(request)),
    tokenize: task((inference, request: TokenizeRequest) => inference.tokenize(request)),
    count: task((inference, request: CountRequest) => inference.count(request)),
    models: (options) => run(options, () => ModelReport.all),
    route: (request = {}, options) =>
      run(options, () => Effect.flatMap(Effect.fromResult(Explanation.requestOf(request)), Explanation.explain)),
    stream: (request, options) => ({
      async *[Symbol.asyncIterator]() {
        open()
        const signal = signalOf(options)
        const context = await runtime.context()
        const events = Stream.unwrap(Effect.map(Inference, (inference) => inference.stream(request)))
        const stream = signal === undefined ? events : Stream.interruptWhen(events, aborted(signal))
        yield* Stream.toAsyncIterableWith(stream, context)
        signal?.throwIfAborted()
      }
    }),
    close() {
      closed = true
      return runtime.dispose()
    }
  }
}

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
import { Cause, Context, Effect, Exit, Layer, Logger, ManagedRuntime, References, Scope, Stream } from "effect"
import * as App from "./App.ts"
import type {
  Answer,
  AnsweredBy,
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
import * as NodeListener from "./layers/http/NodeListener.ts"
import * as WebHandler from "./layers/http/WebHandler.ts"
import type * as SettingsFile from "./layers/settings/SettingsFile.ts"
import { Inference } from "./services/inference/Inference.ts"
import * as Explanation from "./services/routing/Explanation.ts"
import * as ModelReport from "./services/routing/ModelReport.ts"
import type { Report } from "./services/settings/Reload.ts"
import { Reload } from "./services/settings/Reload.ts"

/** Options of one call. */
export interface CallOptions {
  /** Aborting it stops the engine within one token; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** An answer whose first event has arrived. */
export interface Opened extends AnsweredBy {
  readonly events: AsyncIterable<Event>
}

/** A running Troupe. Every method rejects with an `InferenceError`, whose `reason` says what went wrong; after `close`, an `Error`. */
export interface Troupe {
  /** The buffered answer. */
  readonly generate: (request: Request, options?: CallOptions) => Promise<Answer>
  /** The answer as it is generated. Leaving the loop early stops the engine within one token. */
  readonly stream: (request: Request, options?: CallOptions) => AsyncIterable<Event>
  /**
   * The answer after its first event, with the deployment that answers. An earlier failure rejects the promise, a later one
   * ends `events`, which are to be read once, or left by `return`.
   */
  readonly open: (request: Request, options?: CallOptions) => Promise<Opened>
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
  /**
   * The HTTP interface of `troupe serve`, all dialects: a function for servers that pass web requests on, as Hono's and Next's.
   * An aborted request, or a response whose body is cancelled, stops the engine within one token. After `close`, 503.
   */
  readonly handler: (request: globalThis.Request) => Promise<Response>
  /** `handler` for servers on Node's `http`, as Express and Fastify. It needs the body of the request as it arrives. */
  readonly listener: NodeListener.Listener
  /**
   * Changes to another configuration while calls run: all of it, or nothing. Unchanged models stay loaded; changed ones that
   * are in use are loaded beside and take over. Rejects with a `ReloadError` that has every problem; then nothing has changed.
   *
   * @param options as those of `start`; left out, those that it was started with: its file is read again
   */
  readonly reload: (options?: SettingsFile.Options) => Promise<Report>
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

/** The events of an opened answer, whose scope ends when they end, are left, or the signal is aborted. */
class OpenedEvents implements AsyncIterableIterator<Event> {
  readonly #events: AsyncIterator<Event>
  readonly #close: () => Promise<unknown>
  readonly #signal: AbortSignal | undefined
  readonly #end = () => {
    this.#signal?.removeEventListener("abort", this.#end)
    void this.#close()
  }

  constructor(events: AsyncIterable<Event>, close: () => Promise<unknown>, signal: AbortSignal | undefined) {
    this.#events = events[Symbol.asyncIterator]()
    this.#close = close
    this.#signal = signal
    signal?.addEventListener("abort", this.#end, { once: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<Event>> {
    try {
      const result = await this.#events.next()
      if (result.done !== true) return result
      this.#end()
      this.#signal?.throwIfAborted()
      return result
    } catch (error) {
      this.#end()
      throw error
    }
  }

  async return(): Promise<IteratorResult<Event>> {
    await this.#events.return?.()
    this.#signal?.removeEventListener("abort", this.#end)
    await this.#close()
    return { done: true, value: undefined }
  }
}

/** What a running Troupe has. */
type Services = Layer.Success<ReturnType<typeof App.hosted>>

/** Standard output is the program's: warnings and errors go to standard error, and what is less is not logged. */
const logging = Layer.merge(
  Layer.succeed(Logger.LogToStderr, true),
  Layer.succeed(References.MinimumLogLevel, "Warn")
)

/** A method of `Inference`. */
type Method<R, A> = (inference: Inference["Service"], request: R) => Effect.Effect<A, unknown>

class RunningTroupe implements Troupe {
  readonly #runtime: ManagedRuntime.ManagedRuntime<Services, unknown>
  #isClosed = false
  /** Built by the first request. */
  #web: Promise<WebHandler.WebHandler["Service"]> | undefined

  readonly #options: SettingsFile.Options | undefined

  constructor(options: SettingsFile.Options | undefined) {
    this.#options = options
    this.#runtime = ManagedRuntime.make(Layer.provideMerge(App.hosted(options), logging))
  }

  /** Runs a call until its signal is aborted. */
  async #run<A>(options: CallOptions | undefined, work: Effect.Effect<A, unknown, Services>): Promise<A> {
    const signal = this.#signalOf(options)
    return unwrap(await this.#runtime.runPromiseExit(work, signal === undefined ? {} : { signal }), signal)
  }

  #signalOf(options: CallOptions | undefined): AbortSignal | undefined {
    if (this.#isClosed) throw new Error("Troupe was closed.")
    return signalOf(options)
  }

  #task<R, A>(method: Method<R, A>): (request: R, options?: CallOptions) => Promise<A> {
    return (request, options) =>
      this.#run(options, Effect.flatMap(Inference, (inference) => method(inference, request)))
  }

  /** Events as an iterable that the signal ends. */
  async #iterable(
    events: Stream.Stream<Event, unknown, Services>,
    signal: AbortSignal | undefined
  ): Promise<AsyncIterable<Event>> {
    const stream = signal === undefined ? events : Stream.interruptWhen(events, aborted(signal))
    return Stream.toAsyncIterableWith(stream, await this.#runtime.context())
  }

  readonly generate = this.#task((inference, request: Request) => inference.generate(request))

  readonly embed = this.#task((inference, request: EmbedRequest) => inference.embed(request))

  readonly rerank = this.#task((inference, request: RerankRequest) => inference.rerank(request))

  readonly classify = this.#task((inference, request: ClassifyRequest) => inference.classify(request))

  readonly tokenize = this.#task((inference, request: TokenizeRequest) => inference.tokenize(request))

  readonly count = this.#task((inference, request: CountRequest) => inference.count(request))

  readonly stream = (request: Request, options?: CallOptions): AsyncIterable<Event> => {
    const iterate = async function*(this: RunningTroupe) {
      const signal = this.#signalOf(options)
      const events = Stream.unwrap(Effect.map(Inference, (inference) => inference.stream(request)))
      yield* await this.#iterable(events, signal)
      signal?.throwIfAborted()
    }
    return { [Symbol.asyncIterator]: () => iterate.call(this) }
  }

  readonly open = async (request: Request, options?: CallOptions): Promise<Opened> => {
    const scope = Scope.makeUnsafe()
    const close = () => this.#runtime.runPromiseExit(Scope.close(scope, Exit.void))
    const opened = Effect.flatMap(Inference, (inference) => inference.open(request))
    try {
      const { events, ...by } = await this.#run(options, Effect.provideService(opened, Scope.Scope, scope))
      const signal = signalOf(options)
      return { ...by, events: new OpenedEvents(await this.#iterable(events, signal), close, signal) }
    } catch (error) {
      await close()
      throw error
    }
  }

  readonly models = (options?: CallOptions) => this.#run(options, ModelReport.all)

  readonly route = (request: Explanation.ExplanationRequest = {}, options?: CallOptions) =>
    this.#run(options, Effect.flatMap(Effect.fromResult(Explanation.requestOf(request)), Explanation.explain))

  readonly reload = (options: SettingsFile.Options | undefined = this.#options): Promise<Report> =>
    this.#run(
      undefined,
      Reload.use(({ run }) => run({ trigger: "program", settings: App.loadSettings(options, undefined, false) }))
    )

  #buildWeb(): Promise<WebHandler.WebHandler["Service"]> {
    const built = Layer.buildWithMemoMap(App.web, Layer.makeMemoMapUnsafe(), this.#runtime.scope)
    return this.#runtime.runPromise(Effect.map(built, (context) => Context.get(context, WebHandler.WebHandler)))
  }

  readonly handler = async (request: globalThis.Request): Promise<Response> => {
    if (this.#isClosed) return WebHandler.closed(request)
    this.#web ??= this.#buildWeb()
    return (await this.#web).handle(request)
  }

  readonly listener = NodeListener.make(this.handler)

  readonly close = (): Promise<void> => {
    this.#isClosed = true
    return this.#runtime.dispose()
  }
}

/**
 * Starts a Troupe. A model is loaded by its first request.
 *
 * @param options `config`, the configuration as a value, or `file`; default `troupe.yaml` in the current folder, or the
 * embedded `tiny-chat`. A configuration that is wrong makes the first call throw a `SettingsError`.
 */
export const start = (options?: SettingsFile.Options): Troupe => new RunningTroupe(options)

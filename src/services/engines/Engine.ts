/**
 * The interface of engines: local ones, providers, and language models of `effect/ai`.
 *
 * **Details**
 *
 * Every implementation passes `test/conformance/engine.ts`: streaming, cancellation, usage, stop sequences, overflow and
 * errors behave the same, so that the caller does not depend on the kind of engine. Admission and scheduling are the
 * caller's task: an engine accepts every job.
 */
import type { Effect, Scope, Stream } from "effect"
import { Context, Result } from "effect"
import type { Deployment, DeploymentOptions, EngineDeployment } from "../../domain/Deployment.ts"
import type { EngineDescription, GpuMemory } from "../../domain/EngineProtocol.ts"
import type { Countable, Counted, Generation, NativeEmbeddings } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Classification, Embedding, EmbedInput, Ranking, RankingInput, ReportedUsage } from "../../domain/Job.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import type { Source } from "../../domain/Source.ts"
import type { StreamLimits } from "../../domain/StreamLimits.ts"
import type { Waits } from "../models/Waits.ts"

/** Called when a job starts; the returned function is called when the engine has ended the job. */
export type Retain = () => () => void

/**
 * Receives an answer as it is generated, after `start` has returned: any number of `events`, then `end`, `failed`, `died` or
 * `rest`.
 */
export interface EventReceiver {
  readonly events: (events: ReadonlyArray<Event>) => void
  /** The last event was a `finish`. */
  readonly end: () => void
  readonly failed: (error: InferenceError) => void
  /** The engine ended in a defect, or a method of the receiver threw it. */
  readonly died: (defect: unknown) => void
  /** The rest of the answer is this stream, since something has to wait. */
  readonly rest: (events: Stream.Stream<Event, InferenceError>) => void
}

/** An answer that a receiver follows. */
export interface StartedAnswer {
  /** Stops generating, or reading: no events come until `resume`. */
  readonly pause: () => void
  readonly resume: () => void
  /** Cancels it; the receiver is not called any more. */
  readonly close: () => void
}

/** What is known of the cost of an answer that may never be complete; a remote engine writes it. */
export interface Meter {
  /** A request was sent to a provider, which has not answered with an error. */
  isSent: boolean
  /** Reads what the provider has reported until now. */
  reporter: { readonly usage?: () => ReportedUsage | undefined } | undefined
  /** Events of a stream that were not readable and were left out; left out: none. */
  skippedEvents?: number | undefined
  /** Remembers who made signed reasoning that the caller gets as the provider sent it; left out: nothing does. */
  readonly makers?: { readonly note: (marks: ReadonlyArray<string>, options: DeploymentOptions) => void } | undefined
  /** Makes the headers with the trace that the provider joins, names and values in turn; left out: it joins none. */
  readonly trace?: { readonly headers: () => ReadonlyArray<string> } | undefined
  /** Gets where the request waits at another instance of this service; left out: the caller does not ask. */
  waits?: Pick<Waits, "tell"> | undefined
}

/** The meter of a task with one buffered result, which the fiber of an attempt runs. */
export const TaskMeter = Context.Reference<Meter | undefined>("troupe/services/engines/Engine/TaskMeter", {
  defaultValue: () => undefined
})

/**
 * Notes what inputs with a result have used, where another input of the same attempt has failed. The requests of a provider
 * that fail cost nothing.
 */
export const noteResults = (
  meter: Meter,
  results: ReadonlyArray<Result.Result<Pick<Embedding, "isEstimated" | "promptTokens">, InferenceError>>
): void => {
  const used = results.flatMap((result) => Result.isSuccess(result) ? [result.success] : [])
  if (used.length === results.length) return
  meter.isSent = false
  const promptTokens = used.reduce((sum, one) => sum + one.promptTokens, 0)
  if (promptTokens > 0) meter.reporter = { usage: () => ({ promptTokens }) }
}

/** A loaded engine. A job that its `capabilities` do not include fails with `InvalidRequest`. */
export interface Engine {
  readonly describe: EngineDescription
  /**
   * Generates. Ending the stream early cancels within one token.
   *
   * @param retain holds the job's slot until the engine has ended the job, which may be after the stream; so in all methods
   */
  readonly generate: (generation: Generation, retain?: Retain, meter?: Meter) => Stream.Stream<Event, InferenceError>
  /**
   * As `generate`, without a fiber: it begins at once, and calls the receiver. Undefined if something has to wait before the
   * answer can begin, or the generation is not supported: then `generate` is used. Left out, the engine does not support it.
   *
   * @param hops instances of this service that the request has passed
   */
  readonly start?: (
    generation: Generation,
    hops: number,
    receiver: EventReceiver,
    retain?: Retain,
    meter?: Meter
  ) => StartedAnswer | undefined
  /** One result per input, in their order: an invalid input fails alone. */
  readonly embed: (
    inputs: ReadonlyArray<EmbedInput>,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<Result.Result<Embedding, InferenceError>>, InferenceError>
  readonly rerank: (
    query: string,
    documents: ReadonlyArray<string>,
    retain?: Retain
  ) => Effect.Effect<Ranking, InferenceError>
  /** The rankings of several queries in one job, one result per input, as `embed`; left out if a job has one query. */
  readonly rankEach?: (
    inputs: ReadonlyArray<RankingInput>,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<Result.Result<Ranking, InferenceError>>, InferenceError>
  /** One result per input, as `embed`. */
  readonly classify: (
    inputs: ReadonlyArray<string>,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<Result.Result<Classification, InferenceError>>, InferenceError>
  readonly tokenize: (
    input: Countable,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<number>, InferenceError>
  /** Embeds for a caller of the provider's dialect, and passes the provider's answer on; left out if not supported. */
  readonly embedNative?: (source: Source, retain?: Retain) => Effect.Effect<NativeEmbeddings, InferenceError>
  /** Number of prompt tokens, for an engine that counts but does not tokenize; left out, `tokenize` is used. */
  readonly count?: (input: Counted, retain?: Retain) => Effect.Effect<number, InferenceError>
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: Effect.Effect<number>
  /** Memory of the GPUs that it uses, as it was read last; undefined without one. Left out, it does not know. */
  readonly gpuMemory?: () => GpuMemory | undefined
  /** Whether it has ended: true before any job fails because of that. Left out, it never ends by itself. */
  readonly isOver?: () => boolean
  /** Ends the engine; running jobs fail with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  /** Fails with `EngineCrashed` when the engine crashes; never succeeds. */
  readonly crashed: Effect.Effect<never, InferenceError>
}

/** Starts engines. */
export class Engines extends Context.Service<Engines, {
  /** Loads the deployment's model; the scope's end unloads it. */
  readonly start: (deployment: Deployment) => Effect.Effect<Engine, InferenceError, Scope.Scope>
}>()("troupe/services/Engines") {}

/** Where engine threads run: `process`, in a child process for each deployment; `thread`, in this process. */
export type Where = "process" | "thread"

/** Starts engines of one kind; the scope's end unloads the model. */
export type StartLocal = (
  where: Where,
  deployment: Deployment,
  options: EngineDeployment,
  /** How answers are streamed. */
  streams: StreamLimits,
  /** Where computed prompts are kept; left out, nowhere. */
  prefixFiles?: PrefixFileOptions
) => Effect.Effect<Engine, InferenceError, Scope.Scope>

/** The engine of one kind that runs on threads; `undefined` if the application does not have it. */
export const localEngine = (kind: string) =>
  Context.Reference<StartLocal | undefined>(`troupe/services/engines/${kind}`, { defaultValue: () => undefined })

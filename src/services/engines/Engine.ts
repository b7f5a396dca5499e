/**
 * The seam between policy and whoever generates: local engines, `effect/ai` models, and whatever else can stream tokens.
 *
 * **Details**
 *
 * Every implementation passes `test/conformance/engine.ts`: streaming, cancellation, usage, stop sequences, overflow
 * and errors behave alike, so that nothing above this seam asks which engine it talks to. Who may use an engine, and
 * when, is decided above it: an engine takes what it is given.
 */
import type { Effect, Result, Scope, Stream } from "effect"
import { Context } from "effect"
import type { Deployment, EngineDeployment } from "../../domain/Deployment.ts"
import type { EngineDescription } from "../../domain/EngineProtocol.ts"
import type { Countable, Counted, Generation, NativeEmbeddings, Ranking } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Classification, Embedding } from "../../domain/Job.ts"
import type { Source } from "../../domain/Source.ts"

/** Called when a job starts; what it returns is called when the engine has let go of the job. */
export type Retain = () => () => void

/** A loaded engine. What it cannot do, as its `abilities` tell, fails with `InvalidRequest`. */
export interface Engine {
  readonly describe: EngineDescription
  /**
   * Generates. Ending the stream early cancels within one token.
   *
   * @param hold tells how long the job's slot is taken, which may be longer than the stream, as of every job here
   */
  readonly generate: (generation: Generation, retain?: Retain) => Stream.Stream<Event, InferenceError>
  /** One result an input, in their order: a wrong input fails alone. */
  readonly embed: (
    inputs: ReadonlyArray<string>,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<Result.Result<Embedding, InferenceError>>, InferenceError>
  readonly rerank: (
    query: string,
    documents: ReadonlyArray<string>,
    retain?: Retain
  ) => Effect.Effect<Ranking, InferenceError>
  /** Likewise. */
  readonly classify: (
    inputs: ReadonlyArray<string>,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<Result.Result<Classification, InferenceError>>, InferenceError>
  readonly tokenize: (
    input: Countable,
    retain?: Retain
  ) => Effect.Effect<ReadonlyArray<number>, InferenceError>
  /** Embeds for a caller of the provider's own dialect, whose answer is passed on; left out, it has none. */
  readonly embedNative?: (source: Source, retain?: Retain) => Effect.Effect<NativeEmbeddings, InferenceError>
  /** Tokens of the prompt, where they can be counted and not told one by one; left out, `tokenize` counts. */
  readonly count?: (input: Counted, retain?: Retain) => Effect.Effect<number, InferenceError>
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: Effect.Effect<number>
  /** Whether it takes no more jobs: true before any job fails of its end. Left out, it never ends of itself. */
  readonly isOver?: () => boolean
  /** Ends the engine; what runs fails with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  /** Fails with `EngineCrashed` when the engine dies; never succeeds. */
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
  options: EngineDeployment
) => Effect.Effect<Engine, InferenceError, Scope.Scope>

/** The engine of one kind that runs on threads; `undefined` if the application does not have it. */
export const localEngine = (kind: string) =>
  Context.Reference<StartLocal | undefined>(`troupe/services/engines/${kind}`, { defaultValue: () => undefined })

/**
 * The seam between policy and whoever generates: a local engine today, and whatever else can stream tokens.
 *
 * **Details**
 *
 * Every implementation passes `test/conformance/engine.ts`: streaming, cancellation, usage, stop sequences, overflow
 * and errors behave alike, so that nothing above this seam asks which engine it talks to.
 */
import type { Effect, Scope, Stream } from "effect"
import { Context } from "effect"
import type { ChatMessage, EngineDescription, SamplingOptions } from "./EngineProtocol.ts"
import type { Event } from "./Inference.ts"
import type { InferenceError } from "./InferenceError.ts"
import type { Deployment } from "./Model.ts"

/** One generation, every default filled in. */
export interface Generation {
  readonly messages: ReadonlyArray<ChatMessage>
  readonly sampling: SamplingOptions
  readonly maxTokens: number | undefined
  readonly stop: ReadonlyArray<string>
}

/** How busy an engine is. */
export interface Load {
  readonly running: number
  /** Waiting for a slot. */
  readonly queued: number
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: number
}

/** A loaded engine. */
export interface Engine {
  readonly describe: EngineDescription
  readonly load: Effect.Effect<Load>
  /** Waits for a slot, then generates. Ending the stream early cancels within one token. */
  readonly generate: (generation: Generation) => Stream.Stream<Event, InferenceError>
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

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
import type { Message } from "./Content.ts"
import type { EngineDescription } from "./EngineProtocol.ts"
import type { Extra } from "./Extra.ts"
import type { Event } from "./Inference.ts"
import type { InferenceError } from "./InferenceError.ts"
import type { Classification, Embedding, GenerateJob, SamplingOptions, TokenizeJob } from "./Job.ts"
import type { Deployment } from "./Model.ts"
import type { Native, Source } from "./Source.ts"
import type { Standing } from "./Standing.ts"

/** What the caller set; an engine applies its own defaults to the rest. */
export type Sampling = { readonly [Option in keyof SamplingOptions]?: SamplingOptions[Option] | undefined }

/** One generation. */
export interface Generation extends Omit<GenerateJob, "kind" | "window" | "messages" | "owner" | "sampling"> {
  readonly messages: ReadonlyArray<Message>
  readonly sampling: Sampling
  /** The caller's own request; left out, there is none. */
  readonly source?: Source | undefined
  /** `continues` holds text of an earlier attempt, which `source` does not have; default false. */
  readonly resumed?: boolean | undefined
  /** Fields of the caller's own dialect; left out, none. An engine that has no words for them refuses what is required. */
  readonly extra?: Extra | undefined
  /** Whether an answer may have several calls, for engines that can be told; default true. */
  readonly parallelToolCalls?: boolean | undefined
  /** For engines that hand a request on to others who queue it; left out, nothing is said. */
  readonly standing?: Standing | undefined
  /** Nobody sees any of the answer before it is whole, nor waits for its first piece: it may come in one. */
  readonly whole?: boolean | undefined
}

/** Asks for the rest of the assistant's last message. */
export const goOn =
  "Your last message was cut off. Go on exactly where it stops: repeat nothing of it, begin with the " +
  "very next character, and say nothing else."

/** The text so far as the assistant's last message, which some take for the beginning of their answer. */
export const prefilled = <A extends Pick<Generation, "continues" | "messages">>(generation: A): A => {
  const { continues, messages } = generation
  return continues === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "assistant", content: continues }] }
}

/**
 * The same, and a request to go on: for models that do not take a message for the beginning of their answer. It is as
 * good as the model, which may begin anew, repeat something or leave a space out.
 */
export const asked = (generation: Generation): Generation => {
  const { messages } = prefilled(generation)
  return generation.continues === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "user", content: goOn }] }
}

/** A text, or a conversation without images and with its template around it, to count or to see as tokens. */
export type Countable = string | Omit<Exclude<TokenizeJob["input"], string>, "messages"> & Pick<Generation, "messages">

/** A conversation to count, and the caller's own request for it. */
export interface Counted extends Exclude<Countable, string> {
  readonly source?: Source | undefined
}

/** Embeddings as a provider sent them. */
export interface NativeEmbeddings {
  readonly native: Native
  readonly promptTokens: number
}

/** Scores from 0 to 1, in the order of the documents. */
export interface Ranking {
  readonly scores: ReadonlyArray<number>
  readonly promptTokens: number
}

/** Called when a job starts; what it returns is called when the engine has let go of the job. */
export type Hold = () => () => void

/** A loaded engine. What it cannot do, as its `abilities` tell, fails with `InvalidRequest`. */
export interface Engine {
  readonly describe: EngineDescription
  /**
   * Generates. Ending the stream early cancels within one token.
   *
   * @param hold tells how long the job's slot is taken, which may be longer than the stream, as of every job here
   */
  readonly generate: (generation: Generation, hold?: Hold) => Stream.Stream<Event, InferenceError>
  /** One result an input, in their order: a wrong input fails alone. */
  readonly embed: (
    inputs: ReadonlyArray<string>,
    hold?: Hold
  ) => Effect.Effect<ReadonlyArray<Result.Result<Embedding, InferenceError>>, InferenceError>
  readonly rerank: (
    query: string,
    documents: ReadonlyArray<string>,
    hold?: Hold
  ) => Effect.Effect<Ranking, InferenceError>
  /** Likewise. */
  readonly classify: (
    inputs: ReadonlyArray<string>,
    hold?: Hold
  ) => Effect.Effect<ReadonlyArray<Result.Result<Classification, InferenceError>>, InferenceError>
  readonly tokenize: (
    input: Countable,
    hold?: Hold
  ) => Effect.Effect<ReadonlyArray<number>, InferenceError>
  /** Embeds for a caller of the provider's own dialect, whose answer is passed on; left out, it has none. */
  readonly embedNative?: (source: Source, hold?: Hold) => Effect.Effect<NativeEmbeddings, InferenceError>
  /** Tokens of the prompt, where they can be counted and not told one by one; left out, `tokenize` counts. */
  readonly count?: (input: Counted, hold?: Hold) => Effect.Effect<number, InferenceError>
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

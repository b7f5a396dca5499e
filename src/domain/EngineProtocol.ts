/**
 * What an engine thread and its host say to each other.
 *
 * **Details**
 *
 * An engine runs in a Piscina thread; the thread's pool runs either in this process or in a child process. This
 * module is the language all three speak: plain data that the structured clone algorithm carries, over a thread's
 * `MessagePort` and over a child's IPC channel alike.
 *
 * **Gotchas**
 *
 * Threads and the child process import this module, so it must not import `effect`: that would add 0.2 s to every
 * start of an engine.
 */
import type { EngineFailure, Job, JobCommand, JobEvent } from "./Job.ts"

/** What a loaded engine can do; `domain/Capability` says what each kind of deployment has of these. */
export const abilities = [
  "generate",
  "tools",
  "format",
  "logprobs",
  "embed",
  "rerank",
  "classify",
  "tokenize",
  "images"
] as const
export type Ability = typeof abilities[number]

/** For messages, as "`tiny` does not support tool calls". */
export const abilityInWords: Readonly<Record<Ability, string>> = {
  generate: "text generation",
  tools: "tool calls",
  format: "structured output",
  logprobs: "log probabilities",
  embed: "embeddings",
  rerank: "reranking",
  classify: "classification",
  tokenize: "tokenization",
  images: "image input"
}

/** Tokens a slot gets when nobody says how many, since a model's own window may need more memory than there is. */
export const largestDefaultWindow = 4096

/** Tokens of a prompt that are computed before the next look at whether anyone still wants the answer. */
export const promptPiece = 64

/** Tokens of prompts that llama.cpp computes together on processors, where more at once are no cheaper for each. */
export const promptsPerBatch = 2 * promptPiece

/** Tokens that llama.cpp computes together at most, over all slots. */
const largestBatch = 512

/**
 * Tokens that one deployment has computed together: no slot computes more than a piece of its prompt at once, and room
 * for more would be memory for nothing.
 *
 * @param contextSize tokens a slot
 */
export const batchOf = (
  contextSize: number,
  { gpu, slots }: { readonly slots: number; readonly gpu?: string | undefined }
): number =>
  Math.min(
    Math.min(contextSize, promptPiece) * slots,
    gpu === undefined ? promptsPerBatch + slots : largestBatch
  )

/** What a loaded engine says of itself. */
export interface EngineDescription {
  readonly engine: string
  /** Tokens that prompt and answer share; 0 where nobody has told. */
  readonly contextWindow: number
  /** Sequences that one thread runs side by side. */
  readonly slots: number
  readonly abilities: ReadonlyArray<Ability>
  /** Parameters, quantisation and the like, as the model file names them. */
  readonly details: Readonly<Record<string, string | number>>
  /** What the operator should know of this model, for the log; left out, nothing. */
  readonly warnings?: ReadonlyArray<string> | undefined
}

/** What an engine thread starts with: the kind's name, and options that its worker reads. */
export interface EngineSpec {
  readonly engine: string
  /** Sequences that one thread runs concurrently. */
  readonly slots: number
  readonly [option: string]: unknown
}

/** Sends a command to a running job; after its last event this does nothing. */
export type SendCommand = (command: JobCommand) => void

/**
 * A pool of engine threads, wherever it runs.
 *
 * Jobs beyond `slots × threads` must wait outside: a host takes what it is given.
 */
export interface EngineHost {
  /** Resolves when the model is loaded; rejects with an `EngineFailure`. */
  readonly ready: Promise<EngineDescription>
  /** Resolves with the reason when the engine is gone, be it by `close`. Never rejects. */
  readonly exited: Promise<EngineFailure>
  /** Whether it takes no more jobs. True before a job hears of the engine's end, which `exited` tells a little later. */
  readonly isOver: () => boolean
  /** Starts a job. If the engine dies, the last event is `failed` with `crashed`. */
  readonly start: (job: Job, onEvents: (events: ReadonlyArray<JobEvent>) => void) => SendCommand
  /** Resident memory outside this process, bytes; 0 for a host inside it. */
  readonly memoryBytes: () => number
  /**
   * Ends an engine that cannot be waited for; its jobs and `exited` tell this failure. A process is killed; threads of
   * this process are left behind, as ending one that computes would take the process down.
   */
  readonly abandon: (failure: EngineFailure) => void
  /** Cancels what runs, waits for it, disposes the model, ends the threads. */
  readonly close: () => Promise<void>
}

/** What a host is made from. */
export interface HostOptions {
  readonly spec: EngineSpec
  /** Engine threads: copies of the model that share its file's pages. */
  readonly replicas: number
  /** How long a cancelled job may go on before its engine counts as hung, ms; where the host can end it, it does. */
  readonly cancelGraceMs: number
  /** How long the engine may take to end in order, ms; likewise. */
  readonly closeGraceMs: number
}

/** From the service to the child process that holds a pool; one message carries all of a turn. */
export type ToChild =
  /** The first message: what to load. */
  | { readonly type: "load"; readonly options: HostOptions }
  | { readonly type: "start"; readonly id: number; readonly job: Job }
  | { readonly type: "command"; readonly id: number; readonly command: JobCommand }
  | { readonly type: "close" }

/** From the child process to the service. */
export type FromChild =
  | { readonly type: "ready"; readonly description: EngineDescription }
  | { readonly type: "load_failed"; readonly failure: EngineFailure }
  | { readonly type: "memory"; readonly residentBytes: number }
  /** Everything that happened to every job in one turn of the child's event loop. */
  | { readonly type: "events"; readonly jobs: ReadonlyArray<readonly [id: number, events: ReadonlyArray<JobEvent>]> }

/** From the process that tries a model file before its first use: see `src/inspect.ts`. */
export type FromInspector =
  | { readonly type: "passed" }
  | { readonly type: "failed"; readonly failure: EngineFailure }

/**
 * The messages between an engine thread and its host.
 *
 * **Details**
 *
 * An engine runs in a Piscina thread; the pool runs in this process or in a child process. Messages are plain data for the
 * structured clone algorithm, over a thread's one `MessagePort` and over a child's IPC channel.
 *
 * **Gotchas**
 *
 * Threads and the child process import this module, so it must not import `effect`: that would add 0.2 s to every
 * start of an engine.
 */
import type { EngineFailure, Job, JobCommand, JobEvent } from "./Job.ts"

/** What a loaded engine can do. */
export const engineCapabilities = [
  "generate",
  "complete",
  "tools",
  "format",
  "logprobs",
  "echo",
  "embed",
  "embedTokens",
  "rerank",
  "classify",
  "tokenize",
  "images"
] as const
export type EngineCapability = typeof engineCapabilities[number]

/** For messages, as "`tiny` does not support tool calls". */
export const capabilityNames: Readonly<Record<EngineCapability, string>> = {
  generate: "text generation",
  complete: "text completion without a chat template",
  tools: "tool calls",
  format: "structured output",
  logprobs: "log probabilities",
  echo: "an echo of the prompt with its log probabilities or tokens",
  embed: "embeddings",
  embedTokens: "embeddings of token ids",
  rerank: "reranking",
  classify: "classification",
  tokenize: "tokenization",
  images: "image input"
}

/** The most tokens per slot unless configured, since a model's own window may need more memory than available. */
export const largestDefaultWindow = 4096

/** Tokens of a prompt that are computed between two checks for cancellation. */
export const promptPiece = 64

/** Prompt tokens in one batch of llama.cpp on CPUs, where larger batches are not cheaper per token. */
export const promptsPerBatch = 2 * promptPiece

/** The most tokens in one batch of llama.cpp, over all slots. */
const largestBatch = 512

/**
 * Batch size of a deployment, tokens: a slot computes at most one piece of its prompt at once, so a larger batch would
 * waste memory.
 *
 * @param contextSize tokens per slot
 */
export const batchOf = (
  contextSize: number,
  { gpu, slots }: { readonly slots: number; readonly gpu?: string | undefined }
): number =>
  Math.min(
    Math.min(contextSize, promptPiece) * slots,
    gpu === undefined ? promptsPerBatch + slots : largestBatch
  )

/** A loaded engine. */
export interface EngineDescription {
  readonly engine: string
  /** Tokens that prompt and answer share; 0 if unknown. */
  readonly contextWindow: number
  /** Sequences that one thread runs concurrently. */
  readonly slots: number
  /** Compute threads of each engine thread, of an engine that chooses them: for answers, and for prompts. */
  readonly threads?: { readonly answers: number; readonly prompts: number } | undefined
  readonly capabilities: ReadonlyArray<EngineCapability>
  /** Name, architecture, size and the like, from the model file. */
  readonly details: Readonly<Record<string, string | number>>
  /** Warnings for the operator's log; left out, none. */
  readonly warnings?: ReadonlyArray<string> | undefined
}

/** Memory of the GPUs of this machine, bytes. */
export interface GpuMemory {
  readonly usedBytes: number
  readonly totalBytes: number
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
 * A pool of engine threads, in this process or in a child process.
 *
 * The caller runs at most `slots × replicas` jobs at once: a host does not queue.
 */
export interface EngineHost {
  /** Resolves when the model is loaded; rejects with an `EngineFailure`. */
  readonly ready: Promise<EngineDescription>
  /** Resolves with the reason when the engine has ended, also by `close`. Never rejects. */
  readonly exited: Promise<EngineFailure>
  /** Whether the engine has ended. True before any job fails because of that; `exited` resolves a little later. */
  readonly isOver: () => boolean
  /** Starts a job. If the engine crashes, the last event is `failed` with `crashed`. */
  readonly start: (job: Job, onEvents: (events: ReadonlyArray<JobEvent>) => void) => SendCommand
  /** Resident memory outside this process, bytes; 0 for a host inside it. */
  readonly memoryBytes: () => number
  /** As it was read last; undefined without a GPU. Left out, it does not know. */
  readonly gpuMemory?: () => GpuMemory | undefined
  /**
   * Ends an engine without waiting; its jobs and `exited` get this failure. A process is killed; threads of this process
   * are abandoned, since ending one that computes would abort the process.
   */
  readonly abandon: (failure: EngineFailure) => void
  /** Cancels running jobs, waits for them, disposes of the model, ends the threads. */
  readonly close: () => Promise<void>
}

/** Options of a host. */
export interface HostOptions {
  readonly spec: EngineSpec
  /** Engine threads: copies of the model that share its file's pages. */
  readonly replicas: number
  /** How long a cancelled job may run before its engine process is killed, ms. */
  readonly cancelGraceMs: number
  /** How long the engine may take to close before its process is killed, ms. */
  readonly closeGraceMs: number
}

/** The events of several jobs, by the jobs' numbers. */
export type JobBatch = ReadonlyArray<readonly [id: number, events: ReadonlyArray<JobEvent>]>

/** From a host to a thread. A job's number is used again after its last event. */
export type ToThread =
  | { readonly type: "start"; readonly id: number; readonly job: Job }
  | { readonly type: "command"; readonly id: number; readonly command: JobCommand }

/** From a thread to its host: the events of all jobs in one turn of the thread's event loop. */
export type FromThread = JobBatch

/** The engine's end of its connection with its host. */
export interface EnginePort {
  readonly postMessage: (message: FromThread) => void
  readonly on: (event: "message", listener: (message: ToThread) => void) => unknown
}

/** What `workers/<engine>.worker` exports. */
export interface EngineWorker {
  /** Loads the model, and runs the jobs that arrive over the port. Resolves once the model is loaded. */
  readonly connect: (connection: { readonly port: EnginePort; readonly spec: EngineSpec }) => Promise<EngineDescription>
  /** Frees the model's memory; no job may be running. */
  readonly dispose: () => Promise<void> | void
  /** Undefined if the model has no GPU; left out, the engine does not know. Called for specs with `gpu` only. */
  readonly gpuMemory?: () => Promise<GpuMemory | undefined> | GpuMemory | undefined
}

/** Threads find `true` under this key of Node's environment data if their process runs one engine only. */
export const engineProcess = "troupe/engineProcess"

/** From the service to the child process with a pool. All messages of one turn of the event loop are sent as one. */
export type ToChild =
  /** The first message: what to load. */
  | { readonly type: "load"; readonly options: HostOptions }
  | ToThread
  | { readonly type: "close" }

/** From the child process to the service. */
export type FromChild =
  | { readonly type: "ready"; readonly description: EngineDescription }
  | { readonly type: "load_failed"; readonly failure: EngineFailure }
  | { readonly type: "memory"; readonly residentBytes: number; readonly gpu: GpuMemory | undefined }
  /** The events of all jobs in one turn of the child's event loop. */
  | { readonly type: "events"; readonly jobs: JobBatch }

/** From the process that tests a model file before its first use: see `src/inspect.ts`. */
export type FromInspector =
  | { readonly type: "passed" }
  | { readonly type: "failed"; readonly failure: EngineFailure }

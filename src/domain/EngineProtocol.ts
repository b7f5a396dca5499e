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

/** What a llama engine thread loads. */
export interface LlamaSpec {
  readonly engine: "llama"
  /** Absolute path of the GGUF file. */
  readonly file: string
  /** Tokens per slot; left out, the model's own window, at most 4,096. */
  readonly contextSize?: number | undefined
  readonly slots: number
  /** Compute threads of one engine thread. */
  readonly threads: number
  /** Where to compute; left out, on the CPU. */
  readonly gpu?: "auto" | "metal" | "cuda" | "vulkan" | undefined
  /** Layers that the GPU computes; left out, as many as fit. */
  readonly gpuLayers?: number | undefined
  readonly flashAttention?: boolean | undefined
  /** Left out, true. */
  readonly useMmap?: boolean | undefined
  readonly useMlock?: boolean | undefined
  /** Type of the KV cache's entries; left out, F16. */
  readonly kvCacheType?: KvCacheType | undefined
  /** Jobs of all owners share computed beginnings of prompts; left out, false. */
  readonly sharePrefixes?: boolean | undefined
}

/** Smaller ones save memory and cost precision; those with a quantised V need `flashAttention`. */
export type KvCacheType = "f32" | "f16" | "q8_0" | "q5_1" | "q5_0" | "q4_1" | "q4_0"

/** Where an ONNX model computes. */
export type OnnxDevice = "cpu" | "wasm" | "webgpu" | "cuda"

/** What an onnx engine thread loads. */
export interface OnnxSpec {
  readonly engine: "onnx"
  /** Absolute path of a folder in the layout that transformers.js reads. */
  readonly folder: string
  /** The model file within the folder's `onnx`, without `.onnx`. */
  readonly model: string
  /** Left out, the CPU: natively, or by WASM where the native library is missing. */
  readonly device?: OnnxDevice | undefined
  /** Tokens per slot; left out, the model's own window, at most 4,096. */
  readonly contextSize?: number | undefined
  readonly slots: number
  /** Compute threads of one engine thread. */
  readonly threads: number
  /** Jobs of all owners share computed beginnings of prompts; left out, false. */
  readonly sharePrefixes?: boolean | undefined
}

/** What the fake engine does wrong, and when. */
export interface FakeFault {
  /**
   * `error`: the job fails. `abort`: the engine's process is aborted as native code would. `hang`: no token comes any
   * more. `load`: loading fails. `load-abort`: loading aborts the process.
   */
  readonly kind: "error" | "abort" | "hang" | "load" | "load-abort"
  /** Tokens that come first. */
  readonly afterTokens: number
  /** Only when the last message holds this text. */
  readonly trigger?: string | undefined
}

/** What a fake engine thread pretends to load. */
export interface FakeSpec {
  readonly engine: "fake"
  readonly contextSize: number
  readonly slots: number
  readonly loadDelayMs: number
  readonly promptDelayMs: number
  readonly tokenDelayMs: number
  /** The answer; left out, the engine echoes the last message. */
  readonly reply?: string | undefined
  readonly fault?: FakeFault | undefined
}

/** What an engine thread needs to start. */
export type EngineSpec = LlamaSpec | OnnxSpec | FakeSpec

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

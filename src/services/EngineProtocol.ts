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

/** One message of a conversation. */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant"
  readonly content: string
}

/** How to sample. */
export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number
  /** Nucleus sampling: the smallest set of tokens whose probability sums to this; 1 turns it off. */
  readonly topP: number
  /** The same seed, options and prompt give the same answer. A 32-bit unsigned integer. */
  readonly seed: number
  /** Only the so many likeliest tokens; left out, all. */
  readonly topK?: number | undefined
  /** Only tokens at least this likely, as a share of the likeliest; left out, all. */
  readonly minP?: number | undefined
  /** Divides the logits of tokens that the answer has already; left out, 1. */
  readonly repeatPenalty?: number | undefined
  /** Taken off the logit of a token that the answer has already; left out, 0. */
  readonly presencePenalty?: number | undefined
  /** Taken off the logit of a token for each time that the answer has it; left out, 0. */
  readonly frequencyPenalty?: number | undefined
  /** Added to the logits of tokens, by token id; -100 and below never chooses one. */
  readonly logitBias?: Readonly<Record<string, number>> | undefined
}

/** One generation asked of an engine. */
export interface GenerateJob {
  readonly messages: ReadonlyArray<ChatMessage>
  readonly sampling: SamplingOptions
  /** The most tokens to generate; left out, the context window is the limit. */
  readonly maxTokens?: number | undefined
  /** The answer ends before the first of these texts. */
  readonly stop: ReadonlyArray<string>
  /** How many tokens may be on their way to a consumer that has not taken them yet. */
  readonly window: number
}

/** Why a generation ended in the ordinary way. */
export type FinishReason = "stop" | "length"

/** Tokens counted by the engine itself. */
export interface TokenUsage {
  readonly promptTokens: number
  /** Tokens generated, the end-of-generation token not among them. */
  readonly completionTokens: number
}

/** A failure as plain data; `layers/engines` turns it into an `InferenceError`. */
export type EngineFailure =
  | {
    readonly kind: "context_length_exceeded"
    readonly promptTokens: number
    /** There are at least so many: a prompt that cannot fit is not counted to its end. */
    readonly atLeast?: boolean
    readonly contextWindow: number
  }
  | { readonly kind: "invalid_request"; readonly path: string; readonly message: string }
  | { readonly kind: "package_missing"; readonly packageName: string }
  | { readonly kind: "load_failed"; readonly message: string }
  | { readonly kind: "crashed"; readonly message: string }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly message: string }

/**
 * What happens to a job, in order: any number of `tokens`, then exactly one of the others. After that one the slot is
 * free again.
 */
export type JobEvent =
  | {
    readonly type: "tokens"
    /** Whole characters, at least one, and none that may still turn out to begin a stop sequence. */
    readonly text: string
    /** How many tokens were generated since the event before. */
    readonly count: number
  }
  | { readonly type: "finished"; readonly reason: FinishReason; readonly usage: TokenUsage }
  | { readonly type: "failed"; readonly failure: EngineFailure }
  | { readonly type: "cancelled" }

/** What a host says to a running job. */
export type JobCommand =
  | { readonly type: "cancel" }
  /** The consumer has taken this many tokens: as many more may be sent. */
  | { readonly type: "grant"; readonly tokens: number }

/** What a loaded engine says of itself. */
export interface EngineDescription {
  readonly engine: string
  /** Tokens that prompt and answer share. */
  readonly contextWindow: number
  /** Sequences that one thread runs side by side. */
  readonly slots: number
  /** Parameters, quantisation and the like, as the model file names them. */
  readonly details: Readonly<Record<string, string | number>>
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
export type EngineSpec = LlamaSpec | FakeSpec

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
  /** Starts a job. If the engine dies, the last event is `failed` with `crashed`. */
  readonly start: (job: GenerateJob, onEvents: (events: ReadonlyArray<JobEvent>) => void) => SendCommand
  /** Resident memory outside this process, bytes; 0 for a host inside it. */
  readonly memoryBytes: () => number
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
  | { readonly type: "start"; readonly id: number; readonly job: GenerateJob }
  | { readonly type: "command"; readonly id: number; readonly command: JobCommand }
  | { readonly type: "close" }

/** From the child process to the service. */
export type FromChild =
  | { readonly type: "ready"; readonly description: EngineDescription }
  | { readonly type: "load_failed"; readonly failure: EngineFailure }
  | { readonly type: "memory"; readonly residentBytes: number }
  /** Everything that happened to every job in one turn of the child's event loop. */
  | { readonly type: "events"; readonly jobs: ReadonlyArray<readonly [id: number, events: ReadonlyArray<JobEvent>]> }

/** An `EngineFailure` out of anything thrown; of a message, its first line. */
export const failureFrom = (cause: unknown, kind: "load_failed" | "crashed" | "failed"): EngineFailure =>
  typeof cause === "object" && cause !== null && "kind" in cause
    ? cause as EngineFailure
    : { kind, message: (cause instanceof Error ? cause.message : String(cause)).split("\n")[0]! }

/** Whether an event is a job's last. */
export const isTerminal = (event: JobEvent): boolean => event.type !== "tokens"

/** Ends the job or the load with this failure. */
export const refuse = (failure: EngineFailure): never => {
  throw failure
}

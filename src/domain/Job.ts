/**
 * What an engine can be asked, what it tells while it works, and what goes wrong: plain data.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */
import type { Ability } from "./EngineProtocol.ts"

/** A JSON Schema, as callers write it. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** A call of a tool that a model asks for. */
export interface ToolCall {
  /** Names this call in the conversation. */
  readonly id: string
  readonly name: string
  /** JSON text, of an object. */
  readonly arguments: string
}

/** One message of a conversation. */
export interface ChatMessage {
  /** `tool` is the result of a call. */
  readonly role: "system" | "user" | "assistant" | "tool"
  readonly content: string
  /** What an `assistant` called. */
  readonly toolCalls?: ReadonlyArray<ToolCall> | undefined
  /** Which call a `tool` message answers. */
  readonly toolCallId?: string | undefined
}

/** A tool that a model may call. */
export interface ToolDefinition {
  readonly name: string
  readonly description?: string | undefined
  /** Of the arguments, which are an object; left out, any. */
  readonly parameters?: JsonSchema | undefined
}

/** Whether the model calls a tool: as it likes, never, always, or this one. */
export type ToolChoice = "auto" | "none" | "required" | { readonly name: string }

/** What the answer's text must be: any JSON object, or JSON that fits the schema. */
export type OutputFormat =
  | { readonly type: "json_object" }
  | { readonly type: "json_schema"; readonly schema: JsonSchema }

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
  readonly kind: "generate"
  readonly messages: ReadonlyArray<ChatMessage>
  readonly sampling: SamplingOptions
  /** The most tokens to generate; left out, the context window is the limit. */
  readonly maxTokens?: number | undefined
  /** The answer ends before the first of these texts. */
  readonly stop: ReadonlyArray<string>
  /** The assistant's text so far, which the answer goes on with and does not repeat; left out, none. */
  readonly assistantPrefix?: string | undefined
  /** What an earlier job of another owner computed is not used; left out, the owner "". */
  readonly owner?: string | undefined
  /** How many tokens may be on their way to a consumer that has not taken them yet. */
  readonly window: number
  /** Left out or empty, none. */
  readonly tools?: ReadonlyArray<ToolDefinition> | undefined
  /** Left out, `auto`. */
  readonly toolChoice?: ToolChoice | undefined
  /** Left out, any text. */
  readonly format?: OutputFormat | undefined
  /** Tell each token's log-probability, and those of so many of the likeliest; left out, none. */
  readonly logprobs?: number | undefined
}

/** Texts to turn into vectors. */
export interface EmbedJob {
  readonly kind: "embed"
  readonly inputs: ReadonlyArray<string>
}

/** How well documents answer a query. */
export interface RerankJob {
  readonly kind: "rerank"
  readonly query: string
  readonly documents: ReadonlyArray<string>
}

/** Texts to give the labels of a model that has labels. */
export interface ClassifyJob {
  readonly kind: "classify"
  readonly inputs: ReadonlyArray<string>
}

/** A text, or a conversation with its template around it, as tokens. */
export interface TokenizeJob {
  readonly kind: "tokenize"
  readonly input: string | {
    readonly messages: ReadonlyArray<ChatMessage>
    /** The assistant's text so far, as in `GenerateJob`. */
    readonly assistantPrefix?: string | undefined
    readonly tools?: ReadonlyArray<ToolDefinition> | undefined
  }
}

/** What an engine can be asked. */
export type Job = GenerateJob | EmbedJob | RerankJob | ClassifyJob | TokenizeJob

/** A job that is answered whole. */
export type TaskJob = Exclude<Job, GenerateJob>

/** Why a generation ended in the ordinary way; `content_filter`: a provider broke off an answer that had begun. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter"

/** Tokens counted by the engine itself. */
export interface TokenUsage {
  readonly promptTokens: number
  /** Tokens generated, the end-of-generation token not among them. */
  readonly completionTokens: number
  /** Prompt tokens that needed no computing, since a slot had them already. */
  readonly cachedTokens: number
  /** Tokens of `promptTokens` that a provider has written to its cache, where it tells. */
  readonly cacheWriteTokens?: number | undefined
  /** Tokens of `completionTokens` that were thought and not said, where a provider tells. */
  readonly reasoningTokens?: number | undefined
}

/** A token and the natural logarithm of its probability, before temperature and all other sampling. */
export interface TokenLogprob {
  /** Its text, in which a part of a character is U+FFFD. */
  readonly token: string
  readonly bytes: ReadonlyArray<number>
  readonly logprob: number
}

/** A generated token's, and the likeliest in its place. */
export interface ChosenLogprob extends TokenLogprob {
  /** Likeliest first. */
  readonly top: ReadonlyArray<TokenLogprob>
}

/** One input's vector, of unit length. */
export interface Embedding {
  readonly vector: Float32Array
  readonly promptTokens: number
}

/** One input's labels, likeliest first; the scores sum to 1. */
export interface Classification {
  readonly labels: ReadonlyArray<{ readonly label: string; readonly score: number }>
  readonly promptTokens: number
}

/** A result, or why there is none; one wrong input among many fails alone. */
export type Each<A> = { readonly ok: true; readonly value: A } | { readonly ok: false; readonly failure: EngineFailure }

/** What a whole job comes to, in the order of its inputs. */
export type JobResult =
  | { readonly kind: "embed"; readonly embeddings: ReadonlyArray<Each<Embedding>> }
  /** Scores from 0 to 1. */
  | { readonly kind: "rerank"; readonly scores: ReadonlyArray<number>; readonly promptTokens: number }
  | { readonly kind: "classify"; readonly classifications: ReadonlyArray<Each<Classification>> }
  | { readonly kind: "tokenize"; readonly tokens: ReadonlyArray<number> }

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
  /** Another engine may well do it. */
  | {
    readonly kind: "not_supported"
    readonly path: string
    readonly message: string
    /** What the model lacks; left out, only this request asks too much. */
    readonly capability?: Ability
  }
  | { readonly kind: "package_missing"; readonly packageName: string }
  | { readonly kind: "load_failed"; readonly message: string }
  | { readonly kind: "crashed"; readonly message: string }
  | { readonly kind: "hung"; readonly afterMs: number }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly message: string }

/**
 * What happens to a job, in order: any number of `progress`, `tokens` and `tool_call`, then exactly one of the others.
 * After that one the slot is free again.
 */
export type JobEvent =
  | {
    readonly type: "tokens"
    /** Whole characters, at least one, and none that may still turn out to begin a stop sequence. */
    readonly text: string
    /** How many tokens were generated since the event before. */
    readonly count: number
    /** One for each token whose text is here, when the job asks for them. */
    readonly logprobs?: ReadonlyArray<ChosenLogprob>
  }
  | {
    readonly type: "tool_call"
    /** Which call of this answer, from 0. */
    readonly index: number
    /** With the call's first event, and only then. */
    readonly id?: string
    /** Likewise. */
    readonly name?: string
    /** The next piece of the arguments' JSON. */
    readonly arguments: string
    /** How many tokens were generated since the event before. */
    readonly count: number
  }
  /** The engine is at work on the prompt, or on tokens that cannot be told yet. */
  | { readonly type: "progress" }
  | { readonly type: "result"; readonly result: JobResult }
  | {
    readonly type: "finished"
    readonly reason: FinishReason
    readonly usage: TokenUsage
    /** Which stop sequence ended the answer, where one did. */
    readonly stop?: string
  }
  | { readonly type: "failed"; readonly failure: EngineFailure }
  | { readonly type: "cancelled" }

/** What a host says to a running job. */
export type JobCommand =
  | { readonly type: "cancel" }
  /** The consumer has taken this many tokens: as many more may be sent. */
  | { readonly type: "grant"; readonly tokens: number }

/** An `EngineFailure` out of anything thrown; of a message, its first line. */
export const failureFrom = (cause: unknown, kind: "load_failed" | "crashed" | "failed"): EngineFailure =>
  typeof cause === "object" && cause !== null && "kind" in cause
    ? cause as EngineFailure
    : { kind, message: (cause instanceof Error ? cause.message : String(cause)).split("\n")[0]! }

const terminal: Readonly<Record<JobEvent["type"], boolean>> = {
  progress: false,
  tokens: false,
  tool_call: false,
  result: true,
  finished: true,
  failed: true,
  cancelled: true
}

/** Whether an event is a job's last. */
export const isTerminal = (event: JobEvent): boolean => terminal[event.type]

/** Ends the job or the load with this failure. */
export const refuse = (failure: EngineFailure): never => {
  throw failure
}

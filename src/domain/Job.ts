/**
 * The jobs of an engine, their events and failures: plain data.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */
import type { EngineCapability } from "./EngineProtocol.ts"
import type { PartLimits } from "./StreamLimits.ts"

/** A JSON Schema, as callers write it. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** A tool call by a model. */
export interface ToolCall {
  /** Identifies this call in the conversation. */
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
  /** The thoughts of an `assistant` message before its content and calls. */
  readonly thoughts?: string | undefined
  /** The calls of an `assistant` message. */
  readonly toolCalls?: ReadonlyArray<ToolCall> | undefined
  /** The call whose result a `tool` message has. */
  readonly toolCallId?: string | undefined
}

/** A tool that a model may call. */
export interface ToolDefinition {
  readonly name: string
  readonly description?: string | undefined
  /** Of the arguments, which are an object; left out, any. */
  readonly parameters?: JsonSchema | undefined
}

/** Whether the model calls a tool: its own choice, never, at least one, or this one. */
export type ToolChoice = "auto" | "none" | "required" | { readonly name: string }

/** An answer of JSON: any object, or JSON that fits the schema. */
export type JsonFormat =
  | { readonly type: "json_object" }
  | { readonly type: "json_schema"; readonly schema: JsonSchema }

/**
 * An answer of text: one that a regular expression of ECMAScript matches entirely, one of the texts, or one of a grammar in
 * llama.cpp's GBNF.
 */
export type TextFormat =
  | { readonly type: "regex"; readonly pattern: string }
  | { readonly type: "choice"; readonly choices: ReadonlyArray<string> }
  | { readonly type: "grammar"; readonly grammar: string }

/** The format of the answer. */
export type OutputFormat = JsonFormat | TextFormat

/** How to sample. */
export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number
  /** Nucleus sampling: the smallest set of tokens whose probability sums to this; 1 turns it off. */
  readonly topP: number
  /** The same seed, options and prompt give the same answer. A 32-bit unsigned integer. */
  readonly seed: number
  /** Only this many of the likeliest tokens; left out, all. */
  readonly topK?: number | undefined
  /** Only tokens at least this likely, as a share of the likeliest; left out, all. */
  readonly minP?: number | undefined
  /** Divides the logits of tokens that the answer contains; left out, 1. */
  readonly repeatPenalty?: number | undefined
  /** Subtracted from the logit of a token that the answer contains; left out, 0. */
  readonly presencePenalty?: number | undefined
  /** Subtracted from the logit of a token for each occurrence in the answer; left out, 0. */
  readonly frequencyPenalty?: number | undefined
  /** Added to the logits of tokens, by token id; -100 and below never chooses one. */
  readonly logitBias?: Readonly<Record<string, number>> | undefined
}

/** Further options of sampling, which few callers set. */
export interface DecodingOptions {
  /** Excludes the likeliest tokens (XTC) with this probability, of those that are at least as likely as the threshold. */
  readonly xtc?: { readonly probability: number; readonly threshold: number } | undefined
  /** Subtracts from the logits of tokens that would repeat a sequence (DRY). */
  readonly dry?: {
    readonly multiplier: number
    readonly base: number
    /** Shorter repetitions are free, tokens. */
    readonly allowedLength: number
    /** Looks for repetitions in this many of the last tokens; left out, all. */
    readonly lastTokens?: number | undefined
    /** A repetition does not go on after these texts. */
    readonly sequenceBreakers: ReadonlyArray<string>
  } | undefined
  /** The answer does not end by itself before it has this many tokens; left out, 0. */
  readonly minTokens?: number | undefined
  /** The answer ends before the first of these tokens, by id; left out, none. */
  readonly stopTokens?: ReadonlyArray<number> | undefined
  /** The number of the answer's last tokens that count for penalties; left out, 64. */
  readonly penaltyWindow?: number | undefined
}

/** How much a model reasons, for its chat template. */
export interface Thinking {
  readonly on: boolean
  /** Left out, the model decides. */
  readonly effort?: "low" | "medium" | "high" | undefined
  /** Tokens; left out, the model decides. */
  readonly budget?: number | undefined
}

/** One generation. */
export interface GenerateJob {
  readonly kind: "generate"
  readonly messages: ReadonlyArray<ChatMessage>
  /** The first message is the prompt as it is, a second one the text after the gap; left out, a conversation. */
  readonly completion?: {
    readonly tokens?: ReadonlyArray<number> | undefined
    /** The answer begins with the prompt, which has log-probabilities too if those are reported; left out, it does not. */
    readonly echo?: boolean | undefined
  } | undefined
  readonly sampling: SamplingOptions
  /** Left out, none. */
  readonly decoding?: DecodingOptions | undefined
  /** The most tokens to generate, 0 only with an echo; left out, the context window is the limit. */
  readonly maxTokens?: number | undefined
  /** The answer ends before the first of these texts. */
  readonly stop: ReadonlyArray<string>
  /** The assistant's text so far, which the answer continues and does not repeat; left out, none. */
  readonly assistantPrefix?: string | undefined
  /** Prompt computations of other owners are not reused; left out, the owner "". */
  readonly owner?: string | undefined
  /** The most tokens that are sent before the consumer has taken them. */
  readonly window: number
  /** The limits of the answer's parts; left out, the defaults. */
  readonly parts?: PartLimits | undefined
  /** Left out or empty, none. */
  readonly tools?: ReadonlyArray<ToolDefinition> | undefined
  /** Left out, `auto`. */
  readonly toolChoice?: ToolChoice | undefined
  /** How much the model reasons before it answers; left out, as the model does. */
  readonly thinking?: Thinking | undefined
  /** Left out, any text. */
  readonly format?: OutputFormat | undefined
  /** Report each token's log-probability, and those of this many of the likeliest; left out, none. */
  readonly logprobs?: number | undefined
}

/** A text, or the ids of its tokens in the model's own vocabulary. */
export type EmbedInput = string | ReadonlyArray<number>

/** Texts to turn into vectors. */
export interface EmbedJob {
  readonly kind: "embed"
  readonly inputs: ReadonlyArray<EmbedInput>
}

/** A query, and the documents to score by their relevance to it. */
export interface RankingInput {
  readonly query: string
  readonly documents: ReadonlyArray<string>
}

/** Documents to score by their relevance to a query, for each of several queries. */
export interface RerankJob {
  readonly kind: "rerank"
  readonly requests: ReadonlyArray<RankingInput>
}

/** Texts to classify. */
export interface ClassifyJob {
  readonly kind: "classify"
  readonly inputs: ReadonlyArray<string>
}

/** A text, or a conversation in its chat template, to tokenize. */
export interface TokenizeJob {
  readonly kind: "tokenize"
  readonly input: string | {
    readonly messages: ReadonlyArray<ChatMessage>
    /** The assistant's text so far, as in `GenerateJob`. */
    readonly assistantPrefix?: string | undefined
    readonly tools?: ReadonlyArray<ToolDefinition> | undefined
  }
}

export type Job = GenerateJob | EmbedJob | RerankJob | ClassifyJob | TokenizeJob

/** A job with one result. */
export type TaskJob = Exclude<Job, GenerateJob>

/** Why a generation ended; `content_filter`: a provider cut off an answer that had begun. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter"

/** Tokens counted by the engine itself. */
export interface TokenUsage {
  readonly promptTokens: number
  /** Tokens generated, the end-of-generation token not among them. */
  readonly completionTokens: number
  /** Prompt tokens that a slot had computed before. */
  readonly cachedTokens: number
  /** Tokens of `promptTokens` that a provider has written to its cache, if it reports them. */
  readonly cacheWriteTokens?: number | undefined
  /** Tokens of `cacheWriteTokens` that the cache keeps for an hour, if the provider reports them. */
  readonly cacheWriteHourTokens?: number | undefined
  /** Reasoning tokens among `completionTokens`, if a provider reports them. */
  readonly reasoningTokens?: number | undefined
  /** Left out: the engine or the provider has counted the tokens of prompt and answer. */
  readonly isEstimated?: true
}

/** The counts that a provider reports. */
export type ReportedUsage = { readonly [Count in Exclude<keyof TokenUsage, "isEstimated">]?: number | undefined }

/** A token and the natural logarithm of its probability, before temperature and all other sampling. */
export interface TokenLogprob {
  /** Its text; a part of a character is U+FFFD. */
  readonly token: string
  readonly bytes: ReadonlyArray<number>
  readonly logprob: number
}

/** A token of an answer, and the likeliest tokens at its position. */
export interface ChosenLogprob extends Omit<TokenLogprob, "logprob"> {
  /** Null: the first token of an echoed prompt, before which there is none. */
  readonly logprob: number | null
  /** Likeliest first. */
  readonly top: ReadonlyArray<TokenLogprob>
}

/** One input's vector, of unit length. */
export interface Embedding {
  readonly vector: Float32Array
  readonly promptTokens: number
  /** As in `TokenUsage`. */
  readonly isEstimated?: true
}

/** Scores from 0 to 1, in the order of the documents. */
export interface Ranking {
  readonly scores: ReadonlyArray<number>
  readonly promptTokens: number
  /** As in `TokenUsage`. */
  readonly isEstimated?: true
}

/** One input's labels, likeliest first; the scores sum to 1. */
export interface Classification {
  readonly labels: ReadonlyArray<{ readonly label: string; readonly score: number }>
  readonly promptTokens: number
  /** As in `TokenUsage`. */
  readonly isEstimated?: true
}

/** The result or the failure of one input; an invalid input fails alone. */
export type Each<A> = { readonly ok: true; readonly value: A } | { readonly ok: false; readonly failure: EngineFailure }

/** The result of a task, in the order of its inputs. */
export type JobResult =
  | { readonly kind: "embed"; readonly embeddings: ReadonlyArray<Each<Embedding>> }
  | { readonly kind: "rerank"; readonly rankings: ReadonlyArray<Each<Ranking>> }
  | { readonly kind: "classify"; readonly classifications: ReadonlyArray<Each<Classification>> }
  | { readonly kind: "tokenize"; readonly tokens: ReadonlyArray<number> }

/** A failure as plain data; `layers/engines` turns it into an `InferenceError`. */
export type EngineFailure =
  | {
    readonly kind: "context_length_exceeded"
    readonly promptTokens: number
    /** `promptTokens` is a lower bound: a prompt that cannot fit is not counted completely. */
    readonly atLeast?: boolean
    readonly contextWindow: number
  }
  | { readonly kind: "invalid_request"; readonly path: string; readonly message: string }
  /** Another engine may support it. */
  | {
    readonly kind: "not_supported"
    readonly path: string
    readonly message: string
    /** The capability that the model lacks; left out, only this request is not supported. */
    readonly capability?: EngineCapability
  }
  | { readonly kind: "package_missing"; readonly packageName: string }
  | { readonly kind: "load_failed"; readonly message: string }
  | { readonly kind: "crashed"; readonly message: string }
  | { readonly kind: "hung"; readonly afterMs: number }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly message: string }

/**
 * The events of a job, in order: any number of `progress`, `thoughts`, `tokens` and `tool_call`, then exactly one of the others.
 * After the last event the slot is free again.
 */
export type JobEvent =
  | {
    readonly type: "tokens"
    /** Complete characters, at least one, and none that can begin a stop sequence. */
    readonly text: string
    /** How many tokens were generated since the event before. */
    readonly count: number
    /** One per token of this text, if the job requests them. */
    readonly logprobs?: ReadonlyArray<ChosenLogprob>
  }
  | {
    readonly type: "tool_call"
    /** Index of the call in this answer, from 0. */
    readonly index: number
    /** Only in the first event of the call. */
    readonly id?: string
    /** Only in the first event of the call. */
    readonly name?: string
    /** The next piece of the arguments' JSON. */
    readonly arguments: string
    /** How many tokens were generated since the event before. */
    readonly count: number
  }
  | {
    readonly type: "thoughts"
    /** The model's reasoning: complete characters, at least one. */
    readonly text: string
    /** How many tokens were generated since the event before. */
    readonly count: number
  }
  /** The engine computes the prompt, or tokens that cannot be sent yet. */
  | { readonly type: "progress" }
  | { readonly type: "result"; readonly result: JobResult }
  | {
    readonly type: "finished"
    readonly reason: FinishReason
    readonly usage: TokenUsage
    /** The stop sequence that ended the answer, if any. */
    readonly stop?: string
  }
  | { readonly type: "failed"; readonly failure: EngineFailure }
  | { readonly type: "cancelled" }

/** Commands of a host to a running job. */
export type JobCommand =
  | { readonly type: "cancel" }
  /** The consumer has taken this many tokens: as many more may be sent. */
  | { readonly type: "grant"; readonly tokens: number }

/** An `EngineFailure` from anything thrown, with the first line of its message. */
export const failureFrom = (cause: unknown, kind: "load_failed" | "crashed" | "failed"): EngineFailure =>
  typeof cause === "object" && cause !== null && "kind" in cause
    ? cause as EngineFailure
    : { kind, message: (cause instanceof Error ? cause.message : String(cause)).split("\n")[0]! }

const terminal: Readonly<Record<JobEvent["type"], boolean>> = {
  progress: false,
  tokens: false,
  thoughts: false,
  tool_call: false,
  result: true,
  finished: true,
  failed: true,
  cancelled: true
}

/** Whether an event is a job's last. */
export const isTerminal = (event: JobEvent): boolean => terminal[event.type]

/** Throws this failure, which ends the job or the load. */
export const refuse = (failure: EngineFailure): never => {
  throw failure
}

/**
 * Requests, events and answers of inference.
 *
 * **Details**
 *
 * Every admitted request ends exactly once, with an answer, an `InferenceError` or an interruption. Interrupting the
 * effect or ending the stream early stops the engine within one token.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const inference = yield* Inference.Inference
 *   const answer = yield* inference.generate(Inference.request({
 *     model: "tiny-chat",
 *     messages: [{ role: "user", content: "What is the capital of Japan?" }],
 *     temperature: 0
 *   }))
 *   return answer.text
 * })
 * ```
 */
import type { Stream } from "effect"
import { Schema } from "effect"
import type { CacheUse } from "./CacheControl.ts"
import { CacheControl } from "./CacheControl.ts"
import { Decoding } from "./Decoding.ts"
import type { PolicyUse } from "./GuardRule.ts"
import { Identity } from "./Identity.ts"
import type { InferenceError } from "./InferenceError.ts"
import type { ChosenLogprob, Classification, FinishReason, TokenUsage, ToolCall as JobToolCall } from "./Job.ts"
import { Content, imageProblem, problem as contentProblem, SignedReasoning } from "./Message.ts"
import type { Nano } from "./Money.ts"
import { Format, JsonObject } from "./OutputFormat.ts"
import { atLeastOne, wholeNumber } from "./Problem.ts"
import { Reasoning } from "./Reasoning.ts"
import { RoutingOptions } from "./RoutingOptions.ts"
import type { Native } from "./Source.ts"
import { Source } from "./Source.ts"

/** A model's call of a tool; `arguments` is JSON text. */
export const ToolCall = Schema.Struct({ id: Schema.String, name: Schema.NonEmptyString, arguments: Schema.String })

/** One message of a conversation. */
export const Message = Schema.Struct({
  role: Schema.Literals(["system", "user", "assistant", "tool"]),
  /** A text, or parts; images in `user` and `tool` messages only. */
  content: Content,
  /**
   * Of an `assistant` message: `thoughts` of its answer, for models that read them again; default the text of `reasoning`.
   */
  thoughts: Schema.optional(Schema.String),
  /** Of an `assistant` message: `reasoning` of its answer. Only deployments of its maker get it; default none. */
  reasoning: Schema.optional(Schema.Array(SignedReasoning)),
  /** The tool calls of an `assistant` message. */
  toolCalls: Schema.optional(Schema.Array(ToolCall)),
  /** The id of the call whose result a `tool` message has. */
  toolCallId: Schema.optional(Schema.String)
})
export type Message = typeof Message.Type

/** At least one. */
const Messages = Schema.Array(Message).check(atLeastOne, Schema.makeFilter(contentProblem))

/** A tool that the model may call. */
export const Tool = Schema.Struct({
  name: Schema.String.check(Schema.isPattern(/^[\w.-]{1,128}$/, {
    message: "Expected 1 to 128 letters, digits, underscores, dots or hyphens"
  })),
  description: Schema.optional(Schema.String),
  /** JSON Schema of the arguments, which are an object; default any. */
  parameters: Schema.optional(JsonObject)
})
export type Tool = typeof Tool.Type

/** Whether the model calls a tool: by its own choice, never, always, or the named one. */
export const ToolChoice = Schema.Union([
  Schema.Literals(["auto", "none", "required"]),
  Schema.Struct({ name: Schema.NonEmptyString })
])

/** The order in the queue; priority increases with the time waited. */
export const Priority = Schema.Literals(["low", "normal", "high"])
export type Priority = typeof Priority.Type

/** The largest id of a token. */
export const maxTokenId = 2 ** 31 - 1

/** The largest seed: seeds are 32-bit unsigned integers. */
export const maxSeed = 2 ** 32 - 1

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })

/** The caller's place in the queue, and how long the model stays loaded. */
const callerFields = {
  /** The tenant of the request: slots are shared fairly among tenants; default "". */
  tenant: Schema.optional(Schema.String),
  /** Of the virtual key that the request came with; default none. */
  identity: Schema.optional(Identity),
  /** Default `normal`. */
  priority: Schema.optional(Priority),
  /**
   * How long the model stays loaded after this request: at least 0, where 0 unloads it when no request uses it, and
   * `Duration.infinity` keeps it; default the deployment's `idleUnload`.
   */
  keepAlive: Schema.optional(Schema.Duration),
  /** Routing options that override the configuration. */
  route: Schema.optional(RoutingOptions)
}

/** Added to the logits of tokens, by token id. */
export const LogitBias = Schema.Record(Schema.String, Schema.Finite.check(within(-100, 100))).check(
  Schema.makeFilter((biases: Readonly<Record<string, number>>) =>
    Object.keys(biases).filter((id) => !/^\d+$/.test(id)).map((id) => ({ path: [id], issue: "Expected a token id" }))
  )
)

/**
 * Marks a request as a text completion: the text of the first message is the prompt as it is, without a chat template, and
 * that of a second one follows the gap that the answer fills.
 */
export const Completion = Schema.Struct({
  /** The prompt as ids of the model's tokens; the first message is empty then. Default its text. */
  tokens: Schema.optional(Schema.Array(wholeNumber(0, maxTokenId)).check(atLeastOne)),
  /**
   * Whether the answer begins with the prompt, which then has log-probabilities too, if `logprobs` requests them; the first token
   * has none. Default false.
   */
  echo: Schema.optional(Schema.Boolean)
})

/** A chat request. */
export const Request = Schema.Struct({
  /** A model's name, as `Registry` lists them. */
  model: Schema.NonEmptyString,
  messages: Messages,
  /** Default a chat. Not with tools, a format or an assistant prefix. */
  completion: Schema.optional(Completion),
  /** The assistant's text so far, which the answer continues without repeating it; default none. Not with `format`. */
  assistantPrefix: Schema.optional(Schema.NonEmptyString),
  /** 0 is greedy; default 1. */
  temperature: Schema.optional(Schema.Finite.check(within(0, 2))),
  /** Nucleus sampling: the smallest set of tokens whose probability sums to this; default 1, which turns it off. */
  topP: Schema.optional(Schema.Finite.check(within(0, 1))),
  /** The same seed, options and prompt give the same answer; default random. */
  seed: Schema.optional(wholeNumber(0, maxSeed)),
  /** Samples from this many most likely tokens; default all. */
  topK: Schema.optional(wholeNumber(1, 1_000_000)),
  /** The minimum probability of a token, relative to the most likely one; default 0, all. */
  minP: Schema.optional(Schema.Finite.check(within(0, 1))),
  /** Divides the logits of tokens that are in the answer already; default 1. */
  repeatPenalty: Schema.optional(Schema.Finite.check(within(0.01, 10))),
  /** Subtracted from the logit of a token that is in the answer already; default 0. */
  presencePenalty: Schema.optional(Schema.Finite.check(within(-2, 2))),
  /** Subtracted from the logit of a token for each occurrence in the answer; default 0. */
  frequencyPenalty: Schema.optional(Schema.Finite.check(within(-2, 2))),
  /** Added to the logits of tokens, by token id; -100 never chooses one; default none. */
  logitBias: Schema.optional(LogitBias),
  /** Further options of sampling; default none. */
  decoding: Schema.optional(Decoding),
  /** Maximum number of generated tokens, 0 only with an echo; default the rest of the context window. */
  maxTokens: Schema.optional(wholeNumber(0, 1_000_000)),
  /** The answer ends before the first of these; default none. */
  stop: Schema.optional(Schema.Array(Schema.NonEmptyString)),
  /** Default none. */
  tools: Schema.optional(Schema.Array(Tool)),
  /** Default `auto`. */
  toolChoice: Schema.optional(ToolChoice),
  /** Whether an answer may have several tool calls; default true. */
  parallelToolCalls: Schema.optional(Schema.Boolean),
  /** How much the model reasons before it answers, which a model without reasoning ignores; default as the model does. */
  reasoning: Schema.optional(Reasoning),
  /** Default any text. */
  format: Schema.optional(Format),
  /** Returns the log-probability of each token and of this many most likely alternatives; default none. */
  logprobs: Schema.optional(wholeNumber(0, 20)),
  /** The caller's own request, which is sent to a provider of the same dialect; default none. */
  source: Schema.optional(Source),
  /** How cached answers are used, where the model has a cache; default as the model's settings say. */
  cache: Schema.optional(CacheControl),
  ...callerFields
}).check(
  Schema.makeFilter(({ assistantPrefix, format }) =>
    assistantPrefix !== undefined && format !== undefined
      ? [{ path: ["assistantPrefix"], issue: "Expected none with a format: JSON cannot be begun by another" }]
      : []
  ),
  Schema.makeFilter(({ assistantPrefix, completion, maxTokens, messages, tools }) => {
    if (maxTokens === 0 && completion?.echo !== true) {
      return [{ path: ["maxTokens"], issue: "Expected at least 1: 0 is allowed only with an echo" }]
    }
    if (completion === undefined) return []
    if (messages.length > 2) return [{ path: ["messages"], issue: "Expected a prompt and a suffix at most" }]
    const other = Object.entries({ assistantPrefix, tools }).find(([, value]) => value !== undefined)
    return other === undefined ? [] : [{ path: [other[0]], issue: "Expected none in a text completion" }]
  })
)
export type Request = typeof Request.Type

/** Validates a request; throws if it is invalid. */
export const request = (input: Request): Request => Schema.decodeSync(Request)(input)

const Texts = Schema.Array(Schema.String).check(atLeastOne)

/** Texts to turn into vectors of unit length. */
export const EmbedRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  /** Empty texts where the inputs are `tokens`. */
  inputs: Texts,
  /** The inputs as ids of tokens of the model's own vocabulary, one list for each of `inputs`; default their texts. */
  tokens: Schema.optional(Schema.Array(Schema.Array(wholeNumber(0, maxTokenId)).check(atLeastOne))),
  /** As in `Request`. */
  source: Schema.optional(Source),
  ...callerFields
}).check(
  Schema.makeFilter(({ inputs, tokens }) =>
    tokens === undefined || (tokens.length === inputs.length && inputs.every((text) => text === ""))
      ? []
      : [{ path: ["tokens"], issue: "Expected one list for each of the inputs, which are empty texts then" }]
  )
)
export type EmbedRequest = typeof EmbedRequest.Type

/** Documents to rank by their relevance to a query. */
export const RerankRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  query: Schema.String,
  documents: Texts,
  ...callerFields
})
export type RerankRequest = typeof RerankRequest.Type

/** Texts to classify with the labels of the model. */
export const ClassifyRequest = Schema.Struct({ model: Schema.NonEmptyString, inputs: Texts, ...callerFields })
export type ClassifyRequest = typeof ClassifyRequest.Type

/** A text, or a conversation that the chat template is applied to, to tokenize. */
export const TokenizeRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Union([
    Schema.String,
    Schema.Struct({
      messages: Messages.check(Schema.makeFilter(imageProblem)),
      /** The assistant's text so far; default none. */
      assistantPrefix: Schema.optional(Schema.NonEmptyString),
      tools: Schema.optional(Schema.Array(Tool))
    })
  ]),
  ...callerFields
})
export type TokenizeRequest = typeof TokenizeRequest.Type

/** A conversation whose prompt tokens are counted, with the chat template applied. */
export const CountRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Struct({
    messages: Messages,
    /** The assistant's text so far; default none. */
    assistantPrefix: Schema.optional(Schema.NonEmptyString),
    tools: Schema.optional(Schema.Array(Tool))
  }).annotate({ message: "Expected an object such as { messages: [{ role: \"user\", content: \"Hello!\" }] }" }),
  /** As in `Request`. */
  source: Schema.optional(Source),
  ...callerFields
})
export type CountRequest = typeof CountRequest.Type

/**
 * What a stream of an answer consists of: any number of `thoughts`, `text`, `tool_call` and `handoff`, then one `finish`.
 */
export type Event =
  | {
    readonly type: "text"
    readonly text: string
    /** Tokens generated since the event before. */
    readonly tokens: number
    /** Of the tokens of this text, if the request has `logprobs`. */
    readonly logprobs?: ReadonlyArray<ChosenLogprob>
  }
  | {
    readonly type: "tool_call"
    /** Index of the call in this answer, from 0. */
    readonly index: number
    /** Id and name are in the call's first event only. */
    readonly id?: string
    readonly name?: string
    /** The next piece of the arguments' JSON. */
    readonly arguments: string
    readonly tokens: number
  }
  /** The model's reasoning, which is no part of the answer's text. */
  | {
    readonly type: "thoughts"
    readonly text: string
    /** Tokens generated since the event before. */
    readonly tokens: number
    /** The text of the events before, as its provider has signed it, or encrypted reasoning; `text` is empty then. */
    readonly signed?: SignedReasoning
    /** Signatures and encrypted texts in the native event: the engine notes who made them, and keeps the event. */
    readonly marks?: ReadonlyArray<string>
  }
  /**
   * Another deployment has failed, and this one continues the text from here on. Only with `continue` in the policy.
   */
  | { readonly type: "handoff"; readonly deployment: string }
  /**
   * What a provider of the caller's dialect sent. The events after it, up to a handoff, are its content as far as
   * Troupe models it.
   */
  | {
    readonly type: "native"
    readonly native: Native
    /** Whether it has more than text, calls and thoughts. */
    readonly content: boolean
    readonly tokens: 0
  }
  /** After a handoff: the prompt tokens of the last deployment, and the generated tokens of all deployments. */
  | {
    readonly type: "finish"
    readonly reason: FinishReason
    readonly usage: TokenUsage
    /** Which stop sequence ended the answer, where one did and that is known. */
    readonly stop?: string
    /** What a provider of the caller's dialect sent with the end of the answer. */
    readonly native?: Native
  }

/** The state of a limit. */
export interface Standing {
  readonly limit: number
  readonly remaining: number
  /** ms until it begins again. */
  readonly resetMs: number
}

/** The states of the limits that are used up first. */
export interface Standings {
  readonly requests: Standing | undefined
  readonly tokens: Standing | undefined
}

/** What limits and budgets tell the caller of an admitted request. */
export interface Admitted {
  /** Undefined without limits. */
  readonly standings: () => Standings | undefined
  /** The known part of what its attempts have cost until now, nano-dollars; undefined: none is known, or costs are not counted. */
  readonly cost: Nano | undefined
  /** How many of its attempts have an unknown price; left out, none. */
  readonly unpriced?: number | undefined
}

/** Which deployment answered, and after how many attempts. */
export interface AnsweredBy {
  /** Its id. */
  readonly deployment: string
  /** Including failed ones; 0 for a cached answer. */
  readonly attempts: number
  /** The id of the decision record: see `DecisionLog`. */
  readonly decision: string
  /** How the cache took part; left out where the model has none. */
  readonly cache?: CacheUse
  /** What limits and budgets say; left out for a request without a key, limits and budgets. */
  readonly admitted?: Admitted
  /** What the input policy changed in the request; left out where it changed nothing. */
  readonly policy?: PolicyUse
}

/** An answer whose first event has arrived. A `handoff` event names a deployment that continues it. */
export interface OpenedAnswer extends AnsweredBy {
  /** To be read once, within the scope that it was opened in. */
  readonly events: Stream.Stream<Event, InferenceError>
}

/** Receives a streamed answer as it is generated. */
export interface AnswerSink {
  /** Called once, right before the first events: from here on no other deployment takes over, unless it continues. */
  readonly begin: (by: AnsweredBy) => void
  /** False if the reader is slow: no more events come until `whenDrained` has called back. */
  readonly events: (events: ReadonlyArray<Event>) => boolean
  readonly whenDrained: (callback: () => void) => void
}

/** A complete answer. */
export interface Answer extends AnsweredBy {
  readonly text: string
  /** The model's reasoning, where the provider sends it; it may go into the assistant's message of the next request. */
  readonly thoughts?: string
  /** The reasoning as its provider has signed it: it belongs into the assistant's message of the next request. */
  readonly reasoning?: ReadonlyArray<SignedReasoning>
  readonly toolCalls: ReadonlyArray<JobToolCall>
  /** Of all tokens of the text, if the request has `logprobs`. */
  readonly logprobs?: ReadonlyArray<ChosenLogprob>
  /** `length`: the answer was cut at `maxTokens` or where the context window ends. */
  readonly finishReason: FinishReason
  /** Which stop sequence ended the answer, where one did and that is known. */
  readonly stop?: string
  readonly usage: TokenUsage
  /** The answer as a provider of the caller's dialect sent it, buffered or in chunks. */
  readonly native?: ReadonlyArray<Native>
}

/** One vector for each input, in order. */
export interface Embeddings extends AnsweredBy {
  readonly vectors: ReadonlyArray<Float32Array>
  readonly promptTokens: number
  /** The answer as a provider of the caller's dialect sent it; there are no `vectors` then. */
  readonly native?: Native
}

/** A score from 0 to 1 for each document, in order. */
export interface Reranking extends AnsweredBy {
  readonly scores: ReadonlyArray<number>
  readonly promptTokens: number
}

/** The labels of each input, in order. */
export interface Classifications extends AnsweredBy {
  readonly classifications: ReadonlyArray<Classification>
}

/** The token ids of a text. */
export interface Tokens extends AnsweredBy {
  readonly tokens: ReadonlyArray<number>
}

/** The number of tokens in a prompt. */
export interface Count extends AnsweredBy {
  readonly promptTokens: number
}
